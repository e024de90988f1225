"""tcpshim ss: what it shows of live programs is what these say of themselves."""

import json
import os
import random
import re
import subprocess

from framework import PYTHON, Skipped, case, check, equal, until

# A program of sockets that does as it is told on stdin, one Python statement a line.
PUPPET = """
import json, socket, struct, sys, time, os
s = socket
def info(c):
    raw = c.getsockopt(6, 11, 256)
    head = struct.unpack_from('8B', raw)
    names = ('rto ato snd_mss rcv_mss unacked sacked lost retrans fackets last_data_sent last_ack_sent '
             'last_data_recv last_ack_recv pmtu rcv_ssthresh rtt rttvar snd_ssthresh snd_cwnd advmss '
             'reordering rcv_rtt rcv_space total_retrans').split()
    d = dict(zip(names, struct.unpack_from('24I', raw, 8)))
    d['state'] = head[0]
    d['bytes_acked'], d['bytes_received'] = struct.unpack_from('2Q', raw, 120)
    d['segs_out'], d['segs_in'], d['notsent_bytes'], d['min_rtt'], d['data_segs_in'], d['data_segs_out'] = (
        struct.unpack_from('6I', raw, 136))
    d['bytes_sent'], d['bytes_retrans'] = struct.unpack_from('2Q', raw, 200)
    return d
print('ready', flush=True)
for line in sys.stdin:
    try:
        exec(line, globals())
        print('ok', flush=True)
    except Exception as e:
        print('error', repr(e), flush=True)
"""


class Puppet:
    def __init__(self, b, *words, user=False):
        self.process = b.start(b.command, *words, "--", PYTHON, "-u", "-c", PUPPET, user=user,
                               stdin=subprocess.PIPE)
        equal(self.process.stdout.readline(), "ready\n", "the puppet")

    def __call__(self, statement):
        self.process.stdin.write(statement + "\n")
        self.process.stdin.flush()
        lines = []
        while True:
            line = self.process.stdout.readline()
            check(line and not line.startswith("error"), f"{statement}: {line}")
            if line == "ok\n":
                return "".join(lines)
            lines.append(line)

    @property
    def pid(self):
        return self.process.pid


def sockets(b, *words, **options):
    result = b.tcpshim("ss", "--json", *words, **options)
    check(result.status in (0, 1), result.err)
    return [s for stack in result.json["stacks"] for s in stack["sockets"]]


def of(b, puppet, *words, **options):
    return sockets(b, "--pid", str(puppet.pid), *words, **options)


def pair(b, lab, user=False):
    """A server on a and a client on b, both under tcpshim, connected."""
    server = Puppet(b, "run", "--lab", f"{lab}/a", user=user)
    client = Puppet(b, "run", "--lab", f"{lab}/b", user=user)
    server("l = s.socket(); l.setsockopt(1, 2, 1); l.bind(('', 6000)); l.listen(3)")
    client("c = s.create_connection(('10.77.0.1', 6000))")
    server("c, who = l.accept()")
    return server, client


@case("ss/tcp-info")
def tcp_info(b):
    """Every number that TCP_INFO has, too, on both sides of a quiet connection."""
    lab = b.lab("--delay", "5ms")
    server, client = pair(b, lab)
    client("c.sendall(b'x' * 60000)")
    server("n = 0")
    server("exec('while n < 60000: n += len(c.recv(65536))', globals())")
    server("c.sendall(b'y' * 5000)")
    client("c.recv(5000, s.MSG_WAITALL)")
    client("time.sleep(0.4)")  # delayed ACKs are over
    for puppet, number in ((client, 0), (server, 1)):
        info = json.loads(puppet("print(json.dumps(info(c)))"))
        shown = [k for k in of(b, puppet) if k["state"] == "ESTABLISHED"]
        equal(len(shown), 1, "connections of the puppet")
        shown = shown[0]
        for name in ("snd_mss", "rcv_mss", "advmss", "pmtu", "snd_cwnd", "snd_ssthresh", "total_retrans",
                     "bytes_acked", "bytes_received", "bytes_sent", "segs_in", "segs_out", "data_segs_in",
                     "data_segs_out", "notsent_bytes", "unacked", "sacked", "lost", "retrans"):
            equal(shown[name], info[name], f"{name} of {('client', 'server')[number]}")
        for name in ("rtt", "rttvar", "rto", "min_rtt"):
            equal(int(shown[name] * 1e6 + 1e-3), info[name], name)
        check(0 <= shown["last_data_sent"] * 1000 - info["last_data_sent"] < 5000, "last_data_sent")
        check(shown["rtt"] >= 0.010, f"rtt of a link of 10 ms: {shown['rtt']}")
        equal(shown["users"], [{"pid": puppet.pid, "fd": int(puppet("print(c.fileno())")),
                                "name": shown["users"][0]["name"]}], "the holder")
        equal(shown["congestion"], "cubic", "congestion control")
    local = client("print('%s:%d' % c.getsockname())").strip()
    equal(of(b, client)[0]["local"], local, "local address")
    equal(of(b, client)[0]["peer"], "10.77.0.1:6000", "peer")


@case("ss/queues")
def queues(b):
    lab = b.lab()
    server, client = pair(b, lab)
    client("c.sendall(b'x' * 5000)")
    until(lambda: [k for k in of(b, server, "-s", "established") if k["recvq"] == 5000],
          "5000 bytes in the receive queue")
    # two that nobody accepts
    client("d = s.create_connection(('10.77.0.1', 6000)); e = s.create_connection(('10.77.0.1', 6000))")
    listener = until(lambda: [k for k in of(b, server, "--listening") if k["accept_queue"] == 2],
                     "two in the accept queue")[0]
    equal((listener["local"], listener["recvq"], listener["sendq"], listener["backlog"],
           listener["syn_queue"]), ("*:6000", 2, 3, 3, 0), "the listener")
    waiting = [k for k in sockets(b, "--port", "6000", "-s", "established") if k.get("unaccepted")]
    equal(len(waiting), 2, "connections that wait in the accept queue")
    check("in the accept queue" in b.must("ss", "--port", "6000").out, "the text says so")
    # a SYN-ACK that does not arrive leaves a half-open entry
    b.must("lab", "set", "--loss", "100%", f"{lab}/b")
    client("f = s.socket(); f.setblocking(False); f.connect_ex(('10.77.0.1', 6000))")
    half = until(lambda: [k for k in sockets(b, "--port", "6000", "-s", "syn-recv")], "a half-open entry")
    check("syn-ack" in half[0]["timers"] and half[0]["timers"]["syn-ack"] <= 32, half[0]["timers"])
    equal(of(b, server, "-l")[0]["syn_queue"], 1, "the SYN queue")
    sent = [k for k in of(b, client, "-s", "syn-sent")]
    check(sent and 0 < sent[0]["timers"]["retransmit"] <= 64, "SYN_SENT and its timer")
    # data that is not acknowledged
    client("c.setblocking(False); c.send(b'z' * 3000)")
    stuck = until(lambda: [k for k in of(b, client, "-s", "established") if k["sendq"] == 3000], "3000 unacknowledged")
    check({"retransmit", "loss-probe", "reorder"} & set(stuck[0]["timers"]), stuck[0]["timers"])
    b.must("lab", "set", "--loss", "0", f"{lab}/b")


@case("ss/states")
def states(b):
    """The states of a close, from both sides, and who is left with them."""
    lab = b.lab()
    server, client = pair(b, lab)

    def name(puppet):
        return sorted(k["state"] for k in of(b, puppet) if k["state"] != "LISTEN")

    equal(name(client), ["ESTABLISHED"], "the client")
    client("c.shutdown(s.SHUT_WR)")
    until(lambda: name(client) == ["FIN_WAIT_2"], "FIN_WAIT_2")
    until(lambda: name(server) == ["CLOSE_WAIT"], "CLOSE_WAIT")
    check("CLOSE_WAIT" in b.must("ss", "-b", "--state", "close-wait").out, "brief")
    server("c.close()")
    until(lambda: name(client) == ["CLOSED"] or
          [k for k in sockets(b, "-s", "time-wait", "--port", "6000")], "TIME_WAIT")
    wait = sockets(b, "-s", "time-wait", "--port", "6000")
    check(wait and 50 < wait[0]["timers"]["time-wait"] <= 60, f"TIME_WAIT: {wait}")
    # a keeper does not stay for TIME_WAIT in a namespace where nobody lives
    b.start(b.command, "lab", "exec", f"{lab}/b", "sleep", "100")
    client.process.kill()
    client.process.wait()
    wait = until(lambda: sockets(b, "-s", "time-wait", "--port", "6000"), "TIME_WAIT with the keeper")
    check("tcpshim-keeper" in b.must("ss", "-s", "time-wait", "--port", "6000").out, "the keeper is named")
    equal(b.tcpshim("ss", "--port", "6001").status, 1, "nothing found")


@case("ss/forks")
def forks(b):
    """A descriptor that a forked process and a duplicate share."""
    lab = b.lab()
    server, _ = pair(b, lab)
    server("d = os.dup(c.fileno()); pid = os.fork(); pid or time.sleep(1000)")
    child = int(server("print(pid)"))
    shown = [k for k in of(b, server) if k["state"] == "ESTABLISHED"][0]
    fds = {int(server("print(c.fileno())")), int(server("print(d)"))}
    equal({(u["pid"], u["fd"]) for u in shown["users"]}, {(p, f) for p in (server.pid, child) for f in fds},
          "holders")
    server(f"os.kill({child}, 9)")


@case("ss/text")
def text(b):
    lab = b.lab()
    server, client = pair(b, lab)
    client("c.sendall(b'x' * 5000); c.setsockopt(6, 1, 1); c.setsockopt(1, 9, 1)")
    out = b.must("ss", "--pid", str(client.pid)).out
    for line in out.splitlines():
        check(len(line) <= 80, f"{len(line)} columns: {line}")
    for word in ("ESTABLISHED", 'users:(("', f"pid={client.pid},fd=", f"lab:{lab}/b", "cubic", "rtt:", "cwnd:10", "mss:1448",
                 "nodelay", "keepalive", "timer:(keepalive,", "age:", "rcvbuf:0/"):
        check(word in out, f"no {word} in:\n{out}")
    again = re.search(r"bytes_retrans:(\d+)", out)  # of a tail loss probe, before the answer came
    check(f"bytes_sent:{5000 + int(again[1] if again else 0)} " in out, f"not 5000 bytes once:\n{out}")
    narrow = b.must("ss", "--pid", str(client.pid), env={"COLUMNS": "60"}).out
    check(max(map(len, narrow.splitlines()[2:])) <= 60, "COLUMNS=60")
    check("segments-in:" in b.must("ss", "-c", "--pid", str(server.pid)).out, "counters")
    for option in ("-a", "-b", "-l"):
        b.must("ss", option)
    watch = b.start(b.command, "ss", "-w", "-n", "0.1", "--json", "--pid", str(server.pid))
    lines = [json.loads(watch.stdout.readline()) for _ in range(3)]
    check(lines[0]["t"] < lines[1]["t"] < lines[2]["t"], "watching")


@case("ss/events")
def events(b):
    """What the ring of last events has of a connection: how it came to be, and what passed since."""
    lab = b.lab()
    server, client = pair(b, lab)
    client("c.sendall(b'x' * 5000)")
    until(lambda: [k for k in of(b, server, "-s", "established") if k["recvq"] == 5000], "5000 bytes")
    for puppet, walk in ((client, ["CLOSED SYN_SENT", "SYN_SENT ESTABLISHED"]),
                         (server, ["SYN_RECEIVED ESTABLISHED"])):
        shown = [k for k in of(b, puppet, "-e", "100") if k["state"] == "ESTABLISHED"][0]["events"]
        states = [f"{e['from']} {e['to']}" for e in shown if e["ev"] == "state"]
        equal(states, walk, "states")
        direction = "tx" if puppet is client else "rx"
        text = [e for e in shown if e["ev"] == direction and e["len"] > 0]
        # a tail loss probe may have sent the last of them twice
        equal(max(e["seq_rel"] + e["len"] for e in text), 5001, "the end of the bytes in the segments")
        equal((text[0]["seq_rel"], text[0]["class"]), (1, "segment"), "the first segment")
        times = [e["t"] for e in shown]
        check(times == sorted(times), f"times run back: {times}")
        equal(of(b, puppet, "-e", "2", "-s", "established")[0]["events"], shown[-2:], "the last two")
        check("events" not in of(b, puppet, "-e", "0")[0], "none wanted")
    out = b.must("ss", "--pid", str(client.pid), "-e", "100").out
    check(max(map(len, out.splitlines())) <= 80, f"more than 80 columns:\n{out}")
    for word in ("state CLOSED -> SYN_SENT connect()", "tx SYN seq 0 (", "rx SYN,ACK seq 0 ("):
        check(word in " ".join(out.split()), f"no {word} in:\n{out}")
    check("SYN_SENT" not in b.must("ss", "--pid", str(client.pid)).out, "shown without being asked for")
    # what is left in TIME_WAIT keeps its number and with it its past
    client("c.close()")
    server("c.recv(9999); c.close()")
    wait = until(lambda: sockets(b, "-s", "time-wait", "--port", "6000", "-e", "200"), "TIME_WAIT")[0]
    equal([e["to"] for e in wait["events"] if e["ev"] == "state"][-1], "TIME_WAIT", "the last state")
    check(all("seq_rel" in e for e in wait["events"] if e["ev"] == "tx"), "counted from the SYN")
    equal(b.tcpshim("ss", "-e", "8193").status, 2, "too many")


@case("ss/users")
def users(b):
    """An ordinary user sees his own programs, and not those of others."""
    lab = b.lab()
    _, client = pair(b, lab)
    out = b.tcpshim("ss", "--pid", str(client.pid), user=True)
    equal(out.status, 1, "another user's program")
    name = f"u{os.getpid()}"
    if b.tcpshim("lab", "up", name, user=True).status != 0:
        raise Skipped("user namespaces are not allowed here")
    b.labs.append((name, True))
    _, mine = pair(b, name, user=True)
    equal([k["state"] for k in of(b, mine, user=True)], ["ESTABLISHED"], "his own")
    equal([k["state"] for k in of(b, mine)], ["ESTABLISHED"], "root's view")


@case("ss/under-load")
def under_load(b):
    """Looked at all the time while connections come, go and carry data."""
    lab = b.lab()
    server = Puppet(b, "run", "--lab", f"{lab}/a")
    server("import threading")
    server("exec('def serve(c):\\n  while c.recv(65536): pass\\n  c.close()', globals())")
    server("l = s.create_server(('', 6000), backlog=50)")
    server("exec('def loop():\\n  while True: threading.Thread(target=serve, args=(l.accept()[0],), daemon=True).start()', globals())")
    server("threading.Thread(target=loop, daemon=True).start()")
    client = Puppet(b, "run", "--lab", f"{lab}/b")
    client("import threading; data = b'x' * 300000; stop = False; done = 0")
    client("exec('def work():\\n  global done\\n  while not stop:\\n    c = s.create_connection((\"10.77.0.1\", 6000)); "
           "c.sendall(data); c.close(); done += 1', globals())")
    client("ts = [threading.Thread(target=work) for _ in range(4)]; [t.start() for t in ts]")
    seen = set()
    for i in range(40):
        for k in sockets(b, "--port", "6000"):
            seen.add(k["state"])
            check(k["state"] == "LISTEN" or k["peer"].startswith("10.77.0."), k)
            check(k.get("sendq", 0) < 1 << 30 and k["recvq"] < 1 << 30, k)
    client("stop = True; [t.join() for t in ts]; print(done)")
    check({"ESTABLISHED", "TIME_WAIT", "LISTEN"} <= seen, f"seen: {seen}")


FAKE = """
import ctypes, os, sys
data = open(sys.argv[1], 'rb').read()
fd = os.memfd_create('tcpshim', 0)
os.ftruncate(fd, int(sys.argv[2]))
os.pwrite(fd, data, 0)
ctypes.CDLL(None).prctl(15, b'tcpshim-keeper', 0, 0, 0)
print('ready', flush=True)
for line in sys.stdin:
    patch = eval(line)
    for at, byte in patch: os.pwrite(fd, bytes([byte]), at)
    print('ok', flush=True)
"""


def dump(pid, path):
    """The used part of the arena of a process, and its size."""
    with open(f"/proc/{pid}/maps", encoding="ascii") as file:
        line = next(l for l in file if "memfd:tcpshim" in l)
    low, high = (int(x, 16) for x in line.split()[0].split("-"))
    with open(f"/proc/{pid}/mem", "rb") as memory, open(path, "wb") as out:
        memory.seek(low)
        out.write(memory.read(8 << 20))
    return high - low


@case("ss/broken-arenas")
def broken_arenas(b):
    """An arena full of nonsense, as a hostile or crashed program could have: no crash, no endless loop."""
    lab = b.lab()
    server, client = pair(b, lab)
    client("c.sendall(b'x' * 50000); d = s.create_connection(('10.77.0.1', 6000))")
    path = os.path.join(b.directory, "arena")
    size = dump(server.pid, path)
    fake = b.start(PYTHON, "-c", FAKE, path, str(size), stdin=subprocess.PIPE)
    equal(fake.stdout.readline(), "ready\n", "the fake")
    command = os.path.join(b.build, "asan", "tcpshim")
    command = command if os.path.exists(command) else b.command

    def look(command=command):
        result = b.run(command, "ss", "-a", "--json", env={"ASAN_OPTIONS": "detect_leaks=0"}, seconds=30)
        check(result.status in (0, 1), f"status {result.status}: {result.err[-2000:]}")
        stacks = [k for k in result.json["stacks"] if any(p["pid"] == fake.pid for p in k["processes"])]
        equal(len(stacks), 1, "stacks of the fake")
        return stacks[0]

    if "another build" in look().get("problem", ""):
        command = b.command  # `make tests` was not run since the library changed
        look.__defaults__ = (command,)
    intact = look()
    check(len(intact["sockets"]) >= 3 and "problem" not in intact, f"the copy is not shown: {intact}")
    with open(path, "rb") as file:
        data = file.read()
    used = [i for i in range(64, len(data)) if data[i]]
    rng = random.Random(7)
    for i in range(25):
        patch = []
        for _ in range(40 * (1 + i % 5)):
            at = rng.choice(used) if rng.random() < 0.8 else rng.randrange(16, 65536)
            patch.append((at, rng.randrange(256)))
        fake.stdin.write(repr(patch) + "\n")
        fake.stdin.flush()
        equal(fake.stdout.readline(), "ok\n", "the patch")
        look()
    fake.stdin.write("[(8, 1)]\n")  # the tag of the layout
    fake.stdin.flush()
    fake.stdout.readline()
    check("another build" in look()["problem"], "the other layout is not noticed")
    text = b.tcpshim("ss", "--pid", str(fake.pid))
    check("another build" in text.err, text.err)

