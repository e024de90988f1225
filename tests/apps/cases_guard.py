"""Guards: whatever arrives on a port of the stack, the kernel stays silent.

A stranger in the client's host sends segments of every kind, from an address that nobody has, to the
ports of a shimmed program: its listener while it listens, closes and comes back, its connections, its
client ports. The kernel of the server's host counts the resets that it sends: there must be none.
"""

import os
import socket
import struct
import threading
import time

from framework import PROGRAMS, PYTHON, case, wait_for
from lab import in_namespace

STRANGER = "10.77.0.99"
PORT, SINK = 7000, 9000
UNGUARDED = 7999
FLAGS = (0x02, 0x12, 0x10, 0x18, 0x11, 0x01, 0x00, 0x29, 0x3F, 0xC2)


def checksum(data):
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def segment(macs, dst, dport, flags, payload=b""):
    """An Ethernet frame with a TCP segment from the stranger."""
    src, dst = socket.inet_aton(STRANGER), socket.inet_aton(dst)
    sport = int.from_bytes(os.urandom(2), "big") | 1024
    tcp = struct.pack("!HHIIBBHHH", sport, dport, 1000, 2000, 5 << 4, flags, 8192, 0, 0)
    pseudo = src + dst + struct.pack("!BBH", 0, 6, len(tcp) + len(payload))
    total = checksum(pseudo + tcp + payload + b"\0" * (len(payload) % 2))
    tcp = tcp[:16] + struct.pack("!H", total) + tcp[18:] + payload
    ip = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 20 + len(tcp), 1, 0, 64, 6, 0, src, dst)
    ip = ip[:10] + struct.pack("!H", checksum(ip)) + ip[12:]
    return macs + struct.pack("!H", 0x0800) + ip + tcp


class Stranger:
    """Sends to the ports until it is stopped."""

    def __init__(self, run):
        def make():
            sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
            sock.bind(("eth0", 0))
            with open("/proc/thread-self/net/arp", encoding="ascii") as table:
                macs = [line.split()[3] for line in table if line.startswith(run.server_addr + " ")]
            return sock, bytes.fromhex(macs[0].replace(":", "")), sock.getsockname()[4]

        self.sock, server, own = in_namespace(run.client_host.path, make)
        self.macs = server + own
        self.addr = run.server_addr
        self.frames = []
        self.sent = 0
        self.stopped = threading.Event()
        self.thread = threading.Thread(target=self._send)

    def aim(self, ports):
        self.frames = [segment(self.macs, self.addr, port, flags, payload)
                       for port in ports for flags in FLAGS for payload in (b"", b"data")]

    def once(self):
        for frame in self.frames:
            self.sock.send(frame)
            self.sent += 1

    def _send(self):
        while not self.stopped.is_set():
            for frame in list(self.frames):
                self.sock.send(frame)
                self.sent += 1
                if self.sent % 20 == 0:
                    time.sleep(0.001)

    def stop(self):
        self.stopped.set()
        self.thread.join()
        self.sock.close()


def sink(run, keep):
    """Accepts and keeps what the program connects to."""
    listener = in_namespace(run.client_host.path,
                            lambda: socket.create_server((run.client_host.addr, SINK), backlog=64))
    listener.settimeout(15)

    def accept():
        try:
            while True:
                keep.append(listener.accept()[0])
        except OSError:
            pass

    threading.Thread(target=accept, daemon=True).start()
    return listener


# root: guards by filter. Without CAP_NET_ADMIN a new kernel refuses filters: nobody has CAP_NET_RAW
# alone, drops gives its privileges up between the first guard and the others, capset before it uses TCP.
@case("guard", pairings=("KU",), sizes=("root", "nobody", "drops", "capset"), needs=("setpriv",), kernel=False)
def guard(run):
    run.resets_allowed.add("a")  # the engine's own answers to the stranger
    run.resets_allowed.add("b")  # and to what nobody asked for
    kept = []
    listener = sink(run, kept)
    argv = [PYTHON, f"{PROGRAMS}/guarded.py", PORT, run.client_host.addr, SINK, run.server_addr, run.size]
    options = {}
    if run.size == "nobody":
        argv = ["setpriv", "--reuid=65534", "--clear-groups", "--inh-caps=+net_raw",
                "--ambient-caps=+net_raw"] + argv
        options = {"engine": False, "shim": {"TCPSHIM_TRACE": ""}}  # the trace is where it may not write
    server = run.server(argv, PORT, **options)

    def resets():
        return run.lab.a.snmp()["OutRsts"]

    kept += [in_namespace(run.client_host.path,
                          lambda: socket.create_connection((run.server_addr, PORT), 5))
             for _ in range(3)]
    wait_for(lambda: "\n" in server.stdout().partition("ports")[2], 5)
    lines = [line.split() for line in server.stdout().splitlines()]
    ports = [int(word) for line in lines if line[0] == "ports" for word in line[1:]]
    run.check(len(ports) == 21, f"the program did not get as far: {server.stderr()[-300:]}")

    before = resets()
    stranger = Stranger(run)
    stranger.aim([PORT] + ports)
    stranger.thread.start()
    try:
        done = wait_for(lambda: "done" in server.stdout() or server.popen.poll() is not None, 12)
        run.check(done and server.popen.poll() is None, f"it ended early: {server.stderr()[-300:]}")
        time.sleep(0.2)
    finally:
        stranger.stopped.set()
        stranger.thread.join()
    run.check(stranger.sent > 1000, f"only {stranger.sent} segments were sent")
    run.check(resets() == before,
              f"{resets() - before} resets of the kernel, {stranger.sent} segments sent")

    # The counter counts: a port that nobody guards is answered.
    stranger.aim([UNGUARDED])
    stranger.once()
    run.check(wait_for(lambda: resets() > before, 2), "the kernel did not even reset a closed port")
    run.lab._resets_before["a"] = resets()
    stranger.stop()
    listener.close()
    for sock in kept:
        sock.close()
    server.stop(codes=(0,))


@case("guard-pause", pairings=("KU",), sizes=("-",), kernel=False)
def guard_pause(run):
    """A listener that is shut down keeps guarding the connections that it brought."""
    server = run.server([PYTHON, f"{PROGRAMS}/pausing.py", PORT], PORT)

    def connect():
        return in_namespace(run.client_host.path,
                            lambda: socket.create_connection((run.server_addr, PORT), 5))

    def echo(sock, text):
        sock.sendall(text)
        run.check(sock.recv(100) == text, f"{text} did not come back")

    first = connect()
    echo(first, b"while paused")
    second = connect()
    echo(second, b"listens again")
    echo(first, b"and the first lives on")
    first.close()
    second.close()
    server.wait()


@case("guard-siblings", pairings=("UK",), sizes=("-",), kernel=False)
def guard_siblings(run):
    """Processes of a family use each other's guards: a port serves one connection to each remote end."""
    first, many = 7100, 40
    run.resets_allowed.add("a")  # who connected to a listener that accepts nobody
    listeners = in_namespace(run.server_host.path, lambda: [
        socket.create_server((run.server_addr, first + i)) for i in range(many)])
    client = run.start("client", [PYTHON, f"{PROGRAMS}/siblings.py", run.server_addr, first, many, PORT],
                       run.client_host, True)
    wait_for(lambda: "\n" in client.stdout() or client.popen.poll() is not None, 20)
    run.check(client.stdout() == f"{many}\n", f"served: {client.stdout()} {client.stderr()[-300:]}")
    guards = run.client_host.kernel_listeners()
    run.check(0 < guards <= 4, f"{guards} guards for {many} children that connected one after another")
    in_namespace(run.server_host.path,
                 lambda: socket.create_connection((run.client_host.addr, PORT), 5).close())
    client.wait()
    for listener in listeners:
        listener.close()


@case("guard-refused", pairings=("UK",), sizes=("-",), kernel=False)
def guard_refused(run):
    """A program that connects to a port of its own connections is refused, as nobody listens there."""
    listener = in_namespace(run.server_host.path, lambda: socket.create_server((run.server_addr, PORT)))
    client = run.start("client", [PYTHON, f"{PROGRAMS}/refused.py", run.server_addr, PORT], run.client_host, True)
    client.wait()
    refused = " ".join(["ECONNREFUSED"] * 4)
    run.check(client.stdout() == f"{refused}\n{refused}\n0\n", f"{client.stdout()} {client.stderr()[-300:]}")
    for _ in range(2):
        listener.accept()[0].close()
    listener.close()


def echo_to_one(listener):
    conn = listener.accept()[0]
    with conn:
        while data := conn.recv(65536):
            conn.sendall(data)


@case("guard-beside", pairings=("UK",), sizes=("-",))
def guard_beside(run):
    """A port whose connections live on in one process can be bound and used by others, with SO_REUSEADDR."""
    first, many = 7200, 10
    listeners = in_namespace(run.server_host.path, lambda: [
        socket.create_server((run.server_addr, first + i)) for i in range(many)])
    threads = [threading.Thread(target=echo_to_one, args=(each,), daemon=True) for each in listeners]
    for thread in threads:
        thread.start()
    clients = [run.server_host] * 4 + [run.client_host] * 8
    client = run.start("client", [PYTHON, f"{PROGRAMS}/beside.py", run.server_addr, first, PORT, len(clients)],
                       run.client_host, run.client_user)
    wait_for(lambda: "listens" in client.stdout() or client.popen.poll() is not None, 20)
    run.check(client.popen.poll() is None, f"ended: {client.stdout()} {client.stderr()[-300:]}")
    guards = run.client_host.kernel_listeners()
    run.check(guards == 1, f"{guards} guards of one port that somebody listens on")
    for host in clients:
        in_namespace(host.path, lambda: socket.create_connection((run.client_host.addr, PORT), 5).close())
    client.wait()
    run.check(client.stdout() == "open True\n" + "beside True\n" * 6 +
              "of another user True True True\nlistens True\nserved True\n",
              f"{client.stdout()} {client.stderr()[-300:]}")
    for thread in threads:
        thread.join(10)
    for listener in listeners:
        listener.close()
