#!/usr/bin/python3
"""The kernel's TCP and the user stack side by side: the same programs, on the same veth, in turn.

Pairs are CLIENT-SERVER: K-K, U-K, K-U, U-U, with K the kernel's stack and U the user stack; the
client sends the bulk. Each round runs every variant of a measure once, so that what else the machine does
hits all of them alike, and a value counts as its ratio to the first variant's of its own round. The
table has the medians, of the ratios the spread over the rounds too, and the target.

Congestion control is CUBIC on both stacks; otherwise both have their defaults. Measures named NAME@1 have
both sides on one CPU; the others are placed by the scheduler. `limit` is what packet sockets reach that
exchange as many frames without a TCP, of redis what its programs do over a unix socket: a missed target
within a tenth of it is `at the limit`.
"""

import argparse
import concurrent.futures
import copy
import json
import os
import re
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, HERE)
import idle  # noqa: E402
import local  # noqa: E402
import lossy  # noqa: E402
import network  # noqa: E402
import plot  # noqa: E402
import report  # noqa: E402
from bench import Bench, BenchLab, Failed, known_pair  # noqa: E402
from lab import NotAllowed, require  # noqa: E402
from measure import KK, PAIRS, UU  # noqa: E402

RESULTS = os.path.join(HERE, "..", "docs", "results")
SMOKE_JOBS, SMOKE_SECONDS, SMOKE_IDLE = 6, 0.1, 100
# One of each kind.
SMOKE = ("bulk", "rtt-64", "sockperf", "connect", "http", "redis", "spin-64", "path-1", "path-through", "read",
         "start-up", "copy", "call", "lo-rtt", "lo-bulk", "idle-memory", "idle-rtt")
NO_NUMBER = (Failed, NotAllowed, RuntimeError, ValueError, KeyError, AttributeError, OSError)


def all_measures(args):
    return network.measures() + lossy.measures() + local.measures() + idle.measures(args.idle)


def measure_one(bench, measure, variant):
    """{unit: value}, empty when no number came out."""
    bench.variant, bench.place, bench.extra = variant, measure.place, {}
    try:
        with (measure.lab(bench) if measure.lab else BenchLab()) as bench.lab:
            return measure.run(bench)
    except NO_NUMBER as error:
        print(f"bench: {measure.name} {variant}: {error}", file=sys.stderr, flush=True)
        return {}


def run_round(bench, measure, variants):
    if not measure.together:
        return [measure_one(bench, measure, variant) for variant in variants]
    with concurrent.futures.ThreadPoolExecutor(len(variants)) as pool:
        return list(pool.map(lambda v: measure_one(copy.copy(bench), measure, v), variants))


def run_measure(bench, measure, variants, asked):
    """{variant: {unit: [one value a round, None where it failed]}}"""
    values = {variant: {unit: [] for unit in measure.targets} for variant in variants}
    for bench.round in range(min(asked, measure.rounds or asked)):
        for variant, got in zip(variants, run_round(bench, measure, variants)):
            for unit in measure.targets:
                values[variant][unit].append(got.get(unit))
    return values


def variants_of(measure, args):
    """What --pairs leaves of a measure's variants; it adds pairs of other libraries."""
    if not args.pairs or measure.variants[0] != KK or not has_pairs(measure):
        return measure.variants
    wanted = tuple(args.pairs)
    return wanted + tuple(v for v in measure.variants if v not in PAIRS and v not in wanted and args.extras)


def has_pairs(measure):
    return set(PAIRS) <= set(measure.variants)


def processor():
    with open("/proc/cpuinfo", encoding="utf-8") as file:
        found = re.search(r"^model name\s*: (.*)$", file.read(), re.M)
    return found.group(1) if found else os.uname().machine


def make_page(directory):
    """What nginx serves."""
    os.chmod(directory, 0o755)
    with open(os.path.join(directory, "page"), "wb") as page:
        page.write(b"x" * 1024)


def measure_all(args):
    document = {"started": time.strftime("%F %T"), "rounds": args.rounds, "seconds": args.seconds,
                "kernel": os.uname().release, "processors": os.cpu_count(), "processor": processor(),
                "measures": []}
    end = time.monotonic() + args.minutes * 60
    print(report.line(report.HEADINGS), flush=True)
    with tempfile.TemporaryDirectory(prefix="tcpshim-bench-") as directory:
        make_page(directory)
        bench = Bench(args, directory)
        for measure in all_measures(args):
            if args.only and measure.name not in args.only:
                continue
            if time.monotonic() > end:
                print(f"{measure.name}: left out, {args.minutes:g} minutes are over")
                continue
            values = run_measure(bench, measure, variants_of(measure, args), args.rounds)
            for result in report.results(measure, values):
                report.print_result(measure.name, result)
                document["measures"].append({"name": measure.name, **result})
    return document


def smoke(args):
    """Measures once, several side by side: whether numbers come out, not which."""
    with tempfile.TemporaryDirectory(prefix="tcpshim-bench-") as directory:
        make_page(directory)
        bench = Bench(args, directory)
        jobs = [(measure, variant) for measure in all_measures(args) if measure.name in SMOKE
                for variant in measure.variants
                if not has_pairs(measure) or variant == UU or variant not in PAIRS]
        with concurrent.futures.ThreadPoolExecutor(SMOKE_JOBS) as pool:
            found = list(pool.map(lambda job: measure_one(copy.copy(bench), *job), jobs))
    failed = [f"FAIL {measure.name} {variant}" for (measure, variant), got in zip(jobs, found) if not got]
    print(*failed, f"{len(jobs) - len(failed)} passed, {len(failed)} failed", sep="\n")
    return 1 if failed else 0


def write_results(document):
    os.makedirs(RESULTS, exist_ok=True)
    pictures = plot.draw_all(document, RESULTS)
    with open(os.path.join(RESULTS, "table.md"), "w", encoding="utf-8") as file:
        file.write("# `make bench`\n\n" + report.markdown(document) + "\n" +
                   "".join(f"![{name[:-4]}]({name})\n" for name in pictures))
    print(f"written: {os.path.relpath(RESULTS)}: table.md, {', '.join(pictures)}")


def arguments():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build", default="build")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=1, help="length of one measurement")
    parser.add_argument("--minutes", type=float, default=25, help="no measure begins after that")
    parser.add_argument("--idle", type=int, default=100000, metavar="N", help="idle connections")
    parser.add_argument("--pairs", nargs="+", help="of the measures that have all pairs these alone; the first "
                        "is what others are compared with")
    parser.add_argument("--extras", action="store_true", help="with --pairs: limits, too")
    parser.add_argument("--against", metavar="LIBRARY",
                        help="another libtcpshim.so, which is V in --pairs: K-K K-U K-V")
    parser.add_argument("--write", action="store_true", help="table and pictures into docs/results")
    parser.add_argument("--from", dest="source", metavar="FILE", help="those of an earlier run's bench.json")
    parser.add_argument("--smoke", action="store_true", help="only whether measures yield numbers: "
                        "N passed, N failed")
    parser.add_argument("--list", action="store_true", help="the measures")
    parser.add_argument("-k", dest="only", nargs="+", metavar="NAME", help="these measures alone")
    args = parser.parse_args()
    unknown = [pair for pair in args.pairs or () if not known_pair(pair)]
    unknown += [name for name in args.only or () if name not in [m.name for m in all_measures(args)]]
    if unknown:
        parser.error(f"unknown: {' '.join(unknown)}")
    return args


def main():
    args = arguments()
    if args.list:
        for measure in all_measures(args):
            print(f"{measure.name:16} {measure.what}")
        return 0
    if args.source:
        with open(args.source, encoding="utf-8") as file:
            write_results(json.load(file))
        return 0
    require()
    if args.smoke:
        args.seconds, args.idle = SMOKE_SECONDS, SMOKE_IDLE
        return smoke(args)
    document = measure_all(args)
    path = os.path.join(args.build, "bench.json")
    with open(path, "w", encoding="utf-8") as file:
        json.dump(document, file, indent=1)
    print(f"written: {path}")
    if args.write:
        write_results(document)
    return 0


if __name__ == "__main__":
    sys.exit(main())
