#!/usr/bin/python3
"""The kernel's TCP and the user stack side by side: the same programs, on the same veth, in turn.

Pairs are CLIENT-SERVER: K-K, U-K, K-U, U-U, with K the kernel's stack and U the user stack; the
client sends the bulk. Each round runs every pair once, so that what else the machine does hits all
of them alike, and a value counts as its ratio to K-K of its own round. The table has the medians,
of the ratios the spread over the rounds too, and the target.

Congestion control is CUBIC on both stacks; otherwise both have their defaults.
"""

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "..", "tests", "lab"))
from lab import Lab, end_group, require, wait_for  # noqa: E402  (the path above comes first)

PORT = 8000
PAIRS = ("K-K", "U-K", "K-U", "U-U")


class Bench:
    """What a measure needs: it starts one server, runs one client and returns numbers by name."""

    def __init__(self, args, directory):
        self.lab = None  # a new one for each measurement: what an earlier one left behind is gone
        self.build = os.path.abspath(args.build)
        self.seconds = args.seconds
        self.directory = directory
        self.libraries = {"U": os.path.join(self.build, "libtcpshim.so"),
                          "K": self.program("cubic.so")}
        if args.against:
            self.libraries["V"] = os.path.abspath(args.against)
        self.pair = None

    def program(self, name):
        return os.path.join(self.build, "bench", name)

    def _env(self, side):
        return {"LD_PRELOAD": self.libraries[side]}

    def server(self, make_argv):
        """make_argv(port) in host a, once it listens."""
        process = self.lab.popen(self.lab.a, make_argv(str(PORT)), self._env(self.pair[2]),
                                 stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        if not wait_for(lambda: self.lab.a.kernel_listens(PORT), 10):
            raise RuntimeError("the server does not listen")
        return process

    def client(self, make_argv):
        """make_argv(address, port) in host b; its standard output."""
        argv = make_argv(self.lab.a.addr, str(PORT))
        process = self.lab.popen(self.lab.b, argv, self._env(self.pair[0]),
                                 stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        try:
            text, _ = process.communicate(timeout=self.seconds + 30)
        except subprocess.TimeoutExpired:
            raise RuntimeError(f"{argv[0]} does not end") from None
        finally:
            end_group(process)
        if process.returncode != 0:
            raise RuntimeError(f"{argv[0]}: {text.strip().splitlines()[-1:]}")
        return text

    def both(self, server, client):
        process = self.server(server)
        try:
            return self.client(client)
        finally:
            end_group(process)


# ---- the measures ----


def bulk(bench, streams):
    seconds = str(max(1, round(bench.seconds)))
    text = bench.both(lambda port: ["iperf3", "-s", "-1", "-p", port],
                      lambda addr, port: ["iperf3", "-c", addr, "-p", port, "-J", "-P", str(streams),
                                          "-t", seconds])
    end = json.loads(text)["end"]
    received = end["sum_received"]
    cpu = end["cpu_utilization_percent"]
    seconds = (cpu["host_total"] + cpu["remote_total"]) / 100 * received["seconds"]
    return {"Gbit/s": received["bits_per_second"] / 1e9,
            "CPU s/GB": seconds / (received["bytes"] / 1e9)}


def round_trip(bench, size):
    text = bench.both(lambda port: [bench.program("rtt"), port],
                      lambda addr, port: [bench.program("rtt"), addr, port, str(size),
                                          str(bench.seconds)])
    median, p99, _ = map(float, text.split())
    return {"us": median, "p99 us": p99}


def connections(bench):
    text = bench.both(lambda port: [bench.program("conn"), port],
                      lambda addr, port: [bench.program("conn"), addr, port, str(bench.seconds)])
    return {"conn/s": float(text)}


def nginx(bench, headers):
    def server(port):
        path = os.path.join(bench.directory, f"nginx-{port}.conf")
        with open(path, "w", encoding="ascii") as file:
            file.write(f"""daemon off; master_process off; user root; pid {path}.pid;
error_log /dev/null; events {{ worker_connections 1024; }}
http {{ access_log off; sendfile on; keepalive_requests 100000000;
    client_body_temp_path {path}.b; proxy_temp_path {path}.p; fastcgi_temp_path {path}.f;
    uwsgi_temp_path {path}.u; scgi_temp_path {path}.s;
    server {{ listen {port} backlog=1024; root {bench.directory}; }} }}""")
        return ["nginx", "-p", bench.directory, "-e", "/dev/null", "-c", path]

    text = bench.both(server,
                      lambda addr, port: ["wrk", "-t", "1", "-c", "64", "-d",
                                          f"{max(1, round(bench.seconds))}s", *headers,
                                          f"http://{addr}:{port}/page"])
    return {"req/s": float(re.search(r"Requests/sec:\s*([0-9.]+)", text).group(1))}


def redis(bench, pipeline):
    requests = round(bench.seconds * 40000 * min(pipeline, 8))
    text = bench.both(lambda port: ["redis-server", "--port", port, "--bind", "0.0.0.0", "--save", "",
                                    "--protected-mode", "no", "--appendonly", "no",
                                    "--dir", bench.directory],
                      lambda addr, port: ["redis-benchmark", "-h", addr, "-p", port, "-c", "50",
                                          "-n", str(requests), "-P", str(pipeline), "-t", "get",
                                          "--csv"])
    return {"req/s": float(re.search(r'"GET","([0-9.]+)"', text).group(1))}


# name, function, its arguments, and for each number that it gives the targets of U-U and of U-K and
# K-U as a ratio to K-K (at least where more is better, at most where less is).
MEASURES = (
    ("bulk", bulk, (1,), {"Gbit/s": (1.3, 1.0), "CPU s/GB": (0.8, 1.0)}),
    ("bulk-8", bulk, (8,), {"Gbit/s": (1.2, 1.0)}),
    ("rtt-1", round_trip, (1,), {"us": (0.85, 0.95), "p99 us": (1.0, 1.0)}),
    ("rtt-64", round_trip, (64,), {"us": (0.85, 0.95), "p99 us": (1.0, 1.0)}),
    ("rtt-1024", round_trip, (1024,), {"us": (0.85, 0.95), "p99 us": (1.0, 1.0)}),
    ("connect", connections, (), {"conn/s": (1.5, 1.2)}),
    ("http", nginx, ((),), {"req/s": (1.2, 1.1)}),
    ("http-close", nginx, (("-H", "Connection: close"),), {"req/s": (1.3, 1.1)}),
    ("redis", redis, (1,), {"req/s": (1.2, 1.1)}),
    ("redis-16", redis, (16,), {"req/s": (1.2, 1.1)}),
)
LESS_IS_BETTER = ("CPU s/GB", "us", "p99 us")


def run_measure(bench, measure, pairs, rounds):
    """{pair: {number's name: [one value a round, None where it failed]}}"""
    name, function, arguments, targets = measure
    values = {pair: {unit: [] for unit in targets} for pair in pairs}
    for _ in range(rounds):
        for pair in pairs:
            bench.pair = pair
            try:
                with Lab() as bench.lab:
                    got = function(bench, *arguments)
            except (RuntimeError, ValueError, KeyError, AttributeError) as error:
                print(f"bench: {name} {pair}: {error}", file=sys.stderr)
                got = {}
            for unit in targets:
                values[pair][unit].append(got.get(unit))
    return values


def summarize(values, pairs, unit):
    """{pair: {"median", and but for K-K "ratio", "low", "high"}} of one number."""
    base = values[pairs[0]][unit]
    rows = {}
    for pair in pairs:
        known = [v for v in values[pair][unit] if v is not None]
        if not known:
            rows[pair] = None
            continue
        rows[pair] = {"median": statistics.median(known)}
        ratios = [v / b for v, b in zip(values[pair][unit], base) if v is not None and b]
        if pair != pairs[0] and ratios:
            rows[pair].update(ratio=statistics.median(ratios), low=min(ratios), high=max(ratios))
    return rows


def target_of(pair, targets):
    return targets[0] if pair[0] == pair[2] else targets[1]


def print_rows(name, unit, rows, targets):
    number = (lambda v: f"{v:,.0f}") if rows and any(r and r["median"] >= 1000 for r in rows.values()) \
        else (lambda v: f"{v:.2f}")
    for pair, row in rows.items():
        line = f"{name:<11} {unit:<9} {pair:<4}"
        if row is None:
            print(line + "     failed")
            continue
        line += f" {number(row['median']):>10}"
        if "ratio" in row:
            target = target_of(pair, targets)
            less = unit in LESS_IS_BETTER
            met = row["ratio"] <= target if less else row["ratio"] >= target
            line += f"  {row['ratio']:5.2f} x [{row['low']:.2f} .. {row['high']:.2f}]"
            line += f"  {'<=' if less else '>='} {target:.2f}  {'met' if met else 'missed'}"
        print(line)
    sys.stdout.flush()


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build", default="build")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=2, help="length of one measurement")
    parser.add_argument("--pairs", nargs="+", default=PAIRS, help="the first is what others are "
                        "compared with")
    parser.add_argument("--against", metavar="LIBRARY",
                        help="another libtcpshim.so, which is V in --pairs: K-K K-U K-V")
    parser.add_argument("-k", dest="only", nargs="+", metavar="NAME", help="these measures alone: "
                        + " ".join(m[0] for m in MEASURES))
    args = parser.parse_args()
    require()
    result = {"started": time.strftime("%F %T"), "rounds": args.rounds, "seconds": args.seconds,
              "kernel": os.uname().release, "processors": os.cpu_count(), "measures": []}
    print(f"{'measure':<11} {'unit':<9} {'pair':<4} {'median':>10}  ratio to {args.pairs[0]} "
          f"[spread], target; {args.rounds} rounds of {args.seconds:g} s")
    with tempfile.TemporaryDirectory(prefix="tcpshim-bench-") as directory:
        os.chmod(directory, 0o755)
        with open(os.path.join(directory, "page"), "wb") as page:
            page.write(b"x" * 1024)
        bench = Bench(args, directory)
        for measure in MEASURES:
            if args.only and measure[0] not in args.only:
                continue
            values = run_measure(bench, measure, args.pairs, args.rounds)
            for unit, targets in measure[3].items():
                rows = summarize(values, args.pairs, unit)
                print_rows(measure[0], unit, rows, targets)
                result["measures"].append({"name": measure[0], "unit": unit, "rows": rows,
                                           "values": {p: values[p][unit] for p in args.pairs}})
    path = os.path.join(args.build, "bench.json")
    with open(path, "w", encoding="utf-8") as file:
        json.dump(result, file, indent=1)
    print(f"written: {path}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
