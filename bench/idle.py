"""Many idle connections: what they weigh, and what a round trip beside them costs.

A process holds at most 8,000 descriptors, and no more than half of its hard limit (a library may need some
of its own), so several share the work. Memory
is what all processes of both hosts have (their proportional share of what they share, the keepers' too)
and what the kernel's own tables grew by, between the moment when all programs stand ready and the
moment when all connections stand. Nobody else on the machine should grow or shrink meanwhile.
"""

import math
import resource
import subprocess
import time

from bench import PORT, end_group
from measure import KK, UU, Measure, Target

KERNEL_TABLES = ("Slab", "PageTables", "KernelStack", "VmallocUsed", "Percpu")
SETTLE, STILL = 5, 2 << 20  # seconds at most; bytes that may still change
# What sockets are made of; other tables hardly change.
SHRUNK = ("TCP", "sock_inode_cache", "proc_inode_cache", "dentry", "filp", "kmalloc-cg-2k", "kmalloc-cg-4k",
          "kmalloc-cg-512")
HELD_MAX = 8000  # as idle.c
FEW = 10  # connections "without" idle ones
HEADROOM = 200  # descriptors of a process that are not connections


def meminfo():
    with open("/proc/meminfo", encoding="ascii") as file:
        return {line.split(":")[0]: int(line.split()[1]) * 1024 for line in file}


def processes(lab):
    for host in lab.hosts:
        run = subprocess.run(["ip", "netns", "pids", host.namespace], capture_output=True, text=True)
        yield from run.stdout.split()


def proportional(pid):
    try:
        with open(f"/proc/{pid}/smaps_rollup", encoding="ascii") as file:
            return sum(int(line.split()[1]) * 1024 for line in file if line.startswith("Pss:"))
    except (ProcessLookupError, FileNotFoundError):
        return 0


def settle(seconds):
    """Until the memory of what is gone has come back; the kernel takes namespaces away in its own time."""
    last, end = 0, time.monotonic() + seconds
    while time.monotonic() < end:
        now = meminfo()["MemAvailable"]
        if abs(now - last) < STILL:
            break
        last = now
        time.sleep(0.3)
    for name in SHRUNK:
        try:
            with open(f"/sys/kernel/slab/{name}/shrink", "w", encoding="ascii") as file:
                file.write("1")
        except OSError:
            pass  # this kernel has no such table: its empty pages count


def drop_names():
    """Forgets cached names: who looks at /proc/PID/fd meanwhile makes one for each descriptor."""
    with open("/proc/sys/vm/drop_caches", "w", encoding="ascii") as file:
        file.write("2")


def memory(lab, patience):
    """Of all processes and of the kernel's tables."""
    settle(patience)
    drop_names()
    info = meminfo()
    return sum(info[name] for name in KERNEL_TABLES) + sum(proportional(pid) for pid in processes(lab))


def split(total):
    """(processes, connections of each) of one side"""
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    room = HELD_MAX if limit == resource.RLIM_INFINITY else min(HELD_MAX, limit // 2)
    count = math.ceil(total / max(room - HEADROOM, 100))
    return count, math.ceil(total / count)


class Crowd:
    """Idle connections of both sides; use as a context manager."""

    def __init__(self, bench, total, families):
        """families: so many families of processes a side, with one port range each."""
        count, self.each = split(total)
        self.processes = max(1, count // families)
        self.families = families
        self.bench = bench
        self.servers, self.holders = [], []

    @property
    def total(self):
        return self.families * self.processes * self.each

    def __enter__(self):
        bench, program = self.bench, self.bench.program("idle")
        pipes = {"stdout": subprocess.PIPE, "stdin": subprocess.PIPE, "text": True}
        try:
            for i in range(self.families):
                port = PORT + 100 * i
                shape = [str(port), str(self.processes), str(self.each)]
                self.servers.append(bench.start(bench.lab.a, [program, "serve", *shape], 0,
                                                bench.environment(bench.variant[2]),
                                                stdout=subprocess.DEVNULL))
                bench.wait_listening(*range(port, port + self.processes + 1))
                self.holders.append(bench.start(bench.lab.b, [program, "hold", bench.lab.a.addr, *shape,
                                                              str(bench.seconds)], 1,
                                                bench.environment(bench.variant[0]), **pipes))
                bench.expect(self.holders[-1], "up")
            return self
        except BaseException:
            self.__exit__()
            raise

    def open(self):
        for holder in self.holders:
            self.bench.expect(holder, "open", "")

    def round_trips(self):
        """The median of the first family's connection that works."""
        return float(self.bench.ask(self.holders[0], "").split()[0])

    def __exit__(self, *_):
        for process in self.holders + self.servers:
            end_group(process)


def weigh(families):
    def run(bench):
        total = bench.idle if families == 1 else min(bench.idle, 20000)
        with Crowd(bench, total, families) as crowd:
            patience = SETTLE if bench.seconds >= 1 else 0
            before = memory(bench.lab, patience)
            crowd.open()
            after = memory(bench.lab, patience)
            return {"bytes": (after - before) / (2 * crowd.total)}
    return run


def beside(bench):
    """Variants say which stack, and whether many connections stand by."""
    many = bench.variant.endswith("+")
    with Crowd(bench, bench.idle if many else FEW, 1) as crowd:
        crowd.open()
        return {"us": crowd.round_trips()}


def measures(idle):
    half = {"bytes": {UU: Target(0.5)}}
    apart = f"the same, {min(idle, 20000):,} of four families a side"
    return [
        Measure("idle-memory", f"memory of one end of {idle:,} idle connections", weigh(1), (KK, UU), half,
                rounds=1),
        Measure("idle-apart", apart, weigh(4), (KK, UU), half, rounds=1),
        Measure("idle-rtt", f"round trip of 64 bytes beside {idle:,} idle connections (+)", beside,
                (UU, UU + "+"), {"us": {UU + "+": Target(1.1)}}, (0, 0), rounds=2),
    ]
