"""What a program hears in its socket's error queue: MSG_ZEROCOPY and SO_TIMESTAMPING.

errqueue.py ADDRESS PORT    of a server that sends back what it gets
"""
import select
import socket
import struct
import sys
import time

SO_TIMESTAMPING, SO_ZEROCOPY = 37, 60
MSG_ERRQUEUE, MSG_ZEROCOPY = 0x2000, 0x4000000
TX_SOFTWARE, OPT_ID, SOFTWARE, TX_SCHED, TX_ACK, TSONLY = 1 << 1, 1 << 7, 1 << 4, 1 << 8, 1 << 9, 1 << 11
ORIGIN_TIMESTAMPING, ORIGIN_ZEROCOPY = 4, 5
SND, SCHED, ACK = range(3)
ENOMSG = 42


def wait_error(sock):
    """Only POLLERR, which is always asked for."""
    poll = select.poll()
    poll.register(sock, 0)
    assert poll.poll(20000) == [(sock.fileno(), select.POLLERR)], "no POLLERR"


def report(sock):
    """(sock_extended_err, seconds or None) of the next report."""
    wait_error(sock)
    data, control, flags, _ = sock.recvmsg(0, 512, MSG_ERRQUEUE)
    assert data == b"" and flags & MSG_ERRQUEUE and not flags & (socket.MSG_TRUNC | socket.MSG_CTRUNC), flags
    stamp = None
    for level, kind, text in control:
        if (level, kind) == (socket.SOL_SOCKET, SO_TIMESTAMPING):
            seconds, nanoseconds = struct.unpack_from("qq", text)
            stamp = seconds + nanoseconds / 1e9
        else:
            assert (level, kind, len(text)) == (socket.SOL_IP, 11, 32), (level, kind, len(text))
            error = struct.unpack_from("IBBBxII", text)
    return error, stamp


def echo(sock, text):
    """Sent already; waits for the answer."""
    answer = b""
    while len(answer) < len(text):
        part = sock.recv(65536)
        assert part, "closed early"
        answer += part
    assert answer == text


def zerocopy(sock):
    sock.setsockopt(socket.SOL_SOCKET, SO_ZEROCOPY, 1)
    assert sock.getsockopt(socket.SOL_SOCKET, SO_ZEROCOPY) == 1
    text = bytes(range(250)) * 40
    for _ in range(5):
        assert sock.send(text, MSG_ZEROCOPY) == len(text)
        echo(sock, text)
    sock.setsockopt(socket.SOL_SOCKET, SO_ZEROCOPY, 0)
    sock.send(text, MSG_ZEROCOPY)  # not heard
    echo(sock, text)
    known = 0
    while known < 5:
        (errno, origin, _, _, first, last), stamp = report(sock)
        assert (errno, origin, stamp) == (0, ORIGIN_ZEROCOPY, None), (errno, origin, stamp)
        assert first == known, (first, known)
        known = last + 1
    assert known == 5, known


def stamps(sock):
    sock.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPING,
                    TX_SOFTWARE | TX_SCHED | TX_ACK | SOFTWARE | OPT_ID | TSONLY)
    text, end = b"x" * 3000, 0
    for _ in range(3):
        began = time.time()
        sock.sendall(text)
        echo(sock, text)
        end += len(text)
        got = {}
        while len(got) < 3:
            (errno, origin, _, _, kind, key), stamp = report(sock)
            assert (errno, origin, key) == (ENOMSG, ORIGIN_TIMESTAMPING, end - 1), (errno, origin, key, end)
            got[kind] = stamp
        times = [began, got[SCHED], got[SND], got[ACK], time.time()]
        assert all(a <= b + 0.01 for a, b in zip(times, times[1:])), times
    sock.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPING, 0)
    sock.sendall(text)
    echo(sock, text)


def main(address):
    sock = socket.create_connection(address)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    zerocopy(sock)
    stamps(sock)
    try:
        sock.recvmsg(0, 512, MSG_ERRQUEUE)
        raise AssertionError("a report too many")
    except BlockingIOError:
        pass
    record = sock.send(b"a record", socket.MSG_EOR)
    echo(sock, b"a record"[:record])
    print("heard of all")


if __name__ == "__main__":
    main((sys.argv[1], int(sys.argv[2])))
