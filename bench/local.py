"""What needs no network: calls that are none of the library's business, and a host's own loopback."""

from bench import PORT
from measure import Measure, Target
from network import ROUND_TRIP, iperf_numbers, latency, whole_seconds

PLAIN, WITH = "plain", "with"
KERNEL, ARENA = "K lo", "U lo"
LIBRARY = "U"
PROCESSES = 5  # of which the cheapest counts: where its pages lie makes a difference, too


def untouched(mode, unit, scale):
    """What a call costs without the library and with it."""
    def run(bench):
        env = {}
        if bench.variant == WITH:
            env = {"PRELOAD" if mode == "spawn" else "LD_PRELOAD": bench.libraries[LIBRARY]}
        argv = [bench.program("plain"), mode]
        costs = [float(bench.client(lambda *_: argv, env)) for _ in range(PROCESSES if bench.seconds >= 1 else 1)]
        return {unit: min(costs) * scale}
    return run


def relatives(bench, server, client):
    """Server and client of one family, over 127.0.0.1."""
    port = str(PORT)
    bench.extra = {"TCPSHIM_LOOPBACK": "user"}
    env = {**bench.environment(bench.variant[0]), "PORT": port}
    return bench.client(lambda *_: [bench.program("family"), *server(port), "--",
                                    *client("127.0.0.1", port)], env)


def loopback_round_trip(size):
    def run(bench):
        return latency(relatives(bench, lambda port: [bench.program("rtt"), port],
                                 lambda addr, port: [bench.program("rtt"), addr, port, str(size),
                                                     str(bench.seconds)]))
    return run


def loopback_bulk(bench):
    # -4: bench/family.c waits until somebody listens at an IPv4 address
    text = relatives(bench, lambda port: ["iperf3", "-4", "-s", "-1", "-p", port],
                     lambda addr, port: ["iperf3", "-c", addr, "-p", port, "-J", "-t",
                                         str(whole_seconds(bench))])
    return {"Gbit/s": iperf_numbers(text)["Gbit/s"]}


def cost(mode):
    """A limit of the machine: not compared with anything."""
    def run(bench):
        return {{"copy": "GB/s", "call": "ns"}[mode]:
                float(bench.client(lambda *_: [bench.program("raw"), mode], {}))}
    return run


def measures():
    found = [
        Measure("read", "read() of /dev/zero", untouched("read", "ns", 1), (PLAIN, WITH),
                {"ns": {WITH: Target(5, plus=True)}}, (0, 0)),
        Measure("poll", "poll() of a pipe", untouched("poll", "ns", 1), (PLAIN, WITH),
                {"ns": {WITH: Target(5, plus=True)}}, (0, 0)),
        Measure("start-up", "/bin/true from start to end", untouched("spawn", "ms", 1e-6), (PLAIN, WITH),
                {"ms": {WITH: Target(0.3, plus=True)}}, (0, 0)),
        Measure("copy", "memcpy() of 64 KB within 256 KB", cost("copy"), (PLAIN,), {"GB/s": {}}, (0, 0)),
        Measure("call", "a system call (getppid)", cost("call"), (PLAIN,), {"ns": {}}, (0, 0)),
    ]
    for suffix, words, place in (("", "", None), ("@1", ", both on one CPU", (0, 0))):
        both = (KERNEL, ARENA)
        found += [
            Measure("lo-rtt" + suffix, "round trip of 64 bytes over loopback" + words,
                    loopback_round_trip(64), both, {unit: {ARENA: Target(0.5 if unit == "us" else 1.0)}
                                                    for unit in ROUND_TRIP}, place),
            Measure("lo-bulk" + suffix, "iperf3 over loopback" + words, loopback_bulk, both,
                    {"Gbit/s": {ARENA: Target(1.5)}}, place),
        ]
    return found
