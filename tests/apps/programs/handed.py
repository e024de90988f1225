"""A master passes connections to a worker, an image of its own with an environment of its own, which has
become another user before. Arguments: port, file that the worker sends.
"""
import os
import socket
import sys

WORKER = "worker"


def work(door, path):
    os.setuid(65534)
    while True:
        master = door.accept()[0]
        _, fds, _, _ = socket.recv_fds(master, 1, 1)
        with socket.socket(fileno=fds[0]) as conn:
            conn.recv(100)
            with open(path, "rb") as file:
                conn.sendall(file.read())
        master.close()


def main(port, path):
    listener = socket.create_server(("", port))
    door = socket.socket(socket.AF_UNIX)
    door.bind(f"\0tcpshim-handed-{os.getpid()}")
    door.listen()
    door.set_inheritable(True)
    worker = os.fork()
    if worker == 0:
        os.execve(sys.executable, [sys.executable, __file__, WORKER, str(door.fileno()), path], {})
    for _ in range(3):
        conn = listener.accept()[0]
        with socket.socket(socket.AF_UNIX) as way:
            way.connect(door.getsockname())
            socket.send_fds(way, [b"c"], [conn.fileno()])
            conn.close()
            way.recv(1)
    os.kill(worker, 9)
    os.wait()


if sys.argv[1] == WORKER:
    work(socket.socket(fileno=int(sys.argv[2])), sys.argv[3])
else:
    main(int(sys.argv[1]), sys.argv[2])
