"""Threads, each with a connection: one more thread writes while it reads back and compares.

Arguments: address, port, file, number of threads.
"""
import socket
import sys
import threading

address, port, path, count = sys.argv[1], int(sys.argv[2]), sys.argv[3], int(sys.argv[4])
with open(path, "rb") as source:
    DATA = source.read()
failures = []


def exchange(number):
    try:
        with socket.create_connection((address, port), timeout=30) as sock:
            sock.settimeout(None)

            def send():
                sock.sendall(DATA)
                sock.shutdown(socket.SHUT_WR)

            writer = threading.Thread(target=send)
            writer.start()
            got = bytearray()
            while piece := sock.recv(1 << 16):
                got += piece
            writer.join()
        if got != DATA:
            failures.append(f"thread {number}: {len(got)} of {len(DATA)} bytes, or wrong ones")
    except OSError as error:
        failures.append(f"thread {number}: {error}")


threads = [threading.Thread(target=exchange, args=(n,)) for n in range(count)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
sys.exit("\n".join(failures) if failures else 0)
