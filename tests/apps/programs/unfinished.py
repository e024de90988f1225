#!/usr/bin/python3
"""Answers in two parts, sent one right after the other, and then the end.

    unfinished.py PORT FILE                server; a request is "answer" or "pause"
    unfinished.py ADDRESS PORT FILE        client

After enough of them the parts come as one segment. Then the server computes, between two parts and
without a call, until FILE is there: the client makes it when the first part has come.
"""

import os
import socket
import struct
import sys
import time

HEADER, BODY = b"h" * 200, b"b" * 800
TOGETHER, ENOUGH = 8, 600  # connections, so that the server need not sleep before each; times
PATIENCE = 20
DATA_SEGS_IN = 152  # in struct tcp_info


def serve(port, file):
    listener = socket.create_server(("0.0.0.0", port))
    while True:
        connection, _ = listener.accept()
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        pause = connection.recv(100) == b"pause"
        connection.send(HEADER)
        end = time.monotonic() + PATIENCE
        while pause and not os.path.exists(file) and time.monotonic() < end:
            pass
        connection.send(BODY)
        connection.close()


def ask(server, request):
    connection = socket.create_connection(server, timeout=PATIENCE / 2)
    connection.send(request)
    return connection


def answer(connection, between=None):
    """Segments that it took."""
    with connection:
        got = b""
        while len(got) < len(HEADER):
            got += connection.recv(len(HEADER) - len(got))
        if between:
            between()
        while piece := connection.recv(10000):
            got += piece
        if got != HEADER + BODY:
            sys.exit("another answer")
        info = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 256)
    return struct.unpack_from("I", info, DATA_SEGS_IN)[0]


def main():
    *where, file = sys.argv[1:]
    if len(where) == 1:
        serve(int(where[0]), file)
    server = (where[0], int(where[1]))
    for _ in range(ENOUGH):
        asked = [ask(server, b"answer") for _ in range(TOGETHER)]
        if min([answer(connection) for connection in asked]) == 1:
            break
    else:
        sys.exit("each part came alone")
    answer(ask(server, b"pause"), lambda: open(file, "w").close())


main()
