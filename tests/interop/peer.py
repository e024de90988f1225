"""One end of a transfer, as server or as client: 100 KB each way, which must arrive as sent.

peer.py ADDRESS PORT    listens there; and for each line of stdin that says `ADDRESS PORT FASTOPEN`
                        connects, transfers, and prints `ok` or what was wrong
"""
import random
import socket
import struct
import sys
import threading

BYTES = 100_000
THERE = random.Random(1).randbytes(BYTES)
BACK = THERE[::-1]
PATIENCE = 10


def be_patient(sock):
    """A blocking socket with a limit (settimeout() would make it non-blocking)."""
    for option in (socket.SO_RCVTIMEO, socket.SO_SNDTIMEO):
        sock.setsockopt(socket.SOL_SOCKET, option, struct.pack("ll", PATIENCE, 0))


def read_all(sock):
    got = bytearray()
    while piece := sock.recv(65536):
        got += piece
    return bytes(got)


def listen(sock, address):
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_FASTOPEN, 64)
    sock.bind(address)
    sock.listen(64)


def serve_one(sock):
    """Answers what came, if it was right."""
    with sock:
        be_patient(sock)
        got = read_all(sock)
        sock.sendall(BACK if got == THERE else b"wrong")


def serve(sock):
    while True:
        threading.Thread(target=serve_one, args=(sock.accept()[0],), daemon=True).start()


def transfer(sock, address, fastopen):
    """"ok", or what was wrong."""
    try:
        with sock:
            be_patient(sock)
            sent = 0
            if fastopen:
                sent = sock.sendto(THERE, socket.MSG_FASTOPEN, address)
            else:
                sock.connect(address)
            sock.sendall(THERE[sent:])
            sock.shutdown(socket.SHUT_WR)
            return "ok" if read_all(sock) == BACK else "the bytes differ"
    except OSError as error:
        return f"{error}"


if __name__ == "__main__":
    listener = socket.socket()
    listen(listener, (sys.argv[1], int(sys.argv[2])))
    threading.Thread(target=serve, args=(listener,), daemon=True).start()
    print("ready", flush=True)
    for line in sys.stdin:
        where, port, wish = line.split()
        print(transfer(socket.socket(), (where, int(port)), wish == "1"), flush=True)
