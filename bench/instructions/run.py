#!/usr/bin/python3
"""Counts the instructions of the hot paths with callgrind and holds them against bounds.

Unlike times, instructions do not wobble: this can run on a machine that is busy with other things.

    run.py --build DIR            the table
    run.py --build DIR --check    fails when a path costs more than its bound: `N passed, N failed`
    run.py --build DIR --traces   what traces cost, from compiled out to everything as JSON
    run.py --build DIR --profile PATH    where a path of the engine spends them, by source file

What is counted: instructions in user space between the entries of a path, per operation; not the
kernel's, not the peer's, and not the copying of payload, whose bytes are shown instead.
"""

import argparse
import collections
import glob
import os
import re
import shutil
import subprocess
import sys
import tempfile

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

# Instructions per operation on the day when the line was last written (gcc 12, -O2, x86-64), and
# what they may grow to: SLACK more. A path that became cheaper for good gets a new line.
SLACK = 1.10
TODAY = {
    # The engine with a link in memory.
    "send-64": 2159,                    # send() of 64 bytes, frame out
    "receive-64": 2200,                 # frame of 64 bytes in, recv(), an ACK when one is due
    "round-trip-64": 5106,              # request in, recv(), send(), answer out
    "send-64k": 2799,                   # send() of a frame of 45 segments
    "ack-64k": 2517,                    # its ACK in
    "receive-64k": 6455,                # such a frame in, recv(), ACK out
    "accept-close": 12218,              # SYN, ACK, accept(), close(), FIN: 3 frames in, 3 out
    "connect-close": 11503,             # SYN out, SYN-ACK in, close(), FIN
    # Calls of a program under the library on a connection inside its stack (TCPSHIM_LOOPBACK=user):
    # all of the call, libc's part included.
    "socket-send-64": 2025,             # the other end's work, too
    "socket-recv-1": 1189,              # of bytes that are there
    "socket-recv-nothing": 1268,        # EAGAIN, after a look into the packet socket
    # Ready. Whether these look into the packet socket first is a matter of time (DRAIN_CHECK): 810
    # and 770 when they do not, some 300 more when each does, as it may under valgrind.
    "socket-poll": 1110,
    "socket-epoll": 1070,
    # The preloaded library over the plain call, on descriptors that are not ours.
    "read-zero": 13,
    "write-zero": 13,
    "poll-pipe": 39,
    "dup-close": 76,
    "start-up": 238300,                 # /bin/true: the dynamic linker's work for the library, too
}
# Time goes by in these: timers fire, the service thread holds the lock.
SOCKET_SLACK = 1.20
# Differences of a few instructions are the compiler's.
SMALL = 5
# A round trip beside idle connections, each with a timer, may cost this much more than alone.
IDLE_SLACK = 1.10
IDLE = {"round-trip-64-idle-1000": "round-trip-64", "round-trip-64-idle-100000": "round-trip-64"}


# A network namespace of its own for the argv behind.
ALONE = ["unshare", "-n", "sh", "-c", 'ip link set lo up && exec "$0" "$@"']
# Traces of these classes may add this much to what moves data (connections come and go in them).
TRACED = "state,queue"
TRACED_SLACK = 1.02
DATA = ["send-64", "receive-64", "round-trip-64", "send-64k", "ack-64k", "receive-64k"]


def callgrind(argv, env, part=True, before=()):
    """Runs argv; returns ({name: (instructions, operations, rest)}, instructions in all)."""
    with tempfile.TemporaryDirectory(prefix="tcpshim-callgrind-") as directory:
        out = os.path.join(directory, "out")
        command = ["valgrind", "-q", "--tool=callgrind", f"--callgrind-out-file={out}"]
        if part:
            command += ["--instr-atstart=no", "--collect-atstart=no"]
        # an environment of our own: the dynamic linker reads all of it
        env = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", **env}
        run = subprocess.run([*before, *command, *argv], env=env, text=True, check=False,
                             stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                             stderr=subprocess.PIPE)
        if run.returncode != 0:
            print(f"{run.stderr}{' '.join(argv)} ended with {run.returncode} under valgrind\n"
                  "0 passed, 1 failed")
            sys.exit(1)
        sums, total = {}, 0
        for file in glob.glob(out + "*"):
            with open(file, encoding="utf-8", errors="replace") as f:
                text = f.read()
            name = re.search(r"^desc: Trigger: Client Request: (.*)$", text, re.M)
            count = int(re.search(r"^summary: (\d+)", text, re.M).group(1))
            if name:
                sums[name.group(1)] = min(count, sums.get(name.group(1), count))
            else:
                total = count
        paths = {}
        for line in run.stdout.splitlines():
            name, operations, *rest = line.split()
            paths[name] = (sums[name], int(operations), [int(word) for word in rest])
        return paths, total


def measure(build):
    """{path: (instructions, bytes copied, frames out)} per operation; None: not counted."""
    found = {}
    paths, _ = callgrind([f"{build}/bench/instructions/engine"], {})
    for name, (count, operations, (copied, frames)) in paths.items():
        found[name] = (count / operations, copied / operations, frames / operations)
    preload = {"LD_PRELOAD": f"{build}/libtcpshim.so"}
    calls = [f"{build}/bench/instructions/calls"]
    plain, _ = callgrind(calls, {})
    ours, _ = callgrind(calls, preload)
    for name, (count, operations, _) in ours.items():
        found[name] = ((count - plain[name][0]) / operations, None, None)
    with tempfile.TemporaryDirectory(prefix="tcpshim-library-") as directory:
        # without the keeper beside it: valgrind knows nothing of the clone() by which that begins
        shutil.copy(preload["LD_PRELOAD"], directory)
        env = {"LD_PRELOAD": f"{directory}/libtcpshim.so", "TCPSHIM_LOOPBACK": "user"}
        # the least of three: on a busy machine the service thread's looks fall between the calls
        for _ in range(3):
            paths, _ = callgrind(calls + ["sockets"], env, before=ALONE)
            for name, (count, operations, _) in paths.items():
                least = min(count / operations, found.get(name, (count,))[0])
                found[name] = (least, None, None)
    _, without = callgrind(["/bin/true"], {}, part=False)
    _, with_it = callgrind(["/bin/true"], preload, part=False)
    found["start-up"] = (with_it - without, None, None)
    return found


def engine(build, program, traces):
    """{path: instructions per operation} of the paths without idle connections."""
    env = {"TCPSHIM_TRACE_FILE": "/dev/null", **traces}
    names = DATA + ["accept-close", "connect-close"]
    paths, _ = callgrind([f"{build}/bench/instructions/{program}", *names], env)
    return {name: count / operations for name, (count, operations, _) in paths.items()}


def show_traces(build):
    columns = [
        ("no ring", engine(build, "engine_ring_none", {})),
        ("none", engine(build, "engine_trace_none", {})),
        ("off", engine(build, "engine", {})),
        (TRACED, engine(build, "engine", {"TCPSHIM_TRACE": TRACED})),
        ("all, JSON", engine(build, "engine", {"TCPSHIM_TRACE": "all", "TCPSHIM_TRACE_FORMAT": "json"})),
    ]
    print("Instructions of the engine per operation; none: traces compiled out; no ring: and the ring\n"
          "of last events, too. Percentages are of `off`. Lines go to /dev/null.\n")
    print("".join([f"{'path':16}"] + [f"{title:>18}" for title, _ in columns]))
    for name, off in columns[2][1].items():
        cells = (f"{column[name]:9.0f} {100 * (column[name] / off - 1):+7.1f}%" for _, column in columns)
        print("".join([f"{name:16}"] + [f"{cell:>18}" for cell in cells]))


def show_profile(build, name):
    """A path's instructions per operation by the file that they were written in."""
    with tempfile.TemporaryDirectory(prefix="tcpshim-callgrind-") as directory:
        out = os.path.join(directory, "out")
        command = ["valgrind", "-q", "--tool=callgrind", f"--callgrind-out-file={out}",
                   "--instr-atstart=no", "--collect-atstart=no",
                   f"{build}/bench/instructions/engine", name]
        run = subprocess.run(command, text=True, stdout=subprocess.PIPE, check=True)
        operations = int(run.stdout.split()[1])
        text = subprocess.run(["callgrind_annotate", "--auto=no", "--threshold=100", f"{out}.1"],
                              text=True, stdout=subprocess.PIPE, check=True).stdout
    files = collections.Counter()
    for count, file in re.findall(r"^ *([\d,]+) \([ \d.]+%\) +(\S+?):\S", text, re.M):
        found = re.search(r"(stack|bench|shim)/\S+$", file)
        files[found.group(0) if found else "libc"] += int(count.replace(",", ""))
    total = sum(files.values()) / operations
    print(f"{name}: {total:.0f} instructions")
    for file, count in files.most_common(24):
        print(f"{count / operations:8.0f} {100 * count / operations / total:5.1f}%  {file}")


def check_traces(build, found):
    """Returns (passed, failed): TRACED next to nothing on the paths that move data."""
    failed = 0
    traced = engine(build, "engine", {"TCPSHIM_TRACE": TRACED})
    for name in DATA:
        if traced[name] > found[name][0] * TRACED_SLACK:
            print(f"{name}: {traced[name]:.0f} instructions with TCPSHIM_TRACE={TRACED}, "
                  f"{found[name][0]:.0f} without; {TRACED_SLACK:.2f} times that are allowed")
            failed += 1
    return len(DATA) - failed, failed


def bound_of(name, found):
    if name in IDLE:
        return found[IDLE[name]][0] * IDLE_SLACK
    slack = SOCKET_SLACK if name.startswith("socket-") else SLACK
    return max(TODAY[name] * slack, TODAY[name] + SMALL)


def show(found):
    print(f"{'path':28} {'instructions':>12} {'bound':>8} {'copied':>8} {'frames out':>10}")
    for name, (count, copied, frames) in found.items():
        line = f"{name:28} {count:12.0f} {bound_of(name, found):8.0f}"
        if copied is not None:
            line += f" {copied:8.0f} {frames:10.2f}"
        print(line)


def check(found):
    """Returns (passed, failed) and says what grew."""
    passed = failed = 0
    for name in list(TODAY) + list(IDLE):
        if name not in found:
            print(f"{name}: not measured")
            failed += 1
            continue
        count, bound = found[name][0], bound_of(name, found)
        was = found[IDLE[name]][0] if name in IDLE else TODAY[name]
        if count > bound:
            beside = "without other connections" if name in IDLE else "when its bound was written"
            print(f"{name}: {count:.0f} instructions an operation, {was:.0f} {beside}; "
                  f"{bound:.0f} are allowed (bench/instructions/run.py)")
            failed += 1
            continue
        passed += 1
        if name in TODAY and count < was / SLACK - SMALL:
            print(f"{name}: {count:.0f} instructions, down from {was:.0f}: its bound may follow")
    return passed, failed


def why_not(build):
    """Why counts would say nothing here, or None."""
    if shutil.which("valgrind") is None:
        return "no valgrind"
    if os.uname().machine != "x86_64":
        return "the bounds are for x86-64"
    with open(f"{build}/flags", encoding="utf-8") as f:
        flags = f.read()
    # what stands before the sanitizers' is the release build's
    if not flags.startswith("gcc ") or " -O2 " not in flags:
        return "the bounds are for gcc -O2"
    return None


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build", default="build")
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--traces", action="store_true")
    parser.add_argument("--profile", metavar="PATH")
    options = parser.parse_args()
    build = os.path.join(ROOT, options.build)
    why = why_not(build)
    if options.check and why:
        print(f"skipped: {why}\n0 passed, 0 failed, 1 skipped")
        return 0
    if options.traces:
        show_traces(build)
        return 0
    if options.profile:
        show_profile(build, options.profile)
        return 0
    found = measure(build)
    show(found)
    if not options.check:
        return 0
    passed, failed = (sum(pair) for pair in zip(check(found), check_traces(build, found)))
    print(f"{passed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
