"""tcpshim lab: the hosts, the link measured, names, ends."""

import os
import re
import signal

from framework import PYTHON, Skipped, case, check, equal, until

# b sends so many numbered datagrams to a, which prints which came, in order, and the seconds between
# the first and the last.
RECEIVE = """
import socket, sys, time
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.bind(('', 7000)); s.settimeout(20)
s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8 << 20)
print('ready', flush=True)
got, times = [], []
while True:
    d = s.recv(65536)
    if d[:3] == b'end': break
    got.append(int(d[:6])); times.append(time.monotonic())
print(*got)
print(times[-1] - times[0] if times else 0)
"""
SEND = """
import socket, sys, time
n, size, gap = int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.connect(('10.77.0.1', 7000))
for i in range(n):
    s.send(b'%06d' % i + bytes(size - 6)); time.sleep(gap)
time.sleep(0.3)
for i in range(60):
    time.sleep(0.02)
    try: s.send(b'end')
    except ConnectionRefusedError: break
"""


def datagrams(b, lab, n, size=100, gap=0.0):
    receiver = b.start(b.command, "lab", "exec", f"{lab}/a", PYTHON, "-c", RECEIVE)
    equal(receiver.stdout.readline(), "ready\n", "the receiver")
    b.must("lab", "exec", f"{lab}/b", PYTHON, "-c", SEND, str(n), str(size), str(gap))
    out, err = receiver.communicate(timeout=30)
    equal(err, "", "the receiver")
    lines = out.split("\n")
    return [int(w) for w in lines[0].split()], float(lines[1])


def counts(b, lab, host):
    """What the link to that host counted: {word: number}"""
    text = b.must("lab", "list", lab).out
    line = re.search(rf"^  {host} .*\n(.*)", text, re.M)[1]
    return {word: int(n) for n, word in re.findall(r"(\d+) ([a-z]+)", line)}


def ping(b, lab, *options, to="10.77.0.2", host="a"):
    result = b.tcpshim("lab", "exec", f"{lab}/{host}", "ping", "-n", *options, to)
    times = [float(t) for t in re.findall(r"time=([\d.]+) ms", result.out)]
    return times


@case("lab/up-and-down")
def up_and_down(b):
    lab = b.lab()
    equal(b.tcpshim("lab", "up", lab).status, 3, "a second one of that name")
    check(lab in b.must("lab", "list").out, "list")
    other = b.lab("--hosts", "3")
    text = b.must("lab", "exec", f"{other}/c", "ip", "-br", "addr").out
    check("10.77.0.3/24" in text and "fd77::3/64" in text, text)
    check(ping(b, other, "-c1", to="10.77.0.1", host="c"), "c does not reach a")
    check(ping(b, other, "-c1", to="10.77.0.3", host="b"), "b does not reach c")
    check(ping(b, lab, "-c1"), "side by side: a does not reach b")
    equal(b.tcpshim("lab", "exec", f"{lab}/c", "true").status, 125, "a host that it has not")
    equal(b.tcpshim("lab", "exec", f"{lab}/a", "sh", "-c", "exit 9").status, 9, "exec passes the status")
    equal(b.tcpshim("lab", "exec", f"{lab}/a", "no-such-program").status, 127, "exec of nothing")
    out = b.must("lab", "exec", f"{lab}/b", "sh", "-c", "echo $LAB $LAB_HOST $LAB_A $LAB_B").out
    equal(out, f"{lab} b 10.77.0.1 10.77.0.2\n", "variables")
    sleeper = b.start(b.command, "lab", "exec", f"{lab}/a", "sleep", "1000")
    until(lambda: b.run("pgrep", "-P", str(os.getpid()), "-x", "sleep").out, "the sleeper")
    pid = int(re.search(r"process (\d+)", b.must("lab", "list", lab).out)[1])
    b.must("lab", "down", lab)
    equal(sleeper.wait(10), -signal.SIGTERM, "a program in a laboratory that ends")
    until(lambda: not os.path.exists(f"/proc/{pid}") or "State:\tZ" in open(f"/proc/{pid}/status").read(),
          "the daemon's end")
    equal(b.tcpshim("lab", "list", lab).status, 3, "it is gone")
    check(ping(b, other, "-c1", to="10.77.0.1", host="b"), "the other one is still there")


@case("lab/daemon-killed")
def daemon_killed(b):
    """After kill -9 nothing is left, and the name can be used at once."""
    lab = b.lab()
    pid = int(re.search(r"process (\d+)", b.must("lab", "list", lab).out)[1])
    os.kill(pid, signal.SIGKILL)
    until(lambda: b.tcpshim("lab", "exec", f"{lab}/a", "true").status == 125, "its end")
    b.must("lab", "up", lab)
    check(ping(b, lab, "-c1"), "the new one does not work")
    check(lab in b.must("lab", "list").out, "list")


@case("lab/delay")
def delay(b):
    lab = b.lab("--delay", "30ms")
    times = ping(b, lab, "-c5", "-i0.05")
    equal(len(times), 5, "answers")
    check(min(times) >= 60, f"too early: {times}")
    check(min(times[1:]) < 75, f"too late: {times}")
    b.must("lab", "set", "--delay", "5ms", f"{lab}/b")  # one direction
    times = ping(b, lab, "-c5", "-i0.05")
    check(35 <= min(times) < 50, f"30 ms + 5 ms: {times}")
    b.must("lab", "set", "--delay", "0", "--jitter", "20ms", f"{lab}/")
    times = ping(b, lab, "-c10", "-i0.05")
    check(max(times) - min(times) > 5 and min(times) < 35, f"jitter: {times}")


@case("lab/loss-by-seed")
def loss(b):
    """The same frames are lost for the same seed, others for another, about as many as said."""
    got = []
    for seed in (5, 5, 6):
        lab = b.lab("--loss", "20%", "--seed", str(seed))
        numbers, _ = datagrams(b, lab, 400)
        got.append(sorted(numbers))
        # the first waits for the neighbour's address: the kernel may let the next one past it
        equal(numbers[2:], sorted(numbers)[2:], "order")
        check(0.12 < 1 - len(numbers) / 400 < 0.28, f"lost {400 - len(numbers)} of 400, should be 80")
        check(counts(b, lab, "a")["lost"] >= 400 - len(numbers), "the count of losses")
    equal(got[0], got[1], "the same seed")
    check(got[0] != got[2], "another seed, and the same losses")


@case("lab/rate-and-queue")
def rate(b):
    lab = b.lab("--rate", "4mbit", "--queue", "1m")
    numbers, seconds = datagrams(b, lab, 200, 1000)
    equal(len(numbers), 200, "datagrams through a long queue")
    wanted = 199 * (1000 + 42 + 24) * 8 / 4e6
    check(wanted * 0.98 <= seconds < wanted * 1.3 + 0.1, f"{seconds:.3f} s, should be {wanted:.3f}")
    b.must("lab", "set", "--queue", "20k", f"{lab}/a")
    numbers, _ = datagrams(b, lab, 200, 1000)
    check(10 <= len(numbers) < 150, f"{len(numbers)} of 200 through a short queue")
    equal(numbers[:10], list(range(10)), "what is lost is what comes late")


@case("lab/reorder-dup-corrupt")
def reorder(b):
    lab = b.lab("--reorder", "10%", "--seed", "3")
    numbers, _ = datagrams(b, lab, 300, gap=0.0005)
    equal(sorted(numbers), list(range(300)), "nothing is lost")
    late = sum(1 for x, y in zip(numbers, numbers[1:]) if y < x)
    check(10 <= late <= 60, f"{late} of 300 overtaken, should be 30")
    lab = b.lab("--dup", "10%", "--seed", "3")
    numbers, _ = datagrams(b, lab, 300)
    equal(sorted(set(numbers)), list(range(300)), "nothing is lost")
    check(15 <= len(numbers) - 300 <= 50, f"{len(numbers) - 300} of 300 doubled, should be 30")
    lab = b.lab("--corrupt", "20%", "--seed", "3")
    numbers, _ = datagrams(b, lab, 300)
    check(200 <= len(numbers) <= 270, f"{300 - len(numbers)} of 300 corrupted, should be 60")


@case("lab/cable")
def cable(b):
    lab = b.lab()
    check(ping(b, lab, "-c1"), "before")
    b.must("lab", "set", "--cable", "out", f"{lab}/")
    check("cable out" in b.must("lab", "list", lab).out, "list")
    check(not ping(b, lab, "-c1", "-W0.3"), "an answer through a cable that is out")
    b.must("lab", "set", "--cable", "in", f"{lab}/")
    check(ping(b, lab, "-c3", "-i0.1"), "after")


BULK = """
import socket, sys, hashlib
if sys.argv[1] == 'server':
    l = socket.create_server(('', 5001)); print('ready', flush=True)
    c, _ = l.accept(); h = hashlib.sha256()
    while True:
        d = c.recv(1 << 18)
        if not d: break
        h.update(d)
    print(h.hexdigest())
else:
    s = socket.create_connection(('10.77.0.1', 5001)); data = bytes(i * 7 & 255 for i in range(1 << 20)) * 4
    s.sendall(data); print(hashlib.sha256(data).hexdigest())
"""


def frame_sizes(b, lab):
    """Bytes a frame of the largest direction."""
    c = counts(b, lab, "a")
    return c["bytes"] / c["frames"]


@case("lab/offload")
def offload(b):
    """Frames of the MTU on a wire; with --offload up to 64 KB. Intact both ways, kernel and user."""
    for options, low, high in (((), 800, 1514), (("--offload",), 3000, 65600)):
        lab = b.lab(*options)
        for client in ("exec", "run"):
            server = b.start(b.command, "lab", "exec", f"{lab}/a", PYTHON, "-c", BULK, "server")
            equal(server.stdout.readline(), "ready\n", "the server")
            words = (["lab", "exec", f"{lab}/b"] if client == "exec" else ["run", "--lab", f"{lab}/b"])
            sent = b.must(*words, "--", PYTHON, "-c", BULK, "client").out
            equal(server.communicate(timeout=30)[0], sent, f"checksums with {options} {client}")
        size = frame_sizes(b, lab)
        check(low <= size <= high, f"{size:.0f} bytes a frame with {options}")


@case("lab/unprivileged")
def unprivileged(b):
    name = f"u{os.getpid()}"
    up = b.tcpshim("lab", "up", "--delay", "10ms", name, user=True)
    if up.status != 0 and "user namespace" in up.err:
        raise Skipped("user namespaces are not allowed here")
    equal(up.status, 0, up.err)
    b.labs.append((name, True))
    out = b.must("lab", "exec", f"{name}/a", "sh", "-c", "id -u; ip -br addr show eth0", user=True).out
    check(out.startswith("64998\n") and "10.77.0.1/24" in out, out)
    check(name not in b.must("lab", "list").out, "root sees the laboratories of a user as his own")
    result = b.must("lab", "exec", f"{name}/a", "ping", "-nc3", "-i0.2", "10.77.0.2", user=True)
    times = [float(t) for t in re.findall(r"time=([\d.]+) ms", result.out)]
    check(times and min(times) >= 20, f"delay: {times}")
    b.must("lab", "down", name, user=True)
    equal(b.tcpshim("lab", "exec", f"{name}/a", "true", user=True).status, 125, "it is gone")


