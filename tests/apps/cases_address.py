"""Addressing: an address of the stack's own, local clients of a guarded listener, loopback inside
the stack, and what is said when a variable asks for what cannot be."""


from cases_http import start_nginx, stop_nginx, url
from framework import PROGRAMS, PYTHON, case, wait_for

PREFIX = "/24"


def own(host, **more):
    """The variables that give a stack the spare address of its host."""
    return {"TCPSHIM_ADDR": host.spare + PREFIX, "TCPSHIM_IF": "eth0", **more}


def server_address(run):
    return run.server_host.spare if run.server_user else run.server_addr


@case("own-curl-nginx", sizes=("1B", "1M", "1G"), needs=("curl", "nginx"), kernel=False)
def own_curl_nginx(run):
    server = start_nginx(run, shim=own(run.server_host))
    client = run.client(["curl", "-sS", "--fail", url(run, addr=server_address(run))],
                        same=run.file(), shim=own(run.client_host))
    if run.client_user:
        run.check(run.client_host.spare in client.trace(), "the client did not use its own address")
    stop_nginx(run, server)


@case("own-ping", pairings=("KU",), sizes=("56", "4000"), needs=("nginx", "ping"), kernel=False)
def own_ping(run):
    """The engine answers ARP and ping, also in fragments, while the program does nothing."""
    run.data.path("1B")
    server = start_nginx(run, shim=own(run.server_host))
    server.engine = False
    spare = run.server_host.spare
    text = run.client(["ping", "-n", "-c", "3", "-i", "0.1", "-W", "2", "-s", run.size, spare]).stdout()
    run.check(" 0% packet loss" in text, "not every ping was answered")
    neighbours = run.client(["ip", "neigh", "show", spare]).stdout()
    run.check("lladdr" in neighbours, f"no ARP entry: {neighbours!r}")
    # The kernel's own address of that host is untouched.
    run.client(["ping", "-n", "-c", "1", "-W", "2", run.server_addr])
    stop_nginx(run, server)


@case("own-gateway", pairings=("UK",), sizes=("1M",), needs=("curl", "nginx"), kernel=False)
def own_gateway(run):
    """A destination outside the subnet goes through TCPSHIM_GW."""
    far = "10.78.0.1"
    run.client(["ip", "addr", "add", far + "/32", "dev", "lo"], user=False, host=run.server_host)
    server = start_nginx(run)
    run.client(["curl", "-sS", "--fail", url(run, addr=far)], same=run.file(),
               shim=own(run.client_host, TCPSHIM_GW=run.server_addr))
    stop_nginx(run, server)


@case("own-one-holder", pairings=("KU",), sizes=("-",), needs=("nginx",), kernel=False)
def own_one_holder(run):
    """A second family of processes that wants the same address is told who has it."""
    run.data.path("1B")
    server = start_nginx(run, shim=own(run.server_host))
    server.engine = False
    second = run.client(["curl", "-sS", "-m", "5", url(run, addr=run.client_host.addr)], codes=None,
                        host=run.server_host, user=True, engine=False, shim=own(run.server_host))
    refused(run, second, str(server.popen.pid))
    stop_nginx(run, server)


@case("own-forked", pairings=("KU", "UU"), sizes=("-",), kernel=False)
def own_forked(run):
    """Workers that were forked before there was any socket share an address of the stack's own."""
    server = run.server([PYTHON, f"{PROGRAMS}/shared_port.py", "workers", run.server_host.spare, 9000, 3],
                        shim=own(run.server_host))
    run.check(wait_for(lambda: server.stdout().count("listens") == 3, run.time_left()), server.stderr())
    words = run.client([PYTHON, f"{PROGRAMS}/shared_port.py", "client", run.server_host.spare, 9000, 100]).stdout().split()
    run.check(sum(map(int, words[1::2])) == 100 and len(words) > 2, f"{words}")
    server.stop()


@case("local-clients", pairings=("KU",), sizes=("1M",), needs=("nginx", "curl"))
def local_clients(run):
    """A listener on the user stack serves clients of its own host too, through its guard."""
    server = start_nginx(run)
    for address in ("127.0.0.1", run.server_addr):
        run.client(["curl", "-sS", "--fail", url(run, addr=address)], same=run.file(),
                   host=run.server_host, user=False)
    run.client(["curl", "-sS", "--fail", url(run)], same=run.file())
    # A shimmed client whose destination is its own host goes to the kernel.
    run.client(["curl", "-sS", "--fail", url(run, addr="127.0.0.1")], same=run.file(),
               host=run.server_host, user=run.server_user, engine=False)
    stop_nginx(run, server)


@case("doors", pairings=("KU", "UU"), sizes=("1B",))
def doors(run):
    """Local clients of the kernel's are seen although a connection beside them always has something to read."""
    server = run.server([PYTHON, f"{PROGRAMS}/doors.py", 9000], 9000)
    run.client([PYTHON, f"{PROGRAMS}/doors.py", 9000, run.server_addr])
    server.wait()


@case("local-ipv6", pairings=("KU",), sizes=("1M",), needs=("node", "curl"))
def local_ipv6(run):
    """A listener on :: takes IPv6 from the kernel and IPv4 from the engine."""
    server = run.server(["node", f"{PROGRAMS}/http_server.js", "8080", run.data.directory], 8080)
    run.client(["curl", "-sS", "--fail", f"http://[::1]:8080/{run.size}"], same=run.file(),
               host=run.server_host, user=False)
    run.client(["curl", "-sS", "--fail", url(run, 8080)], same=run.file())
    server.stop()


@case("loopback-user", pairings=("U-",), sizes=("1B", "1M"), kernel=False)
def loopback_user(run):
    """TCPSHIM_LOOPBACK=user: one process, both ends, on 127.0.0.1."""
    run.client([PYTHON, f"{PROGRAMS}/loopback.py", run.file()], shim={"TCPSHIM_LOOPBACK": "user"})


@case("loopback-timer", pairings=("U-",), sizes=("1B",), kernel=False)
def loopback_timer(run):
    """A timer that is set after the service thread's role was taken from it and given up."""
    run.client([PYTHON, f"{PROGRAMS}/loopback_timer.py"], shim={"TCPSHIM_LOOPBACK": "user"})


@case("loopback-kernel", pairings=("U-",), sizes=("1M",))
def loopback_kernel(run):
    """Without it the same stays in the kernel."""
    run.client([PYTHON, f"{PROGRAMS}/loopback.py", run.file()], engine=False)


def refused(run, process, *words):
    """The shim said why in one line with these words, and the program failed."""
    process.complains = True
    lines = [l for l in process.stderr().splitlines() if "tcpshim:" in l]
    run.check(len(lines) == 1, f"{len(lines)} lines of the shim, not one: {lines[:3]}")
    for word in words:
        run.check(word in lines[0], f"'{word}' is not in: {lines[0]}")
    run.check(process.popen.returncode != 0, "the program did not notice")


BAD = {
    "addr": ({"TCPSHIM_ADDR": "banana"}, ["TCPSHIM_ADDR"]),
    "addr-prefix": ({"TCPSHIM_ADDR": "10.77.0.4/77"}, ["TCPSHIM_ADDR"]),
    "gw": ({"TCPSHIM_ADDR": "10.77.0.4/24", "TCPSHIM_GW": "x"}, ["TCPSHIM_GW"]),
    "if": ({"TCPSHIM_ADDR": "10.77.0.4/24", "TCPSHIM_IF": "nope0"}, ["TCPSHIM_IF", "nope0"]),
    "mem": ({"TCPSHIM_MEM": "lots"}, ["TCPSHIM_MEM"]),
    "trace": ({"TCPSHIM_TRACE": "state,bogus"}, ["TCPSHIM_TRACE", "bogus", "segment", "queue"]),
    "taken": ({"TCPSHIM_ADDR": "10.77.0.1/24", "TCPSHIM_IF": "eth0"}, ["10.77.0.1"]),
}


@case("bad", pairings=("UK",), sizes=tuple(BAD), needs=("curl", "nginx"), kernel=False)
def bad_variable(run):
    """One clear line, and TCP fails rather than silently using the kernel."""
    run.data.path("1B")
    server = start_nginx(run)
    shim, words = BAD[run.size]
    client = run.client(["curl", "-sS", "-m", "10", url(run, path="/1B")], codes=None, engine=False,
                        shim=shim)
    refused(run, client, *words)
    stop_nginx(run, server)


@case("no-net-raw", pairings=("UK",), sizes=("fail", "kernel"), needs=("curl", "nginx", "setpriv"),
      kernel=False)
def no_net_raw(run):
    """Without CAP_NET_RAW TCP fails, or uses the kernel where TCPSHIM_FALLBACK=kernel says so."""
    run.data.path("1B")
    server = start_nginx(run)
    drop = ["setpriv", "--bounding-set=-net_raw", "--inh-caps=-net_raw", "curl", "-sS", "--fail",
            "-m", "10", url(run, path="/1B")]
    shim = {"TCPSHIM_FALLBACK": "kernel"} if run.size == "kernel" else {}
    client = run.client(drop, codes=None, engine=False, shim=shim)
    if run.size == "kernel":
        client.complains = True
        run.check(client.popen.returncode == 0, "the fallback did not work")
    else:
        refused(run, client, "CAP_NET_RAW")
    stop_nginx(run, server)


CONNECT = """
import errno, socket, sys
error = socket.socket().connect_ex((sys.argv[1], 81))
print(errno.errorcode.get(error, error))
"""


@case("connect-error", pairings=("UK",), sizes=("ECONNREFUSED", "ENETUNREACH", "EHOSTUNREACH"))
def connect_error(run):
    """A closed port, no route, nobody who answers ARP: what the kernel's connect() says."""
    address = {"ECONNREFUSED": run.server_addr, "ENETUNREACH": "192.0.2.1",
               "EHOSTUNREACH": "10.77.0.99"}[run.size]
    run.resets_allowed = {"a"}  # by the kernel of the server for the closed port
    client = run.client([PYTHON, "-c", CONNECT, address], engine=False)
    run.check(client.stdout().strip() == run.size, f"connect() gave {client.stdout().strip()}")
    if run.client_user and run.size != "ENETUNREACH":
        run.check("SYN_SENT" in client.trace(), "the user stack did not try")


@case("guard-ports", pairings=("KU",), sizes=("-",), needs=("nginx",))
def guard_ports(run):
    """The port of a user listener is taken for every other program, and free again after it."""
    run.data.path("1B")
    server = start_nginx(run)
    server.engine = False
    bind = "import socket; s = socket.socket(); s.bind(('0.0.0.0', 80)); s.listen()"
    second = run.client([PYTHON, "-c", bind], codes=(1,), host=run.server_host, user=False)
    run.check("Address already in use" in second.stderr(), second.stderr()[-200:])
    if run.server_user:
        run.check("LISTEN" in server.trace(), "the user stack did not listen")
    stop_nginx(run, server)
    run.client([PYTHON, "-c", bind], host=run.server_host, user=False)


@case("same-port", pairings=("UK",), sizes=("-",))
def same_port(run):
    """A client that always binds one port: its last connection is over before the next one begins."""
    server = run.server([PYTHON, f"{PROGRAMS}/same_port.py", "server", 9000], port=9000)
    said = run.client([PYTHON, f"{PROGRAMS}/same_port.py", "client", run.server_addr, 9000, 40]).stdout()
    run.check(int(said.split()[0]) >= 36, said)  # a busy machine may be late with the last ACK
    server.stop()


BESIDE = """
import errno, os, socket, subprocess, sys
REUSE = "import socket; s = socket.socket(); s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1); s.bind(('0.0.0.0', 7777))"
exec(REUSE)
kernel = {name: value for name, value in os.environ.items() if name != "LD_PRELOAD"}
listener = subprocess.Popen([sys.executable, "-c", REUSE + "; s.listen(); print(flush=True); input()"], env=kernel,
                            stdin=subprocess.PIPE, stdout=subprocess.PIPE)
listener.stdout.readline()
error = s.connect_ex((sys.argv[1], 9000))
listener.communicate(b"\\n")
print(errno.errorcode.get(error, error))
"""


@case("guard-impossible", pairings=("UK",), sizes=("-",))
def guard_impossible(run):
    """A bound port on which another program listens cannot be guarded: no connection leaves from it."""
    server = run.server([PYTHON, f"{PROGRAMS}/same_port.py", "server", 9000], port=9000)
    client = run.client([PYTHON, "-c", BESIDE, run.server_addr], engine=False)
    run.check(client.stdout().strip() == ("EADDRNOTAVAIL" if run.client_user else "0"), client.stdout())
    server.stop()
