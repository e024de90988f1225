"""Services that are not the web: databases, FTP, mail, inetd, rsync, MQTT, DNS over TCP."""

import os
import pwd
import re
import signal
import time

from cases_store import start_redis
from framework import PROGRAMS, PYTHON, SMALL, Skipped, case, wait_for

POSTGRES = "/usr/lib/postgresql/15/bin"


def need_user(name):
    try:
        return pwd.getpwnam(name)
    except KeyError:
        raise Skipped(f"there is no user {name}") from None


def as_user(name, argv):
    """argv as another user, with the capabilities that the shim needs as the README has it."""
    who = need_user(name)
    caps = "+net_raw,+net_admin"
    return ["setpriv", f"--reuid={who.pw_uid}", f"--regid={who.pw_gid}", "--clear-groups",
            f"--inh-caps={caps}", f"--ambient-caps={caps}", *argv]


# ---- databases ----

def start_postgres(run):
    if not os.access(f"{POSTGRES}/postgres", os.X_OK):
        raise Skipped("postgresql-15 is not installed")
    who = need_user("postgres")
    home = run.path("db")
    os.makedirs(home)
    os.chown(home, who.pw_uid, who.pw_gid)
    run.deadline += 30
    run.client(as_user("postgres", [f"{POSTGRES}/initdb", "-D", home, "-A", "trust", "-N", "-E", "UTF8",
                                    "--no-locale"]), user=False, role="initdb")
    with open(os.path.join(home, "pg_hba.conf"), "a", encoding="ascii") as file:
        file.write("host all all 10.77.0.0/24 trust\n")
    return run.server(as_user("postgres", [
        f"{POSTGRES}/postgres", "-D", home, "-c", "listen_addresses=*", "-c", "unix_socket_directories=",
        "-c", "fsync=off", "-c", "shared_buffers=16MB", "-c", "max_connections=30"]), 5432)


def psql(run, sql, **options):
    return run.client([f"{POSTGRES}/psql", "-X", "-q", "-A", "-t", "-h", run.server_addr, "-U", "postgres", "-c", sql],
                      **options)


@case("postgres", quick=("UU",), sizes=("pgbench",), table=("postgresql", "psql, pgbench"))
def postgres(run):
    """A process for each connection."""
    server = start_postgres(run)
    for _ in range(100):  # it listens before it answers: "the database system is starting up"
        if psql(run, "select 1", codes=(0, 2), role="ready").stdout() == "1\n":
            break
        time.sleep(0.1)
    got = psql(run, "select md5(string_agg(x::text, ',')) from generate_series(1, 100000) x").stdout().strip()
    run.check(re.fullmatch(r"[0-9a-f]{32}", got), f"psql says {got!r}")
    text = psql(run, "select repeat('0123456789', 100000)").stdout()
    run.check(text.strip() == "0123456789" * 100000, "a megabyte of text differs")
    bench = [f"{POSTGRES}/pgbench", "-h", run.server_addr, "-U", "postgres", "postgres"]
    run.client(bench + ["-i", "-s", "1", "-q"], role="init")
    client = run.client(bench + ["-n", "-c", "8", "-j", "2", "-t", "50"])
    run.check("400/400" in client.stdout() and "failed transactions: 0 " in client.stdout(), client.stdout())
    connects = run.client(bench + ["-n", "-S", "-C", "-c", "4", "-t", "25"], role="connects")
    run.check("100/100" in connects.stdout(), connects.stdout())
    server.stop(number=signal.SIGINT)


@case("mariadb", sizes=("-",), needs=("mariadbd", "mariadb-slap"), table=("mariadb", "mariadb, mariadb-slap"), long=True)
def mariadb(run):
    who = need_user("mysql")
    home = run.path("db")
    os.makedirs(home)
    os.chown(home, who.pw_uid, who.pw_gid)
    run.deadline += 60
    run.client(["mariadb-install-db", "--no-defaults", "--user=mysql", f"--datadir={home}", "--skip-test-db",
                "--auth-root-authentication-method=normal", "--skip-log-bin"], user=False, role="install")
    options = ["--no-defaults", "--user=mysql", f"--datadir={home}", f"--socket={home}/s", "--bind-address=0.0.0.0",
               f"--pid-file={home}/pid", "--innodb-flush-log-at-trx-commit=0", "--skip-name-resolve"]
    init = run.write("init.sql", "create user root@'10.77.0.%';\ngrant all on *.* to root@'10.77.0.%';\n")
    server = run.server(["mariadbd", *options, f"--init-file={init}"], 3306)
    reach = ["--no-defaults", "-h", run.server_addr, "-u", "root"]
    got = run.client(["mariadb", *reach, "-N", "-e", "select repeat('0123456789', 100000)"]).stdout()
    run.check(got.strip() == "0123456789" * 100000, "a megabyte of text differs")
    run.client(["mariadb-slap", *reach, "--auto-generate-sql", "--concurrency=8", "--number-of-queries=400"], role="slap")
    server.stop()


@case("redis-replication", quick=("UU",), sizes=("-",), needs=("redis-server", "redis-cli"), table=("redis, BGSAVE and replica", "redis"))
def redis_replication(run):
    """The replica is the client; BGSAVE forks while connections are open."""
    main = start_redis(run)
    os.makedirs(run.path("replica"))
    cli = ["redis-cli", "-h", run.server_addr, "--raw"]
    run.client(cli + ["-x", "SET", "first"], stdin=run.data.path("1M"))
    replica = run.start("replica", ["redis-server", "--port", "6380", "--save", "", "--dir", run.path("replica"),
                                    "--protected-mode", "no", "--replicaof", run.server_addr, "6379"],
                        run.client_host, run.client_user)
    # The full copy is made by a child that writes to the replica's socket, or by the main process.
    run.wait_listening(replica, run.client_host, 6380)

    def linked():
        return "slave0:" in run.client(cli + ["INFO", "replication"], role="info").stdout() and "state=online" in \
            run.client(cli + ["INFO", "replication"], role="info").stdout()

    run.check(wait_for(linked, 8, 0.2), "the replica is not online")
    run.client(cli + ["-x", "SET", "second"], stdin=run.data.path("1M"))
    run.check(run.client(cli + ["BGSAVE"]).stdout().startswith("Background saving"), "BGSAVE was refused")
    run.client(cli + ["WAIT", "1", "5000"])

    def digest(host, port):
        return run.client(["redis-cli", "-h", host.addr, "-p", port, "DEBUG", "DIGEST"], user=False,
                          host=host, role="digest").stdout()

    def saved():
        return "rdb_bgsave_in_progress:0" in run.client(cli + ["INFO", "persistence"], role="info").stdout()

    run.check(wait_for(saved, 5, 0.2), "BGSAVE does not end")
    run.check("rdb_last_bgsave_status:ok" in run.client(cli + ["INFO", "persistence"], role="info").stdout(),
              "BGSAVE failed")
    got = run.client(["redis-cli", "-h", "127.0.0.1", "-p", "6380", "STRLEN", "second"], user=False, role="strlen")
    run.check(got.stdout().strip() == str(1 << 20), f"the replica has {got.stdout().strip()} bytes")
    replica.stop(settle=False)
    main.stop()


@case("memcached-threads", quick=("KU",), sizes=("1M",), needs=("memcached",), table=("memcached, 4 threads", "python3"))
def memcached_threads(run):
    server = run.server(["memcached", "-u", "nobody", "-l", "0.0.0.0", "-p", "11211", "-U", "0", "-t", "4",
                         "-I", "8m", "-m", "64"], 11211)
    clients = [run.start("client", [PYTHON, f"{PROGRAMS}/memcached_client.py", run.server_addr, "11211", run.file()],
                         run.client_host, run.client_user) for _ in range(6)]
    for client in clients:
        client.wait()
    server.stop()


# ---- files ----

@case("rsync-daemon", sizes=SMALL, needs=("rsync",), table=("rsync --daemon", "rsync"))
def rsync_daemon(run):
    config = run.write("rsyncd.conf", f"""
use chroot = yes
uid = nobody
gid = nogroup
pid file = {run.path("rsyncd.pid")}
log file = {run.path("rsyncd.log")}
[data]
path = {run.data.directory}
""")
    server = run.server(["rsync", "--daemon", "--no-detach", "--port=8730", f"--config={config}"], 8730)
    server.complains = True  # a child in the chroot cannot open its trace file
    run.client(["rsync", "-q", "--port=8730", f"{run.server_addr}::data/{run.size}", run.path("got")])
    run.client(["cmp", run.path("got"), run.file()], user=False, role="cmp")
    server.stop(codes=(0, 20, -15))


def start_vsftpd(run):
    os.makedirs(run.path("empty"))
    os.makedirs(run.path("ftp"))
    who = need_user("ftp")
    os.makedirs(run.path("ftp", "in"))
    os.chown(run.path("ftp", "in"), who.pw_uid, who.pw_gid)
    with open(run.file(), "rb") as source, open(run.path("ftp", "file"), "wb") as copy:
        copy.write(source.read())
    os.chmod(run.path("ftp"), 0o555)
    config = run.write("vsftpd.conf", f"""
listen=YES
listen_ipv6=NO
background=NO
anonymous_enable=YES
local_enable=NO
write_enable=YES
anon_upload_enable=YES
anon_root={run.path("ftp")}
secure_chroot_dir={run.path("empty")}
connect_from_port_20=YES
xferlog_enable=NO
ftp_username=ftp
nopriv_user=nobody
""")
    return run.server(["vsftpd", config], 21)


@case("vsftpd", sizes=("passive", "active"), needs=("vsftpd", "curl"), table=("vsftpd", "curl (FTP)"))
def vsftpd(run):
    """A process for each session, in a sandbox, and data connections both ways."""
    run.size, mode = "1M", run.size
    run.data.path("1M")
    server = start_vsftpd(run)
    flags = ["--ftp-port", "-"] if mode == "active" else []
    run.client(["curl", "-sS", "--fail", *flags, f"ftp://{run.server_addr}/file"], same=run.file())
    run.client(["curl", "-sS", "--fail", *flags, "-T", run.file(), f"ftp://{run.server_addr}/in/up"])
    run.client(["cmp", run.path("ftp", "in", "up"), run.file()], user=False, role="cmp")
    server.stop()


@case("inetd", sizes=("1M",), needs=("inetd", "nc"), table=("openbsd-inetd, cat", "nc"))
def inetd(run):
    """The service has the connection as its stdin, stdout and stderr, by exec."""
    config = run.write("inetd.conf", "9000 stream tcp nowait nobody /bin/cat cat\n"
                       f"9001 stream tcp nowait root {PYTHON} python3 {PROGRAMS}/upper.py\n")
    server = run.server(["inetd", "-d", config], 9000)
    run.client(["nc", "-N", run.server_addr, "9000"], stdin=run.file(), same=run.file())
    lines = run.write("lines", "".join(f"line {n} of the text\n" for n in range(500)))
    wanted = run.write("upper", "".join(f"LINE {n} OF THE TEXT\n" for n in range(500)))
    run.client(["nc", "-N", run.server_addr, "9001"], stdin=lines, same=wanted)
    server.stop(codes=(0, 143, -15))


# ---- mail, messages, names ----

@case("exim", quick=("UU",), sizes=("1M",), needs=("exim4",), table=("exim4 (SMTP)", "python3 smtplib"))
def exim(run):
    """A process for each session, which delivers by yet another."""
    who = need_user("Debian-exim")
    for name in ("spool", "mail", "log"):
        os.makedirs(run.path(name))
        os.chown(run.path(name), who.pw_uid, who.pw_gid)
    config = run.write("exim.conf", f"""
primary_hostname = mail.example.org
exim_user = Debian-exim
exim_group = Debian-exim
spool_directory = {run.path("spool")}
log_file_path = {run.path("log")}/%slog
domainlist local_domains = example.org
host_lookup =
rfc1413_hosts =
rfc1413_query_timeout = 0s
acl_smtp_rcpt = accept
acl_smtp_data = accept
keep_environment =
message_size_limit = 50M
begin routers
all:
  driver = accept
  transport = file
begin transports
file:
  driver = appendfile
  file = {run.path("mail")}/box
  user = Debian-exim
""")
    server = run.server(["exim4", "-C", config, "-bdf", "-oX", "2525", "-oP", run.path("spool", "pid")], 2525)
    run.client([PYTHON, f"{PROGRAMS}/mail.py", run.server_addr, "2525", run.file()])
    box = run.path("mail", "box")

    def delivered():
        return os.path.exists(box) and open(box, encoding="latin-1").read().count("\nend of message") == 3

    run.check(wait_for(delivered, 8, 0.1), "not all mail was delivered")
    server.stop()


@case("mosquitto", sizes=("-",), needs=("mosquitto", "mosquitto_pub", "mosquitto_sub"),
      table=("mosquitto", "mosquitto_pub, mosquitto_sub"))
def mosquitto(run):
    config = run.write("mosquitto.conf", "listener 1883 0.0.0.0\nallow_anonymous true\nuser nobody\n")
    server = run.server(["mosquitto", "-c", config], 1883)
    wanted = run.write("wanted", "".join(f"message {n}\n" for n in range(1000)))
    reach = ["-h", run.server_addr, "-q", "1", "-t", "topic"]
    sub = run.start("sub", ["mosquitto_sub", *reach, "-C", "1000", "-W", "10"], run.client_host, run.client_user, same=wanted)
    if sub.user:
        run.check(wait_for(lambda: "ESTABLISHED" in sub.trace(), 5), "the subscriber does not connect")
    time.sleep(0.3)  # until the broker has the subscription
    run.client(["mosquitto_pub", *reach, "-l"], stdin=wanted, role="pub")
    sub.wait()
    server.stop()


@case("dnsmasq-tcp", sizes=("-",), needs=("dnsmasq",), table=("dnsmasq (DNS over TCP)", "python3"))
def dnsmasq(run):
    """A process for each connection."""
    argv = ["dnsmasq", "-k", "-C", "/dev/null", "-R", "-h", "--port=5353", f"--pid-file={run.path('dns.pid')}",
            "--address=/example.org/192.0.2.7", "--user=nobody"]
    server = run.server(argv, 5353)
    client = run.client([PYTHON, f"{PROGRAMS}/dns.py", run.server_addr, "5353", "20"])
    run.check("20 answers" in client.stdout(), client.stdout())
    server.stop()
