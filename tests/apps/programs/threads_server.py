"""Echoes, a thread for each connection. Argument: port."""
import socketserver
import sys


class Echo(socketserver.BaseRequestHandler):
    def handle(self):
        while data := self.request.recv(1 << 16):
            self.request.sendall(data)


class Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    request_queue_size = 64
    daemon_threads = True


with Server(("0.0.0.0", int(sys.argv[1])), Echo) as server:
    server.serve_forever()
