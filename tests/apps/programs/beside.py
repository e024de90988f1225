"""Sockets of several processes that are bound to one port, whose connections go to different places.

Arguments: address, first port of an echo service, own port, how many clients its own listener serves
before the end. Prints a line for each step.
"""
import os
import socket
import sys

host, first, own, clients = sys.argv[1], *map(int, sys.argv[2:])


def bound():
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.bind(("", own))
    return sock


def echo(sock):
    text = os.urandom(2000)
    sock.sendall(text)
    return sock.recv(len(text), socket.MSG_WAITALL) == text


def session(port, uid=0):
    """In a process of its own, which dies with its connection open or in TIME_WAIT."""
    pid = os.fork()
    if pid == 0:
        if uid:
            os.setuid(uid)
        sock = bound()
        sock.connect((host, port))
        good = echo(sock)
        if port % 2:
            sock.close()
        os._exit(not good)
    return os.waitpid(pid, 0)[1] == 0 and echo(long)


long = bound()
long.connect((host, first))
print("open", echo(long), flush=True)
for i in range(1, 7):
    print("beside", session(first + i), flush=True)
print("of another user", session(first + 7, 65534), session(first + 8, 65534), session(first + 9), flush=True)
listener = bound()
listener.listen()
print("listens", echo(long), flush=True)
for _ in range(clients):
    listener.accept()[0].close()
print("served", echo(long), flush=True)
