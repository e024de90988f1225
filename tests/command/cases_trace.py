"""tcpshim trace: JSON traces for people."""

import json
import os
import pty
import signal
import subprocess

from framework import case, check, equal, until
from samples import Wire


def lines_of(path):
    with open(path, encoding="utf-8") as file:
        return file.read().splitlines()


@case("trace: one line an event, within 80 columns")
def text(bench):
    wire = Wire(1).open().data(4)
    wire.server.add(wire.t, "timer", "timer-armed", timer="loss-probe", **{"in": 0.2})
    wire.server.add(wire.t, "buffer", "recv-from", bytes=700, segments=2, **{"from": [
        {"seq": 77, "seq_rel": 1, "len": 500, "of": 500}, {"seq": 577, "seq_rel": 501, "len": 200, "of": 300}]})
    client, server = wire.close().write(bench.directory, "text")
    out = bench.must("trace", client).out
    for wanted in ("== curl, process 100, 2026-11-22T08:00:00", "-- 100#1 is 10.0.0.2:40000 → 10.0.0.1:80",
                   "CLOSED → SYN_SENT  connect()", "tx     SYN seq 0 win 65536 <mss 1460, wscale 7, SACK",
                   "connect(5, 10.0.0.1:80) = 0", "FIN_WAIT_2 → TIME_WAIT"):
        check(wanted in out, f"{wanted!r} is missing in:\n{out}")
    out = bench.must("trace", server).out
    for wanted in ("timer  loss-probe: set, in 200 ms", "buffer 700 bytes out of 2 segments: 1 (500), 501 (200 of 300)",
                   "queue  into SYN queue (1)", "queue  SYN queue → accept queue (1/128)",
                   "queue  accept queue → program (0/128)", "cwnd cwnd="):
        check(wanted in out, f"{wanted!r} is missing in:\n{out}")
    for width in (80, 60, 40, 0):
        out = bench.must("trace", "-w", str(width), client, server).out
        longest = max(len(line) for line in out.splitlines() if not line.startswith(("--", "==")))
        check(width == 0 or longest <= width, f"width {width}: a line of {longest} columns")
    # whatever the width, the same words
    words = [bench.must("trace", "-w", w, client).out.split() for w in ("0", "40", "80")]
    check(words[0] == words[1] == words[2], "folding changes the text")


@case("trace: several files on one time line")
def merge(bench):
    client, server = Wire(2).open().data(30, loss=0.1).close().write(bench.directory, "merge")
    out = bench.must("trace", "-j", client, server).out
    events = [json.loads(line) for line in out.splitlines()]
    times = [e["t"] for e in events]
    equal(times, sorted(times), "times in order")
    wanted = [json.loads(line) for path in (client, server) for line in lines_of(path)]
    key = lambda o: json.dumps(o, sort_keys=True)  # noqa: E731
    equal(sorted(map(key, events)), sorted(map(key, wanted)), "each event once, as it stands in the files")


@case("trace: filters")
def filters(bench):
    client, server = Wire(3).open().data(8).close().write(bench.directory, "filter")

    def count(*options):
        return len([e for e in bench.must("trace", "-j", *options, client, server).out.splitlines()
                    if '"trace"' not in e])

    events = [json.loads(line) for path in (client, server) for line in lines_of(path)][0:]
    events = [e for e in events if e["ev"] != "trace"]
    begin = 99.9
    for options, wanted in (
            (("-c", "state,queue"), lambda e: e["class"] in ("state", "queue")),
            (("-e", "rx"), lambda e: e["ev"] == "rx"),
            (("--pid", "200"), lambda e: e["pid"] == 200),
            (("-n", "1"), lambda e: True),
            (("-n", "2"), lambda e: False),
            (("-p", "80"), lambda e: True),
            (("-p", "8"), lambda e: False),
            (("-a", "10.0.0.2"), lambda e: True),
            (("-a", "10.0.0.2:41"), lambda e: False),
            (("--from", "0.12", "--to", "140ms"), lambda e: 0.12 <= e["t"] - begin <= 0.14),
            (("-c", "segment", "-e", "tx", "--pid", "100"),
             lambda e: e["ev"] == "tx" and e["pid"] == 100)):
        equal(count(*options), sum(1 for e in events if wanted(e)), " ".join(options))
    for options in (("--from", "soon"), ("-t", "tomorrow"), ("--nonsense",)):
        equal(bench.tcpshim("trace", *options, client).status, 2, " ".join(options))


@case("trace: malformed lines are said, the rest is shown")
def malformed(bench):
    path = os.path.join(bench.directory, "malformed.json")
    good = '{"t":%d.5,"pid":1,"class":"state","ev":"state","from":"CLOSED","to":"LISTEN","conn":1,"local":"*:1"}'
    rows = [good % 1, "{", "", good % 2, "[1]", '{"t":3,"pid":1}', '{"ev":"state"}', good % 3,
            "x" * (2 << 20), '{"ev":"lost","count":7}', "\x00\xff\xfe", good % 4, '{"t":5.5,"ev":"sta']
    with open(path, "wb") as file:
        file.write("\n".join(rows).encode("latin-1"))
    result = bench.tcpshim("trace", path)
    equal(result.status, 1, "status")
    equal(result.out.count("CLOSED → LISTEN"), 4, "good lines")
    check("7 events were lost" in result.out, "what was lost is said")
    for number in (2, 5, 6, 7, 9, 11, 13):
        check(f":{number}: " in result.err, f"line {number} is not named in:\n{result.err}")
    for number in (1, 3, 4, 8, 10, 12):
        check(f":{number}: " not in result.err, f"line {number} is named in:\n{result.err}")
    equal(bench.tcpshim("trace", path + ".none").status, 3, "a file that is not there")
    equal(bench.tcpshim("trace").status, 2, "no file")


@case("trace: absurd times and numbers are shown somehow")
def absurd(bench):
    """What the fuzzer found: sums and products that do not fit."""
    path = os.path.join(bench.directory, "absurd.json")
    with open(path, "w", encoding="utf-8") as file:
        for realtime in ("1013-11-22T08:00:00.0Z", "9999-12-31T23:59:59.9Z", "2026-01-01T00:00:00.1e300Z"):
            file.write(json.dumps({"ev": "trace", "v": 1, "t": -8.9e9, "pid": 1, "cmd": "x", "realtime": realtime})
                       + "\n")
        for t in (-8.9e9, 8.9e9, 1e300, -1e300, 4.5e9, -4.5e9):
            file.write(json.dumps({"t": t, "pid": 1, "class": "cc", "ev": "rtt", "conn": 1, "local": "10.0.0.1:1",
                                   "peer": "10.0.0.2:2", "srtt": t, "rto": t, "sample": t, "bytes": t,
                                   "other": t}) + "\n")
    command = os.path.join(bench.build, "asan", "tcpshim")
    command = command if os.path.exists(command) else bench.command
    for time in ("relative", "delta", "clock", "wall"):
        result = bench.run(command, "trace", "-t", time, path, env={"ASAN_OPTIONS": "detect_leaks=0"})
        check("runtime error" not in result.err and "rtt" in result.out, result.err[-2000:])


@case("trace: names in a trace do not steer the terminal")
def hostile(bench):
    path = os.path.join(bench.directory, "hostile.json")
    evil = "\x1b[2J\x07\x7f"
    with open(path, "w", encoding="utf-8") as file:
        file.write(json.dumps({"ev": "trace", "v": 1, "t": 1, "pid": 1, "cmd": evil}) + "\n")
        file.write(json.dumps({"t": 2, "pid": 1, "class": evil, "ev": evil, "local": evil, "conn": 1,
                               "why": evil, "other": evil, evil: 1}) + "\n")
    out = bench.must("trace", path).out
    check(not any(ord(c) < 32 and c != "\n" or ord(c) == 127 for c in out), repr(out))


def on_terminal(bench, env, *argv):
    """What the command writes to a terminal of 80 columns."""
    import fcntl
    import struct
    import termios
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    process = subprocess.Popen([bench.command, *argv], stdin=subprocess.DEVNULL, stdout=theirs,
                               stderr=subprocess.DEVNULL, env=bench.environment(env))
    os.close(theirs)
    out = b""
    while True:
        try:
            piece = os.read(ours, 65536)
        except OSError:
            break
        if not piece:
            break
        out += piece
    os.close(ours)
    equal(process.wait(), 0, "status")
    return out.decode()


@case("trace: colours on a terminal only, and not against NO_COLOR")
def colours(bench):
    client, _ = Wire(4).open().close().write(bench.directory, "colour")
    check("\x1b[" in on_terminal(bench, {"TERM": "xterm"}, "trace", client), "no colours on a terminal")
    check("\x1b" not in on_terminal(bench, {"TERM": "xterm", "NO_COLOR": "1"}, "trace", client), "NO_COLOR")
    check("\x1b" not in on_terminal(bench, {"TERM": "dumb"}, "trace", client), "TERM=dumb")
    check("\x1b" not in bench.must("trace", client, env={"TERM": "xterm"}).out, "colours in a pipe")


@case("trace: -f follows files that grow")
def follow(bench):
    rows = lines_of(Wire(5).open().close().write(bench.directory, "follow")[0])
    path = os.path.join(bench.directory, "growing.json")
    with open(path, "w", encoding="utf-8") as file:
        file.write("\n".join(rows[:5]) + "\n")
    process = bench.start(bench.command, "trace", "-f", "-j", path)
    got = [json.loads(process.stdout.readline()) for _ in range(5)]
    with open(path, "a", encoding="utf-8") as file:
        file.write(rows[5][:20])
        file.flush()
        os.utime(path)
        file.write(rows[5][20:] + "\n")
        file.flush()
        got.append(json.loads(process.stdout.readline()))
        file.write("\n".join(rows[6:]) + "\n")
        file.flush()
        got += [json.loads(process.stdout.readline()) for _ in rows[6:]]
    equal(got, [json.loads(r) for r in rows], "lines")
    process.send_signal(signal.SIGINT)
    until(lambda: process.poll() is not None, "its end")
    equal(process.returncode, 0, "status after SIGINT")


LIMITED = r"""
#include <arpa/inet.h>
#include <stdio.h>
#include <sys/resource.h>
#include <sys/socket.h>
int main(int argc, char **argv)
{
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(9), .sin_addr = {inet_addr("10.77.0.2")}};
    struct rlimit none = {0, 0};
    for (int i = 0; i < 2; i++) { /* the first opens the file */
        connect(socket(AF_INET, SOCK_STREAM, 0), (struct sockaddr *)&to, sizeof(to));
        if (argc > 1 && setrlimit(RLIMIT_FSIZE, &none) != 0)
            return 1;
    }
    fprintf(stderr, "%s lives\n", argv[0] + (argc > 100));
    return 0;
}
"""


@case("trace: a program that may write no files is not killed for its trace", needs=("gcc",))
def limited(bench):
    program = bench.compile("limited", LIMITED)
    lab = bench.lab()
    path = os.path.join(bench.directory, "limited.json")
    for words in ((), ("limit",)):
        result = bench.tcpshim("run", "--lab", f"{lab}/a", "--trace", "all", "--trace-file", path, "--", program,
                               *words)
        check("lives" in result.err, f"status {result.status}, {result.err}")
    # a limit that the program is born with
    result = bench.tcpshim("lab", "exec", f"{lab}/a", "--", "prlimit", "--fsize=0", bench.command, "run", "--trace",
                           "all", "--trace-file", path, "--", program)
    check("lives" in result.err, f"status {result.status}, {result.err}")
