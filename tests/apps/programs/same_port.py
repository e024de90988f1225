"""Connections one after another from one port of the client's; the server closes each first.

same_port.py server PORT
same_port.py client ADDRESS PORT COUNT   prints how many were made, and what was said of the others
"""
import collections
import socket
import sys


def bound(port):
    s = socket.socket()
    s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    s.bind(("0.0.0.0", port))
    return s


def serve(port):
    listener = bound(port)
    listener.listen()
    while True:
        connection, _ = listener.accept()
        with connection:
            connection.sendall(connection.recv(64))


def fetch(server):
    with bound(7777) as s:
        s.connect(server)
        s.sendall(b"x" * 64)
        while s.recv(64):
            pass


if sys.argv[1] == "server":
    serve(int(sys.argv[2]))
said = collections.Counter()
for _ in range(int(sys.argv[4])):
    try:
        fetch((sys.argv[2], int(sys.argv[3])))
        said["made"] += 1
    except OSError as e:
        said[e.strerror] += 1
print(said["made"], dict(said))
