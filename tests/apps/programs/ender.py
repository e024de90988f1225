"""Programs that end in the middle of their work, for cases_keeper.py. Argument: what to be.

    unsent ADDRESS PORT HOW   sends until nothing more is taken, says how much, and ends by HOW
    sink PORT                 accepts one, waits a while, reads to the end, says how much it was
    family ADDRESS PORT [adopts]  looks for children that are not its own
    idle WHAT                 a while without a connection, but perhaps with a socket
    lasting ADDRESS PORT      sends a little now and then until it is killed
    hold PORT                 accepts, answers "ready", and sleeps
"""
import ctypes
import errno
import os
import select
import signal
import socket
import sys
import time

SO_SNDBUFFORCE = 32
PR_SET_CHILD_SUBREAPER = 36

def end(how):
    if how == "exit":
        sys.exit(0)
    if how == "_exit":
        os._exit(0)
    os.kill(os.getpid(), {"sigkill": signal.SIGKILL, "sigsegv": signal.SIGSEGV}[how])
    time.sleep(10)


def unsent(address, port, how):
    sock = socket.create_connection((address, int(port)))
    sock.setsockopt(socket.SOL_SOCKET, SO_SNDBUFFORCE, 12 << 20)
    sock.setblocking(False)
    block = b"0123456789abcdef" * 4096
    taken = 0
    while taken < 10 << 20 and select.select([], [sock], [], 0.2)[1]:
        taken += sock.send(block)
    print(taken, time.monotonic(), flush=True)
    end(how)


def sink(port):
    listener = socket.create_server(("", int(port)))
    sock, _ = listener.accept()
    time.sleep(1.5)
    total = 0
    while True:
        data = sock.recv(1 << 20)
        if not data:
            break
        total += len(data)
        good = b"0123456789abcdef" * (len(data) // 16 + 2)
        shift = (total - len(data)) % 16
        assert data == good[shift:shift + len(data)], "not what was sent"
    print(total)


def lasting(address, port):
    sock = socket.create_connection((address, int(port)))
    while True:
        sock.sendall(b"0123456789abcdef")
        time.sleep(0.05)


def children():
    found = []
    for task in os.listdir("/proc/self/task"):
        with open(f"/proc/self/task/{task}/children", encoding="ascii") as file:
            found += file.read().split()
    return found


def no_child():
    try:
        pid, status = os.waitpid(-1, os.WNOHANG)
        raise AssertionError(f"a child: {pid} {status}")
    except OSError as error:
        assert error.errno == errno.ECHILD, error


def family(address, port, adopts=""):
    if adopts:
        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    signals = []
    signal.signal(signal.SIGCHLD, lambda *_: signals.append(1))
    sock = socket.create_connection((address, int(port)))
    no_child()
    sock.sendall(b"0123456789abcdef" * 64)
    for _ in range(20):
        no_child()
        time.sleep(0.01)
    assert not children(), children()
    assert not signals, "SIGCHLD"
    own = os.fork()
    if own == 0:
        os._exit(7)
    assert os.waitpid(-1, 0) == (own, 7 << 8)
    no_child()
    assert len(signals) <= 1, signals
    sock.close()
    print("fine")


def idle(what):
    sock = socket.socket() if what == "no-connection" else None
    time.sleep(0.4)
    del sock


def hold(port):
    listener = socket.create_server(("", int(port)))
    print("listening", flush=True)
    kept = []
    while True:
        sock, _ = listener.accept()
        sock.sendall(b"ready")
        kept.append(sock)


{"unsent": unsent, "sink": sink, "family": family, "idle": idle, "hold": hold,
 "lasting": lasting}[sys.argv[1]](*sys.argv[2:])
