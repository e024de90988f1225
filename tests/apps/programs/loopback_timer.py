"""Both ends wait for each other, and only a timer gets them on: Nagle holds what a delayed ACK lets go.

Before that all were idle, so the service thread drives; then a call took the role from it and gave it up.
"""
import select
import socket
import struct
import sys
import threading
import time

PATIENCE = 20

listener = socket.create_server(("127.0.0.1", 0))
client = socket.create_connection(listener.getsockname())
server, _ = listener.accept()
server.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("ll", PATIENCE, 0))
poll = select.poll()
poll.register(listener, select.POLLIN)
for turn in range(3):
    time.sleep(0.3)
    poll.poll(1)
    reader = threading.Thread(target=lambda: client.recv(1))
    reader.start()
    client.send(b"a")
    client.send(b"b")
    start = time.monotonic()
    try:
        for expected in b"a", b"b":
            if server.recv(1) != expected:
                sys.exit("wrong byte")
    except OSError as why:
        sys.exit(f"after {time.monotonic() - start:.1f} s: {why}")
    server.send(b"c")
    reader.join()
