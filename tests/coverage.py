#!/usr/bin/python3
"""Runs the engine's tests in a build with --coverage and prints, for each file of stack/, how many of its
lines they reach, and which not. The target is 95 % of all.
"""

import argparse
import glob
import json
import os
import subprocess
import sys

TARGET = 95.0
PROGRAMS = (("unit",), ("unit_ip",), ("packet",), ("sim", "--seeds", "2000"), ("sim", "--rates"), ("explore",))


def spans(numbers):
    """[1, 2, 3, 7] as "1-3 7"."""
    found = []
    for number in sorted(numbers):
        if found and found[-1][1] == number - 1:
            found[-1][1] = number
        else:
            found.append([number, number])
    return " ".join(str(a) if a == b else f"{a}-{b}" for a, b in found)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--build", default="build/coverage")
    options = parser.parse_args()
    build = os.path.abspath(options.build)
    for data in glob.glob(f"{build}/**/*.gcda", recursive=True):
        os.unlink(data)
    for program, *words in PROGRAMS:
        ended = subprocess.run([f"{build}/asan/{program}", *words], stdin=subprocess.DEVNULL,
                               stdout=subprocess.DEVNULL)
        if ended.returncode != 0:
            print(f"coverage: {program} ended with {ended.returncode}", file=sys.stderr)
            return 1
    lines = {}  # file: {line: times}
    notes = sorted(glob.glob(f"{build}/asan/stack/**/*.gcno", recursive=True))
    output = subprocess.run(["gcov", "--json-format", "--stdout", *notes], stdin=subprocess.DEVNULL,
                            stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=True).stdout
    for text in output.splitlines():
        for file in json.loads(text)["files"]:
            if file["file"].startswith("stack/"):
                known = lines.setdefault(file["file"], {})
                for line in file["lines"]:
                    known[line["line_number"]] = known.get(line["line_number"], 0) + line["count"]
    total = reached = 0
    for name, known in sorted(lines.items()):
        missed = [number for number, times in known.items() if not times]
        total += len(known)
        reached += len(known) - len(missed)
        print(f"{100 * (1 - len(missed) / len(known)):6.1f} %  {name:32} {spans(missed)}")
    print(f"{100 * reached / total:6.1f} %  of {total} lines (target {TARGET:.0f} %)")
    return 0


if __name__ == "__main__":
    sys.exit(main())
