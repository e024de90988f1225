"""Echoes, a process for each connection. Argument: port."""
import signal
import socketserver
import sys


class Echo(socketserver.BaseRequestHandler):
    def handle(self):
        while data := self.request.recv(1 << 16):
            self.request.sendall(data)


class Server(socketserver.ForkingTCPServer):
    allow_reuse_address = True
    request_queue_size = 64


signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
with Server(("0.0.0.0", int(sys.argv[1])), Echo) as server:
    server.serve_forever(0.05)
