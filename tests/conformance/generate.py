#!/usr/bin/python3
"""docs/conformance.md: what the RFCs demand (requirements.txt), which test shows it, with what result.

--check runs the tests and compares nothing with the document but its requirements: it fails when a test is
missing or fails, or when the document was not made from requirements.txt and differs.txt as they are.
"""

import argparse
import os
import re
import subprocess
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
HERE = os.path.dirname(os.path.abspath(__file__))
SOURCE = os.path.join(HERE, "requirements.txt")
DIFFERS = os.path.join(ROOT, "tests/packetdrill/differs.txt")
SUITES = os.path.join(HERE, "suites.txt")
DOCUMENT = os.path.join(ROOT, "docs/conformance.md")

HEAD = """# Conformance

Made by `make docs` from `tests/conformance/requirements.txt`; `make check` runs every test that is named here.
Tests: a plain name is one of `tests/packet` (`build/asan/packet NAME`), `unit:NAME` a suite of `tests/unit`,
`explore` the state exploration (`build/asan/explore`).
"""


def read_requirements():
    """[(title, [(id, text, [tests], note)], [line of prose])]"""
    sections = []
    with open(SOURCE) as source:
        for number, line in enumerate(source, 1):
            line = line.strip()
            if not line or line.startswith("#"):
                continue
            if line.startswith("="):
                sections.append((line[1:].strip(), [], []))
                continue
            if line.startswith(">"):
                sections[-1][2].append(line[1:].strip())
                continue
            parts = [part.strip() for part in line.split("|")]
            if len(parts) != 3:
                sys.exit(f"requirements.txt:{number}: not `ID | requirement | tests`")
            proof, _, note = parts[2].partition(";")
            if re.match(r"(absent|differs|api):", proof):
                proof, note = "", proof
            sections[-1][1].append((parts[0], parts[1], proof.split(), note.strip()))
    return sections


def run(argv, environment=None):
    return subprocess.run(argv, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                          env=dict(os.environ, **(environment or {}))).returncode == 0


class Tests:
    """Runs each test once, all of tests/packet in one go where all pass."""

    def __init__(self, build, wanted):
        self.build = build
        listed = subprocess.run([f"{build}/asan/packet", "-l"], stdout=subprocess.PIPE, text=True, check=True).stdout
        self.packet = {line.split()[0] for line in listed.splitlines() if line}
        names = sorted(name for name in wanted if name in self.packet)
        self.passed = {name: True for name in names} if run([f"{build}/asan/packet", *names]) else {}

    def result(self, name):
        """True, False, or None: no such test."""
        if name not in self.passed:
            self.passed[name] = self.find(name)
        return self.passed[name]

    def find(self, name):
        if name in self.packet:
            return run([f"{self.build}/asan/packet", name])
        if name.startswith("unit:"):
            suite = name[5:]
            if not os.path.exists(f"{ROOT}/tests/unit/test_{suite}.c"):
                return None
            program = "unit_ip" if self.in_ip(suite) else "unit"
            return run([f"{self.build}/asan/{program}"], {"CK_RUN_SUITE": suite})
        if name in ("explore", "sim"):
            return os.path.exists(f"{self.build}/asan/{name}")  # a suite of its own in make check
        return None

    @staticmethod
    def in_ip(suite):
        with open(f"{ROOT}/tests/unit/suites.h") as source:
            text = source.read().replace("\\\n", " ")
        line = next(row for row in text.splitlines() if "define UNIT_IP_SUITES" in row)
        return f"X({suite})" in line


def read_differs():
    rows = []
    with open(DIFFERS) as source:
        for line in source:
            if line.strip() and not line.startswith("#"):
                pattern, reason = line.split(None, 1)
                rows.append((pattern, reason.strip()))
    return rows


def write_document(sections, results):
    out = [HEAD]
    shown = absent = 0
    body = []
    for title, rows, prose in sections:
        body.append(f"\n## {title}\n\n| | requirement | test | result |\n|---|---|---|---|")
        for number, text, tests, note in rows:
            result = "passes" if tests and all(results(name) for name in tests) else "fails" if tests else ""
            if note:
                result = f"{result}; {note}" if result else note
            shown += bool(tests)
            absent += note.startswith("absent")
            body.append(f"| {number} | {text} | {', '.join(f'`{name}`' for name in tests)} | {result} |")
        if prose:
            body += ["", *prose]
    total = sum(len(rows) for _, rows, _ in sections)
    out.append(f"{total} requirements: {shown} shown by tests, {absent} of features that are absent, "
               f"{total - shown - absent} that the sockets API or Linux's choice settles.")
    out += body
    out.append("\n## packetdrill\n\nThe public suites, run by `tests/packetdrill/run.py` (IPv4):\n")
    with open(SUITES) as source:
        out.append(source.read().rstrip())
    out.append("\nScripts that are not expected to pass (`tests/packetdrill/differs.txt`):\n\n| scripts | why |\n|---|---|")
    for pattern, reason in read_differs():
        cell = pattern.replace("|", "\\|")
        out.append(f"| `{cell}` | {reason} |")
    return "\n".join(out) + "\n"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--build", default="build")
    parser.add_argument("--check", action="store_true")
    options = parser.parse_args()
    sections = read_requirements()
    wanted = {name for _, rows, _ in sections for row in rows for name in row[2]}
    tests = Tests(os.path.abspath(options.build), wanted)
    bad = 0
    for title, rows, _ in sections:
        for number, text, names, note in rows:
            if not names and not note:
                print(f"{title}, {number}: no test: {text}")
                bad += 1
            for name in names:
                result = tests.result(name)
                if not result:
                    print(f"{title}, {number}: {name}: {'fails' if result is False else 'no such test'}")
                    bad += 1
    document = write_document(sections, tests.result)
    if options.check:
        with open(DOCUMENT) as source:
            if not bad and source.read() != document:
                print("docs/conformance.md is out of date: make docs")
                bad += 1
        print(f"conformance: {len(wanted) - bad if bad < len(wanted) else 0} passed, {bad} failed")
    else:
        with open(DOCUMENT, "w") as out:
            out.write(document)
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
