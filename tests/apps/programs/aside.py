#!/usr/bin/python3
"""aside.py PORT: a server that reads eight streams together while the service thread sends its ACKs: itself, in a
forked child, as a new image, and behind a filter that kills for what that thread does. Each must find the bytes that
are next. aside.py PORT ADDRESS sends to it until it is told to stop.

Where there are two processors, the thread must have sent some; in the child as well."""

import ctypes
import os
import platform
import random
import select
import signal
import socket
import struct
import sys
import threading
import time

STREAMS = 8
PATTERN = random.Random(1).randbytes(1 << 20) * 2
LAP = len(PATTERN) // 2
LONG, SHORT = 20, 0.3  # seconds
SENDTO, RECVFROM, SCHED_YIELD, SECCOMP = {"x86_64": (44, 45, 24, 317)}.get(platform.machine(), (206, 207, 124, 277))
SECCOMP_FILTER_FLAG_TSYNC, PR_SET_NO_NEW_PRIVS = 1, 38
libc = ctypes.CDLL(None, use_errno=True)


def send(address, port):
    with socket.create_connection((address, port)) as out:
        out.settimeout(20)
        at = 0
        while not select.select([out], [], [], 0)[0]:
            at += out.send(PATTERN[at % LAP:at % LAP + (1 << 18)])
        out.shutdown(socket.SHUT_WR)
        assert out.recv(100) == b"stop" and int(out.recv(100)) == at


def helped():
    """Seconds that the service thread ran."""
    ran = 0
    for task in os.listdir("/proc/self/task"):
        with open(f"/proc/self/task/{task}/comm", encoding="ascii") as comm:
            if comm.read() != "tcpshim\n":
                continue
        with open(f"/proc/self/task/{task}/schedstat", encoding="ascii") as stat:
            ran += int(stat.read().split()[0]) / 1e9
    return ran


def take(sock, position):
    text = sock.recv(1 << 18)
    begin = position[sock] % LAP
    assert text == PATTERN[begin:begin + len(text)], f"other bytes at {position[sock]}"
    position[sock] += len(text)
    return bool(text)


def read(position, seconds, enough=0):
    """For so long, or until the thread did so much."""
    end = time.monotonic() + seconds
    before = helped()
    while time.monotonic() < end and (not enough or helped() - before < enough):
        for _ in range(200):
            ready = select.select(list(position), [], [], 10)[0]
            assert ready, "nothing comes any more"
            for sock in ready:
                assert take(sock, position)
    assert helped() - before >= enough, f"the service thread ran {helped() - before} s"


def forbid(*calls):
    """seccomp(2): for all threads; all is allowed but these."""
    code = struct.pack("HBBI", 0x20, 0, 0, 0)  # the call's number
    for left, call in enumerate(reversed(calls), 1):
        code += struct.pack("HBBI", 0x15, len(calls) - left, 1 if left == len(calls) else 0, call)
    code += struct.pack("HBBI" * 2,
                        0x06, 0, 0, 0x80000000,  # SECCOMP_RET_KILL_PROCESS
                        0x06, 0, 0, 0x7fff0000)  # SECCOMP_RET_ALLOW
    program = ctypes.create_string_buffer(code)
    filter_ = ctypes.create_string_buffer(struct.pack("HxxxxxxP", len(calls) + 3, ctypes.addressof(program)))
    assert libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0
    assert libc.syscall(SECCOMP, 1, SECCOMP_FILTER_FLAG_TSYNC, filter_) == 0


def in_child(position, enough):
    mine, theirs = os.pipe()
    child = os.fork()
    if child == 0:
        read(position, LONG if enough else SHORT, enough)
        os.write(theirs, " ".join(map(str, position.values())).encode())
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    for sock, at in zip(position, os.read(mine, 1000).split()):
        position[sock] = int(at)


def new_image(port, position):
    for sock in position:
        sock.set_inheritable(True)
    os.execv(sys.executable, [sys.executable, sys.argv[0], port, "image"] +
             [f"{sock.fileno()}:{at}" for sock, at in position.items()])


def end(position):
    read(position, SHORT)
    forbid(SENDTO, RECVFROM, SCHED_YIELD)
    read(position, SHORT)
    for sock in position:
        sock.sendall(b"stop")
    for sock in position:
        while take(sock, position):
            pass
        sock.sendall(str(position[sock]).encode())
        sock.close()


def main():
    signal.alarm(50)
    port, what = sys.argv[1], (sys.argv[2:] or [""])[0]
    if what == "image":
        end({socket.socket(fileno=int(fd)): int(at) for fd, at in (a.split(":") for a in sys.argv[3:])})
    elif what:
        threads = [threading.Thread(target=send, args=(what, int(port))) for _ in range(STREAMS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    else:
        listener = socket.create_server(("", int(port)))
        position = {listener.accept()[0]: 0 for _ in range(STREAMS)}
        enough = 0.06 if len(os.sched_getaffinity(0)) > 1 else 0
        read(position, LONG if enough else SHORT, enough)
        in_child(position, enough)
        new_image(port, position)


main()
