"""Bare streams: nc, socat, perl, python's asyncio and threads, iperf3, ssh."""

import json
import os
import pwd

from framework import ALL_SIZES, PROGRAMS, PYTHON, SMALL, Skipped, case, find_program

PORT = 9000


@case("nc-download", sizes=ALL_SIZES, needs=("nc",), table=("nc", "nc"))
def nc_download(run):
    server = run.server(["nc", "-N", "-l", PORT], PORT, stdin=run.file())
    run.client(["nc", "-d", run.server_addr, PORT], same=run.file())
    server.wait()


@case("nc-upload", needs=("nc",), soak=("1G",))
def nc_upload(run):
    server = run.server(["nc", "-d", "-l", PORT], PORT, same=run.file())
    run.client(["nc", "-N", run.server_addr, PORT], stdin=run.file())
    server.wait()


@case("batches", pairings=("UK",), sizes=("1G",), needs=("nc",))
def batches(run):
    """Frames that leave together: after a fork too, and not where a filter forbids it."""
    server = run.server(["nc", "-d", "-l", PORT], PORT, same=run.file())
    run.client([PYTHON, f"{PROGRAMS}/batches.py", run.server_addr, PORT, run.file()])
    server.wait()


@case("socat-download", sizes=ALL_SIZES, needs=("socat",), table=("socat", "socat"))
def socat_download(run):
    server = run.server(["socat", "-u", f"OPEN:{run.file()},rdonly", f"TCP-LISTEN:{PORT},reuseaddr"],
                        PORT)
    run.client(["socat", "-u", f"TCP:{run.server_addr}:{PORT}", "STDOUT"], same=run.file())
    server.wait()


@case("socat-upload", needs=("socat",), soak=("1G",))
def socat_upload(run):
    server = run.server(["socat", "-u", f"TCP-LISTEN:{PORT},reuseaddr", "STDOUT"], PORT,
                        same=run.file())
    run.client(["socat", "-u", f"OPEN:{run.file()},rdonly", f"TCP:{run.server_addr}:{PORT}"])
    server.wait()


@case("socat-echo", needs=("socat",), table=("socat, SYSTEM", "socat"))
def socat_echo(run):
    """Both directions at once, half close: what goes out comes back whole after the FIN."""
    server = run.server(["socat", f"TCP-LISTEN:{PORT},reuseaddr", "SYSTEM:cat"], PORT)
    run.client(["socat", "-t", "10", f"TCP:{run.server_addr}:{PORT}", "STDIO"], stdin=run.file(),
               same=run.file())
    server.wait()


@case("readers", pairings=("KU", "UU"), sizes=("blocking", "waitall", "vector", "poll", "edge"))
def readers(run):
    """Ways to read what comes in large frames, whose text goes to where it is wanted in one copy."""
    wanted = run.data.path("100M")
    server = run.server([PYTHON, f"{PROGRAMS}/readers.py", PORT, wanted, run.size], PORT)
    run.client([PYTHON, f"{PROGRAMS}/readers.py", PORT, wanted, run.server_addr])
    server.wait()


@case("streams", pairings=("KU", "UU"), sizes=("edge", "select", "one-by-one"))
def streams(run):
    """Reads that do not wait, of connections whose large frames come mixed."""
    wanted = run.data.path("100M")
    server = run.server([PYTHON, f"{PROGRAMS}/streams.py", PORT, wanted, run.size], PORT)
    run.client([PYTHON, f"{PROGRAMS}/streams.py", PORT, wanted, run.server_addr])
    server.wait()


@case("aside", pairings=("KU",), sizes=("1G",))  # alone: it needs both processors
def aside(run):
    """ACKs that the service thread sends: with forks, a new image, and a filter of system calls."""
    server = run.server([PYTHON, f"{PROGRAMS}/aside.py", PORT], PORT)
    run.client([PYTHON, f"{PROGRAMS}/aside.py", PORT, run.server_addr])
    server.wait()


@case("perl-download", needs=("perl",), sizes=ALL_SIZES, table=("perl", "perl"))
def perl_download(run):
    server = run.server(["perl", f"{PROGRAMS}/server.pl", "send", PORT, run.file()], PORT)
    run.client(["perl", f"{PROGRAMS}/client.pl", "receive", run.server_addr, PORT], same=run.file())
    server.wait()


@case("perl-upload", needs=("perl",), soak=("1G",))
def perl_upload(run):
    server = run.server(["perl", f"{PROGRAMS}/server.pl", "receive", PORT], PORT, same=run.file())
    run.client(["perl", f"{PROGRAMS}/client.pl", "send", run.server_addr, PORT, run.file()])
    server.wait()


@case("python-asyncio", soak=("1G",), table=("python3 asyncio", "python3 asyncio"))
def python_asyncio(run):
    server = run.server([PYTHON, f"{PROGRAMS}/asyncio_server.py", PORT, run.file()], PORT)
    run.client([PYTHON, f"{PROGRAMS}/asyncio_client.py", run.server_addr, PORT], same=run.file())
    server.stop()


@case("python-threads", table=("python3, threads", "python3, threads"))
def python_threads(run):
    """Eight threads in each program, one connection each, echoed and compared by the client."""
    server = run.server([PYTHON, f"{PROGRAMS}/threads_server.py", PORT], PORT)
    run.client([PYTHON, f"{PROGRAMS}/threads_client.py", run.server_addr, PORT, run.file(), 8])
    server.stop()


def iperf3(run, *flags):
    # The receiver closes its data connections while data is still on its way.
    run.resets_allowed = {"a", "b"}
    server = run.server(["iperf3", "-s", "-1", "-p", PORT], PORT)
    client = run.client(["iperf3", "-J", "-c", run.server_addr, "-p", PORT, *flags])
    server.wait()
    report = json.loads(client.stdout())
    run.check("error" not in report, report.get("error"))
    got = report["end"]["sum_received"]["bytes"]
    return got


@case("iperf3-upload", sizes=("1M", "1G"), needs=("iperf3",), table=("iperf3", "iperf3"))
def iperf3_upload(run):
    enough(run, iperf3(run, "-n", run.bytes))


@case("iperf3-download", sizes=("1M", "1G"), needs=("iperf3",))
def iperf3_download(run):
    enough(run, iperf3(run, "-R", "-n", run.bytes))


def enough(run, got):
    """The receiver counts until the sender says over the control connection that it is done."""
    wanted = run.bytes // 2 if run.bytes > (64 << 20) else 1
    run.check(got >= wanted, f"the receiver counted {got} bytes")


@case("iperf3-parallel", sizes=("1s",), needs=("iperf3",), table=("iperf3", "iperf3 -P 4 --bidir"))
def iperf3_parallel(run):
    """Four streams in both directions for a second."""
    got = iperf3(run, "-P", "4", "--bidir", "-t", "1")
    run.check(got > 1 << 20, f"the server received {got} bytes")


def start_sshd(run):
    """sshd as Debian configures it, but for port, keys and paths; returns the client's argv."""
    sshd = find_program("sshd")
    if not sshd:
        raise Skipped("sshd is not installed")
    os.makedirs("/run/sshd", mode=0o755, exist_ok=True)
    for name in ("host", "user"):
        run.client(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", run.path(name)], user=False,
                   role="keygen")
    with open(run.path("user.pub"), encoding="ascii") as public:
        run.write("authorized", public.read())
    config = run.write("sshd_config", f"""
Port 2222
ListenAddress {run.server_addr}
HostKey {run.path("host")}
AuthorizedKeysFile {run.path("authorized")}
PidFile none
StrictModes no
PermitRootLogin yes
PasswordAuthentication no
Subsystem sftp /usr/lib/openssh/sftp-server
KbdInteractiveAuthentication no
UsePAM {"yes" if _root_locked() else "no"}
UseDNS no
""")
    server = run.server([sshd, "-D", "-e", "-f", config], 2222)
    options = ["BatchMode=yes", "StrictHostKeyChecking=no", f"UserKnownHostsFile={run.path('known')}",
               "LogLevel=ERROR", "ControlMaster=no"]
    argv = ["ssh", "-F", "none", "-p", "2222", "-i", run.path("user")]
    for option in options:
        argv += ["-o", option]
    return server, argv + [f"{pwd.getpwuid(os.geteuid()).pw_name}@{run.server_addr}"]


def _root_locked():
    with open("/etc/shadow", encoding="utf-8") as shadow:
        return any(line.startswith("root:!") for line in shadow)


@case("ssh-download", soak=("100M", "1G"), needs=("ssh", "sshd"), table=("sshd", "ssh"))
def ssh_download(run):
    server, argv = start_sshd(run)
    run.client(argv + [f"cat {run.file()}"], same=run.file())
    server.stop(codes=(0, 255, -15))


@case("ssh-upload", soak=("1G",), needs=("ssh", "sshd"), table=("sshd", "ssh, upload"))
def ssh_upload(run):
    server, argv = start_sshd(run)
    run.client(argv + [f"cmp - {run.file()}"], stdin=run.file())
    server.stop(codes=(0, 255, -15))


@case("scp", sizes=("1M",), soak=("1G",), needs=("scp", "sshd"))
def scp(run):
    server, argv = start_sshd(run)
    options, target = argv[1:-1], argv[-1]
    options[options.index("-p")] = "-P"
    run.client(["scp", *options, run.file(), f"{target}:{run.path('there')}"], role="put")
    run.client(["scp", *options, f"{target}:{run.path('there')}", run.path("back")], role="get")
    run.client(["cmp", run.file(), run.path("back")], user=False)
    server.stop(codes=(0, 255, -15))


@case("rsync-ssh", sizes=("1M",), needs=("rsync", "ssh", "sshd"))
def rsync_ssh(run):
    server, argv = start_sshd(run)
    run.client(["rsync", "-a", "-e", " ".join(argv[:-1]), run.file(), f"{argv[-1]}:{run.path('there')}"],
               engine=False)  # its ssh is what connects
    run.client(["cmp", run.file(), run.path("there")], user=False)
    server.stop(codes=(0, 255, -15))


@case("fastopen", sizes=("-",))
def fastopen(run):
    """RFC 7413: after the first connection each SYN carries the request, whichever stack is where."""
    for host in run.lab.hosts:
        run.lab.popen(host, ["sysctl", "-qw", "net.ipv4.tcp_fastopen=3"]).wait(5)
    run.server([PYTHON, f"{PROGRAMS}/fastopen.py", "server", run.server_addr, PORT, 5], PORT)
    before = run.client_host.snmp("TcpExt")["TCPFastOpenActive"]
    client = run.client([PYTHON, f"{PROGRAMS}/fastopen.py", "client", run.server_addr, PORT, 5],
                        shim={"TCPSHIM_TRACE": "state,segment"})
    if run.client_user:
        with_text = [line for line in client.trace().splitlines()
                     if " tx SYN " in line and " len 503" in line]
        run.check(len(with_text) == 4, f"{len(with_text)} of 4 SYNs carried the request")
    else:
        active = run.client_host.snmp("TcpExt")["TCPFastOpenActive"] - before
        run.check(active == 4, f"{active} of 4 connections of the kernel were opened fast")


@case("errqueue", sizes=("-",), pairings=("UK", "UU"))
def errqueue(run):
    """MSG_ZEROCOPY and SO_TIMESTAMPING tell the program, as Linux's do, what became of its bytes."""
    server = run.server([PYTHON, f"{PROGRAMS}/threads_server.py", PORT], PORT)
    run.client([PYTHON, f"{PROGRAMS}/errqueue.py", run.server_addr, PORT])
    server.stop()


@case("unfinished", pairings=("KU",), sizes=("-",), kernel=False)
def unfinished(run):
    """Writes that are always followed at once leave together; one that is not, after all, leaves alone."""
    file = run.path("go")
    server = run.server([PYTHON, f"{PROGRAMS}/unfinished.py", PORT, file], PORT)
    run.client([PYTHON, f"{PROGRAMS}/unfinished.py", run.server_addr, PORT, file]).wait()
    server.stop()
