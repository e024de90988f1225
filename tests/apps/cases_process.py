"""What a process does around its connections: exit with unsent data, idle without spinning, standard
streams over a socket."""

import os
import signal
import socket
import time

from cases_http import start_nginx, stop_nginx, url
from framework import PROGRAMS, PYTHON, Failed, case, wait_for
from lab import in_namespace

PORT = 9000


def cpu_seconds(process):
    with open(f"/proc/{process.popen.pid}/stat", encoding="ascii") as file:
        fields = file.read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@case("exit-delivers", sizes=("return", "_exit", "sigterm", "server"))
def exit_delivers(run):
    """Data that send() took arrives, with its FIN, although the process is gone at once."""
    # 256 KB: less than the send buffer and the peer's window, more than the first flight.
    wanted = run.write("wanted", "0123456789abcdef" * 16384)
    if run.size == "server":
        server = run.server([PYTHON, f"{PROGRAMS}/hasty.py", "listen", "return", run.server_addr,
                             PORT, wanted], PORT)
        run.client(["nc", "-d", run.server_addr, PORT], same=wanted)
        server.wait()
        return
    server = run.server(["nc", "-d", "-l", PORT], PORT, same=wanted)
    codes = (-15,) if run.size == "sigterm" else (0,)
    run.client([PYTHON, f"{PROGRAMS}/hasty.py", "connect", run.size, run.server_addr, PORT, wanted],
               codes=codes)
    server.wait()


@case("idle", sizes=("-",), needs=("nginx", "nc"))
def idle(run):
    """An idle listener and an idle connection cost no processor time."""
    run.data.path("1B")
    server = start_nginx(run)
    # nc reads the end of its stdin and goes on waiting for the server.
    client = run.start("client", ["nc", run.server_addr, "80"], run.client_host, run.client_user)
    time.sleep(0.3)  # start-up is not what is measured
    before = [cpu_seconds(p) for p in (server, client)]
    time.sleep(1)
    for process, start in zip((server, client), before):
        used = cpu_seconds(process) - start
        run.check(used <= 0.05, f"{process.role} used {used:.2f} s of processor time in one idle second")
    server.stop(settle=False)  # closes the connection: the client sees the end
    client.wait()


@case("many-connections", sizes=("200",))
def many_connections(run):
    """Two hundred connections at once in one process, by select-like waits, then all closed."""
    server = run.server([PYTHON, f"{PROGRAMS}/threads_server.py", PORT], PORT)
    run.client([PYTHON, f"{PROGRAMS}/many.py", run.server_addr, PORT, run.size])
    server.stop()


@case("at-once", pairings=("UK",), sizes=("200",))
def at_once(run):
    """Two hundred SYNs at once, to a neighbour whose address is not known yet: none is lost."""
    listener = in_namespace(run.server_host.path, lambda: socket.create_server((run.server_addr, PORT), backlog=512))
    client = run.client([PYTHON, f"{PROGRAMS}/at_once.py", run.server_addr, PORT, run.size])
    for _ in range(int(run.size)):
        listener.accept()[0].close()
    listener.close()
    run.check(client.stdout() == "0\n", f"sent again: {client.stdout()}")


@case("fork-server", sizes=("1M",), needs=("socat",), table=("socat, fork", "nc"))
def fork_server(run):
    """A child for each connection."""
    server = run.server(["socat", "-u", f"OPEN:{run.file()},rdonly",
                         f"TCP-LISTEN:{PORT},reuseaddr,fork"], PORT)
    # socat opens the file before it forks: the children share its offset, one client is served.
    run.client(["nc", "-d", run.server_addr, PORT], same=run.file())
    server.stop(codes=(0, 143, -15))


@case("unshimmed-child", sizes=("-",), needs=("curl", "nginx"))
def unshimmed_child(run):
    """A shell under the shim, its children too: fork, exec, pipes."""
    run.data.path("1M")
    server = start_nginx(run)
    script = f'for i in 1 2 3; do curl -sS --fail {url(run, path="/1M")} | sha256sum; done'
    client = run.client(["sh", "-c", script])
    sums = client.stdout().split("\n")
    run.check(len(sums) == 4 and len(set(sums[:3])) == 1, f"{sums}")
    wanted = run.client(["sha256sum", run.data.path("1M")], user=False).stdout().split()[0]
    if sums[0].split()[0] != wanted:
        raise Failed("the digest differs")
    stop_nginx(run, server)


@case("epoll-many", pairings=("U-",), sizes=("10000",), needs=("gcc",), kernel=False)
def epoll_many(run):
    """Ten thousand sockets in one set: an event takes the instructions that it takes with fifty."""
    run.deadline += 60
    program = run.path("epoll_steps")
    run.client(["gcc", "-O1", "-o", program, f"{PROGRAMS}/epoll_steps.c"], user=False, role="gcc")
    client = run.client([program, run.size], shim={"TCPSHIM_LOOPBACK": "user"})
    few, many = map(int, client.stdout().split())
    run.check(1000 < many < 1.25 * few, f"an event takes {few} instructions with 50 members, {many} with {run.size}")


@case("reuseport", sizes=("-",))
def reuseport(run):
    """Three processes of a family listen on one port by SO_REUSEPORT: each is given its share, and none is lost."""
    server = run.server([PYTHON, f"{PROGRAMS}/spread.py", "server", run.server_addr, PORT, 3], PORT)
    words = run.client([PYTHON, f"{PROGRAMS}/spread.py", "client", run.server_addr, PORT, 150]).stdout().split()
    served = dict(zip(words[::2], map(int, words[1::2])))
    run.check(sum(served.values()) == 150 and served.keys() <= {"0", "1", "2"}, f"{served}")
    run.check(len(served) == 3, f"not by all: {served}")
    server.stop()


def served(client):
    words = client.stdout().split()
    return dict(zip(words[::2], map(int, words[1::2])))


def check_answered(run, servers, connections):
    """Each SYN was answered by one of them. While the group changes two may feel meant, or none."""
    answers = sum(server.trace().count("LISTEN -> SYN_RECEIVED") for server in servers if server.user)
    run.check(not servers[0].user or connections <= answers < connections + 20,
              f"{answers} answers to {connections} SYNs")


@case("reuseport-forked", sizes=("-",))
def reuseport_forked(run):
    """Workers that were forked before there was any socket share a port."""
    server = run.server([PYTHON, f"{PROGRAMS}/shared_port.py", "workers", run.server_addr, PORT, 4], PORT)
    each = served(run.client([PYTHON, f"{PROGRAMS}/shared_port.py", "client", run.server_addr, PORT, 400]))
    run.check(sum(each.values()) == 400 and len(each) > 1, f"{each}")
    server.stop()
    check_answered(run, [server], 408)


@case("kin", pairings=("U-",), sizes=("-",), kernel=False)
def kin(run):
    """Processes that were forked before there was any socket are one family; those that left their namespace,
    user or program are not."""
    words = run.client([PYTHON, f"{PROGRAMS}/kin.py"], engine=False, shim={"TCPSHIM_TRACE": ""}).stdout().split()
    arenas = dict(zip(words[::2], words[1::2]))
    run.check(len(arenas) == 8 and "0" not in arenas.values(), f"{arenas}")
    family = {name for name, arena in arenas.items() if arena == arenas["first"]}
    run.check(family == {"first", "second", "parent", "late", "again"}, f"of one family: {family}")
    run.check(len(set(arenas.values())) == 4, f"{arenas}")


@case("reuseport-killed", sizes=("-",))
def reuseport_killed(run):
    """A member of a group of listeners is killed: what waited for it is reset, the others get all from then on. And one
    of two that sit in accept() on the same listener: the other serves all."""
    run.resets_allowed.add("a")
    server = run.server([PYTHON, f"{PROGRAMS}/group_death.py", "server", run.server_addr, PORT])
    run.check(wait_for(lambda: "ready" in server.stdout(), run.time_left()), "the server does not begin")
    words = run.client([PYTHON, f"{PROGRAMS}/group_death.py", "client", run.server_addr, PORT]).stdout().split()
    reset, served_, tries, by_survivor = map(int, words)
    run.check(reset > 0 and served_ > 0 and reset + served_ == 40, f"{reset} reset, {served_} served of 40")
    # until the death is noticed a few may go to the dead
    run.check(40 <= tries < 80, f"{tries} connections until 40 in a row were served")
    run.check(by_survivor == 40, f"{by_survivor} of 40 by the survivor")
    server.stop()


@case("reuseport-strangers", pairings=("KU", "UU"), sizes=("-",))
def reuseport_strangers(run):
    """Programs that were started one by one share a port; some come and go while connections are open."""

    def worker(number):
        server = run.server([PYTHON, f"{PROGRAMS}/shared_port.py", "worker", run.server_addr, PORT, number])
        run.check(wait_for(lambda: "listens" in server.stdout(), run.time_left()), f"{number} does not listen")
        return server

    servers = [worker(0), worker(1)]
    marks = [run.path("joins"), run.path("leaves")]
    client = run.start("client", [PYTHON, f"{PROGRAMS}/shared_port.py", "client", run.server_addr, PORT, 100] + marks,
                       run.client_host, run.client_user)
    for mark in marks:
        run.check(wait_for(lambda: os.path.exists(mark), run.time_left()), "the client did not come so far")
        if mark == marks[0]:
            servers.append(worker(2))
        else:
            servers[0].popen.send_signal(signal.SIGTERM)  # closes its listener, keeps its connections
        os.unlink(mark)
    client.wait()
    each = served(client)
    run.check(sum(each.values()) == 300 and each.keys() == {"0", "1", "2"}, f"{each}")
    for server in servers[1:]:
        server.popen.send_signal(signal.SIGTERM)
    for server in servers:
        server.wait()
    check_answered(run, servers, 308)


def herd(run, mode):
    """Idle wake-ups for a hundred connections that meet four processes asleep on one listener."""
    server = run.server([PYTHON, f"{PROGRAMS}/herd.py", "server", run.server_addr, PORT, mode, 100], PORT)
    run.client([PYTHON, f"{PROGRAMS}/herd.py", "client", run.server_addr, PORT, 100])
    server.popen.send_signal(signal.SIGUSR1)
    server.wait()
    words = server.stdout().split()
    run.check(words[:2] == ["served", "100"], f"the server says {words}")
    return int(words[3])


@case("herd-accept", sizes=("-",))
def herd_accept(run):
    """Blocking accept() in four processes: each connection is served once, whoever is woken."""
    herd(run, "accept")


def calm_herd(run, mode):
    """Hardly an idle wake-up. On a busy machine a process may take long to accept, and then others are
    woken; so the best of three counts."""
    for _ in range(3):
        idle = herd(run, mode)
        if idle <= 10 or not run.server_user:
            return
    run.check(False, f"{idle} wake-ups for nothing in 100 connections")


@case("herd-exclusive", sizes=("-",))
def herd_exclusive(run):
    """EPOLLEXCLUSIVE: a connection wakes one process (the kernel: 0 or 1 idle wake-ups in 100)."""
    calm_herd(run, "exclusive")


@case("herd-epoll", sizes=("-",))
def herd_epoll(run):
    """Plain epoll: who is woken first accepts before the others hear of it (the kernel: 0 to 90 in 100)."""
    calm_herd(run, "epoll")


@case("herd-lazy", sizes=("-",))
def herd_lazy(run):
    """Plain epoll, and three of four do not accept when they are woken: the fourth hears of it, too."""
    herd(run, "lazy")


@case("herd-poll", sizes=("-",))
def herd_poll(run):
    """The same with poll (the kernel: 0 to 80 in 100)."""
    calm_herd(run, "poll")


@case("backing", sizes=("32",))
def backing(run):
    """Sockets that share a kernel socket behind their descriptors are not seen to, and get their own in time."""
    program = [PYTHON, f"{PROGRAMS}/backing.py"]
    server = run.server([*program, "serve", PORT, run.size], PORT)
    client = run.client([*program, "connect", run.server_addr, PORT, run.size])
    server.wait()
    for process in (client, server):
        run.check(process.stdout() == "ok\n", f"{process.role} said {process.stdout()!r}")
