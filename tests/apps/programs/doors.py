#!/usr/bin/python3
"""doors.py PORT: a server with a connection that always has something to read. A local client of the kernel's comes to the
listener beside it; poll() and select() must say so, and a single look that is not made at once after another. doors.py
PORT ADDRESS is the other client."""

import os
import select
import signal
import socket
import subprocess
import sys
import time

CLIENT = """import socket, sys
sock = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
print("there", flush=True)
sock.recv(1)"""


def polled(*socks):
    poller = select.poll()
    for sock in socks:
        poller.register(sock, select.POLLIN)
    return [fd for fd, _ in poller.poll(10000)]


def selected(*socks):
    return [sock.fileno() for sock in select.select(socks, [], [], 10)[0]]


def come(port):
    env = {k: v for k, v in os.environ.items() if k != "LD_PRELOAD"}
    return subprocess.Popen([sys.executable, "-c", CLIENT, port], env=env, stdout=subprocess.PIPE)


def main():
    signal.alarm(30)
    port = sys.argv[1]
    if len(sys.argv) > 2:
        with socket.create_connection((sys.argv[2], int(port))) as sock:
            sock.sendall(b"always")
            assert sock.recv(1) == b""
        return
    listener = socket.create_server(("", int(port)))
    always = listener.accept()[0]
    always.recv(1)
    for look in polled, selected:
        client = come(port)
        while listener.fileno() not in (ready := look(always, listener)):
            assert ready == [always.fileno()]
        listener.accept()[0].close()
        client.wait()
        client = come(port)
        assert client.stdout.readline() == b"there\n"
        for _ in range(20):
            look(always, listener)
            time.sleep(0.0002)
            assert sorted(look(always, listener)) == sorted((always.fileno(), listener.fileno()))
        listener.accept()[0].close()
        client.wait()
    always.recv(100)


main()
