#!/usr/bin/python3
"""A server that passes its connection, or its listener, to another process by SCM_RIGHTS.

    rights.py WHEN WHAT PORT FILE   WHEN: after (the fork comes after the socket), before, exec
                                    WHAT: connection, listener; the other process sends FILE
    rights.py child WHAT FD FILE    that process, for exec
"""

import os
import signal
import socket
import subprocess
import sys


def child(pipe, what, path):
    _, fds, _, _ = socket.recv_fds(pipe, 1, 4)
    sock = socket.socket(fileno=fds[0])
    if what == "listener":
        sock, _ = sock.accept()
    assert sock.getpeername()[0] == os.environ["PEER"], sock.getpeername()
    assert sock.recv(5) == b"begin", "the peer's bytes are lost"
    with open(path, "rb") as file:
        sock.sendfile(file)
    sock.close()
    pipe.close()


def main():
    when, what, number, path = sys.argv[1:]
    signal.alarm(20)
    if when == "child":
        child(socket.socket(fileno=int(number)), what, path)
        return
    ours, theirs = socket.socketpair()
    if when == "after":
        listener = socket.create_server(("", int(number)))
    process = None
    if when == "exec":
        process = subprocess.Popen([sys.executable, __file__, "child", what, str(theirs.fileno()),
                                    path], pass_fds=[theirs.fileno()])
    elif os.fork() == 0:
        ours.close()
        child(theirs, what, path)
        return
    theirs.close()
    if when != "after":
        listener = socket.create_server(("", int(number)))
    sock = listener
    if what == "connection":
        sock, _ = listener.accept()
    socket.send_fds(ours, [b"x"], [sock.fileno()])
    sock.close()
    listener.close()  # the message holds it, if nobody else does
    assert (process.wait() if process else os.wait()[1]) == 0


main()
