"""Listeners of several processes on one port (SO_REUSEPORT).

spread.py server ADDRESS PORT COUNT   COUNT listeners, and a forked worker for each
spread.py client ADDRESS PORT COUNT   prints how many connections each worker served
"""
import collections
import os
import socket
import sys


def listener(address):
    one = socket.socket()
    one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    one.bind(address)
    one.listen(64)
    return one


def server(address, count):
    listeners = [listener(address) for _ in range(count)]
    for number, own in enumerate(listeners):
        if os.fork() == 0:
            for other in listeners:
                if other is not own:
                    other.close()
            while True:
                with own.accept()[0] as connection:
                    connection.sendall(b"%d" % number)
    for own in listeners:
        own.close()
    os.wait()


def client(address, count):
    served = collections.Counter()
    for _ in range(count):
        with socket.create_connection(address) as connection:
            served[connection.recv(16)] += 1
    print(" ".join(f"{worker.decode() or 'nobody'} {n}" for worker, n in sorted(served.items())))


if __name__ == "__main__":
    {"server": server, "client": client}[sys.argv[1]]((sys.argv[2], int(sys.argv[3])), int(sys.argv[4]))
