"""What an event of epoll costs with few and with many sockets in the set. Argument: how many.

Both ends of all connections are in this process. Prints the processor time for an event, in
microseconds, with 50 connections and with all."""
import resource
import select
import socket
import sys
import time

EVENTS, BATCHES, ACTIVE = 400, 15, 50


def connect(listener, epoll, clients, members):
    client = socket.create_connection(listener.getsockname())
    member, _ = listener.accept()
    epoll.register(member, select.EPOLLIN)
    clients.append(client)
    members[member.fileno()] = member


def cost(epoll, clients, members):
    """The least of some batches: of what the machine does meanwhile, little is in that."""
    best = float("inf")
    peers = {m.getpeername(): fd for fd, m in members.items()} if len(members) <= ACTIVE else PEERS
    for _ in range(BATCHES):
        begin = time.process_time()
        for number in range(EVENTS):
            client = clients[number % ACTIVE]
            client.send(b"x")
            (fd, events), = epoll.poll(5)
            assert fd == peers[client.getsockname()] and events == select.EPOLLIN
            members[fd].recv(1)
        best = min(best, time.process_time() - begin)
    PEERS.update(peers)
    return best / EVENTS * 1e6


PEERS = {}
HARD = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
resource.setrlimit(resource.RLIMIT_NOFILE, (HARD, HARD))
count = min(int(sys.argv[1]), HARD // 3 - 100)  # both ends, and a guard for the port of one
clients, members = [], {}
with socket.create_server(("127.0.0.1", 0), backlog=512) as listener, select.epoll() as epoll:
    for _ in range(ACTIVE):
        connect(listener, epoll, clients, members)
    few = cost(epoll, clients, members)
    while len(members) < count:
        connect(listener, epoll, clients, members)
    many = cost(epoll, clients, members)
print(f"{few:.2f} {many:.2f}")
for one in clients + list(members.values()):
    one.close()
