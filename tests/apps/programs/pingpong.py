#!/usr/bin/python3
"""pingpong.py ADDRESS PORT ROUNDS: sends a line, waits for its echo, as often; then closes."""

import socket
import sys

with socket.create_connection((sys.argv[1], int(sys.argv[2]))) as connection:
    for number in range(int(sys.argv[3])):
        line = f"line {number:6}\n".encode()
        connection.sendall(line)
        got = b""
        while len(got) < len(line):
            piece = connection.recv(100)
            if not piece:
                sys.exit("the connection ended")
            got += piece
        if got != line:
            sys.exit(f"{got} is not {line}")
    connection.shutdown(socket.SHUT_WR)
    while connection.recv(100):
        pass
