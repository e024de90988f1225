#!/usr/bin/python3
"""The same scripts of socket calls on the kernel's TCP and on the shim's, compared line by line.

Each seed is a script (tests/diff/*.c). It runs twice, each time in a network namespace that has
nothing but a loopback: plainly, and under LD_PRELOAD with TCPSHIM_LOOPBACK=user, where both ends of
every connection are in the engine. Equal logs pass. A seed whose logs differ runs again on both
sides; it passes if the kernel itself does not answer alike each time and the shim's answer is one
that the kernel gives too, and such seeds are counted and named. All others fail, and are shown.

    run.py --first 17 --count 1 --verbose     one seed, both logs in full
"""

import argparse
import concurrent.futures
import difflib
import os
import re
import shutil
import subprocess
import sys
import tempfile

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
CHUNK = 125        # scripts in one process
SECONDS = 90       # that a chunk may take
JOBS = 12          # at once: most of the time they wait for a timer
AGAIN = 3          # runs of the kernel for a seed whose logs differ
SHOWN = 5          # failures shown in full
CONTEXT = 12       # lines before the first difference

# ACKs at once, also of a FIN: the states that a program sees do not depend on the delayed ACK's timer.
NETNS = ("ip link set lo up && ip route change local 127.0.0.0/8 dev lo table local proto kernel "
         "scope host src 127.0.0.1 quickack 1 && exec \"$@\"")
ARRIVED = re.compile(r"-> ESTABLISHED")


class Runner:
    def __init__(self, program, library, directory):
        self.program, self.library, self.directory = program, library, directory
        self.traces = 0

    def run(self, shim, first, count):
        """Logs by seed; the text of what went wrong under the key of the seed where it did."""
        environment = {k: v for k, v in os.environ.items() if not k.startswith(("TCPSHIM_", "LD_"))}
        argv = ["unshare", "-n", "sh", "-c", NETNS, "sh"]
        if shim:
            trace = os.path.join(self.directory, f"trace-{first}-{count}")
            argv += ["env", f"LD_PRELOAD={self.library}", "TCPSHIM_LOOPBACK=user",
                     "TCPSHIM_TRACE=state", f"TCPSHIM_TRACE_FILE={trace}"]
        argv += [self.program, "--first", str(first), "--count", str(count)]
        process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                   stderr=subprocess.PIPE, env=environment, start_new_session=True)
        try:
            out, err = process.communicate(timeout=SECONDS)
            ending = f"ended with {process.returncode}"
        except subprocess.TimeoutExpired:
            process.kill()
            out, err = process.communicate()
            ending = f"stopped after {SECONDS} s"
        parts = re.split(r"^== (\w+)\n", out.decode("utf-8", "replace"), flags=re.M)
        logs = dict(zip(parts[1::2], parts[2::2]))
        if process.returncode != 0 or "end" not in logs or err:
            reached = max((int(s) for s in logs if s != "end"), default=first)
            logs[str(reached)] = (logs.get(str(reached), "")
                                  + f"!! {ending}: {err.decode('utf-8', 'replace').strip()}\n")
        if shim:
            self.traces += count_established(trace)
        return logs


def count_established(path):
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return sum(1 for line in file if ARRIVED.search(line))
    except OSError:
        return 0
    finally:
        if os.path.exists(path):
            os.unlink(path)


def compare_chunk(runner, first, count):
    """[(seed, kernel log, shim log)] of those that differ."""
    kernel = runner.run(False, first, count)
    shim = runner.run(True, first, count)
    wanted = [str(seed) for seed in range(first, first + count)]
    return [(int(seed), kernel.get(seed), shim.get(seed)) for seed in wanted
            if kernel.get(seed) != shim.get(seed) or kernel.get(seed) is None]


def look_again(runner, seed, kernel, shim):
    """(verdict, kernel log, shim log); the verdict is "", "unsteady" or "failed"."""
    kernels, shims = {kernel}, {shim}
    for _ in range(AGAIN):
        kernels.add(runner.run(False, seed, 1).get(str(seed)))
        last = runner.run(True, seed, 1).get(str(seed))
        shims.add(last)
        if last is not None and last in kernels:
            return ("unsteady" if len(kernels) > 1 or len(shims) > 1 else "", kernel, shim)
    if shim is None or kernel is None:  # the chunk ended before: what the seed does alone
        kernel = next((k for k in kernels if k), "")
        shim = next((s for s in shims if s), "")
    return "failed", kernel, shim


def show(seed, kernel, shim, verbose):
    a, b = (kernel or "").splitlines(), (shim or "").splitlines()
    at = next((i for i, (x, y) in enumerate(zip(a, b)) if x != y), min(len(a), len(b)))
    print(f"seed {seed}: first difference in line {at + 1}")
    begin = 0 if verbose else max(0, at - CONTEXT)
    for line in a[begin:at]:
        print(f"           {line}")
    for line in a[at:at + 4]:
        print(f"    kernel {line}")
    for line in b[at:at + 4]:
        print(f"    shim   {line}")
    if verbose:
        print("\n".join(difflib.unified_diff(a, b, "kernel", "shim", lineterm="", n=0)))


def build_runner(build):
    """The runner, compiled unless it is newer than its sources."""
    here = os.path.join(ROOT, "tests", "diff")
    files = [os.path.join(here, name) for name in os.listdir(here) if name.endswith((".c", ".h"))]
    program = os.path.join(build, "diff")
    if os.path.exists(program) and os.path.getmtime(program) > max(map(os.path.getmtime, files)):
        return program
    os.makedirs(build, exist_ok=True)
    subprocess.run([os.environ.get("CC", "cc"), "-std=gnu17", "-I.", "-O1", "-g", "-Wall", "-Wextra",
                    "-Werror", "-o", program, *sorted(f for f in files if f.endswith(".c"))],
                   cwd=ROOT, check=True)
    return program


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--build", default="build")
    parser.add_argument("--first", type=int, default=1)
    parser.add_argument("--count", type=int, default=5000)
    parser.add_argument("--shown", type=int, default=SHOWN)
    parser.add_argument("--jobs", type=int, default=JOBS)
    parser.add_argument("--verbose", action="store_true", help="whole logs of what differs")
    options = parser.parse_args()
    build = os.path.join(ROOT, options.build)
    library = os.path.join(build, "libtcpshim.so")
    if not os.path.exists(library):
        print(f"diff: {library} is missing (run make)\ndiff: 0 passed, 1 failed, 0 skipped")
        return 1
    directory = tempfile.mkdtemp(prefix=f"tcpshim-diff-{os.getpid()}-")
    try:
        return run_all(Runner(build_runner(build), library, directory), options)
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def run_all(runner, options):
    end = options.first + options.count
    chunks = [(at, min(CHUNK, end - at)) for at in range(options.first, end, CHUNK)]
    differ = []
    with concurrent.futures.ThreadPoolExecutor(options.jobs) as pool:
        for found in pool.map(lambda c: compare_chunk(runner, *c), chunks):
            differ += found
    failed, unsteady = [], []
    for seed, kernel, shim in differ:
        if len(failed) >= 50 + options.shown:  # something is broken altogether: no need to look twice
            failed.append(seed)
            continue
        verdict, kernel, shim = look_again(runner, seed, kernel, shim)
        if verdict == "failed":
            failed.append(seed)
            if len(failed) <= options.shown:
                show(seed, kernel, shim, options.verbose)
        elif verdict:
            unsteady.append(seed)
    print(f"connections that the engine carried: {runner.traces // 2}")
    if unsteady:
        print(f"unsteady on the kernel too: {len(unsteady)} {unsteady[:10]}")
    if failed:
        print(f"failed seeds: {failed[:40]}{' ...' if len(failed) > 40 else ''}")
    if runner.traces == 0:
        print("no connection ran in the engine: this compared the kernel with itself")
        failed.append(0)
    print(f"diff: {max(0, options.count - len(failed))} passed, {len(failed)} failed, 0 skipped")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
