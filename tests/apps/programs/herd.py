"""Several processes wait for connections on one listener: how many are woken for nothing?

herd.py server ADDRESS PORT MODE COUNT   prints "served N idle-wakes M" when COUNT connections are served
    MODE: epoll, exclusive (EPOLLEXCLUSIVE), poll, accept (blocking), lazy (epoll; all but one of the
          workers do nothing about the first connection that they hear of, and no more from then on)
herd.py client ADDRESS PORT COUNT
"""
import os
import select
import signal
import socket
import sys
import time

WORKERS = 4


def worker(listener, mode, lazy, report):
    served = idle = 0
    signal.signal(signal.SIGTERM, lambda *_: (os.write(report, b"%d %d\n" % (served, idle)), os._exit(0)))
    if mode != "accept":
        listener.setblocking(False)
        poll = select.poll() if mode == "poll" else select.epoll()
        poll.register(listener.fileno(), select.EPOLLIN | (select.EPOLLEXCLUSIVE if mode == "exclusive" else 0))
    while True:
        if mode != "accept" and not poll.poll():
            continue
        if mode == "lazy" and os.read(lazy, 1) == b"l":
            signal.pause()
        try:
            connection, _ = listener.accept()
        except BlockingIOError:
            idle += 1
            continue
        with connection:
            connection.sendall(b"x")
        served += 1


def server(address, mode, count):
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(address)
    listener.listen(64)
    theirs, ours = os.pipe()
    lazy, tokens = os.pipe()
    os.write(tokens, b"l" * (WORKERS - 1) + b"." * count)
    pids = []
    for _ in range(WORKERS):
        pid = os.fork()
        if pid == 0:
            worker(listener, mode, lazy, ours)
        pids.append(pid)
    signal.sigwait({signal.SIGUSR1})
    for pid in pids:
        os.kill(pid, signal.SIGTERM)
    for pid in pids:
        os.waitpid(pid, 0)
    totals = [list(map(int, line.split())) for line in os.read(theirs, 4096).splitlines()]
    print("served", sum(t[0] for t in totals), "idle-wakes", sum(t[1] for t in totals), flush=True)
    return 0 if sum(t[0] for t in totals) == count else 1


def client(address, count):
    for _ in range(count):
        with socket.create_connection(address) as connection:
            assert connection.recv(1) == b"x"
            assert connection.recv(1) == b""
        time.sleep(0.005)  # the workers sleep again: each connection meets all of them asleep


if __name__ == "__main__":
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
    where = (sys.argv[2], int(sys.argv[3]))
    sys.exit(server(where, sys.argv[4], int(sys.argv[5])) if sys.argv[1] == "server"
             else client(where, int(sys.argv[4])))
