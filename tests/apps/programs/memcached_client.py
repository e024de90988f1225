"""Stores a file under many keys in memcached and reads it back. Arguments: address, port, file."""
import socket
import sys

with open(sys.argv[3], "rb") as source:
    DATA = source.read()

with socket.create_connection((sys.argv[1], int(sys.argv[2])), timeout=20) as sock:
    stream = sock.makefile("rwb")
    for number in range(8):
        stream.write(b"set key%d 0 0 %d\r\n" % (number, len(DATA)) + DATA + b"\r\n")
        stream.flush()
        answer = stream.readline()
        if answer != b"STORED\r\n":
            sys.exit(f"set: {answer!r}")
    stream.write(b"get " + b" ".join(b"key%d" % n for n in range(8)) + b"\r\n")
    stream.flush()
    for number in range(8):
        header = stream.readline()
        if header != b"VALUE key%d 0 %d\r\n" % (number, len(DATA)):
            sys.exit(f"get: {header!r}")
        if stream.read(len(DATA) + 2) != DATA + b"\r\n":
            sys.exit(f"key{number}: the value differs")
    if stream.readline() != b"END\r\n":
        sys.exit("no END")
    stream.write(b"quit\r\n")
    stream.flush()
    if stream.read(1):
        sys.exit("the server did not close")
