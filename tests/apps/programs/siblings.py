"""Children that live one after another, each with one connection to a port of its own.

Arguments: address, first port, how many, own port. Prints how many were served, and ends when somebody
connected to its own port.
"""
import os
import socket
import sys

host, first, many, own = sys.argv[1], *map(int, sys.argv[2:])
listener = socket.create_server(("", own))  # the stack is the parent's, which makes no connection
served = 0
for child in range(many):
    pid = os.fork()
    if pid == 0:
        socket.create_connection((host, first + child)).close()
        os._exit(0)
    served += os.waitpid(pid, 0)[1] == 0
print(served, flush=True)
listener.accept()
