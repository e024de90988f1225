#!/usr/bin/python3
"""Counts the system calls of real programs with strace: the kernel's stack and the user stack.

Each program runs on one host of a private laboratory, its peer on the other with the kernel's stack.
Counts depend little on how busy the machine is; times under strace say nothing and are not shown.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, os.path.join(ROOT, "tests", "lab"))
from lab import Lab, end_group, wait_for  # noqa: E402

PYTHON = ["/usr/bin/python3", "-S", "-E", "-c"]
PORT = 8080
BYTES = 64 << 20
REQUESTS = 1000
CONNECTIONS = 200
SHOWN = 9

ECHO = f"""
import socket
l = socket.create_server(("", {PORT}), backlog=64)
for i in range(%d):
    s, _ = l.accept()
    while d := s.recv(64):
        s.sendall(d)
    s.close()
"""
REQUESTER = f"""
import socket
for i in range(%d):
    s = socket.create_connection((%r, {PORT}))
    s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    for k in range(%d):
        s.sendall(b"x" * 64)
        s.recv(64)
    s.close()
"""
SOURCE = f"""
import socket
l = socket.create_server(("", {PORT}))
s, _ = l.accept()
s.recv(4096)
s.sendall(b"HTTP/1.0 200 OK\\r\\nContent-Length: {BYTES}\\r\\n\\r\\n" + bytes({BYTES}))
"""
SINK = f"""
import socket
l = socket.create_server(("", {PORT}))
s, _ = l.accept()
while s.recv(1 << 20):
    pass
"""


def cases(a):
    """(what, program under strace, its peer); the one that listens is a `server`."""
    nc = f"head -c {BYTES} /dev/zero | exec nc -N {a} {PORT}"
    return [
        (f"curl, {BYTES >> 20} MB received",
         ["curl", "-s", "-o", "/dev/null", f"http://{a}:{PORT}/"], PYTHON + [SOURCE], False),
        (f"nc, {BYTES >> 20} MB sent", ["sh", "-c", nc], PYTHON + [SINK], False),
        (f"python3, client, {REQUESTS} requests of 64 bytes",
         PYTHON + [REQUESTER % (1, a, REQUESTS)], PYTHON + [ECHO % 1], False),
        (f"python3, server, {CONNECTIONS} connections of one request",
         PYTHON + [ECHO % CONNECTIONS], PYTHON + [REQUESTER % (CONNECTIONS, a, 1)], True),
    ]


def trace(out, library, argv):
    """argv under strace; the library goes into the program, not into strace."""
    preload = ["-E", f"LD_PRELOAD={library}"] if library else []
    return ["strace", "-f", "-c", "-S", "calls", "-o", out, *preload, *argv]


def run(lab, library, argv, peer, serves):
    """{system call: count} of argv."""
    with tempfile.NamedTemporaryFile(prefix="tcpshim-strace-") as out:
        traced = trace(out.name, library, argv)
        server, client = (traced, peer) if serves else (peer, traced)
        quiet = {"stdout": subprocess.DEVNULL, "stdin": subprocess.DEVNULL}
        first = lab.popen(lab.a, server, {}, **quiet)
        try:
            if not wait_for(lambda: lab.a.kernel_listens(PORT), 20):
                raise RuntimeError(f"{server[0]} does not listen")
            second = lab.popen(lab.b, client, {}, **quiet)
            for process in (second, first):
                if process.wait(120) != 0:
                    raise RuntimeError(f"{process.args} ended with {process.returncode}")
        finally:
            end_group(first)
        with open(out.name, encoding="utf-8") as file:
            rows = re.findall(r"^ *[\d.]+ +[\d.]+ +\d+ +(\d+) +(?:\d+ +)?(\w+)$", file.read(), re.M)
    return {name: int(count) for count, name in rows if name != "total"}


def show(what, kernel, user):
    print(f"\n{what}\n{'':22} {'kernel':>8} {'user':>8}")
    names = sorted(set(kernel) | set(user),
                   key=lambda name: -max(kernel.get(name, 0), user.get(name, 0)))
    for name in names[:SHOWN]:
        print(f"  {name:20} {kernel.get(name, 0):8} {user.get(name, 0):8}")
    print(f"  {'all':20} {sum(kernel.values()):8} {sum(user.values()):8}")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--build", default="build")
    options = parser.parse_args()
    build = os.path.join(ROOT, options.build)
    with tempfile.TemporaryDirectory(prefix="tcpshim-library-") as directory, Lab() as lab:
        # without the keeper beside it: strace would wait for the end of its TIME_WAIT
        library = shutil.copy(f"{build}/libtcpshim.so", directory)
        for what, argv, peer, serves in cases(lab.a.addr):
            show(what, *(run(lab, which, argv, peer, serves) for which in (None, library)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
