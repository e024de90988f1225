#!/usr/bin/python3
"""streams.py PORT FILE WAY: a server that takes FILE from four connections at once, whose frames come mixed, and never
waits in a read. streams.py PORT FILE ADDRESS sends it over all four."""

import select
import socket
import sys
import threading

STREAMS = 4
FIRST = 300000  # from then on frames are large
port, path, way = int(sys.argv[1]), sys.argv[2], sys.argv[3]
with open(path, "rb") as file:
    wanted = file.read(25 << 20)


def send():
    with socket.create_connection((way, port)) as out:
        out.sendall(wanted[:FIRST])
        assert out.recv(100) == b"go on\n"
        out.sendall(wanted[FIRST:])
        out.shutdown(socket.SHUT_WR)
        assert out.recv(100) == b"fine\n"


class Stream:
    def __init__(self, sock):
        self.sock, self.done, self.ended = sock, 0, False
        sock.setblocking(False)

    def read(self):
        """False: nothing is there now."""
        try:
            text = self.sock.recv(131072)
        except BlockingIOError:
            return False
        assert text == wanted[self.done:self.done + len(text)], f"other bytes at {self.done}"
        self.done += len(text)
        self.ended = not text
        return not self.ended


if way[0].isdigit():
    threads = [threading.Thread(target=send) for _ in range(STREAMS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    sys.exit()

listener = socket.create_server(("", port))
streams = {s.sock.fileno(): s for s in (Stream(listener.accept()[0]) for _ in range(STREAMS))}
first = next(iter(streams.values()))
for stream in streams.values():
    while stream.done < FIRST:
        stream.read()
for stream in streams.values():  # the others' text comes among the first one's
    stream.sock.sendall(b"go on\n")
    while stream.done < 2 * FIRST and stream is first:
        stream.read()
if way == "edge":
    poller = select.epoll()
    for fd in streams:
        poller.register(fd, select.EPOLLIN | select.EPOLLET)
    while not all(s.ended for s in streams.values()):
        events = poller.poll(10)
        assert events, "nothing comes any more"
        for fd, _ in events:
            while streams[fd].read():
                pass
elif way == "select":
    while left := [fd for fd, s in streams.items() if not s.ended]:
        ready = select.select(left, [], [], 10)[0]
        assert ready, "nothing comes any more"
        for fd in ready:
            streams[fd].read()
elif way == "one-by-one":  # what comes for the others meanwhile is in the way, and nobody asks for it
    for stream in streams.values():
        while not stream.ended:
            stream.read()
for stream in streams.values():
    assert stream.done == len(wanted), f"{stream.done} of {len(wanted)} bytes"
    stream.sock.sendall(b"fine\n")
    stream.sock.close()
