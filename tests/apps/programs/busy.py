"""One end that sends many small segments, and another that reads them, for cases_ingress.py.

    send PORT                         to each client until it is gone
    read ADDRESS PORT OWN HOW         from the own port OWN, until a line comes in; then it resets
                                      the connection, and ends with another line.
                                      HOW: root; nobody: gives up root before it reads; exec: another
                                      image reads, from the port after OWN; fork: a child does
"""
import os
import select
import socket
import struct
import sys
import threading

SEGMENT = bytes(200)


def send_to(sock):
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    try:
        while True:
            sock.send(SEGMENT)
    except OSError:
        sock.close()


def send(port):
    listener = socket.create_server(("", int(port)), backlog=16)
    while True:
        threading.Thread(target=send_to, args=(listener.accept()[0],), daemon=True).start()


def connect(address, port, own):
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.bind(("", own))
    sock.connect((address, int(port)))
    sock.recv(1)
    return sock


def read(address, port, own, how):
    sock = connect(address, port, int(own))
    if how == "exec":
        sock.close()
        kept = socket.create_connection((address, int(port)))  # the image gets it, and with it the stack
        kept.set_inheritable(True)
        os.execv(sys.executable, [sys.executable, __file__, "read", address, port, str(int(own) + 1), "root"])
    if how == "nobody":
        os.setuid(65534)
    if how == "fork" and os.fork() != 0:
        sock.close()
        sys.exit(os.waitstatus_to_exitcode(os.wait()[1]))
    print("reads", flush=True)
    while not select.select([sys.stdin], [], [], 0)[0]:
        for _ in range(200):
            sock.recv(1 << 16)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()
    sys.stdin.readline()
    sys.stdin.readline()


{"send": send, "read": read}[sys.argv[1]](*sys.argv[2:])
