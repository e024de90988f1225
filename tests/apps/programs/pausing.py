"""A server that pauses its listener by shutdown() while a connection lives, as haproxy does, and
listens again. Argument: the port. Echoes one message of each connection, twice of the first."""
import socket
import sys

listener = socket.socket()
listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
listener.bind(("0.0.0.0", int(sys.argv[1])))
listener.listen(5)
first = listener.accept()[0]
listener.shutdown(socket.SHUT_RDWR)
first.sendall(first.recv(100))  # with the listener paused
listener.listen(5)
second = listener.accept()[0]
second.sendall(second.recv(100))
first.sendall(first.recv(100))
