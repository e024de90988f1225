"""Requests from several threads, each on a connection of its own, for some seconds. A request is lost when
its connection fails or is closed before the whole answer. Arguments: address, port, path, seconds, threads."""
import socket
import sys
import threading
import time

ADDRESS, PORT, PATH = sys.argv[1], int(sys.argv[2]), sys.argv[3]
END = time.monotonic() + float(sys.argv[4])
REQUEST = f"GET {PATH} HTTP/1.0\r\nHost: {ADDRESS}\r\n\r\n".encode()
answered, lost = [], []


def once():
    with socket.create_connection((ADDRESS, PORT), 8) as sock:
        sock.sendall(REQUEST)
        data = bytearray()
        while piece := sock.recv(1 << 16):
            data += piece
    head, _, body = bytes(data).partition(b"\r\n\r\n")
    if b" 200 " not in head.split(b"\r\n", 1)[0] or len(body) != 1:
        raise ValueError(f"answered {data[:60]!r}")


def work():
    while time.monotonic() < END:
        try:
            once()
            answered.append(1)
        except (OSError, ValueError) as error:
            lost.append(f"{time.monotonic() - END:.3f}: {error!r}")


threads = [threading.Thread(target=work) for _ in range(int(sys.argv[5]))]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
print(f"{len(answered)} answered, {len(lost)} lost", *lost[:3])
