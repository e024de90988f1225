"""Members of a group of listeners, and of the processes that share one, are killed.

group_death.py server ADDRESS PORT   PORT: three listeners by SO_REUSEPORT, each in a process of its own; 0 and 1
                                     serve, 2 never accepts. PORT + 1: processes 3 and 4 sit in accept() on one
                                     listener. PORT + 2: kills the process whose number it is sent, answers when that
                                     was waited for.
group_death.py client ADDRESS PORT   prints: connections reset and served of those that were open when 2 was killed,
                                     connections until the last was served of those made then, and who served the ones
                                     to PORT + 1 after the death of 3
"""
import collections
import os
import signal
import socket
import sys

OPEN = 40
TRIES = 400


def listener(address, shared):
    one = socket.socket()
    one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if shared:
        one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    one.bind(address)
    one.listen(64)
    return one


def serve(number, own):
    while True:
        if number == 2:
            signal.pause()
        with own.accept()[0] as connection:
            connection.sendall(b"%d" % number)


def server(host, port):
    group = [listener((host, port), True) for _ in range(3)]
    group += [listener((host, port + 1), False)]
    group += group[3:]
    control = listener((host, port + 2), False)
    came, gate = os.pipe(), os.pipe()
    workers = []
    for number, own in enumerate(group):
        workers.append(os.fork())
        if workers[-1] == 0:
            control.close()
            for other in group:
                if other is not own:
                    other.close()
            os.close(gate[1])
            os.write(came[1], b".")
            os.read(gate[0], 1)  # ends when all have what they are to have
            serve(number, own)
    for own in group:
        own.close()
    for _ in workers:
        os.read(came[0], 1)
    os.close(gate[1])
    print("ready", flush=True)
    while True:
        with control.accept()[0] as connection:
            victim = workers[int(connection.recv(1))]
            os.kill(victim, signal.SIGKILL)
            os.waitpid(victim, 0)
            connection.sendall(b"dead")


def kill(host, port, number):
    with socket.create_connection((host, port + 2), timeout=20) as control:
        control.sendall(b"%d" % number)
        assert control.recv(4) == b"dead"


def outcome(connection):
    """Who served it, or "reset"."""
    with connection:
        connection.settimeout(20)
        try:
            return connection.recv(16).decode() or "nobody"
        except ConnectionResetError:
            return "reset"


def client(host, port):
    waiting = [socket.create_connection((host, port), timeout=20) for _ in range(OPEN)]
    kill(host, port, 2)
    ends = collections.Counter(map(outcome, waiting))
    tries = row = 0
    while row < OPEN and tries < TRIES:
        served = outcome(socket.create_connection((host, port), timeout=20))
        row = row + 1 if served in ("0", "1") else 0
        tries += 1
    kill(host, port, 3)
    rest = [socket.create_connection((host, port + 1), timeout=20) for _ in range(OPEN)]
    shared = collections.Counter(map(outcome, rest))
    print(ends["reset"], ends["0"] + ends["1"], tries, shared["4"])


if __name__ == "__main__":
    {"server": server, "client": client}[sys.argv[1]](sys.argv[2], int(sys.argv[3]))
