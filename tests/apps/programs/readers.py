#!/usr/bin/python3
"""readers.py PORT FILE WAY: a server that takes FILE once, reading in a way of its own. Nothing
behind what a call returned may be written to. readers.py PORT FILE ADDRESS sends it, in one call."""

import array
import fcntl
import random
import select
import socket
import sys
import termios

port, path, way = int(sys.argv[1]), sys.argv[2], sys.argv[3]
with open(path, "rb") as file:
    wanted = file.read()

if way[0].isdigit():
    with socket.create_connection((way, port)) as out:
        out.sendall(wanted)
        out.shutdown(socket.SHUT_WR)
        assert out.recv(100) == b"fine\n"
    sys.exit()

listener = socket.create_server(("", port))
sock, _ = listener.accept()
rng = random.Random(way)
room = bytearray(b"\xa5" * 300000)
done = 0


def take(got, asked):
    global done
    assert room[:got] == wanted[done:done + got], f"other bytes at {done}"
    assert room[got:asked] == b"\xa5" * (asked - got), f"written to behind {got} of {asked} bytes"
    room[:got] = b"\xa5" * got
    done += got
    return got


def some():
    return rng.choice((rng.randint(1, 2000), rng.randint(1, 70000), rng.randint(1, 300000), 131072))


def unread():
    count = array.array("i", [0])
    fcntl.ioctl(sock, termios.FIONREAD, count)
    return count[0]


def look():
    """What a readable socket says of itself is true."""
    kind = rng.randrange(4)
    if kind == 0:
        assert unread() > 0 or done == len(wanted), "readable, and nothing is unread"
    elif kind == 1:
        seen = sock.recv(rng.randint(1, 100000), socket.MSG_PEEK)
        assert seen == wanted[done:done + len(seen)] and (seen or done == len(wanted)), "a peek"


if way == "blocking":
    while take(sock.recv_into(room, asked := some()), asked):
        pass
elif way == "waitall":
    while take(sock.recv_into(room, asked := some(), socket.MSG_WAITALL), asked) == asked:
        pass
elif way == "vector":
    while got := sock.recvmsg_into([memoryview(room)[:100], memoryview(room)[100:asked]])[0] \
            if (asked := some() + 100) else 0:
        take(got, asked)
elif way == "poll":
    poller = select.poll()
    poller.register(sock, select.POLLIN)
    while True:
        assert poller.poll(10000), "nothing comes any more"
        look()
        if not take(sock.recv_into(room, asked := some()), asked):
            break
elif way == "edge":
    sock.setblocking(False)
    poller = select.epoll()
    poller.register(sock, select.EPOLLIN | select.EPOLLET)
    end = False
    while not end:
        assert poller.poll(10), "nothing comes any more"
        try:
            while not end:
                end = take(sock.recv_into(room, asked := some()), asked) == 0
        except BlockingIOError:
            pass
assert done == len(wanted), f"{done} of {len(wanted)} bytes"
sock.sendall(b"fine\n")
sock.close()
