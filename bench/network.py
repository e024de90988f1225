"""Real programs and small ones over a veth pair, kernel and user stack in each role."""

import json
import os
import re
import shutil

from bench import CPUS, PORT, Failed, wait_for
from measure import KK, KU, LIMIT, LIMIT_KU, LIMIT_UK, LIMITS, PAIRS, SMALL, UK, UU, Measure, asked

ONE = (0, 0)  # both sides on one CPU: no wake-up of another, the most repeatable
TWO = (0, 1)  # a CPU for each side


def whole_seconds(bench):
    return max(1, round(bench.seconds))


def bulk(streams):
    def run(bench):
        if bench.limit:
            return bulk_limit(bench, streams)
        text = bench.both(lambda port: ["iperf3", "-s", "-1", "-p", port],
                          lambda addr, port: ["iperf3", "-c", addr, "-p", port, "-J", "-P", str(streams),
                                              "-t", str(whole_seconds(bench))])
        return iperf_numbers(text)
    return run


def bulk_limit(bench, streams):
    raw, half, n, port, span = bench.program("raw"), bench.program("half"), str(streams), str(PORT), str(bench.seconds)
    there, here = {
        LIMIT: ([raw, "sink", "eth0", n], [raw, "source", "eth0", span, n]),
        LIMIT_UK: ([half, "read", port, n], [half, "give", "eth0", bench.lab.a.addr, port, span, n]),
        LIMIT_KU: ([half, "take", "eth0", port, n], [half, "write", bench.lab.a.addr, port, span, n]),
    }[bench.variant]
    rate, client, bytes_sent, server = map(float, bench.frames(there, here, last=True).split())
    return {"Gbit/s": rate, "CPU s/GB": (client + server) / (bytes_sent / 1e9)}


def iperf_numbers(text):
    end = json.loads(text)["end"]
    received = end["sum_received"]
    cpu = end["cpu_utilization_percent"]
    seconds = (cpu["host_total"] + cpu["remote_total"]) / 100 * received["seconds"]
    return {"Gbit/s": received["bits_per_second"] / 1e9,
            "CPU s/GB": seconds / (received["bytes"] / 1e9)}


def latency(text):
    median, p99, _ = map(float, text.split())
    return {"us": median, "p99 us": p99}


def round_trip(size, spin=0):
    def run(bench):
        if bench.limit:
            return latency(bench.raw("pong", ["ping", str(size), str(bench.seconds)]))
        bench.extra = {"TCPSHIM_SPIN": str(spin)} if spin else {}
        return latency(bench.both(lambda port: [bench.program("rtt"), port],
                                  lambda addr, port: [bench.program("rtt"), addr, port, str(size),
                                                      str(bench.seconds)]))
    return run


def sockperf(bench):
    text = bench.both(lambda port: ["sockperf", "server", "--tcp", "-p", port],
                      lambda addr, port: ["sockperf", "ping-pong", "--tcp", "-i", addr, "-p", port, "-m",
                                          "64", "-t", str(whole_seconds(bench)), "--full-rtt"])
    numbers = dict(re.findall(r"percentile (50|99)\.000 =\s*([\d.]+)", text))
    return {"us": float(numbers["50"]), "p99 us": float(numbers["99"])}


def connections(bench):
    if bench.variant == LIMIT_KU:
        server = [bench.program("half"), "serve", "eth0", str(PORT)]
        client = [bench.program("conn"), bench.lab.a.addr, str(PORT), str(bench.seconds)]
        return {"conn/s": float(bench.frames(server, client))}
    if bench.limit:
        return {"conn/s": float(bench.raw("accept", ["connect", str(bench.seconds)]))}
    text = bench.both(lambda port: [bench.program("conn"), port],
                      lambda addr, port: [bench.program("conn"), addr, port, str(bench.seconds)])
    return {"conn/s": float(text)}


def nginx(*headers):
    def run(bench):
        def server(port):
            path = f"{bench.directory}/nginx-{port}.conf"
            with open(path, "w", encoding="ascii") as file:
                file.write(f"""daemon off; master_process off; user root; pid {path}.pid;
error_log /dev/null; events {{ worker_connections 1024; }}
http {{ access_log off; sendfile on; keepalive_requests 100000000;
    client_body_temp_path {path}.b; proxy_temp_path {path}.p; fastcgi_temp_path {path}.f;
    uwsgi_temp_path {path}.u; scgi_temp_path {path}.s;
    server {{ listen {port} backlog=1024; root {bench.directory}; }} }}""")
            return ["nginx", "-p", bench.directory, "-e", "/dev/null", "-c", path]

        text = bench.both(server, lambda addr, port: ["wrk", "-t", "1", "-c", "64", "-d",
                                                      f"{whole_seconds(bench)}s", *headers,
                                                      f"http://{addr}:{port}/page"])
        return {"req/s": float(re.search(r"Requests/sec:\s*([0-9.]+)", text).group(1))}
    return run


def redis(pipeline):
    def run(bench):
        requests = round(bench.seconds * 40000 * pipeline)
        door = f"{bench.directory}/{bench.lab.a.namespace}.sock"

        def server(port):
            return ["redis-server", "--port", port, "--bind", "0.0.0.0", "--save", "", "--protected-mode", "no",
                    "--appendonly", "no", "--dir", bench.directory, "--unixsocket", door]

        def client(addr, port):
            if bench.limit and not wait_for(lambda: os.path.exists(door), 10):
                raise Failed("no unix socket")
            where = ["-s", door] if bench.limit else ["-h", addr, "-p", port]
            return ["redis-benchmark", *where, "-c", "50", "-n", str(requests), "-P", str(pipeline),
                    "-t", "set,get", "--csv"]

        text = bench.both(server, client)
        # as if half of the requests were of each kind
        per_second = [float(re.search(rf'"{kind}","([0-9.]+)"', text).group(1)) for kind in ("SET", "GET")]
        return {"req/s": 2 / sum(1 / rate for rate in per_second)}
    return run


ROUND_TRIP = {"us": asked(0.85, 0.95), "p99 us": asked(1.0, 1.0)}
SPIN = 50
SPINNING = {"us": asked(0.3, 0.6), "p99 us": asked(1.0, 1.0)}
BULK = {"Gbit/s": asked(1.3, 1.0), "CPU s/GB": asked(0.8, 1.0)}
LIMITED = PAIRS + (LIMIT,)
ALL_LIMITED = PAIRS + tuple(LIMITS.values())
ASIDE = (("a kernel with a small SO_SNDBUF", SMALL, (UK, UU)),)


def placed(measure):
    """The measure with both sides on one CPU."""
    return measure._replace(name=measure.name + "@1", what=measure.what + ", both on one CPU", place=ONE)


def measures():
    free = {m.name: m for m in (
        Measure("bulk", "iperf3, one stream", bulk(1), ALL_LIMITED + (SMALL,), BULK, None, ASIDE),
        Measure("bulk-8", "iperf3, 8 streams", bulk(8), ALL_LIMITED,
                {"Gbit/s": asked(1.2, 1.0), "CPU s/GB": asked(0.8, 1.0)}),
        Measure("rtt-1", "round trip of 1 byte", round_trip(1), LIMITED, ROUND_TRIP),
        Measure("rtt-64", "round trip of 64 bytes", round_trip(64), LIMITED, ROUND_TRIP),
        Measure("rtt-1024", "round trip of 1024 bytes", round_trip(1024), LIMITED, ROUND_TRIP),
        Measure("sockperf", "sockperf, round trip of 64 bytes", sockperf, PAIRS, ROUND_TRIP),
        Measure("connect", "connect, one request, close", connections, LIMITED + (LIMIT_KU,),
                {"conn/s": asked(1.5, 1.2)}),
        Measure("http", "nginx and wrk, 64 connections", nginx(), PAIRS, {"req/s": asked(1.2, 1.1)}),
        Measure("http-close", "the same without keep-alive", nginx("-H", "Connection: close"), PAIRS,
                {"req/s": asked(1.3, 1.1)}),
        Measure("redis", "redis-benchmark, SET and GET, 50 clients", redis(1), LIMITED,
                {"req/s": asked(1.2, 1.1)}),
        Measure("redis-16", "the same, pipeline of 16", redis(16), LIMITED,
                {"req/s": asked(1.2, 1.1)}),
    )}
    if shutil.which("sockperf") is None:
        del free["sockperf"]
    found = []
    for measure in free.values():
        found += [measure] if measure.name == "sockperf" else [measure, placed(measure)]
    for size in (1, 64, 1024) if len(CPUS) > 1 else ():
        found.append(Measure(f"spin-{size}", f"rtt-{size} with TCPSHIM_SPIN={SPIN}, a CPU for each side",
                             round_trip(size, SPIN), PAIRS, SPINNING, TWO))
    return found


__all__ = ["measures", "KK", "KU", "UU"]
