#!/usr/bin/python3
"""Runs the libFuzzer targets: the inputs of tests/fuzz/corpus, then new ones for some seconds each.

    run.py --build DIR [--seconds N] [TARGET...]

What a run learns stays in DIR/fuzz/corpus and is the next one's beginning; an input that a target does
not survive is DIR/fuzz/TARGET-crash-... and makes the count of failures.
"""

import argparse
import glob
import os
import re
import subprocess
import sys

HERE = os.path.dirname(os.path.abspath(__file__))


def fuzz(build, name, seconds):
    """True: nothing was found."""
    learned = os.path.join(build, "fuzz", "corpus", name)
    os.makedirs(learned, exist_ok=True)
    argv = [os.path.join(build, "fuzz", name), f"-max_total_time={seconds}", "-timeout=10", "-rss_limit_mb=2048",
            "-print_final_stats=1", "-max_len=4096", "-len_control=0", f"-artifact_prefix={build}/fuzz/{name}-", learned]
    seeds = os.path.join(HERE, "corpus", name)
    if os.path.isdir(seeds):
        argv.append(seeds)
    ended = subprocess.run(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                           timeout=seconds + 300)
    output = ended.stdout.decode("utf-8", "replace")
    runs = re.search(r"stat::number_of_executed_units: *(\d+)", output)
    runs = runs.group(1) if runs else "?"
    print(f"{'ok' if ended.returncode == 0 else 'FAIL':4} {name}: {runs} inputs", flush=True)
    if ended.returncode != 0:
        print(output[-6000:], flush=True)
    return ended.returncode == 0


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--build", default="build")
    parser.add_argument("--seconds", type=int, default=60)
    parser.add_argument("target", nargs="*")
    options = parser.parse_args()
    build = os.path.abspath(options.build)
    names = sorted(os.path.basename(p)[:-2] for p in glob.glob(f"{HERE}/fuzz_*.c"))
    results = [os.path.exists(f"{build}/fuzz/{name}") and fuzz(build, name, options.seconds)
               for name in names if not options.target or name in options.target]
    print(f"fuzz: {sum(results)} passed, {len(results) - sum(results)} failed, 0 skipped")
    return 0 if results and all(results) else 1


if __name__ == "__main__":
    sys.exit(main())
