"""Servers that know nothing of each other on one port (SO_REUSEPORT).

shared_port.py workers ADDRESS PORT COUNT   forks COUNT workers before there is any socket
shared_port.py worker ADDRESS PORT NUMBER   one; SIGTERM closes its listener, and it ends with its last connection
shared_port.py client ADDRESS PORT COUNT [MARK...]
    keeps 8 connections while COUNT others come and go in 4 threads; prints how many each worker served.
    At each MARK, a path, it makes that file and waits until it is gone, the connections open.
"""
import collections
import os
import signal
import socket
import sys
import threading
import time


def converse(connection, number):
    """Tells for each line who is here and how long the line was."""
    with connection, connection.makefile("rb") as lines:
        for line in lines:
            connection.sendall(b"%d %d\n" % (number, len(line)))


def worker(address, number):
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    listener.bind(address)
    listener.listen(64)
    print("listens", flush=True)
    leaving = []

    def leave(*_):
        leaving.append(True)
        raise InterruptedError

    signal.signal(signal.SIGTERM, leave)
    try:
        while not leaving:
            threading.Thread(target=converse, args=(listener.accept()[0], number)).start()
    except InterruptedError:
        listener.close()


def workers(address, count):
    children = []
    for number in range(count):
        pid = os.fork()
        if pid == 0:
            worker(address, number)
            return
        children.append(pid)

    def leave(*_):
        for pid in children:
            os.kill(pid, signal.SIGTERM)

    signal.signal(signal.SIGTERM, leave)
    for pid in children:
        os.waitpid(pid, 0)


class Talk:
    def __init__(self, address):
        self.connection = socket.create_connection(address, timeout=20)
        self.answers = self.connection.makefile("rb")
        self.worker = None

    def exchange(self, size):
        self.connection.sendall(b"x" * (size - 1) + b"\n")
        worker_, length = map(int, self.answers.readline().split())
        assert length == size and self.worker in (None, worker_), (worker_, self.worker, length, size)
        self.worker = worker_

    def close(self):
        self.answers.close()
        self.connection.close()


def client(address, count, marks):
    served = collections.Counter()
    failures = []
    lock = threading.Lock()

    def visits(number):
        try:
            for i in range(number):
                talk = Talk(address)
                talk.exchange(1 + i * 37 % 5000)
                talk.exchange(100)
                talk.close()
                with lock:
                    served[talk.worker] += 1
        except (OSError, ValueError, AssertionError) as error:
            failures.append(repr(error))

    residents = [Talk(address) for _ in range(8)]
    for mark in [None] + marks:
        if mark:
            with open(mark, "w", encoding="ascii"):
                pass
            while os.path.exists(mark):
                time.sleep(0.01)
        threads = [threading.Thread(target=visits, args=(count // 4,)) for _ in range(4)]
        for one in threads:
            one.start()
        while any(one.is_alive() for one in threads):
            for talk in residents:
                talk.exchange(2000)
        for talk in residents:
            talk.exchange(20000)
    for talk in residents:
        talk.close()
    print(" ".join(f"{number} {n}" for number, n in sorted(served.items())))
    sys.exit("; ".join(failures[:4]) if failures else 0)


if __name__ == "__main__":
    mode, where, rest = sys.argv[1], (sys.argv[2], int(sys.argv[3])), sys.argv[4:]
    if mode == "client":
        client(where, int(rest[0]), rest[1:])
    else:
        {"worker": worker, "workers": workers}[mode](where, int(rest[0]))
