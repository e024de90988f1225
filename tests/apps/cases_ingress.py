"""The program at the interface's ingress: it comes with traffic, drops what is the stack's, and goes."""

import ctypes
import os
import platform
import signal
import socket
import struct
import time

from framework import PROGRAMS, PYTHON, Skipped, case, wait_for
from lab import in_namespace, keepers

PORT, OWN = 9000, 9100
BPF_PROG_QUERY, BPF_TCX_INGRESS = 16, 46
SYS_BPF = {"x86_64": 321}.get(platform.machine(), 280)


def programs(host):
    """How many programs are at the ingress of the host's eth0."""

    def query():
        attr = ctypes.create_string_buffer(struct.pack("IIIIQI", socket.if_nametoindex("eth0"), BPF_TCX_INGRESS,
                                                       0, 0, 0, 0) + bytes(36))
        if ctypes.CDLL(None, use_errno=True).syscall(SYS_BPF, BPF_PROG_QUERY, attr, len(attr)) != 0:
            raise Skipped(f"this kernel has no tcx: {os.strerror(ctypes.get_errno())}")
        return struct.unpack_from("I", attr, 24)[0]

    return in_namespace(host.path, query)


def share_that_passes(run):
    """Of the segments that the server sends, how many the client's kernel takes through its IP."""
    def look():
        return run.server_host.snmp()["OutSegs"], run.client_host.snmp("Ip")["InReceives"]

    sent, received = look()
    time.sleep(0.3)
    sent_now, received_now = look()
    run.check(sent_now - sent > 200, f"the server sent only {sent_now - sent} segments")
    return (received_now - received) / (sent_now - sent)


def kernel_connects(run, own):
    """A program of the kernel's stack has the connection that was the stack's: when its guard is gone."""
    def attempt():
        sock = socket.socket()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.settimeout(2)
        try:
            sock.bind(("", own))
            sock.connect((run.server_addr, PORT))
            return len(sock.recv(1)) == 1
        except OSError:
            return False
        finally:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            sock.close()

    return wait_for(lambda: in_namespace(run.client_host.path, attempt), 8)


def begin(run, how, shim=None):
    run.resets_allowed |= {"a", "b"}
    server = run.server([PYTHON, f"{PROGRAMS}/busy.py", "send", PORT], PORT)
    reading, go = os.pipe()
    client = run.start("client", [PYTHON, f"{PROGRAMS}/busy.py", "read", run.server_addr, PORT, OWN, how],
                       run.client_host, True, stdin=f"/proc/{os.getpid()}/fd/{reading}",
                       shim=shim)
    os.close(reading)
    run.check(wait_for(lambda: "reads" in client.stdout(), 5), f"it does not read: {client.stderr()[-300:]}")
    return server, client, go


@case("ingress", pairings=("UK",), sizes=("root", "nobody", "exec", "fork", "killed", "keeper"), kernel=False)
def ingress(run):
    host, own = run.client_host, OWN + (run.size == "exec")
    run.check(programs(host) == 0, "somebody has a program there")
    server, client, go = begin(run, run.size if run.size in ("nobody", "exec", "fork") else "root")
    run.check(wait_for(lambda: programs(host) == 1, 5), "there is no program")
    if run.size == "keeper":
        os.kill(keepers(host)[0], signal.SIGKILL)
        run.check(wait_for(lambda: programs(host) == 0, 5), "the program outlives the keeper")
        run.check(wait_for(lambda: programs(host) == 1, 8), "the next keeper brings none")
    share = share_that_passes(run)
    run.check(share < 0.1, f"{share:.0%} of the segments pass")
    run.check(kernel_connects(run, OWN + 5), "others do not get through")
    if run.size == "killed":
        client.popen.kill()
        client.popen.wait()
        run.check(kernel_connects(run, own), "the segments of the dead are still dropped")
    else:
        os.write(go, b"\n")
        run.check(kernel_connects(run, own), "the connection is over, and its segments are still dropped")
        os.write(go, b"\n")
        client.wait()
    os.close(go)
    run.check(wait_for(lambda: programs(host) == 0, 8), "the program stayed")
    server.stop(settle=False)


@case("ingress-pass", pairings=("UK",), sizes=("-",), kernel=False)
def ingress_pass(run):
    """TCPSHIM_INGRESS=pass"""
    server, client, go = begin(run, "root", {"TCPSHIM_INGRESS": "pass"})
    share = share_that_passes(run)
    run.check(programs(run.client_host) == 0, "there is a program")
    run.check(share > 0.5, f"only {share:.0%} of the segments pass")
    os.write(go, b"\n\n")
    os.close(go)
    client.wait()
    server.stop(settle=False)
