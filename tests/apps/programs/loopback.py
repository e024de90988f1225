"""A server and a client in one process on 127.0.0.1, by thread. Argument: file to carry both ways."""
import socket
import sys
import threading

with open(sys.argv[1], "rb") as source:
    DATA = source.read()

listener = socket.create_server(("127.0.0.1", 0))
received = []


def serve():
    peer, _ = listener.accept()
    with peer:
        data = bytearray()
        while piece := peer.recv(1 << 16):
            data += piece
        received.append(bytes(data))
        peer.sendall(data)


thread = threading.Thread(target=serve)
thread.start()
with socket.create_connection(listener.getsockname()) as sock:
    assert sock.getpeername() == listener.getsockname()
    sock.sendall(DATA)
    sock.shutdown(socket.SHUT_WR)
    back = bytearray()
    while piece := sock.recv(1 << 16):
        back += piece
thread.join()
listener.close()
if received != [DATA] or back != DATA:
    sys.exit("the bytes differ")
