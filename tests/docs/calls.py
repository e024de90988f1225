#!/usr/bin/python3
"""docs/calls.md: what each call of the socket API does, with traces of programs that stand in the document itself.

    calls.py --build DIR            runs every program of the document: the traces must be the document's
    calls.py --build DIR --write    ... and puts the new traces in where they are not
    calls.py --build DIR -k WORD --show     runs those scenarios and prints their traces

The document is its own source: prose and programs are edited there, only the blocks of traces are written by this
script. A scenario begins with `<!-- run NAME OPTION=VALUE... -->`; behind it come its programs (```python ROLE) and
its trace (```text trace). A role whose name begins with "server" runs on host a (10.77.0.1), any other on host b.

    show=WORDS    besides state and call: queue, tx, rx, held, buffer, timer, link, rule
    win, options, acks    also in show: windows, TCP options; acknowledgments that carry nothing else are compared, too
    hide=WORDS    of state, call, queue, tx
    from=TEXT to=TEXT     the trace begins with the first line that contains it, ends with the last one
    ROLE.VARIABLE=VALUE     a variable of the environment of that role (ROLE.plain=1: the kernel's stack)
    lab=WORDS     options of `tcpshim lab up`
    until=WORD    the scenario goes on after its programs until a line of the trace contains WORD
    wait=SECONDS  or for so long

Compared are, for each host, the sequence of calls with their results, states, queues, segments with flags and lengths,
and what the programs and the onlooker saw; not times, ports, pids, and what the scheduler decides (bare ACKs).
Each scenario runs in a pid namespace of its own with a laboratory of its own. Ends with `N passed, N failed, N skipped`.
"""

import argparse
import concurrent.futures
import glob
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import threading
import time

sys.dont_write_bytecode = True
HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
sys.path.insert(0, HERE)
sys.path.insert(0, os.path.join(ROOT, "tests", "lab"))
from calls_render import agree, laid_out, normal, rendered  # noqa: E402
from lab import require, wait_for  # noqa: E402

DOCUMENT = os.path.join(ROOT, "docs", "calls.md")
ATTEMPTS = 3  # a busy machine may change what a run shows; something broken shows in each
LIMIT = 40    # seconds of one scenario
# All laboratories are called "lab": each scenario sees its own alone.
APART = 'mkdir -p /run/tcpshim && mount -t tmpfs -o mode=700 none /run/tcpshim && exec "$@"'
RUN = re.compile(r"<!-- run (\S+)(.*?)-->", re.S)
BLOCK = re.compile(r"^```(python (\S+)|text trace)\n(.*?)^```$", re.S | re.M)


class Scenario:
    """One of the document's: its options, its programs, and where its trace stands."""

    def __init__(self, match, text, end):
        self.name = match.group(1)
        self.options = dict(word.partition("=")[::2] for word in shlex.split(match.group(2)))
        self.programs = []  # (role, source)
        self.trace, self.span = "", None
        for block in BLOCK.finditer(text, match.end(), end):
            if block.group(2):
                self.programs.append((block.group(2), block.group(3)))
            else:
                self.trace, self.span = block.group(3), block.span(3)

    def environment(self, role):
        start = role + "."
        return {k[len(start):]: v for k, v in self.options.items() if k.startswith(start)}


def scenarios(text):
    starts = list(RUN.finditer(text))
    ends = [match.start() for match in starts[1:]] + [len(text)]
    return [Scenario(match, text, end) for match, end in zip(starts, ends)]


# ---- one scenario, inside its pid namespace ----

class Player:
    def __init__(self, scenario, build, directory):
        self.scenario, self.build, self.directory = scenario, build, directory
        self.said = []  # (time, role, text): of programs and the onlooker
        self.lock = threading.Lock()
        self.env = dict(os.environ, PATH=build + ":" + os.environ["PATH"], XDG_RUNTIME_DIR=directory,
                        TCPSHIM_LAB="lab", NO_COLOR="1", COLUMNS="100")
        for name in [n for n in self.env if n.startswith("TCPSHIM_") or n == "LD_PRELOAD"]:
            del self.env[name]

    def start(self, role, source):
        own = self.scenario.environment(role)
        env = {"PYTHONPATH": os.path.join(HERE, "programs"), "LESSON": "1", "PYTHONDONTWRITEBYTECODE": "1"}
        if not own.pop("plain", ""):
            env.update({"LD_PRELOAD": os.path.join(self.build, "libtcpshim.so"), "TCPSHIM_TRACE": "all",
                        "TCPSHIM_TRACE_FORMAT": "json",
                        "TCPSHIM_TRACE_FILE": f"{self.directory}/{role}.%p.json"})
        env.update(own)
        host = "a" if role.startswith("server") else "b"
        program = subprocess.Popen(
            ["tcpshim", "lab", "exec", f"lab/{host}", "--", "env"] + [f"{k}={v}" for k, v in env.items()] +
            ["/usr/bin/python3", "-c", source],
            env=self.env, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        program.role = role
        program.readers = [threading.Thread(target=self.listen, args=(program,)),
                           threading.Thread(target=self.complaints, args=(program,))]
        for reader in program.readers:
            reader.start()
        return program

    def complaints(self, program):
        for line in program.stderr:
            with self.lock:
                self.said.append((time.monotonic(), program.role, "stderr: " + line.rstrip()))

    def listen(self, program):
        for line in program.stdout:
            stamp, _, text = line.rstrip("\n").partition(" ")
            with self.lock:
                if not text.startswith("$ "):
                    self.said.append((float(stamp), program.role, "said " + text))
                    continue
                shown = subprocess.run(text[2:], shell=True, env=self.env, text=True, stdin=subprocess.DEVNULL,
                                       capture_output=True)
                output = [text] + (shown.stdout + shown.stderr).splitlines()
                self.said.append((float(stamp), "", "\n".join(output)))
            try:
                program.stdin.write("\n")
                program.stdin.flush()
            except OSError:
                pass

    def listens(self, role):
        return any('"to":"LISTEN"' in line for path in glob.glob(f"{self.directory}/{role}.*.json")
                   for line in open(path, encoding="utf-8"))

    def seen(self, word):
        return any(word in open(path, encoding="utf-8").read() for path in glob.glob(f"{self.directory}/*.json"))

    def play(self):
        subprocess.run(["tcpshim", "lab", "up"] + shlex.split(self.scenario.options.get("lab", "")) + ["lab"],
                       env=self.env, check=True, stdout=subprocess.DEVNULL)
        running = []
        for role, source in self.scenario.programs:
            program = self.start(role, source)
            running.append(program)
            if role.startswith("server"):
                wait_for(lambda: self.listens(role) or program.poll() is not None, 10)
        end = time.monotonic() + LIMIT
        for program in running:
            program.wait(max(0.1, end - time.monotonic()))
            for reader in program.readers:
                reader.join(5)
        until = self.scenario.options.get("until")
        if until:
            wait_for(lambda: self.seen(until), 15, 0.05)
        time.sleep(float(self.scenario.options.get("wait", 0.3)))
        with open(f"{self.directory}/said", "w", encoding="utf-8") as file:
            json.dump(self.said, file)


# ---- all of them ----

def check_schema(directory):
    """The traces are what docs/trace.schema.json says: the first line of each event, and every tenth."""
    import jsonschema
    with open(os.path.join(ROOT, "docs", "trace.schema.json"), encoding="utf-8") as file:
        validator = jsonschema.Draft202012Validator(json.load(file))
    seen = set()
    for path in glob.glob(f"{directory}/*.json"):
        for number, raw in enumerate(open(path, encoding="utf-8")):
            event = json.loads(raw)
            if event["ev"] in seen and number % 10:
                continue
            seen.add(event["ev"])
            wrong = next(validator.iter_errors(event), None)
            if wrong:
                raise RuntimeError(f"against the schema: {raw.strip()}: {wrong.message}")



def play(scenario, build):
    """Runs it apart; returns its lines [(time, column, text)]."""
    directory = tempfile.mkdtemp(prefix=f"tcpshim-calls-{os.getpid()}-")
    try:
        done = subprocess.run(
            ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc", "sh", "-c", APART, "sh", sys.executable,
             os.path.abspath(__file__), "--build", build, "--play", scenario.name, "--directory", directory],
            stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=LIMIT + 30)
        if done.returncode:
            raise RuntimeError(f"ended with {done.returncode}: {done.stderr.strip()}")
        check_schema(directory)
        return rendered(directory, scenario)
    except subprocess.TimeoutExpired:
        raise RuntimeError("did not end") from None
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def first_difference(old, new):
    for column in sorted(set(old) | set(new)):
        before, now = old.get(column, []), new.get(column, [])
        for i in range(max(len(before), len(now))):
            pair = [lines[i] if i < len(lines) else "(the end)" for lines in (before, now)]
            if pair[0] != pair[1]:
                return f"{column or 'onlooker'}, line {i + 1}: document: {pair[0]!r}, now: {pair[1]!r}"
    return "nothing"


def compare(scenario, build, writes):
    """(fits, the new trace or None, what differs). Writing wants two runs that agree."""
    old, seen, said = scenario.trace, [], ""
    for _ in range(ATTEMPTS + 2 * writes):
        try:
            text = "".join(line + "\n" for line in laid_out(play(scenario, build)))
        except RuntimeError as error:
            said = str(error)
            continue
        if agree(old, text, scenario):
            return True, None, ""
        said = first_difference(normal(old, scenario), normal(text, scenario))
        if writes and any(agree(text, other, scenario) for other in seen):
            return True, text, ""
        seen.append(text)
    if writes and len(seen) > 1:
        said = "two runs differ: " + first_difference(normal(seen[-1], scenario), normal(seen[-2], scenario))
    return False, seen[-1] if seen else None, said


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--build", default="build")
    parser.add_argument("--write", action="store_true")
    parser.add_argument("-k", default="", help="only scenarios whose name contains this")
    parser.add_argument("-j", type=int, default=6, help="so many at once (they sleep)")
    parser.add_argument("--show", action="store_true", help="run once and print the traces")
    parser.add_argument("--play", help=argparse.SUPPRESS)
    parser.add_argument("--directory", help=argparse.SUPPRESS)
    options = parser.parse_args()
    build = os.path.abspath(options.build)
    with open(DOCUMENT, encoding="utf-8") as file:
        text = file.read()
    found = scenarios(text)
    if options.play:
        Player(next(s for s in found if s.name == options.play), build, options.directory).play()
        return 0
    require()
    chosen = [s for s in found if options.k in s.name]
    if options.show:
        for scenario in chosen:
            print(f"== {scenario.name}", *laid_out(play(scenario, build)), sep="\n")
        return 0
    with concurrent.futures.ThreadPoolExecutor(max_workers=options.j) as pool:
        results = list(pool.map(lambda s: compare(s, build, options.write), chosen))
    failed = 0
    for scenario, (fits, new, difference) in zip(chosen, results):
        failed += not fits
        print(f"{'ok  ' if fits else 'FAIL'} {scenario.name}{'' if fits else ': ' + difference}"
              f"{': new trace' if fits and new else ''}")
        if not fits and new and not options.write:
            print(new)
    if options.write:
        for scenario, (fits, new, _) in sorted(zip(chosen, results), key=lambda pair: -pair[0].span[0]):
            if fits and new:
                text = text[:scenario.span[0]] + new + text[scenario.span[1]:]
        with open(DOCUMENT, "w", encoding="utf-8") as file:
            file.write(text)
    elif failed:
        print("calls: where the new traces are right: make docs-calls")
    print(f"calls: {len(chosen) - failed} passed, {failed} failed, 0 skipped")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
