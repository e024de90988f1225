"""traced.py segv|abort|exit ADDRESS PORT: asks for /1B and ends so.

traced.py pipe|socket|tty LIBRARY ADDRESS PORT: the same with a traced stack on a stderr whose reader
goes away; says what its errno and its SIGPIPE were.
"""

import ctypes
import os
import pty
import signal
import socket
import subprocess
import sys


def ask(address, port):
    c = socket.create_connection((address, int(port)))
    c.sendall(b"GET /1B HTTP/1.0\r\n\r\n")
    answer = b""
    while piece := c.recv(65536):
        answer += piece
    assert answer.endswith(b"\r\n\r\n") or len(answer) > 20, answer
    return c


def end(how, address, port):
    connection = ask(address, port)
    if how == "segv":
        ctypes.string_at(0)
    if how == "abort":
        os.abort()
    connection.close()


def watched(address, port):
    """Under the shim: stdin tells when the reader is gone. errno is what it was before each call."""
    libc = ctypes.CDLL(None, use_errno=True)
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # Python ignores it
    ask(address, port)
    sys.stdin.readline()
    for _ in range(20):
        c = socket.create_connection((address, int(port)))
        ctypes.set_errno(95)
        assert libc.send(c.fileno(), b"GET /1B HTTP/1.0\r\n\r\n", 20, 0) == 20
        assert ctypes.get_errno() == 95, ctypes.get_errno()
        while c.recv(65536):
            pass
        c.close()
    assert signal.SIGPIPE not in signal.sigpending()
    print("fine")


def reader_leaves(kind, library, address, port):
    reader, writer = {"pipe": os.pipe, "tty": pty.openpty,
                      "socket": lambda: [s.detach() for s in socket.socketpair()]}[kind]()
    environment = dict(os.environ, LD_PRELOAD=library, TCPSHIM_TRACE="all", TCPSHIM_TRACE_FORMAT="json")
    if kind == "socket":
        environment.update(TCPSHIM_TRACE="state,queue", TCPSHIM_TRACE_FORMAT="text")
    process = subprocess.Popen([sys.executable, __file__, "watched", address, port], env=environment,
                               stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=writer)
    os.close(writer)
    assert os.read(reader, 10), "no trace"
    os.close(reader)
    out, _ = process.communicate(b"\n")
    assert process.returncode == 0 and out == b"fine\n", (process.returncode, out)


if __name__ == "__main__":
    if sys.argv[1] in ("segv", "abort", "exit"):
        end(*sys.argv[1:])
    elif sys.argv[1] == "watched":
        watched(*sys.argv[2:])
    else:
        reader_leaves(*sys.argv[1:])
