"""Goodput through a path with delay, loss and reordering: CUBIC on both stacks, the same seeds for both.

A program forwards between the hosts (path.c); large frames are cut into segments before loss is drawn.
"""

import subprocess

from bench import Bench, BenchLab
from lab import Host, ip, must
from measure import KK, KU, UK, UU, Measure, Target
from network import bulk, iperf_numbers

SECONDS = 6  # several recoveries, also at the highest loss
STREAMS = 4  # of which the sum counts: chance weighs less
DELAY = "10ms"  # each way
PAIRS = (KK, UK, KU, UU)


class PathLab(BenchLab):
    """Two hosts that reach each other through a third namespace, where path.c forwards."""

    def __init__(self, program, settings):
        super().__init__()
        self.program, self.settings = program, settings
        self.middle = Host("m", self.a.namespace[:-1] + "m", None, None)

    def _wire(self):
        self._make_namespace(self.middle.namespace)
        for host in self.hosts:
            self._join(host.namespace, "eth0", self.middle.namespace, host.name)
            must("ip link set up", ip("link", "set", "dev", host.name, "mtu", "1500", "up",
                                      namespace=self.middle.namespace))

    def _build(self):
        super()._build()
        # To host b flows what the server sends: ACKs. The client's bulk flows to a.
        path = self.popen(self.middle, [self.program, "a", "b", *self.settings], stdout=subprocess.PIPE,
                          text=True)
        Bench.expect(path, "ready")


def path_of(settings):
    """A laboratory with delay both ways; settings are of the direction that carries the bulk, to host a."""
    def lab(bench):
        both = ["both", "delay", DELAY, "both", "seed", str(1 + bench.round)]
        bulk_way = [word for name, value in settings.items() for word in ("to-one", name, value)]
        return PathLab(bench.program("path"), both + bulk_way)
    return lab


def goodput(streams, seconds):
    def run(bench):
        length = seconds if bench.seconds >= 1 else 1
        text = bench.both(lambda port: ["iperf3", "-s", "-1", "-p", port],
                          lambda addr, port: ["iperf3", "-c", addr, "-p", port, "-J", "-P", str(streams),
                                              "-t", str(length)])
        return {"Mbit/s": iperf_numbers(text)["Gbit/s"] * 1000}
    return run


def straight(bench):
    """Forwarding alone: bounds what can be measured through it."""
    return PathLab(bench.program("path"), [])


def measures():
    rate = {"rate": "100mbit"}
    goal = {"Mbit/s": {UK: Target(1.0), KU: Target(1.0), UU: Target(1.0)}}
    cases = [("path-clean", "no loss", {}), ("path-0.1", "0.1 % loss", {"loss": "0.1%"}),
             ("path-1", "1 % loss", {"loss": "1%"}), ("path-3", "3 % loss", {"loss": "3%"}),
             ("path-reorder", "1 % reordered", {"reorder": "1%"})]
    found = [Measure(name, f"iperf3, {STREAMS} streams, RTT 20 ms, 100 Mbit/s, {words}",
                     goodput(STREAMS, SECONDS), PAIRS, goal, lab=path_of({**rate, **more}), together=True)
             for name, words, more in cases]
    return found + [
        Measure("path-fast", "iperf3, one stream, RTT 20 ms, 500 Mbit/s, no loss", goodput(1, SECONDS // 2),
                PAIRS, goal, lab=path_of({"rate": "500mbit"}), rounds=3),
        Measure("path-through", "iperf3 through the forwarder without delay or loss", bulk(1), (KK, UU),
                {"Gbit/s": {}}, lab=straight)]
