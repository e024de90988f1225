#!/usr/bin/python3
"""Builds everything, runs every suite in order and adds up what they count.

The last line is `N passed, N failed, N skipped`; the lines of what failed are repeated above it. A suite
that ends badly, or that says nothing about its count, counts as a failure. A suite whose directory has no
files yet is left out.

Some suites meet the machine's scheduler: a real peer that is stopped for a second retransmits, and a test
that counts its segments sees that. Such a suite that fails is run again (the applications: the failed cases
only, alone, twice). What passes then counts as passed, and is listed at the end as `unsteady`: a name that
comes back there is a defect to look for.
"""

import argparse
import glob
import os
import re
import signal
import subprocess
import sys
import time

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
PYTHON = "/usr/bin/python3"
SIM_SEEDS = 10000

# libcheck: "97%: Checks: 40, Failures: 1, Errors: 0"; the others: "N passed, N failed[, N skipped]".
CHECK = re.compile(r"^\d+%: Checks: (\d+), Failures: (\d+), Errors: (\d+)", re.M)
PLAIN = re.compile(r"\b(\d+) passed, (\d+) failed(?:, (\d+) skipped)?")

# What the suites print for one failure (libcheck's has `file:line:F:` or `:E:`), and for a passing second run.
FAILURE = re.compile(r"^(?:FAIL\b.*|.*\bFAILED\b.*|\S+:\d+:[FE]:.*|not ok\b.*|seed \d+.*differ.*)$", re.M)
UNSTEADY = re.compile(r"^unsteady .*$", re.M)

# Those whose peers, processes or clocks are the machine's. The applications look after their own second run.
TIMED = {"bench", "diff", "interop", "flood", "kill", "python", "command", "states", "calls"}


def suites(build):
    """(name, files that must exist for it to count, argv, seconds): the time is for slow, loaded machines."""
    tests = os.path.join(ROOT, "tests")
    root = os.path.join(tests, "as-root.sh")
    return [
        ("unit", f"{tests}/unit/*.c", [f"{build}/asan/unit"], 300),
        ("unit_ip", f"{tests}/unit/*.c", [f"{build}/asan/unit_ip"], 200),
        ("packet", f"{tests}/packet/*.c", [f"{build}/asan/packet"], 300),
        ("conformance", f"{tests}/conformance/*.py",
         [PYTHON, f"{tests}/conformance/generate.py", "--build", build, "--check"], 400),
        ("packetdrill", f"{tests}/packetdrill/*.c",
         [root, PYTHON, f"{tests}/packetdrill/run.py", "--build", build], 300),
        ("sim", f"{tests}/sim/*.c",
         [f"{build}/asan/sim", "--seeds", str(SIM_SEEDS), "--first", "1"], 900),
        ("explore", f"{tests}/explore/*.c", [f"{build}/asan/explore"], 400),
        ("rates", f"{tests}/sim/*.c", [f"{build}/asan/sim", "--rates"], 200),
        ("fuzz", f"{tests}/fuzz/*.py",
         [PYTHON, f"{tests}/fuzz/run.py", "--build", build, "--seconds", "4"], 400),
        ("tsan", f"{tests}/tsan/*.c", [f"{build}/tsan/engine"], 300),
        ("instructions", f"{ROOT}/bench/instructions/*.c",
         [root, PYTHON, f"{ROOT}/bench/instructions/run.py", "--build", build, "--check"], 400),
        ("bench", f"{ROOT}/bench/*.py",
         [root, PYTHON, f"{ROOT}/bench/run.py", "--build", build, "--smoke"], 300),
        ("hooks", f"{tests}/hooks/*.py",
         [PYTHON, f"{tests}/hooks/check_hooks.py", f"{build}/libtcpshim.so"], 120),
        ("docs", f"{tests}/docs/*.sh", [PYTHON, f"{tests}/docs/check.py", "--build", build], 300),
        ("diff", f"{tests}/diff/run.py", [root, PYTHON, f"{tests}/diff/run.py", "--build", build], 600),
        ("interop", f"{tests}/interop/*.py",
         [root, PYTHON, f"{tests}/interop/run.py", "--build", build], 300),
        ("flood", f"{tests}/flood/*.py",
         [root, PYTHON, f"{tests}/flood/run.py", "--build", build, "--seconds", "3"], 300),
        ("kill", f"{tests}/kill/*.py", [root, PYTHON, f"{tests}/kill/run.py", "--build", build], 400),
        ("python", f"{tests}/python/*.py",
         [root, PYTHON, f"{tests}/python/run.py", "--build", build, "--short", "-j", "6"], 500),
        ("command", f"{tests}/command/*.py",
         [root, PYTHON, f"{tests}/command/run.py", "--build", build], 600),
        ("states", f"{tests}/docs/states.py", [root, PYTHON, f"{tests}/docs/states.py", "--build", build], 400),
        ("calls", f"{tests}/docs/calls.py", [root, PYTHON, f"{tests}/docs/calls.py", "--build", build], 400),
        ("apps", f"{tests}/apps/*.py", [root, PYTHON, f"{tests}/apps/run.py", "--build", build, "--again"], 1800),
    ]


def count(output):
    """The last count that a suite gave, or None. libcheck may give one for each of several runners."""
    checks = CHECK.findall(output)
    if checks:
        total = sum(int(row[0]) for row in checks)
        failed = sum(int(row[1]) + int(row[2]) for row in checks)
        return total - failed, failed, 0
    plain = PLAIN.findall(output)
    if plain:
        return tuple(int(word or 0) for word in plain[-1])
    return None


def run_once(name, argv, seconds, final=True):
    """Runs a suite, passing on what it prints. Returns (passed, failed, skipped) and its output. What fails in a
    run that is not the final one is shown as `fail`: who looks for FAIL finds what counts."""
    print(f"=== {name}", flush=True)
    begin = time.monotonic()
    environment = dict(os.environ)
    environment.setdefault("CK_DEFAULT_TIMEOUT", "60")  # libcheck's 4 s are too little on a loaded machine
    process = subprocess.Popen(argv, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                               stderr=subprocess.STDOUT, start_new_session=True, env=environment)
    late = []

    def stop(*_):
        os.killpg(process.pid, signal.SIGKILL if late else signal.SIGTERM)
        late.append(True)
        signal.alarm(20)

    signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    lines = []
    for line in process.stdout:
        text = line.decode("utf-8", "replace")
        lines.append(text)
        sys.stdout.write(text if final else re.sub(r"^FAIL\b", "fail", text))
        sys.stdout.flush()
    code = process.wait()
    signal.alarm(0)
    result = count("".join(lines))
    if late:
        print(f"{name}: stopped after {seconds} s", flush=True)
    if result is None:
        print(f"{name}: ended with {code} and gave no count", flush=True)
        result = (0, 1, 0)
    elif (code != 0 or late) and result[1] == 0:
        print(f"{name}: ended with {code} although it counts no failure", flush=True)
        result = (result[0], 1, result[2])
    print(f"--- {name}: {result[0]} passed, {result[1]} failed, {result[2]} skipped, "
          f"{time.monotonic() - begin:.0f} s", flush=True)
    return result, "".join(lines)


def run(name, argv, seconds, remarks):
    """Runs a suite, once more when it failed and the machine may be why. Adds what the end of the run is to
    repeat to `remarks`. Returns (passed, failed, skipped)."""
    result, output = run_once(name, argv, seconds, final=name not in TIMED)
    remarks += [f"{name}: {line}" for line in UNSTEADY.findall(output)]
    if result[1] == 0:
        return result
    failures = FAILURE.findall(output)[:10] or [f"{result[1]} failed, see its output"]
    if name in TIMED:
        print(f"=== {name}: once more", flush=True)
        again, output = run_once(name, argv, seconds)
        if again[1] == 0:
            remarks += [f"{name}: unsteady, passed when run again: {line}" for line in failures]
            return again
        result, failures = again, FAILURE.findall(output)[:10] or failures
    remarks += [f"{name}: {line}" for line in failures]
    return result


def build_all(build):
    """The library and the test programs. Returns false when something does not build."""
    jobs = f"-j{os.cpu_count() or 1}"
    argv = ["make", "--no-print-directory", "-s", "-k", jobs, f"BUILD={build}", "all", "tests", "fuzzers"]
    environment = {k: v for k, v in os.environ.items() if k not in ("MAKEFLAGS", "MFLAGS", "MAKELEVEL")}
    return subprocess.run(argv, cwd=ROOT, stdin=subprocess.DEVNULL, env=environment).returncode == 0


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--build", default="build")
    parser.add_argument("suite", nargs="*", help="run only these")
    options = parser.parse_args()
    build = os.path.join(ROOT, options.build)  # an absolute path stays what it is

    total = [0, 0, 0]
    remarks = []
    print("=== build", flush=True)
    if not build_all(build):
        print("--- build: failed", flush=True)
        remarks.append("build: failed")
        total[1] += 1
    for name, files, argv, seconds in suites(build):
        if options.suite and name not in options.suite:
            continue
        if not glob.glob(files):
            print(f"=== {name}: no tests yet", flush=True)
            continue
        if argv[0].startswith(build) and not os.path.exists(argv[0]):
            print(f"=== {name}: {argv[0]} was not built", flush=True)
            remarks.append(f"{name}: {argv[0]} was not built")
            total[1] += 1
            continue
        for index, number in enumerate(run(name, argv, seconds, remarks)):
            total[index] += number
    if remarks:
        print("=== to look at", *remarks, sep="\n", flush=True)
    print(f"{total[0]} passed, {total[1]} failed, {total[2]} skipped", flush=True)
    return 1 if total[1] or not total[0] else 0


if __name__ == "__main__":
    sys.exit(main())
