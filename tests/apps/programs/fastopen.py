"""TCP Fast Open: a server that answers what it reads, a client that sends with its SYN.

fastopen.py server ADDRESS PORT N | client ADDRESS PORT N
"""
import socket
import sys

TCP_FASTOPEN_CONNECT = 30


def server(address, count):
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_FASTOPEN, 16)
    listener.bind(address)
    listener.listen(16)
    for _ in range(count):
        connection, _ = listener.accept()
        with connection:
            connection.sendall(connection.recv(5000)[::-1])


def client(address, count):
    for i in range(count):
        text = bytes([65 + i]) * 500 + b"end"
        connection = socket.socket()
        if i % 2:
            connection.setsockopt(socket.IPPROTO_TCP, TCP_FASTOPEN_CONNECT, 1)
            connection.connect(address)
            connection.sendall(text)
        else:
            sent = connection.sendto(text, socket.MSG_FASTOPEN, address)
            assert sent == len(text), sent
        answer = b""
        while len(answer) < len(text):
            part = connection.recv(5000)
            assert part, "closed early"
            answer += part
        assert answer == text[::-1]
        connection.close()


if __name__ == "__main__":
    {"server": server, "client": client}[sys.argv[1]]((sys.argv[2], int(sys.argv[3])), int(sys.argv[4]))
