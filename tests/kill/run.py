#!/usr/bin/python3
"""Processes of a family are killed at random moments while others transfer checksummed data.

    engine    single operations of the engine, killed after a random number of instructions
    stores    deaths between any two stores of the engine, in virtual time: all streams go on (--stores)
    kill      1,000 kills (--kills): others go on, at most one connection breaks for each that died
              inside the engine, and nothing is left behind (tests/kill/inspect.c looks)
    bomb      500 children at once, each with a connection of its own
    no-keeper the same as kill, without the keeper that notices deaths
    stopped   the same with a keeper that sleeps: who drives is missed by the others, whom the kernel tells
    arena     connections with full buffers until the stack's memory is used up, and on from there
    crowd     3,000 connections in one process (--crowd), and what is left when they are closed
    mass      8,000 connections (--mass) over processes of one family, each with as many as it has descriptors for
    pingpong  how long a byte takes from one process of a family to another and back

The last line is `kill: N passed, N failed, N skipped`.
"""

import argparse
import errno
import os
import platform
import re
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
sys.path.insert(0, os.path.join(HERE, "..", "lab"))
from lab import Lab, NotAllowed, keepers, wait_for  # noqa: E402  (the path above comes first)

PORT = 5000
# Progress is asked for within 100 ms; a machine that does ten other things at once may be late.
LATE_SHARE = 0.005
# Its standard streams, what the family gave it, and a pidfd for each process that lives.
KEEPER_FDS = 20
# Of both ends of an idle connection: control blocks, sockets, holds (a buffer would be 4,096 more).
MASS_BYTES = 4000
PINGPONG_P99 = 5000 * 2 * (4 if os.getloadavg()[0] > 2 * os.cpu_count() else 1)


def build_programs(build):
    made = []
    stack = [os.path.join(build, "libstack.a")]
    # stores: its memcpy() takes the place of libc's, and its addresses are those of addr2line
    for name, libraries in (("family", []), ("inspect", stack), ("engine", stack),
                            ("stores", [*stack, "-no-pie", "-fno-builtin"])):
        if name == "stores" and platform.machine() != "x86_64":
            made.append(None)
            continue
        program = os.path.join(build, "kill_" + name)
        made.append(program)
        subprocess.run([os.environ.get("CC", "cc"), "-std=gnu17", "-I.", "-O1", "-g", "-Wall", "-Wextra",
                        "-Werror", "-o", program, f"tests/kill/{name}.c", *libraries], cwd=ROOT, check=True)
    return made


def pairs(line):
    """"kills 3 resets 0" as a dictionary."""
    words = line.split()
    return {words[i]: int(words[i + 1]) for i in range(len(words) - 1) if words[i + 1].isdigit()}


# What a family says when it is done: a line of pairs that is not about a wait.
LAST_LINE = re.compile(rb"^(?!wait |calm ).*\n\Z", re.M)


class Wait:
    """No progress for a long time, in a process that was not killed: a line of family.c."""

    def __init__(self, line):
        words = line.split()
        self.begin, self.length = int(words[1]), int(words[2])
        self.queued, self.again = int(words[5]), int(words[7])
        self.since = int(words[9])

    def reason(self):
        """What was late: its own wake-up, an answer to what it had to send again, or frames."""
        if self.since * 1000 > self.length / 2:
            return "woken late"
        return "sent again" if self.again else "heard late"

    def by_machine(self, calm):
        """Whether it was the machine: the process waited for a processor, or who had no deaths waited, too."""
        end = self.begin + self.length
        return self.queued > self.length / 4 or any(w.begin < end and w.begin + w.length > self.begin for w in calm)


class Failed(Exception):
    pass


class Runner:
    def __init__(self, lab, build, family, inspect, engine, stores):
        self.lab, self.build, self.family = lab, build, family
        self.inspect, self.engine, self.stores = inspect, engine, stores
        self.peer = lab.popen(lab.a, [family, "peer", str(PORT)])
        if not wait_for(lambda: lab.a.kernel_listens(PORT), 5):
            raise Failed("the peer does not listen")

    def run(self, words, library, seconds, look=True, env=None, before=(), stop_keeper=False):
        """Runs the family to its last line; returns that and what the arena holds then."""
        stopped = None
        library = os.path.join(library, "libtcpshim.so")
        process = self.lab.popen(self.lab.b, [*before, self.family, *map(str, words)],
                                 {"LD_PRELOAD": library, **(env or {})}, stdin=subprocess.PIPE,
                                 stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        os.set_blocking(process.stdout.fileno(), False)
        text, end = b"", time.monotonic() + seconds
        while not LAST_LINE.search(text) and time.monotonic() < end and process.poll() is None:
            text += process.stdout.read() or b""
            if stop_keeper and stopped is None and keepers(self.lab.b):
                stopped = keepers(self.lab.b)[0]
                os.kill(stopped, signal.SIGSTOP)
            time.sleep(0.02)
        if stopped is not None:
            os.kill(stopped, signal.SIGCONT)
        text += process.stdout.read() or b""
        left = self.rest() if look and text else {}
        process.stdin.close()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            raise Failed("it does not end") from None
        errors = process.stderr.read().decode()
        if process.returncode != 0 or errors or not LAST_LINE.search(text) or b"BAD" in text:
            raise Failed(f"ended with {process.returncode}: {text.decode().strip()}; {left}\n{errors.strip()[-3000:]}")
        *waits, last = text.decode().splitlines()
        self.waits = [Wait(line) for line in waits if line.startswith("wait")]
        self.calm = [Wait(line) for line in waits if line.startswith("calm")]
        return pairs(last), left

    def rest(self):
        """What the arena holds when all is quiet."""
        found = {}
        for pid in keepers(self.lab.b):
            def quiet(pid=pid):
                line = subprocess.run([self.inspect, str(pid)], stdout=subprocess.PIPE, text=True).stdout
                found.update(pairs(line))
                return found.get("processes") == 1 and not any(found.get(name) for name in GONE)
            wait_for(quiet, 5, 0.05)
            found["keeper_fds"] = len(os.listdir(f"/proc/{pid}/fd"))
        return found


GONE = ("usocks", "holds", "epsets", "epitems", "conns", "half_opens", "chunks", "ranges", "records",
        "packets", "orphans")
ZERO = GONE + ("invariants", "bad_frees")


def check_rest(left):
    wrong = [f"{name} {left[name]}" for name in ZERO if left[name] != 0]
    if left["processes"] != 1 or wrong:
        raise Failed(f"left behind: processes {left['processes']} {' '.join(wrong)}")
    if left["keeper_fds"] > KEEPER_FDS:
        raise Failed(f"the keeper has {left['keeper_fds']} descriptors")
    if left["flows"] != left["time_waits"]:
        raise Failed(f"the table has {left['flows']} flows for {left['time_waits']} TIME_WAIT entries")


def case_kill(runner, options):
    result, left = runner.run(["kill", runner.lab.a.addr, PORT, options.kills, options.seed], runner.build,
                              60 + options.kills / 10)
    check_rest(left)
    if result["fds"] > 2:
        raise Failed(f"{result['fds']} descriptors more than before")
    if result["resets"] > left["repairs"]:
        raise Failed(f"{result['resets']} resets for {left['repairs']} deaths inside the engine")
    late = [w for w in runner.waits if not w.by_machine(runner.calm)]
    slowest = max((w.length for w in late), default=0)
    reasons = [w.reason() for w in late]
    told = ", ".join(f"{reasons.count(r)} {r}" for r in sorted(set(reasons))) or "none"
    waits = (f"late {len(late)} ({told}; slowest {slowest} us), "
             f"{result['late'] - len(late)} by the machine")
    if len(late) > max(3, options.kills * LATE_SHARE):
        raise Failed(f"no progress for 100 ms: {waits}")
    return (f"{options.kills} kills, {left['repairs']} inside the engine, {result['resets']} resets, "
            f"{waits}, {result['bytes'] >> 20} MB")


def case_no_keeper(runner, options):
    alone = tempfile.mkdtemp(prefix=f"tcpshim-kill-{os.getpid()}-")
    try:
        shutil.copy(os.path.join(runner.build, "libtcpshim.so"), alone)
        kills = max(20, options.kills // 10)
        result, _ = runner.run(["kill", runner.lab.a.addr, PORT, kills, options.seed], alone,
                               60 + kills / 5, look=False)
    finally:
        shutil.rmtree(alone, ignore_errors=True)
    if result["resets"] > kills:
        raise Failed(f"{result['resets']} resets")
    return f"{kills} kills, {result['resets']} resets, slowest {result['slowest']} us"


def case_stopped(runner, options):
    kills = max(20, options.kills // 20)
    result, left = runner.run(["kill", runner.lab.a.addr, PORT, kills, options.seed], runner.build, 60 + kills,
                              stop_keeper=True)
    check_rest(left)
    if result["resets"] > left["repairs"]:
        raise Failed(f"{result['resets']} resets for {left['repairs']} deaths inside the engine")
    return f"{kills} kills, {result['resets']} resets, slowest {result['slowest']} us"


def case_bomb(runner, options):
    result, left = runner.run(["bomb", runner.lab.a.addr, PORT, options.children], runner.build, 120)
    check_rest(left)
    if result != {"born": options.children, "good": options.children, "own": 1}:
        raise Failed(f"{result}")
    return f"{options.children} children"


def case_pingpong(runner, options):
    result, _ = runner.run(["pingpong", 600], runner.build, 60, look=False,
                           env={"TCPSHIM_LOOPBACK": "user"})
    if result["p99"] > PINGPONG_P99:
        raise Failed(f"p99 of a round {result['p99']} us")
    return f"p50 {result['p50']} us, p99 {result['p99']} us a round"


def case_arena(runner, options):
    result, left = runner.run(["crowd", 5000, "full"], runner.build, 100,
                              env={"TCPSHIM_LOOPBACK": "user", "TCPSHIM_MEM": "16M"})
    check_rest(left)
    if result["errno"] not in (errno.ENOBUFS, errno.ENOMEM, errno.ETIMEDOUT) or result["made"] < 10:
        raise Failed(f"{result['made']} connections, then {errno.errorcode.get(result['errno'])}")
    if result["lost"] or result["again"] != 20 or result["blocked"] > 100000:
        raise Failed(f"{result}")
    return f"{result['made']} connections, then {errno.errorcode[result['errno']]}"


def case_crowd(runner, options):
    with_descriptors = ["prlimit", f"--nofile={2 * options.crowd + 1000}:"]
    result, left = runner.run(["crowd", options.crowd, "idle"], runner.build, 60 + options.crowd / 100,
                              env={"TCPSHIM_LOOPBACK": "user", "TCPSHIM_MEM": "1G"}, before=with_descriptors)
    check_rest(left)
    if result["made"] != options.crowd or result["again"] != 20:
        raise Failed(f"{result['made']} connections, then {errno.errorcode.get(result['errno'])}; {result}")
    return f"{result['made']} connections"


def case_mass(runner, options):
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    of_one = min(options.mass // 4, (hard - 1000) // 2)
    processes = -(-options.mass // of_one)
    result, left = runner.run(["mass", options.mass, processes], runner.build, 60 + options.mass / 300,
                              env={"TCPSHIM_LOOPBACK": "user", "TCPSHIM_MEM": "4G"},
                              before=["prlimit", f"--nofile={2 * of_one + 900}:"])
    check_rest(left)
    if result["made"] != options.mass or result["good"] != options.mass:
        raise Failed(f"{result['made']} connections, then {errno.errorcode.get(result['errno'])}; {result}")
    if result["each"] > MASS_BYTES:
        raise Failed(f"{result['each']} bytes of the stack's memory for both ends of a connection")
    return (f"{result['made']} connections with both ends in {processes} processes, {result['each']} bytes of the "
            "stack's memory each")


def case_engine(runner, options):
    done = subprocess.run([runner.engine, str(options.instructions), str(options.seed)],
                          stdout=subprocess.PIPE, text=True)
    if done.returncode != 0:
        raise Failed(f"ended with {done.returncode}: {done.stdout.strip()}")
    return done.stdout.strip()


def case_stores(runner, options):
    if runner.stores is None:
        return "not on this processor"
    said = []
    for mode in (["wire"], ["place"], ["inside"], ["copies"]):
        done = subprocess.run([runner.stores, str(options.stores), str(options.seed), *mode],
                              stdout=subprocess.PIPE, text=True)
        if done.returncode != 0:
            at = re.search(r"at (0x[0-9a-f]+)", done.stdout)
            where = subprocess.run(["addr2line", "-f", "-i", "-e", runner.stores, at[1]], stdout=subprocess.PIPE,
                                   text=True).stdout if at and shutil.which("addr2line") else ""
            raise Failed(f"{' '.join(mode)} ended with {done.returncode}: {done.stdout.strip()}\n{where}")
        said.append(done.stdout.strip())
    return "; ".join(said)


CASES = {"engine": case_engine, "stores": case_stores, "kill": case_kill, "bomb": case_bomb,
         "no-keeper": case_no_keeper, "stopped": case_stopped, "pingpong": case_pingpong, "arena": case_arena,
         "crowd": case_crowd, "mass": case_mass}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--build", default="build")
    parser.add_argument("--kills", type=int, default=1000)
    parser.add_argument("--instructions", type=int, default=100, help="kills of the case engine")
    parser.add_argument("--stores", type=int, default=250, help="deaths of the case stores, in each of its four modes")
    parser.add_argument("--children", type=int, default=500)
    parser.add_argument("--crowd", type=int, default=3000, help="connections of the case crowd")
    parser.add_argument("--mass", type=int, default=8000, help="connections of the case mass")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=1, help="each with a seed of its own")
    parser.add_argument("-k", dest="only", choices=sorted(CASES), action="append")
    options = parser.parse_args()
    build = os.path.join(ROOT, options.build)
    passed = failed = 0
    try:
        programs = build_programs(build)
        for round_ in range(options.rounds):
            for name in options.only or CASES:
                begin = time.monotonic()
                try:
                    with Lab() as lab:
                        text = CASES[name](Runner(lab, build, *programs), options)
                    passed += 1
                    verdict = "ok  "
                except Failed as error:
                    failed += 1
                    verdict, text = "FAIL", f"seed {options.seed}: {error}"
                print(f"{verdict} {name:10} {time.monotonic() - begin:6.1f} s  {text}", flush=True)
            options.seed += 1
    except NotAllowed as error:
        print(f"kill: {error}\nkill: 0 passed, 0 failed, {len(CASES)} skipped")
        return 0
    print(f"kill: {passed} passed, {failed} failed, 0 skipped")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
