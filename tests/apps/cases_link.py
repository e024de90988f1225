"""TCPSHIM_PCAP, read by tshark and by libpcap, and TCPSHIM_IMPAIR under checksummed transfers."""

import collections
import ctypes
import glob
import os
import re
import subprocess

from cases_http import start_nginx, stop_nginx, url
from framework import PROGRAMS, PYTHON, Failed, case

PORT = 9000
SEGMENT = re.compile(r" (tx|rx) ([A-Z,]+|none) seq (?:\d+ \()?(\d+)\)?.* len (\d+)")
IMPAIRED = re.compile(r" impaired +(\S+) (in|out) (\S+) seq .* len (\d+) +rule: (.*)")
# What tshark calls an error; its notes on retransmissions and full windows are the connection's.
ERRORS = ("_ws.malformed || _ws.expert.severity >= 8388608 || tcp.checksum.status == 0 || "
          "ip.checksum.status == 0 || tcp.analysis.ack_lost_segment || tcp.analysis.lost_segment")


def tshark(run, path, display, *fields):
    """The fields of the packets that match, as rows; fails where tshark has a warning."""
    run.deadline += 10  # tshark takes seconds to start on a busy machine
    argv = ["tshark", "-r", path, "-o", "tcp.check_checksum:TRUE", "-o", "ip.check_checksum:TRUE",
            "-o", "tcp.relative_sequence_numbers:FALSE", "-T", "fields"]
    for field in fields:
        argv += ["-e", field]
    done = subprocess.run(argv + ["-Y", display], capture_output=True, text=True, timeout=run.time_left(),
                          env=dict(os.environ, HOME=run.directory))
    said = [l for l in done.stderr.splitlines() if "Running as user" not in l]
    run.check(done.returncode == 0 and not said, f"tshark: {done.returncode} {said[:2]}")
    return [line.split("\t") for line in done.stdout.splitlines()]


def pcap_of(run, process):
    """The one capture of a process and its family."""
    found = sorted(glob.glob(process.log + ".*.pcap"))
    run.check(len(found) == 1, f"{process.role}: captures {found}")
    return found[0]


def capturing(run, role, trace="state,segment"):
    return {"TCPSHIM_TRACE": trace, "TCPSHIM_PCAP": run.path(f"{len(run.processes)}-{role}.%p.pcap")}


def packets_of_trace(text):
    """Segments of a trace: how often each is there."""
    count = collections.Counter()
    for line in text.splitlines():
        match = SEGMENT.search(line)
        if match:
            direction, flags, seq, length = match.groups()
            count[direction, frozenset(flags.split(",")), int(seq), int(length)] += 1
    return count


def packets_of_pcap(run, path, address):
    rows = tshark(run, path, "tcp", "ip.src", "tcp.flags", "tcp.seq_raw", "tcp.len")
    names = ("FIN", "SYN", "RST", "PSH", "ACK", "URG", "ECE", "CWR")
    count = collections.Counter()
    for source, flags, seq, length in rows:
        words = frozenset(n for i, n in enumerate(names) if int(flags, 16) >> i & 1)
        count["tx" if source == address else "rx", words, int(seq), int(length)] += 1
    return count


def check_capture(run, process, address):
    """Right in all checksums, and the very segments of the trace."""
    path = pcap_of(run, process)
    bad = tshark(run, path, ERRORS, "frame.number", "_ws.expert.message")
    run.check(not bad, f"{process.role}: tshark finds errors: {bad[:3]}")
    wanted, found = packets_of_trace(process.trace()), packets_of_pcap(run, path, address)
    run.check(sum(wanted.values()) > 5, f"{process.role}: the trace has no segments")
    run.check(found == wanted, f"{process.role}: trace and capture differ: {list((wanted - found).items())[:3]} "
                               f"{list((found - wanted).items())[:3]}")
    return path, found


def check_whole(run, found):
    """Handshake, data and both FINs are there."""
    flags = collections.Counter(flag for (_, words, _, _), n in found.items() for flag in words for _ in range(n))
    run.check(flags["SYN"] >= 2 and flags["FIN"] >= 2 and not flags["RST"], f"flags: {dict(flags)}")


def libpcap_reads(path):
    """Packets that libpcap finds; it must not complain at the end."""
    lib = ctypes.CDLL("libpcap.so.0.8")
    error = ctypes.create_string_buffer(256)
    lib.pcap_open_offline_with_tstamp_precision.restype = ctypes.c_void_p
    handle = lib.pcap_open_offline_with_tstamp_precision(path.encode(), 1, error)
    if not handle:
        raise Failed(f"libpcap: {error.value.decode()}")
    header, data = ctypes.c_void_p(), ctypes.c_void_p()
    count, result = 0, 1
    while result == 1:
        result = lib.pcap_next_ex(ctypes.c_void_p(handle), ctypes.byref(header), ctypes.byref(data))
        count += result == 1
    lib.pcap_close(ctypes.c_void_p(handle))
    if result != -2:
        raise Failed(f"libpcap ends with {result} after {count} packets")
    return count


@case("pcap", sizes=("1M",), needs=("tshark", "nc"), kernel=False)
def pcap(run):
    """Both directions of a transfer, to the last ACK, which the keeper sees."""
    server = run.server(["nc", "-N", "-l", PORT], PORT, stdin=run.file(), shim=capturing(run, "server"))
    client = run.client(["nc", "-d", run.server_addr, PORT], same=run.file(), shim=capturing(run, "client"))
    server.wait()
    run.settle()
    for process, host in ((server, run.lab.a), (client, run.lab.b)):
        if process.user:
            path, found = check_capture(run, process, host.addr)
            check_whole(run, found)
            arp = len(tshark(run, path, "arp", "frame.number"))
            run.check(libpcap_reads(path) == sum(found.values()) + arp, "libpcap finds another number")


@case("pcap-loopback", pairings=("U-",), sizes=("1M",), needs=("tshark",), kernel=False)
def pcap_loopback(run):
    """What passes inside the stack is there as well, each segment once."""
    client = run.client([PYTHON, f"{PROGRAMS}/loopback.py", run.file()],
                        shim={"TCPSHIM_LOOPBACK": "user", **capturing(run, "client")})
    path = pcap_of(run, client)
    bad = tshark(run, path, ERRORS, "frame.number", "_ws.expert.message")
    run.check(not bad, f"tshark finds errors: {bad[:3]}")
    sent = collections.Counter({segment: n for segment, n in packets_of_trace(client.trace()).items()
                                if segment[0] == "tx"})
    found = packets_of_pcap(run, path, "127.0.0.1")
    run.check(sum(sent.values()) > 5 and found == sent, f"{sum(sent.values())} sent, {sum(found.values())} found")
    check_whole(run, found)


@case("pcap-fork", pairings=("KU",), sizes=("1M",), needs=("tshark", "curl", "nginx"), kernel=False)
def pcap_fork(run):
    """Several processes, one file: nothing lost, nothing doubled."""
    run.data.path("1M")
    server = start_nginx(run, shim=capturing(run, "server"))
    script = f'for i in 1 2 3 4 5 6; do curl -sS --fail {url(run, path="/1M")} | sha256sum & done; wait'
    client = run.client(["sh", "-c", script])
    run.check(len(set(client.stdout().split("\n")[:6])) == 1, "the digests differ")
    run.settle()
    stop_nginx(run, server)
    _, found = check_capture(run, server, run.server_addr)
    check_whole(run, found)


@case("pcap-full-disk", pairings=("UK",), sizes=("1M",), needs=("tshark", "nc", "unshare"), kernel=False)
def pcap_full_disk(run):
    """The transfer goes on, one line says what is missing, the file holds whole packets."""
    disk = run.path("disk")
    os.mkdir(disk)
    server = run.server(["nc", "-N", "-l", PORT], PORT, stdin=run.file())
    script = (f"mount -t tmpfs -o size=64k none {disk} || exit 9; "
              f"TCPSHIM_PCAP={disk}/c.pcap LD_PRELOAD={run.library} nc -d {run.server_addr} {PORT}; "
              f"code=$?; cp {disk}/c.pcap {run.path('c.pcap')}; exit $code")
    client = run.start("client", ["unshare", "-m", "sh", "-c", script], run.client_host, False,
                       same=run.file())
    client.wait()
    server.wait()
    said = [l for l in client.stderr().splitlines() if "tcpshim:" in l]
    run.check(len(said) == 1 and "ENOSPC" in said[0], f"said: {said}")
    rows = tshark(run, run.path("c.pcap"), "tcp", "tcp.flags.syn")
    run.check(rows[:2] == [["1"], ["1"]], f"the capture begins with {rows[:2]}")
    run.check(libpcap_reads(run.path("c.pcap")) >= len(rows), "libpcap finds fewer packets")


@case("pcap-appends", pairings=("UK",), sizes=("1B",), needs=("tshark", "curl", "nginx"), kernel=False)
def pcap_appends(run):
    """One name for many programs; a file that is no capture is left alone."""
    server = start_nginx(run)
    one, other = run.path("one.pcap"), run.write("other.txt", "precious, and longer than a header of a capture\n")
    get = f'curl -sS --fail -o /dev/null {url(run, path="/1B")}'
    run.client(["sh", "-c", f"{get}; {get} & {get}; wait"], shim={"TCPSHIM_PCAP": one})
    run.settle()
    syns = tshark(run, one, "tcp.flags.syn == 1", "tcp.srcport")
    run.check(len(syns) == 6, f"{len(syns)} SYNs of three connections")
    client = run.client(["sh", "-c", get], shim={"TCPSHIM_PCAP": other})
    client.complains = True
    run.check("no capture of tcpshim" in client.stderr(), "no word of the wrong file")
    with open(other, encoding="ascii") as file:
        run.check(file.read().startswith("precious"), "the file was overwritten")
    stop_nginx(run, server)


# ---- impairment ----

def impaired(process):
    """What was done: [(what, in or out, flags, length, rule)]."""
    return [m.groups() for m in map(IMPAIRED.search, process.trace().splitlines()) if m]


def impair(rules, trace="state,link"):
    return {"TCPSHIM_IMPAIR": rules, "TCPSHIM_TRACE": trace}


@case("impair", sizes=("loss", "delay", "damage"), needs=("nc",), kernel=False)
def impair_transfer(run):
    """What arrives is whole, whatever happens to it on the way; the trace says what was done."""
    rules = {"loss": "drop=1%,reorder=2%,dup=1%,seed=5",
             "delay": "delay=5ms,jitter=2ms,rate=100M,drop=0.3%,seed=9",
             "damage": "corrupt=1%,seed=3"}[run.size]
    done = {"loss": {"drop", "reorder", "dup"}, "delay": {"delay", "drop"}, "damage": {"corrupt"}}[run.size]
    data = run.data.path("1M")
    before = {host.name: host.snmp() for host in run.lab.hosts}
    # What is late may meet a connection that is over: that is answered. Never by the kernel of the server's host,
    # whose connection stays in TIME_WAIT; the client's is gone with its program.
    run.resets_allowed = {"a", "b"}
    server = run.server(["nc", "-N", "-l", PORT], PORT, stdin=data, shim=impair(rules))
    client = run.client(["nc", "-d", run.server_addr, PORT], same=data, shim=impair(rules))
    server.wait()
    for process in (server, client):
        if process.user:
            what = {row[0] for row in impaired(process)}
            run.check(what <= done and (what == done or process is client), f"{process.role}: {what}, not {done}")
    if server.user:
        run.check(run.lab.a.snmp()["OutRsts"] == before["a"]["OutRsts"], "the server's kernel sent resets")
    if run.size == "damage" and run.pairing != "UU":
        # the kernel at the other end must have seen wrong checksums
        host = run.lab.a if run.pairing == "UK" else run.lab.b
        wrong = host.snmp()["InCsumErrors"] - before[host.name]["InCsumErrors"]
        sent = sum(row[0] == "corrupt" and row[1] == "out" for row in impaired(client if run.pairing == "UK" else server))
        run.check(wrong == sent, f"{sent} segments were damaged, the kernel found {wrong}")


@case("impair-rules", pairings=("UK",), sizes=("syn-ack", "fin", "ack", "rst", "zero-window", "bad"), needs=("nc",),
      kernel=False)
def impair_rules(run):
    """One thing on purpose."""
    data = run.data.path("1M")
    rules = {"syn-ack": "drop syn-ack 1", "fin": "drop out fin, drop in fin 2nd retransmit", "ack": "delay out ack 20ms",
             "rst": "rst after 256K", "zero-window": "zero-window out 300ms after 64K", "bad": "drop syn-akc 1"}[run.size]
    if run.size == "fin":
        rules = "drop out fin 1-2"
    if run.size in ("rst", "bad", "ack"):  # late ACKs of a connection that is over are answered
        run.resets_allowed = {"a", "b"}
    server = run.server(["nc", "-N", "-l", PORT], PORT, stdin=data)
    whole = run.size not in ("rst", "bad")
    client = run.client(["nc", "-d", run.server_addr, PORT], same=data if whole else None, codes=(0,) if whole else (0, 1),
                        shim=impair(rules, "state,segment,link"), engine=run.size != "bad")
    if run.size == "bad":
        client.complains = True
        said = [l for l in client.stderr().splitlines() if "tcpshim:" in l]
        run.check(len(said) == 1 and '"syn-akc"' in said[0], f"said: {said}")
        run.client(["nc", "-d", run.server_addr, PORT], user=False, same=data)
        server.wait()
        return
    server.wait(codes=(0, 1))
    run.settle()
    did = impaired(client)
    trace = client.trace()
    if run.size == "syn-ack":
        run.check([d[:3] for d in did] == [("drop", "in", "SYN,ACK")], f"{did}")
        # the server repeats its SYN-ACK after a second, the client its SYN: either may be first
        run.check(trace.count(" tx SYN ") in (1, 2) and " rx SYN,ACK " in trace, "nothing was repeated")
    elif run.size == "fin":
        run.check([d[:2] for d in did] == [("drop", "out")] * 2 and all("FIN" in d[2] for d in did), f"{did}")
        run.check(len(re.findall(r" tx (?:PSH,)?FIN", trace)) == 3, "the FIN was not sent three times")
    elif run.size == "ack":
        run.check(did and {d[:2] for d in did} == {("delay", "out")}, f"{did[:3]}")
    elif run.size == "rst":
        run.check([d[0] for d in did] == ["rst"] and " rx " in trace and "RST" in trace, f"{did}")
        run.check("ESTABLISHED -> CLOSED" in trace, "the RST did not end it")
        with open(client.log + ".out", "rb") as out:
            got = len(out.read())
        run.check(0 < got <= 256 << 10, f"{got} bytes passed")
    else:
        run.check(len(did) >= 2 and {d[0] for d in did} == {"zero-window"}, f"{did[:3]}")


@case("impair-seed", pairings=("UK",), sizes=("7",), kernel=False)
def impair_seed(run):
    """One question at a time: the same segments meet the same fate in every run."""
    server = run.server([PYTHON, f"{PROGRAMS}/threads_server.py", PORT], PORT)
    seen = []
    for seed in (7, 7, 8):
        client = run.client([PYTHON, f"{PROGRAMS}/pingpong.py", run.server_addr, PORT, 40],
                            shim=impair(f"dup out data 20%,delay in data 10% 1ms,drop out data 4%,seed={seed}"))
        seen.append([row for row in impaired(client)])
    run.check(seen[0], "nothing was impaired")
    run.check(seen[0] == seen[1], f"one seed, two courses: {seen[0]} {seen[1]}")
    run.check([r[:4] for r in seen[0]] != [r[:4] for r in seen[2]], "another seed, the same course")
    server.stop()


@case("impair-keeper", pairings=("UK",), sizes=("-",), needs=("nc",), kernel=False)
def impair_keeper(run):
    """What is held back when the program ends still goes out: the keeper lets it go."""
    wanted = run.write("wanted", "0123456789abcdef" * 512)
    server = run.server(["nc", "-d", "-l", PORT], PORT, same=wanted)
    client = run.client([PYTHON, f"{PROGRAMS}/hasty.py", "connect", "return", run.server_addr, PORT, wanted],
                        shim=dict(impair("delay=300ms"), TCPSHIM_PCAP=run.path("k.pcap")))
    server.wait()
    run.settle()
    run.check(client.trace().count("impaired  delay out") >= 3, "nothing was delayed")
