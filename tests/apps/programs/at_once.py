"""Connects many sockets to one server at once. Arguments: address, port, how many. Prints how many segments
had to be sent again."""
import select
import socket
import struct
import sys

TOTAL_RETRANS = 100  # offset of tcpi_total_retrans in struct tcp_info

host, port, many = sys.argv[1], *map(int, sys.argv[2:])
socks = [socket.socket() for _ in range(many)]
for sock in socks:
    sock.setblocking(False)
    sock.connect_ex((host, port))
again = 0
for sock in socks:
    select.select([], [sock], [])
    assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0
    info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, TOTAL_RETRANS + 4)
    again += struct.unpack_from("I", info, TOTAL_RETRANS)[0]
print(again)
