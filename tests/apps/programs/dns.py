"""Asks for the address of example.org over TCP, two questions on each connection. Arguments: address, port, times."""
import socket
import struct
import sys

QUESTION = b"\x07example\x03org\0" + struct.pack(">HH", 1, 1)
answers = 0
for number in range(int(sys.argv[3]) // 2):
    with socket.create_connection((sys.argv[1], int(sys.argv[2])), 5) as sock, sock.makefile("rb") as stream:
        for more in range(2):
            message = struct.pack(">HHHHHH", number * 2 + more, 0x0100, 1, 0, 0, 0) + QUESTION
            sock.sendall(struct.pack(">H", len(message)) + message)
            answer = stream.read(struct.unpack(">H", stream.read(2))[0])
            assert answer[:2] == message[:2] and answer.endswith(socket.inet_aton("192.0.2.7")), answer
            answers += 1
print(answers, "answers")
