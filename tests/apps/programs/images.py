#!/usr/bin/python3
"""A server that hands its connection to another image.

    images.py HOW PORT FILE   listens, takes one connection, and another image sends FILE on it
    images.py send FD FILE    that image
"""

import os
import signal
import socket
import subprocess
import sys

HERE = os.path.abspath(__file__)


def send(fd, path):
    with socket.socket(fileno=fd) as sock, open(path, "rb") as file:
        assert sock.recv(5) == b"begin", "the peer's bytes are lost"
        while data := file.read(65536):
            sock.sendall(data)


def main():
    how, number, path = sys.argv[1], int(sys.argv[2]), sys.argv[3]
    if how == "send":
        send(number, path)
        return
    signal.alarm(20)
    listener = socket.create_server(("", number))
    sock, _ = listener.accept()
    argv = [sys.executable, HERE, "send", str(sock.fileno()), path]
    if how != "pass_fds":
        sock.set_inheritable(True)
    if how == "exec":
        os.execv(argv[0], argv)
    elif how == "failing":  # neither attempt costs the connection anything
        for program in ("/nonexistent", "/etc/passwd", "/tmp"):
            try:
                os.execv(program, argv)
            except OSError:
                pass
        try:
            os.execv(argv[0], argv + ["x" * 131072] * 40)  # E2BIG
        except OSError:
            pass
        os.execv(argv[0], argv)
    elif how == "clean":
        os.execve(argv[0], argv, {})
    elif how == "pass_fds":
        subprocess.run(argv, pass_fds=[sock.fileno()], check=True)
    elif how == "keep_fds":
        subprocess.run(argv, close_fds=False, check=True)
    elif how == "posix_spawn":
        fd = sock.fileno()
        sock.set_inheritable(False)
        argv[3] = "0"
        pid = os.posix_spawn(argv[0], argv, {}, file_actions=[
            (os.POSIX_SPAWN_DUP2, fd, 0), (os.POSIX_SPAWN_CLOSE, fd)], setsigmask=[signal.SIGUSR1])
        sock.close()
        assert os.waitpid(pid, 0)[1] == 0
    elif how == "system":
        assert os.system(" ".join(argv)) == 0
    elif how == "popen":
        import ctypes
        libc = ctypes.CDLL(None)
        libc.popen.restype = ctypes.c_void_p
        libc.pclose.argtypes = [ctypes.c_void_p]
        assert libc.pclose(libc.popen((" ".join(argv)).encode(), b"r")) == 0
    elif how == "fork-exec":
        pid = os.fork()
        if pid == 0:
            os.execv(argv[0], argv)
        sock.close()
        listener.close()
        assert os.waitpid(pid, 0)[1] == 0
    else:
        raise SystemExit("unknown: " + how)


main()
