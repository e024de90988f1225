"""The keeper: connections outlive their program, and nobody notices who sees to that."""

import os
import signal
import socket
import struct
import time

from cases_guard import checksum
from cases_http import start_nginx, stop_nginx, url
from framework import PROGRAMS, PYTHON, case, wait_for
from lab import ETH_P_ALL, PACKET_OUTGOING, in_namespace, keepers

PORT = 9100
ENDER = f"{PROGRAMS}/ender.py"
FIN, RST, ACK = 0x01, 0x04, 0x10
LISTEN = 10
# Keepers whose traces somebody reads stay alone.
UNWATCHED = {"user": True, "engine": False, "shim": {"TCPSHIM_TRACE": ""}}


@case("keeper-unsent", pairings=("UK", "UU"), sizes=("exit", "_exit", "sigkill", "sigsegv"), kernel=False)
def unsent(run):
    """Megabytes that nobody reads yet: the program ends at once, and all of it arrives."""
    server = run.server([PYTHON, ENDER, "sink", PORT], PORT)
    code = {"sigkill": -signal.SIGKILL, "sigsegv": -signal.SIGSEGV}.get(run.size, 0)
    client = run.client([PYTHON, ENDER, "unsent", run.server_addr, PORT, run.size], codes=(code,))
    ended = time.monotonic()
    taken, at = client.stdout().split()
    run.check(int(taken) > 8 << 20, f"only {taken} bytes were taken")
    run.check(ended - float(at) < 0.7, f"the end took {ended - float(at):.2f} s")
    server.wait()
    run.check(server.stdout().strip() == taken, f"{server.stdout().strip()} of {taken} bytes arrived")


@case("keeper-unseen", pairings=("UK",), sizes=("plain", "adopts"), kernel=False)
def unseen(run):
    """No child, no SIGCHLD, no descriptor of the program is the keeper's."""
    server = run.server([PYTHON, ENDER, "sink", PORT], PORT)
    client = run.start("client", [PYTHON, ENDER, "family", run.server_addr, PORT] +
                       ["adopts"] * (run.size == "adopts"), run.client_host, True)
    run.check(wait_for(lambda: keepers(run.client_host), 3), "there is no keeper")
    for pid in keepers(run.client_host):
        with open(f"/proc/{pid}/stat", encoding="ascii") as file:
            parent, _, session = map(int, file.read().rsplit(")", 1)[1].split()[1:4])
        run.check(parent != client.popen.pid and session != client.popen.pid, "it is in the family")
        run.check(os.readlink(f"/proc/{pid}/cwd") == "/", "it keeps the working directory")
        for fd in os.listdir(f"/proc/{pid}/fd"):
            target = os.readlink(f"/proc/{pid}/fd/{fd}")
            run.check(target in ("/dev/null", "/memfd:tcpshim (deleted)", "anon_inode:[pidfd]",
                                 "anon_inode:[eventfd]", "anon_inode:bpf-map") or target.startswith("socket:"),
                      f"it keeps {target}")
    client.wait()
    run.check(client.stdout() == "fine\n", client.stderr()[-300:])
    server.wait()


@case("keeper-ends", pairings=("UK",), sizes=("no-tcp", "no-connection", "peer-closed-first"), kernel=False)
def ends(run):
    """Only connections make one, and it goes when they are over."""
    if run.size != "peer-closed-first":
        client = run.start("client", [PYTHON, ENDER, "idle", run.size], run.client_host, True,
                           engine=False)
        time.sleep(0.2)
        run.check(not keepers(run.client_host), "a keeper without a connection")
        client.wait()
        run.check(not keepers(run.client_host), "a keeper without a connection")
        return
    sent = run.write("sent", "x" * 5000)
    server = run.server(["nc", "-N", "-l", PORT], PORT, stdin=sent)
    run.client(["nc", "-d", run.server_addr, PORT], same=sent)
    server.wait()
    run.check(wait_for(lambda: not keepers(run.client_host), 3), "the keeper stayed")


def sniff(host):
    def make():
        sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
        sock.bind(("eth0", ETH_P_ALL))
        sock.setblocking(False)
        return sock

    return in_namespace(host.path, make)


def segments(sock):
    """(outgoing, flags, frame) of each TCP segment that passed since the last call."""
    found = []
    while True:
        try:
            frame, address = sock.recvfrom(65536)
        except BlockingIOError:
            return found
        if frame[12:14] == b"\x08\x00" and frame[23] == socket.IPPROTO_TCP:
            tcp = 14 + (frame[14] & 15) * 4
            found.append((address[2] == PACKET_OUTGOING, frame[tcp + 13], frame))


def complete(frame):
    """What was sniffed on its way out has no checksum yet: the device would fill it in."""
    tcp, end = 14 + (frame[14] & 15) * 4, 14 + struct.unpack("!H", frame[16:18])[0]
    data = frame[tcp:tcp + 16] + b"\0\0" + frame[tcp + 18:end]
    pseudo = frame[26:34] + struct.pack("!BBH", 0, 6, len(data))
    total = checksum(pseudo + data + b"\0" * (len(data) % 2))
    return frame[:tcp + 16] + struct.pack("!H", total) + frame[tcp + 18:end]


@case("keeper-time-wait", pairings=("UK",), sizes=("-",), kernel=False)
def time_wait(run):
    """The program is gone, its TIME_WAIT answers: a FIN that comes again is acknowledged."""
    wire = sniff(run.server_host)
    server = run.server([PYTHON, ENDER, "sink", PORT], PORT)
    run.client([PYTHON, ENDER, "family", run.server_addr, PORT])
    server.wait()
    time.sleep(0.3)
    last = [frame for outgoing, flags, frame in segments(wire) if outgoing and flags & FIN]
    run.check(last, "no FIN of the server was seen")
    run.check(keepers(run.client_host), "the keeper is gone already")
    wire.send(complete(last[-1]))
    time.sleep(0.3)
    answers = [flags for outgoing, flags, _ in segments(wire) if not outgoing]
    wire.close()
    run.resets_allowed.add("a")  # whose program has really gone, and did not expect an answer
    run.check(answers == [ACK], f"answers to the FIN: {answers}")


@case("keeper-server-time-wait", pairings=("KU",), sizes=("alone", "merged"), needs=("nc",), kernel=False)
def server_time_wait(run):
    """A server that closed first is gone: its TIME_WAIT answers, the kernel never, and its port is free."""
    ports = [PORT] if run.size == "alone" else [PORT, PORT + 1, PORT + 2]
    quiet = {} if run.size == "alone" else UNWATCHED
    sent = run.write("sent", "x" * 5000)
    wire = sniff(run.client_host)
    run.deadline += 15
    for port in ports:
        server = run.server(["nc", "-N", "-l", port], port, stdin=sent, **quiet)
        run.client(["nc", "-d", run.server_addr, port], same=sent)
        server.wait()
    run.check(wait_for(lambda: len(keepers(run.server_host)) == 1, 15), f"keepers: {keepers(run.server_host)}")
    last = {frame[36:38]: frame for outgoing, flags, frame in segments(wire) if outgoing and flags & FIN}
    run.check(len(last) == len(ports), "no FIN of the client was seen")
    run.resets_allowed.add("b")  # whose connections are over: it did not expect an answer
    for port, frame in last.items():
        wire.send(complete(frame))
        answers = []

        def answered():
            answers.extend(flags for outgoing, flags, frame in segments(wire)
                           if not outgoing and frame[34:36] == port)
            return answers

        run.check(wait_for(answered, 5), "no answer to the FIN")
        run.check(answers == [ACK], f"answers to the FIN: {answers}")
    wire.close()
    run.check(run.lab.a.snmp()["OutRsts"] == 0, "the kernel sent resets")
    server = run.server(["nc", "-N", "-l", PORT], PORT, stdin=sent, **quiet)
    run.client(["nc", "-d", run.server_addr, PORT], same=sent)
    server.wait()


@case("keeper-merge", pairings=("UK",), sizes=("-",), needs=("curl", "nginx"), kernel=False)
def merge(run):
    """Programs that close first, one after the other: one keeper has the TIME_WAIT of all."""
    count = 60
    server = start_nginx(run)
    get = f'curl -sS --fail -o /dev/null {url(run, path="/1B")}'
    run.data.path("1B")
    run.deadline += 20
    client = run.start("client", ["sh", "-c", f"for i in $(seq {count}); do {get} || exit; done"], run.client_host,
                       **UNWATCHED)
    most = 0
    while client.popen.poll() is None:
        most = max(most, len(keepers(run.client_host)))
        time.sleep(0.05)
    client.wait()
    run.check(wait_for(lambda: len(keepers(run.client_host)) == 1, 15), f"keepers: {keepers(run.client_host)}")
    guards = [s for s in run.client_host.kernel_sockets() if s[2] == LISTEN]
    run.check(len(guards) >= count * 9 // 10, f"{len(guards)} guards of {count} connections")
    run.check(most <= 20, f"{most} keepers at a time")
    stop_nginx(run, server)


@case("keeper-killed", pairings=("UK",), sizes=("-",), kernel=False)
def killed(run):
    """Somebody kills the keeper: there is another, and it does its work."""
    server = run.server(["nc", "-d", "-l", PORT], PORT)
    client = run.start("client", [PYTHON, ENDER, "lasting", run.server_addr, PORT], run.client_host, True)
    run.check(wait_for(lambda: keepers(run.client_host), 5), "there is no keeper")
    first = keepers(run.client_host)
    os.kill(first[0], signal.SIGKILL)
    run.check(wait_for(lambda: keepers(run.client_host) not in ([], first), 10), "there is no other keeper")
    client.popen.kill()
    client.popen.wait()
    server.wait()  # ends with the FIN that the keeper sends
    run.check(server.stdout().startswith("0123456789abcdef"), "the bytes did not arrive")


@case("keeper-own-address", pairings=("UK",), sizes=("-",), kernel=False)
def own_address(run):
    """A keeper gives the stack's own address to the next program."""
    for _ in range(3):
        server = run.server([PYTHON, ENDER, "sink", PORT], PORT)
        begin = time.monotonic()
        run.client([PYTHON, ENDER, "unsent", run.server_addr, PORT, "_exit"],
                   shim={"TCPSHIM_ADDR": run.client_host.spare + "/24"})
        took = time.monotonic() - begin
        run.check(took < 5, f"the program took {took:.2f} s")
        server.wait()


@case("keeper-restart", pairings=("KU",), sizes=("kernel", "user"), kernel=False)
def restart(run):
    """A server is killed while connections stand; the next one has the port at once."""
    address = (run.server_addr, PORT)

    def connect():
        sock = in_namespace(run.client_host.path, lambda: socket.create_connection(address, 5))
        run.check(sock.recv(5) == b"ready", "no answer")
        return sock

    first = run.server([PYTHON, ENDER, "hold", PORT], PORT)
    old = [connect() for _ in range(3)]
    first.popen.kill()
    first.popen.wait()
    second = run.server([PYTHON, ENDER, "hold", PORT], role="second", user=run.size == "user")
    # Not by the kernel's table of listeners: the guard of the first may be there for an instant.
    run.check(wait_for(lambda: second.stdout() or second.popen.poll() is not None, 5) and
              second.popen.poll() is None, f"it did not get the port: {second.stderr()[-200:]}")
    for sock in old:
        run.check(sock.recv(5) == b"", "the old connection did not end in order")
    new = connect()
    for sock in old:
        sock.sendall(b"more")  # nobody is there to read it: reset, as by the kernel
        sock.close()
    new.close()
    run.resets_allowed.add("a")
    time.sleep(0.1)
    second.popen.kill()
    second.popen.wait()
    run.check(run.lab.a.snmp()["OutRsts"] == 0, "the kernel sent resets")
