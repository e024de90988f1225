"""Sockets that share a kernel socket must not be seen to: what is set on one is not on another.

    backing.py serve PORT COUNT         accepts COUNT connections
    backing.py connect ADDR PORT COUNT
    backing.py exchange FD...           what both become by exec: bytes over each connection

Both ends do the same with their connections and end with "ok".
"""

import fcntl
import os
import select
import signal
import socket
import sys

USER_TIMEOUT, COOKIE = 18, 57
MESSAGE = b"over socket %d"


def distinct(what, values):
    assert len(set(values)) == len(values), f"{what}: {values}"


def one_of(sockets, what, change, look):
    """Changes the first: it alone looks different then."""
    before = [look(s) for s in sockets]
    change(sockets[0])
    after = [look(s) for s in sockets]
    assert after[0] != before[0] and after[1:] == before[1:], f"{what}: {before} became {after}"


def option(level, name, value):
    return (lambda s: s.setsockopt(level, name, value), lambda s: s.getsockopt(level, name))


def apart(sockets):
    """Each change is one to sockets that still share, if those before did not share are at the front."""
    changes = {
        "O_NONBLOCK by fcntl": (lambda s: os.set_blocking(s.fileno(), False),
                                lambda s: fcntl.fcntl(s, fcntl.F_GETFL)),
        "SO_KEEPALIVE": option(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
        "TCP_KEEPIDLE": option(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 17),
        "TCP_USER_TIMEOUT": option(socket.IPPROTO_TCP, USER_TIMEOUT, 5000),
        "SO_PRIORITY": option(socket.SOL_SOCKET, socket.SO_PRIORITY, 3),
        "IP_TTL": option(socket.IPPROTO_IP, socket.IP_TTL, 33),
        "SO_RCVLOWAT": option(socket.SOL_SOCKET, socket.SO_RCVLOWAT, 2),
        "F_SETOWN": (lambda s: fcntl.fcntl(s, fcntl.F_SETOWN, os.getpid()),
                     lambda s: fcntl.fcntl(s, fcntl.F_GETOWN)),
        "O_ASYNC": (lambda s: fcntl.fcntl(s, fcntl.F_SETFL, os.O_ASYNC), lambda s: fcntl.fcntl(s, fcntl.F_GETFL)),
    }
    for i, (what, how) in enumerate(changes.items()):
        assert i + 1 < len(sockets), "too few sockets"
        one_of(sockets[i:], what, *how)
        how[0](sockets[i + 1])
        assert how[1](sockets[i + 1]) == how[1](sockets[i]), f"{what} on a second one"
    assert all(s.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0 for s in sockets)
    distinct("SO_COOKIE", [s.getsockopt(socket.SOL_SOCKET, COOKIE, 8) for s in sockets[::2]])
    distinct("inode", [os.fstat(s.fileno()).st_ino for s in sockets])


def local_connection():
    """A socket that goes to the kernel takes with it what it was told before."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        for blocking in (True, False):
            s = socket.socket()
            copy = s.dup()
            s.setblocking(blocking)
            s.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 23)
            s.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            assert s.getsockopt(socket.IPPROTO_TCP, USER_TIMEOUT) == 0
            assert s.connect_ex(listener.getsockname()) in (0, 115)
            peer, _ = listener.accept()
            select.select([], [s], [])
            copy.send(b"x")
            assert peer.recv(2) == b"x"
            for one in (s, copy):
                assert one.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == 23
                assert one.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
                assert (fcntl.fcntl(one, fcntl.F_GETFL) & os.O_NONBLOCK == 0) == blocking
            distinct("inode", [os.fstat(f.fileno()).st_ino for f in (s, peer, listener)])
            assert os.fstat(s.fileno()).st_ino == os.fstat(copy.fileno()).st_ino


def exchange(sockets):
    for i, s in enumerate(sockets):
        s.setblocking(True)
        s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, 1)
        s.sendall(MESSAGE % i)
        s.shutdown(socket.SHUT_WR)
    for i, s in enumerate(sockets):
        got = b""
        while part := s.recv(100):
            got += part
        assert got == MESSAGE % i, f"connection {i}: {got}"


def main():
    mode, *args = sys.argv[1:]
    signal.signal(signal.SIGIO, signal.SIG_IGN)
    if mode == "exchange":
        exchange([socket.socket(fileno=int(fd)) for fd in args])
        print("ok")
        return
    count = int(args[-1])
    if mode == "serve":
        listener = socket.create_server(("", int(args[0])), backlog=count)
        sockets = [listener.accept()[0] for _ in range(count)]
        listener.close()
    else:
        for _ in range(2):
            local_connection()
        sockets = []
        for _ in range(count):  # before they connect, and after
            s = socket.socket()
            sockets.append(s)
        spare = [socket.socket() for _ in range(16)]
        apart(spare)
        for s in sockets:
            s.connect((args[0], int(args[1])))
    # half of them go through exec as they are
    apart(sockets[:count // 2])
    fds = [s.detach() for s in sockets]
    for fd in fds:
        os.set_inheritable(fd, True)
    os.execv(sys.executable, [sys.executable, __file__, "exchange", *map(str, fds)])


main()
