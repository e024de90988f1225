"""tcpshim diagram: ladders and plots, from traces and from captures."""

import os

from drawings import readable
from framework import case, check, equal
from samples import Wire, capture


def draw(bench, *words):
    path = os.path.join(bench.directory, "out.svg")
    bench.must("diagram", *words, "-o", path)
    with open(path, encoding="utf-8") as file:
        return file.read()


@case("diagram: a ladder with states, queues and calls of both sides")
def ladder(bench):
    client, server = Wire(1).open().data(3).close().write(bench.directory, "ladder")
    texts = readable(draw(bench, client, server), "ladder")
    for wanted in ("curl, client", "nginx, server", "SYN_SENT", "SYN_RECEIVED", "FIN_WAIT_2", "TIME_WAIT",
                   "LAST_ACK", "into SYN queue (1)", "SYN queue → accept queue (1/128)",
                   "accept queue → program (0/128)", "SYN seq 0 win 65536", "accept4(5) = 7",
                   "connect(5) …", "connect(5, 10.0.0.1:80) = 0", "third ACK of the handshake"):
        check(wanted in texts, f"{wanted!r} is not in the ladder: {texts}")
    # a call stands above what it caused
    check(texts.index("connect(5) …") <= texts.index("SYN_SENT") + 2, "connect() below SYN_SENT")
    alone = readable(draw(bench, client), "ladder of the client alone")
    check("not watched" in alone and "CLOSE_WAIT" not in alone, "one side has one side's states")


@case("diagram: no text upon another, whatever happened")
def no_overlaps(bench):
    for seed in range(12):
        wire = Wire(seed, delay=(0.0001, 0.01, 0.2)[seed % 3]).open()
        wire.data(1 + seed * 5, loss=(0, 0.05, 0.3)[seed % 3], burst=1 + seed % 17).close()
        client, server = wire.write(bench.directory, "random")
        for files in ((client, server), (client,), (server,)):
            for options in ((), ("--full",), ("--show", "all"), ("-k", "time-sequence"), ("-k", "cwnd")):
                svg = draw(bench, *options, *files)
                readable(svg, f"seed {seed}, {options}, {len(files)} files")
                if options == ("--full",) and len(files) == 2:
                    equal(svg.count("l9 9m0 -9l-9 9"), wire.lost, f"seed {seed}: crosses")
                    equal(svg.count("LOST: "), wire.lost, f"seed {seed}: lost segments")


@case("diagram: long transfers are cut short, and counted")
def elided(bench):
    client, server = Wire(7).open().data(400).close().write(bench.directory, "long")
    short, full = draw(bench, client, server), draw(bench, "--full", client, server)
    check("left out" in short and "left out" not in full, "--full")
    check(full.count("<text") > 3 * short.count("<text"), "the short one is short")
    texts = readable(short, "short")
    total = sum(int(t.split("←")[1].split()[0]) for t in texts if "←" in t)
    kept = len([t for t in texts if " len 1448" in t])
    equal(total + kept, 400, "segments shown and left out")
    part = readable(draw(bench, "--from", "20ms", "--to", "40ms", client, server), "part")
    check("SYN seq 0 win 65536" not in part and any("len 1448" in t for t in part), "--from, --to")


@case("diagram: captures, without states")
def pcap(bench):
    wire = Wire(9).open().data(60, loss=0.1).close()
    path = capture(os.path.join(bench.directory, "wire.pcap"), wire)
    texts = readable(draw(bench, path), "capture")
    check("SYN seq 0 win 65535" in texts or "SYN seq 0 win 65536" in texts, str(texts[:20]))
    check("TIME_WAIT" not in texts and "not watched" in texts, "a capture knows no states")
    check("sent again" in texts, "repeats are found by their numbers")
    for kind in ("time-sequence", "cwnd"):
        readable(draw(bench, "-k", kind, path), kind)
    with open(path, "rb") as file:
        whole = file.read()
    cut = os.path.join(bench.directory, "cut.pcap")
    for size in (0, 4, 23, 24, 30, 200, len(whole) - 3):
        with open(cut, "wb") as file:
            file.write(whole[:size])
        check(bench.tcpshim("diagram", cut, "-o", os.devnull).status in (0, 1, 3), f"cut to {size} bytes")


@case("diagram: which connection")
def choosing(bench):
    first = Wire(11).open().close()
    second = Wire(12, port=41000).open().data(5).close()
    for line in second.client.lines + second.server.lines:
        line["t"] += 5
    files = first.write(bench.directory, "first") + second.write(bench.directory, "second")
    out = bench.must("diagram", "--list", *files).out
    equal([int(l.split()[0]) for l in out.splitlines() if "→" in l], [1, 2], "--list")
    result = bench.tcpshim("diagram", *files, "-o", "-")
    check("2 connections; this is number 1" in result.err, result.err)
    readable(result.out, "standard output")
    check("10.0.0.2:41000" in bench.must("diagram", "-n", "2", *files, "-o", "-").out, "--conn 2")
    check("10.0.0.2:41000" in bench.must("diagram", "-p", "41000", *files, "-o", "-").out, "--port")
    equal(bench.tcpshim("diagram", "-n", "3", *files, "-o", "-").status, 1, "--conn 3")
    equal(bench.tcpshim("diagram", *files).status, 2, "no output")
    equal(bench.tcpshim("diagram", "-k", "circle", *files, "-o", "-").status, 2, "--kind circle")
    equal(bench.tcpshim("diagram", files[0], "-o", "/nowhere/x.svg").status, 3, "not to be written")


@case("diagram: a segment that the device cut, and a repeat of its end")
def pieces(bench):
    wire = Wire(13).open()
    client, server, t = wire.client, wire.server, wire.t
    first, second = {"opt": {"ts": [100, 1]}}, {"opt": {"ts": [112, 1]}}
    client.segment(t, "tx", "PSH,ACK", 1, 1, 1560, why="data", **first)
    client.segment(t + 0.012, "tx", "PSH,ACK", 1449, 1, 112, why="tail loss probe", **second)
    server.segment(t + 0.013, "rx", "ACK", 1, 1, 1448, **first)
    server.segment(t + 0.013, "rx", "PSH,ACK", 1449, 1, 112, **first)
    server.segment(t + 0.0131, "rx", "PSH,ACK", 1449, 1, 112, **second)
    files = wire.write(bench.directory, "pieces")
    texts = readable(draw(bench, *files), "pieces")
    equal([t for t in texts if " len " in t],
          ["PSH,ACK seq 1 ack 1 len 1560", "PSH,ACK seq 1449 ack 1 len 112"], "each sending once")
    check(not any("LOST" in t for t in texts), "nothing was lost")
