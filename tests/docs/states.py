#!/usr/bin/python3
"""docs/states.md: how each state and each transition of RFC 9293 figure 5 is reached with nc.

    states.py --build DIR --write     runs every scenario and writes the document
    states.py --build DIR             runs every scenario: the transitions must come, and must be the document's

The stack under test is host b of a laboratory (10.77.0.2), its peer the kernel's on host a (10.77.0.1).
Ends with `N passed, N failed, N skipped`.
"""

import argparse
import concurrent.futures
import glob
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time

sys.dont_write_bytecode = True
HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
sys.path.insert(0, os.path.join(ROOT, "tests", "lab"))
from lab import Lab, end_group, require, wait_for  # noqa: E402

DOCUMENT = os.path.join(ROOT, "docs", "states.md")
MOVE = re.compile(r" state +(\S+) -> (\S+)(?:  (.*))?$")
QUEUED = re.compile(r" (syn-queued|syn-dropped)\b")

INTRO = """# Every state of a connection, on purpose

How to walk each arrow of RFC 9293 figure 5 with `nc` (with a few lines of python where nc cannot), and what the trace shows. *Here* is
the host with tcpshim (10.77.0.2), *peer* any other machine (10.77.0.1, the kernel's stack in these runs; `tcpshim lab` makes such a
pair). Commands of the peer come first where it listens. Each command here stands behind

    TCPSHIM_TRACE=state,queue,segment,link TCPSHIM_IMPAIR='...' LD_PRELOAD=libtcpshim.so

with the rule that is named, if one is. `TCPSHIM_IMPAIR` holds back or loses just the segment that matters (README.md).
SYN_RECEIVED behind a listener is an entry of its SYN queue: `syn-queued` is LISTEN -> SYN_RECEIVED.
Made by `make docs` from `tests/docs/states.py`; `make check` runs it all again and compares.
"""


class Scenario:
    def __init__(self, name, title, arrows, here, peer, rule="", peer_first=True, after=0.2, limit=8, queue=()):
        self.name, self.title, self.arrows = name, title, arrows
        self.here, self.peer, self.rule = here, peer, rule
        self.peer_first, self.after, self.limit, self.queue = peer_first, after, limit, queue


PY_CLOSE = """python3 -c '
import socket, time
s = socket.socket(); s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
s.bind(("", 5000)); s.setblocking(False); s.connect_ex(("10.77.0.1", 5000))
time.sleep(0.6); s.close(); time.sleep(1)'"""
PY_TIME_WAIT = """python3 -c '
import socket, time
s = socket.create_connection(("10.77.0.1", 9000)); s.close()
time.sleep(62)'"""
PY_RESET = """python3 -c '
import socket, struct, time
s = socket.create_connection(("10.77.0.2", 9000))
s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0)); time.sleep(0.2); s.close()'"""

SCENARIOS = [
    Scenario("active", "Active open, active close",
             ["CLOSED -> SYN_SENT", "SYN_SENT -> ESTABLISHED", "ESTABLISHED -> FIN_WAIT_1",
              "FIN_WAIT_1 -> FIN_WAIT_2", "FIN_WAIT_2 -> TIME_WAIT"],
             "nc -N 10.77.0.1 9000 < /dev/null", "sleep 0.6 | nc -N -l 9000"),
    Scenario("passive-close", "The peer closes first",
             ["ESTABLISHED -> CLOSE_WAIT", "CLOSE_WAIT -> LAST_ACK", "LAST_ACK -> CLOSED"],
             "nc -d 10.77.0.1 9000", "nc -N -l 9000 < /dev/null"),
    Scenario("passive-open", "Passive open",
             ["CLOSED -> LISTEN", "SYN_RECEIVED -> ESTABLISHED", "LISTEN -> CLOSED"],
             "nc -d -l 9000", "nc -N 10.77.0.2 9000 < /dev/null", peer_first=False, queue=("syn-queued",)),
    Scenario("closing", "Both close at the same time: CLOSING. The FIN from here is held back until the peer has sent its own",
             ["ESTABLISHED -> FIN_WAIT_1", "FIN_WAIT_1 -> CLOSING", "CLOSING -> TIME_WAIT"],
             "nc -N 10.77.0.1 9000 < /dev/null", "sleep 0.6 | nc -N -l 9000", rule="delay out fin 1s"),
    Scenario("fin-with-ack", "FIN and the ACK of ours in one segment: two steps at once (note 2 of the figure). The ACK alone is lost",
             ["FIN_WAIT_1 -> FIN_WAIT_2", "FIN_WAIT_2 -> TIME_WAIT"],
             "nc -N 10.77.0.1 9000 < /dev/null", "nc -d -l 9000", rule="drop in ack"),
    Scenario("simultaneous-open", "Simultaneous open. The SYN from here is held back until the peer's has come",
             ["SYN_SENT -> SYN_RECEIVED", "SYN_RECEIVED -> ESTABLISHED"],
             "sleep 1.5 | nc -N -p 5000 10.77.0.1 5000", "nc -d -p 5000 10.77.0.2 5000", rule="delay out syn 1s",
             peer_first=False),
    Scenario("close-in-syn-received", "close() before the handshake is over: the ACK that would end it is lost",
             ["SYN_SENT -> SYN_RECEIVED", "SYN_RECEIVED -> FIN_WAIT_1"],
             PY_CLOSE, "nc -d -p 5000 10.77.0.2 5000", rule="delay out syn 3s, drop in ack 1", peer_first=False),
    Scenario("close-in-syn-sent", "close() while nobody answers",
             ["CLOSED -> SYN_SENT", "SYN_SENT -> CLOSED"],
             "nc -w 1 10.77.0.1 9000", "true", rule="drop out syn"),
    Scenario("reset-in-syn-received", "RST for a half-open entry: back to LISTEN. The third ACK is lost, then the peer resets",
             ["CLOSED -> LISTEN"],
             "timeout 5 nc -d -l 9000", PY_RESET, rule="drop in ack 1", peer_first=False,
             queue=("syn-queued", "syn-dropped")),
    Scenario("time-wait", "The end of TIME_WAIT, after 60 s as on Linux",
             ["TIME_WAIT -> CLOSED"],
             PY_TIME_WAIT, "nc -d -l 9000", limit=75),
]

# The arrows of the figure but for one (ABSENT); SYN_RECEIVED of a listener is an entry of its SYN queue.
FIGURE = ["CLOSED -> LISTEN", "CLOSED -> SYN_SENT", "LISTEN -> CLOSED", "LISTEN -> SYN_RECEIVED", "SYN_SENT -> CLOSED",
          "SYN_SENT -> SYN_RECEIVED", "SYN_SENT -> ESTABLISHED", "SYN_RECEIVED -> LISTEN", "SYN_RECEIVED -> ESTABLISHED",
          "SYN_RECEIVED -> FIN_WAIT_1",
          "ESTABLISHED -> FIN_WAIT_1", "ESTABLISHED -> CLOSE_WAIT",
          "FIN_WAIT_1 -> FIN_WAIT_2", "FIN_WAIT_1 -> CLOSING", "FIN_WAIT_2 -> TIME_WAIT",
          "CLOSING -> TIME_WAIT", "CLOSE_WAIT -> LAST_ACK", "LAST_ACK -> CLOSED", "TIME_WAIT -> CLOSED"]
ABSENT = """## An arrow that is not there

* `LISTEN -> SYN_SENT` (SEND on a listener): sockets do not offer it, `connect()` on a listening socket fails.
"""
QUEUE_ARROWS = {"syn-queued": "LISTEN -> SYN_RECEIVED", "syn-dropped": "SYN_RECEIVED -> LISTEN"}


def play(scenario, library):
    """Runs a scenario; returns its trace."""
    directory = tempfile.mkdtemp(prefix="tcpshim-states-")
    with Lab() as lab:
        env = {"LD_PRELOAD": library, "TCPSHIM_TRACE": "state,queue,segment,link",
               "TCPSHIM_TRACE_FILE": f"{directory}/%p.trace"}
        if scenario.rule:
            env["TCPSHIM_IMPAIR"] = scenario.rule
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}

        def text():
            lines = []
            for path in sorted(glob.glob(f"{directory}/*.trace")):
                with open(path, encoding="utf-8", errors="replace") as file:
                    lines += file.read().splitlines()
            return lines

        def start(here):
            if here:
                return lab.popen(lab.b, ["sh", "-c", scenario.here], env=env, **quiet)
            return lab.popen(lab.a, ["sh", "-c", scenario.peer], **quiet)

        first = start(not scenario.peer_first)
        if scenario.peer_first:
            wait_for(lambda: lab.a.kernel_listens(9000) or first.poll() is not None, 3)
        else:
            wait_for(lambda: any(" -> LISTEN" in l or " tx SYN" in l for l in text()), 5)
            time.sleep(scenario.after)
        second = start(scenario.peer_first)
        try:
            wait_for(lambda: not missing(scenario, text()), scenario.limit, 0.05)
        finally:
            end_group(first)
            end_group(second)
            lines = text()
            shutil.rmtree(directory, ignore_errors=True)
    return lines


def moves(lines):
    """The arrows of a trace, in order."""
    found = []
    for line in lines:
        match = MOVE.search(line)
        if match:
            found.append(f"{match.group(1)} -> {match.group(2)}")
        match = QUEUED.search(line)
        if match:
            found.append(QUEUE_ARROWS[match.group(1)])
    return found


def wanted(scenario):
    return scenario.arrows + [QUEUE_ARROWS[word] for word in scenario.queue]


def missing(scenario, lines):
    seen = moves(lines)
    return [arrow for arrow in wanted(scenario) if arrow not in seen]


def indented(text):
    return "\n".join("    " + line for line in text.splitlines())


def chapter(scenario, lines):
    shown = [line if len(line) <= 400 else line[:397] + "..." for line in lines]
    text = [f"## {scenario.title}", "", "Shows " + ", ".join(f"`{a}`" for a in wanted(scenario)) + ".", ""]
    both = [("peer", scenario.peer), ("here", scenario.here)]
    for who, command in both if scenario.peer_first else reversed(both):
        if command == "true":
            continue
        rule = f" under `TCPSHIM_IMPAIR='{scenario.rule}'`" if who == "here" and scenario.rule else ""
        text += [f"{who.capitalize()}{rule}:", "", indented(command), ""]
    text += ["What happens here:", "", indented("\n".join(shown)), ""]
    return "\n".join(text)


def write(results):
    text = [INTRO]
    for scenario, lines in results:
        text.append(chapter(scenario, lines))
    text.append(ABSENT)
    with open(DOCUMENT, "w", encoding="utf-8") as file:
        file.write("\n".join(text))


def chapters():
    """The document's: title -> (text in front of the trace, trace)."""
    found = {}
    with open(DOCUMENT, encoding="utf-8") as file:
        for part in file.read().split("\n## ")[1:]:
            title, _, rest = part.partition("\n")
            front, _, trace = rest.partition("What happens here:")
            found[title] = (front.strip(), trace.splitlines())
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--build", default="build")
    parser.add_argument("--write", action="store_true")
    parser.add_argument("-k", default="", help="only scenarios whose name contains this")
    parser.add_argument("--show", action="store_true", help="print the traces")
    options = parser.parse_args()
    require()
    library = os.path.abspath(os.path.join(options.build, "libtcpshim.so"))
    chosen = [s for s in SCENARIOS if options.k in s.name]
    # the longest first, all at once: they sleep most of the time
    with concurrent.futures.ThreadPoolExecutor(max_workers=4) as pool:
        order = sorted(chosen, key=lambda s: -s.limit)
        jobs = {s.name: pool.submit(play, s, library) for s in order}
        results = [(s, jobs[s.name].result()) for s in chosen]
    failed = 0
    for scenario, lines in results:
        lacks = missing(scenario, lines)
        failed += bool(lacks)
        print(f"{'FAIL' if lacks else 'ok'}   {scenario.name}{'  lacks ' + ', '.join(lacks) if lacks else ''}")
        if lacks or options.show:
            print(indented("\n".join(lines)))
    passed = len(results) - failed
    if not options.k:
        uncovered = set(FIGURE) - {arrow for s in SCENARIOS for arrow in wanted(s)}
        if uncovered:
            print(f"FAIL arrows of the figure that no scenario shows: {sorted(uncovered)}")
        failed += bool(uncovered)
        passed += not uncovered
    if options.write and not failed:
        write(results)
    elif not options.write:
        document = chapters()
        for scenario, _ in results:
            front, trace = document.get(scenario.title, ("", []))
            want = chapter(scenario, []).partition("\n")[2].partition("What happens here:")[0].strip()
            fits = front == want and not missing(scenario, trace)
            print(f"{'ok' if fits else 'FAIL'}   docs/states.md: {scenario.name}{'' if fits else ': run make docs'}")
            passed += fits
            failed += not fits
    print(f"states: {passed} passed, {failed} failed, 0 skipped")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
