"""Sends a file and ends at once, without close().

Arguments: connect|listen, return|_exit|sigterm, address, port, file.
"""
import os
import signal
import socket
import sys

side, manner, address, port, path = sys.argv[1:]
with open(path, "rb") as source:
    data = source.read()
if side == "listen":
    listener = socket.create_server((address, int(port)))
    sock, _ = listener.accept()
else:
    sock = socket.create_connection((address, int(port)))
sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
sock.sendall(data)
if manner == "_exit":
    os._exit(0)
if manner == "sigterm":
    os.kill(os.getpid(), signal.SIGTERM)
    signal.pause()
sock.detach()
