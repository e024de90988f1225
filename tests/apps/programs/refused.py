"""Connects to ports of this host that connections of its own have, where nobody listens.

Arguments: a server's address and port. Prints what each attempt gave, here and in a child, by this host's
address and by the loopback's, and last what a port gave where somebody does listen.
"""
import errno
import os
import socket
import struct
import sys

server = sys.argv[1], int(sys.argv[2])


def connect(to):
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("ll", 5, 0))
        return errno.errorcode.get(sock.connect_ex(to), "0")


chosen = socket.create_connection(server)  # its port was chosen for it
bound = socket.socket()
bound.bind(("", 0))
bound.connect(server)
ports = [sock.getsockname()[1] for sock in (chosen, bound)]
host = chosen.getsockname()[0]
listener = socket.create_server(("", 0))
for child in range(2):
    if child == 0 or os.fork() == 0:
        print(*(connect((to, port)) for to in (host, "127.0.0.1") for port in ports), flush=True)
        if child:
            os._exit(0)
    else:
        os.wait()
print(connect((host, listener.getsockname()[1])), flush=True)
listener.accept()[0].close()
