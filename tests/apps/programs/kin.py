"""Who joins whose family: children that are forked before there is any socket make one each, in turn, and
this prints `NAME INODE` for each, the inode of its arena (0: none)."""
import ctypes
import os
import re
import socket
import sys


def arena():
    with open("/proc/self/maps", encoding="ascii") as file:
        found = re.search(r"(\d+) +/memfd:tcpshim ", file.read())
    return found.group(1) if found else "0"


def make_socket(name, kept):
    kept.append(socket.socket())
    return f"{name} {arena()}\n".encode()


def unshare():
    assert ctypes.CDLL(None, use_errno=True).unshare(0x40000000) == 0  # CLONE_NEWNET


def child(name, prepare=None, image=False, forks=False):
    """Forks it; returns what makes it go on, and what ends it."""
    go, told = os.pipe(), os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(go[1])
        kept = []
        os.read(go[0], 1)
        if image:
            os.set_inheritable(go[0], True)
            os.set_inheritable(told[1], True)
            os.execv(sys.executable, [sys.executable, __file__, name, str(go[0]), str(told[1])])
        if prepare:
            prepare()
        text = make_socket(name, kept)
        if forks and os.fork() > 0:  # its child alone is left of the two
            os._exit(0)
        os.write(told[1], text)
        os.read(go[0], 1)
        os._exit(0)
    os.close(go[0])
    os.close(told[1])

    def begin():
        os.write(go[1], b"x")
        sys.stdout.write(os.read(told[0], 100).decode())
        sys.stdout.flush()

    def end():
        os.write(go[1], b"x")
        os.waitpid(pid, 0)

    return begin, end


def main():
    order = [child("first"), child("second"), child("netns", unshare), child("user", lambda: os.setuid(65534)),
             child("image", image=True), child("parent", forks=True), child("late"), child("again")]
    ends = dict(enumerate(end for _, end in order))
    for number, (begin, _) in enumerate(order):
        if number == 6:  # whom it can join now are a grandchild, and who died
            for one in (0, 1):
                ends.pop(one)()
        begin()
    for end in ends.values():
        end()


if __name__ == "__main__":
    if len(sys.argv) > 1:
        sockets = []
        os.write(int(sys.argv[3]), make_socket(sys.argv[1], sockets))
        os.read(int(sys.argv[2]), 1)
    else:
        main()
