"""What a guard has to stand: a listener that closes and comes back while its connections live, and
many client ports. Arguments: port, remote address, remote port, own address, and "drops" if it is to
give up its privileges on the way, "capset" its capabilities at the start. SIGTERM ends it.

Prints "ports P P P..." when all connections stand, "done" when the listener has come and gone.
"""
import ctypes
import os
import signal
import socket
import sys
import time

port, remote, remote_port, own = int(sys.argv[1]), sys.argv[2], int(sys.argv[3]), sys.argv[4]
signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))


def listen():
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.bind(("", port))
    sock.listen(16)
    return sock


def serve_local(listener):
    """A client on this host is accepted, whatever address it calls."""
    for address in ("127.0.0.1", own):
        with socket.create_connection((address, port), 3) as client:
            listener.settimeout(3)
            while True:  # half-open strangers do not get here, remote clients of the test may
                peer, name = listener.accept()
                if name == client.getsockname():
                    break
                peers.append(peer)
            with peer:
                client.sendall(b"hello")
                assert peer.recv(16) == b"hello"
                assert client.getpeername()[1] == port


if "capset" in sys.argv:
    VERSION_3 = 0x20080522
    assert ctypes.CDLL(None).capset((ctypes.c_uint32 * 2)(VERSION_3, 0), (ctypes.c_uint32 * 6)()) == 0
peers = []
listener = listen()
print("listening", flush=True)
for _ in range(3):
    peers.append(listener.accept()[0])
if "drops" in sys.argv:
    os.setuid(65534)
clients = [socket.create_connection((remote, remote_port)) for _ in range(20)]
bound = socket.socket()
bound.bind(("", 0))
bound.connect((remote, remote_port))
clients.append(bound)
print("ports " + " ".join(str(c.getsockname()[1]) for c in clients), flush=True)
for _ in range(20):
    serve_local(listener)
    listener.close()
    time.sleep(0.01)
    listener = listen()
    time.sleep(0.01)
listener.close()
bound.close()
time.sleep(0.2)
for sock in peers + clients[:-1]:  # every stream still works
    sock.sendall(b"x")
print("done", flush=True)
while True:
    time.sleep(1)
