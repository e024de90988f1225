"""Web servers in the configuration that they have in service: several processes or threads, privileges
given up, reload and upgrade under load; proxies; other HTTP clients."""

import os
import re
import signal
import time

from cases_http import url
from framework import PROGRAMS, PYTHON, case, wait_for

LOAD_SECONDS = 1.5


def nginx_workers(run, listen="80", daemon="off", extra=""):
    """As Debian's: a master and workers of another user."""
    return run.write("nginx.conf", f"""
daemon {daemon}; worker_processes 4; user www-data;
pid {run.path("nginx.pid")}; error_log {run.path("nginx.log")} notice;
worker_shutdown_timeout 5s;
events {{ worker_connections 512; }}
http {{
    access_log off; sendfile on;
    client_body_temp_path {run.path("body")}; proxy_temp_path {run.path("proxy")};
    fastcgi_temp_path {run.path("fcgi")}; uwsgi_temp_path {run.path("uwsgi")};
    scgi_temp_path {run.path("scgi")};
    server {{ listen {listen}; root {run.data.directory}; {extra} }}
}}
""")


def start_nginx_workers(run, **options):
    config = nginx_workers(run, **options)
    return run.server(["nginx", "-p", run.directory, "-e", run.path("nginx.log"), "-c", config], 80)


def complaints(path):
    with open(path, encoding="utf-8", errors="replace") as log:
        return [l for l in log if re.search(r"\[(alert|crit|emerg|error)\]", l)]


def load(run, path="/1B", seconds=LOAD_SECONDS):
    """A client that makes requests until it is told to stop; each must be answered."""
    return run.start("client", [PYTHON, f"{PROGRAMS}/http_load.py", run.server_addr, "80", path, seconds, 8],
                     run.client_host, run.client_user)


def loaded(run, client, least=100):
    client.wait()
    text = client.stdout()
    done = re.search(r"(\d+) answered, (\d+) lost", text)
    run.check(done, f"the client says: {text!r}")
    run.check(int(done.group(2)) == 0, f"requests were lost: {text.strip()}")
    run.check(int(done.group(1)) >= least, f"hardly any request was answered: {text.strip()}")
    run.note = f"{done.group(1)} requests in {LOAD_SECONDS} s, none lost"


@case("nginx-workers", quick=("KU", "UU"), sizes=("1M",), needs=("nginx", "ab"), table=("nginx, 4 workers", "ab"))
def nginx_4(run):
    server = start_nginx_workers(run)
    client = run.client(["ab", "-q", "-n", "300", "-c", "16", url(run)])
    text = client.stdout()
    run.check(re.search(r"Complete requests: +300\b", text), "not all requests completed")
    run.check(re.search(r"Failed requests: +0\b", text), "requests failed")
    server.stop()
    bad = complaints(run.path("nginx.log"))
    run.check(not bad, f"nginx complains: {bad[:1]}")


@case("nginx-reuseport", quick=("KU",), sizes=("1M",), needs=("nginx", "ab"), table=("nginx, reuseport", "ab"))
def nginx_reuseport(run):
    """A listening socket for each worker."""
    server = start_nginx_workers(run, listen="80 reuseport")
    client = run.client(["ab", "-q", "-n", "300", "-c", "16", url(run)])
    run.check(re.search(r"Failed requests: +0\b", client.stdout()), "requests failed")
    server.stop()


@case("gunicorn-reuseport", quick=("KU",), sizes=("-",), needs=("gunicorn", "ab"))
def gunicorn_reuseport(run):
    """Workers of gunicorn, each with a listening socket of its own."""
    run.write("app.py", "def application(environ, start):\n"
                        "    start('200 OK', [('Content-Length', '5')])\n    return [b'hello']\n")
    server = run.server(["gunicorn", "-w", "3", "--reuse-port", "-b", f"{run.server_addr}:8000", "app:application"], 8000)
    run.check(wait_for(lambda: server.stderr().count("Booting worker") == 3, run.time_left()), "workers are missing")
    text = run.client(["ab", "-q", "-n", "300", "-c", "8", url(run, port=8000)]).stdout()
    run.check(re.search(r"Complete requests: +300\b", text) and re.search(r"Failed requests: +0\b", text), text)
    server.stop()


@case("nginx-reload", quick=("KU", "UU"), sizes=("-",), needs=("nginx",), table=("nginx, reload under load", "python3"))
def nginx_reload(run):
    run.data.path("1B")
    server = start_nginx_workers(run)
    client = load(run)
    for _ in range(5):
        time.sleep(LOAD_SECONDS / 8)
        server.popen.send_signal(signal.SIGHUP)
    loaded(run, client)
    server.stop()
    bad = complaints(run.path("nginx.log"))
    run.check(not bad, f"nginx complains: {bad[:1]}")


def master(run, but=None):
    """The pid in nginx's pid file, when it is another than `but`."""
    try:
        with open(run.path("nginx.pid"), encoding="ascii") as file:
            pid = int(file.read())
    except (OSError, ValueError):
        return None
    return pid if pid != but else None


@case("nginx-upgrade", quick=("KU",), sizes=("-",), needs=("nginx",), table=("nginx, binary upgrade under load", "python3"))
def nginx_upgrade(run):
    """USR2: the new binary inherits the listening socket by exec; WINCH and QUIT end the old one."""
    run.data.path("1B")
    # As a daemon: nginx ignores USR2 while its first parent lives.
    argv = ["nginx", "-p", run.directory, "-e", run.path("nginx.log"), "-c", nginx_workers(run, daemon="on")]
    run.client(argv, host=run.server_host, user=run.server_user, role="server")
    old = master(run)
    client = load(run)
    time.sleep(LOAD_SECONDS / 5)
    os.kill(old, signal.SIGUSR2)
    run.check(wait_for(lambda: master(run, old), 5), "no new master came up")
    new = master(run, old)
    time.sleep(LOAD_SECONDS / 5)
    os.kill(old, signal.SIGWINCH)
    time.sleep(LOAD_SECONDS / 5)
    os.kill(old, signal.SIGQUIT)
    loaded(run, client)
    for pid in (old, new):
        if pid == new:
            run.settle()
            os.kill(new, signal.SIGTERM)
        run.check(wait_for(lambda: not os.path.exists(f"/proc/{pid}"), 8), f"master {pid} does not end")
    bad = complaints(run.path("nginx.log"))
    run.check(not bad, f"nginx complains: {bad[:1]}")


@case("curl-http2", sizes=("1M",), needs=("nginx", "curl", "openssl"), table=("nginx, HTTP/2 over TLS", "curl"))
def curl_http2(run):
    run.client(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
                "-days", "2", "-subj", "/CN=lab", "-addext", f"subjectAltName=IP:{run.server_addr}",
                "-keyout", run.path("key"), "-out", run.path("cert")], user=False, role="openssl")
    server = start_nginx_workers(run, listen="80 ssl http2",
                                 extra=f"ssl_certificate {run.path('cert')}; ssl_certificate_key {run.path('key')};")
    argv = ["curl", "-sS", "--fail", "--http2", "--cacert", run.path("cert"), "-Z", "--parallel-max", "30",
            "-w", "%{http_version}\\n"]
    for number in range(30):
        argv += ["-o", run.path(f"got{number}"), f"https://{run.server_addr}:80/1M"]
    client = run.client(argv)
    run.check(client.stdout().split() == ["2"] * 30, f"not all was HTTP/2: {client.stdout()[:80]!r}")
    for number in range(30):
        with open(run.path(f"got{number}"), "rb") as got, open(run.file(), "rb") as wanted:
            run.check(got.read() == wanted.read(), "bytes differ")
    server.stop()


@case("aria2", sizes=("1M",), soak=("100M",), needs=("nginx", "aria2c"), table=("nginx, 4 workers", "aria2"))
def aria2(run):
    """Several connections at once for the parts of one file."""
    server = start_nginx_workers(run)
    run.resets_allowed = {"b"}  # it closes a connection when another has the rest of its part
    run.client(["aria2c", "-q", "--no-conf", "-x", "8", "-s", "8", "-k", "1M", "--file-allocation=none",
                "-d", run.directory, "-o", "got", url(run)])
    run.client(["cmp", run.path("got"), run.file()], user=False, role="cmp")
    server.stop()


# ---- apache ----

def start_apache(run, model, extra=""):
    modules = "/usr/lib/apache2/modules"
    os.makedirs(run.path("apache"))
    config = run.write("apache.conf", f"""
ServerName {run.server_addr}
Listen 80
PidFile {run.path("apache", "pid")}
DefaultRuntimeDir {run.path("apache")}
ErrorLog {run.path("apache.log")}
LogLevel warn
User www-data
Group www-data
LoadModule mpm_{model}_module {modules}/mod_mpm_{model}.so
LoadModule authz_core_module {modules}/mod_authz_core.so
LoadModule alias_module {modules}/mod_alias.so
LoadModule env_module {modules}/mod_env.so
StartServers 3
ServerLimit 8
MaxRequestWorkers {8 if model == "prefork" else 64}
{"ThreadsPerChild 8" if model != "prefork" else ""}
DocumentRoot {run.data.directory}
{extra}
""")
    return run.server(["apache2", "-DFOREGROUND", "-d", run.path("apache"), "-f", config], 80)


def apache(run, model):
    server = start_apache(run, model)
    client = run.client(["ab", "-q", "-n", "200", "-c", "8", url(run)])
    run.check(re.search(r"Failed requests: +0\b", client.stdout()), "requests failed")
    run.check(re.search(r"Complete requests: +200\b", client.stdout()), "not all requests completed")
    run.client(["curl", "-sS", "--fail", url(run)], same=run.file())
    server.stop()


@case("apache-prefork", quick=("KU", "UU"), sizes=("1M",), needs=("apache2", "ab", "curl"), table=("apache2, prefork", "ab"))
def apache_prefork(run):
    """A process for each connection, which take turns in accept()."""
    apache(run, "prefork")


@case("apache-event", quick=("KU",), sizes=("1M",), needs=("apache2", "ab", "curl"), table=("apache2, event", "ab"))
def apache_event(run):
    apache(run, "event")


@case("apache-reload", quick=("KU",), sizes=("prefork", "event"), needs=("apache2",),
      table=("apache2, graceful restart under load", "python3"))
def apache_reload(run):
    run.data.path("1B")
    server = start_apache(run, run.size)
    client = load(run)
    for _ in range(2):
        time.sleep(LOAD_SECONDS / 4)
        server.popen.send_signal(signal.SIGUSR1)
    loaded(run, client)
    server.stop()


@case("git-http", quick=("KU",), sizes=("-",), needs=("apache2", "git"), table=("apache2 and git-http-backend", "git"))
def git_http(run):
    modules = "/usr/lib/apache2/modules"
    wanted = make_repository(run)
    server = start_apache(run, "prefork", f"""
LoadModule cgi_module {modules}/mod_cgi.so
SetEnv GIT_PROJECT_ROOT {run.directory}
SetEnv GIT_HTTP_EXPORT_ALL 1
SetEnv GIT_CONFIG_COUNT 1
SetEnv GIT_CONFIG_KEY_0 safe.directory
SetEnv GIT_CONFIG_VALUE_0 *
ScriptAlias /git/ /usr/lib/git-core/git-http-backend/
<Directory "/usr/lib/git-core">
Require all granted
</Directory>
""")
    clone(run, f"http://{run.server_addr}/git/repository.git", wanted)
    server.stop()


def make_repository(run):
    """A bare repository of some size; returns its head."""
    env = {"HOME": run.directory, "GIT_CONFIG_NOSYSTEM": "1"}

    def git(*words, **options):
        return run.client(["git", "-c", "user.name=t", "-c", "user.email=t@t", *words], user=False,
                          role="git", env=env, **options)

    work = run.path("work")
    git("init", "-q", "-b", "main", work)
    with open(run.data.path("1M"), "rb") as file:
        noise = file.read()
    for number in range(20):
        with open(os.path.join(work, f"file{number}"), "wb") as out:
            out.write(noise[number * 50000:number * 50000 + 50000])
    git("-C", work, "add", ".")
    git("-C", work, "commit", "-q", "-m", "one")
    git("clone", "-q", "--bare", work, run.path("repository.git"))
    return git("-C", work, "rev-parse", "HEAD^{tree}").stdout().strip()


def clone(run, address, wanted):
    env = {"HOME": run.directory, "GIT_CONFIG_NOSYSTEM": "1", "GIT_TERMINAL_PROMPT": "0"}
    run.client(["git", "clone", "-q", address, run.path("copy")], env=env)
    got = run.client(["git", "-C", run.path("copy"), "rev-parse", "HEAD^{tree}"], user=False, env=env, role="git")
    run.check(got.stdout().strip() == wanted, "another tree was cloned")
    run.client(["git", "-C", run.path("copy"), "fsck", "--full"], user=False, env=env, role="git")


@case("git-daemon", sizes=("-",), needs=("git",), table=("git daemon", "git"))
def git_daemon(run):
    """The daemon starts a child by exec for each connection, with the socket as its stdin and stdout."""
    wanted = make_repository(run)
    env = {"HOME": run.directory, "GIT_CONFIG_COUNT": "1", "GIT_CONFIG_KEY_0": "safe.directory",
           "GIT_CONFIG_VALUE_0": "*"}
    server = run.server(["git", "daemon", "--reuseaddr", "--export-all", "--port=9418",
                         f"--base-path={run.directory}"], 9418, env=env)
    clone(run, f"git://{run.server_addr}/repository.git", wanted)
    server.stop()


# ---- proxies ----

# http.server's five places in the accept queue overflow under load: a request waits for seconds then.
BACKEND = ("import functools, http.server as h, sys; h.ThreadingHTTPServer.request_queue_size = 128; "
           "h.test(functools.partial(h.SimpleHTTPRequestHandler, directory=sys.argv[2]), h.ThreadingHTTPServer, "
           "port=int(sys.argv[1]))")


def backend(run, port=8000):
    """The server behind a proxy, in the client's host: both sides of the proxy cross the wire."""
    return run.server([PYTHON, "-u", "-c", BACKEND, str(port), run.data.directory], port, role="backend",
                      host=run.client_host, user=run.pairing == "UU")


@case("haproxy-reload", quick=("KU",), sizes=("-",), needs=("haproxy",),
      table=("haproxy, reload with socket passing, under load", "python3"))
def haproxy_reload(run):
    """The master executes itself anew; the new worker gets the listening sockets from the old one."""
    run.data.path("1B")
    behind = backend(run)
    run.resets_allowed = {"a"}  # httpclose: it ends its side of the backend's connections by a reset
    config = run.write("haproxy.cfg", f"""
global
    stats socket {run.path("hap.sock")} mode 600 level admin expose-fd listeners
    user nobody
    group nogroup
    nbthread 2
    hard-stop-after 3s
defaults
    mode http
    timeout connect 5s
    timeout client 10s
    timeout server 10s
    option httpclose
frontend front
    bind :80
    default_backend back
backend back
    server one {run.client_host.addr}:8000
""")
    proxy = run.server(["haproxy", "-W", "-f", config], 80)
    before = run.lab.a.snmp()["OutRsts"]
    client = load(run)
    for _ in range(3):
        time.sleep(LOAD_SECONDS / 6)
        proxy.popen.send_signal(signal.SIGUSR2)
    loaded(run, client, least=50)
    resets = run.lab.a.snmp()["OutRsts"] - before
    run.check(resets == 0 or not run.server_user, f"the kernel sent {resets} resets")
    run.check(run.lab.b.snmp("TcpExt")["ListenOverflows"] == 0, "the backend's accept queue overflowed")
    behind.stop(settle=False)
    proxy.stop(codes=(0, 143, -15))


@case("tinyproxy", quick=("KU", "UU"), sizes=("1M",), needs=("tinyproxy", "curl"), table=("tinyproxy", "curl"))
def tinyproxy(run):
    behind = backend(run)
    config = run.write("tinyproxy.conf", f"""
User nobody
Group nogroup
Port 8888
Timeout 60
LogFile "{run.path("tinyproxy.log")}"
LogLevel Warning
MaxClients 20
""")
    proxy = run.server(["tinyproxy", "-d", "-c", config], 8888)
    run.client(["curl", "-sS", "--fail", "-x", f"http://{run.server_addr}:8888",
                url(run, 8000, addr=run.client_host.addr)], same=run.file())
    # CONNECT, as for https
    run.client(["curl", "-sS", "--fail", "-p", "-x", f"http://{run.server_addr}:8888",
                url(run, 8000, addr=run.client_host.addr)], same=run.file())
    proxy.stop()
    behind.stop()


# ---- application servers ----

@case("php-fpm", sizes=("1M",), needs=("php-fpm8.2", "cgi-fcgi"), table=("php-fpm, 3 children", "cgi-fcgi"))
def php_fpm(run):
    run.write("digest.php", "<?php echo hash('sha256', file_get_contents('php://input')), \"\\n\";"
              "readfile($_SERVER['DATA']);")
    config = run.write("fpm.conf", f"""
[global]
error_log = {run.path("fpm.log")}
daemonize = no
[www]
user = www-data
group = www-data
listen = 0.0.0.0:9000
pm = static
pm.max_children = 3
""")
    server = run.server(["php-fpm8.2", "-y", config, "-F", "-n"], 9000)
    env = {"REQUEST_METHOD": "POST", "SCRIPT_FILENAME": run.path("digest.php"),
           "CONTENT_LENGTH": str(run.bytes), "CONTENT_TYPE": "application/octet-stream", "DATA": run.file()}
    sums = run.client(["sha256sum", run.file()], user=False, role="sum").stdout().split()[0]
    with open(run.file(), "rb") as file:
        body = file.read()
    for _ in range(4):
        got = run.client(["cgi-fcgi", "-bind", "-connect", f"{run.server_addr}:9000"], env=env, stdin=run.file())
        with open(got.log + ".out", "rb") as out:
            answer = out.read().split(b"\r\n\r\n", 1)[-1]
        run.check(answer == sums.encode() + b"\n" + body, f"another answer: {answer[:80]!r}")
    server.stop(number=signal.SIGQUIT, codes=(0, 3))


@case("node-cluster", quick=("KU",), sizes=("round-robin", "shared"), needs=("node",), table=("node cluster, 3 workers", "python3"))
def node_cluster(run):
    """The primary accepts and hands connections over by SCM_RIGHTS, or the listening socket itself."""
    run.data.path("1B")
    server = run.server(["node", f"{PROGRAMS}/cluster.js", "80", run.size], 80)
    loaded(run, load(run, "/"))
    server.stop()


@case("ruby-http", sizes=("1M",), needs=("ruby",), table=("ruby TCPServer, threads", "ruby Net::HTTP"))
def ruby_http(run):
    server = run.server(["ruby", f"{PROGRAMS}/http_server.rb", "8080", run.data.directory], 8080)
    run.client(["ruby", f"{PROGRAMS}/http_client.rb", url(run, 8080), "4"], same=run.file())
    server.stop()


@case("java-nio", sizes=("1M",), needs=("javac",), table=("java NIO selector", "java NIO channel"), long=True)
def java_nio(run):
    """AF_INET6 sockets with mapped addresses, as the JDK has them where IPv6 is there."""
    run.deadline += 60
    run.client(["javac", "-d", run.directory, f"{PROGRAMS}/Echo.java"], user=False, role="javac")
    java = ["java", "-XX:TieredStopAtLevel=1", "-Xshare:auto", "-cp", run.directory, "Echo"]
    server = run.server(java + ["serve", "9000"], 9000)
    client = run.client(java + ["call", run.server_addr, "9000", run.file(), "8"])
    run.check("8 echoed" in client.stdout(), client.stdout())
    server.stop(codes=(0, 143))


@case("python-fork-server", sizes=("1M",), table=("python3 ForkingTCPServer", "python3"))
def python_forking(run):
    server = run.server([PYTHON, f"{PROGRAMS}/forking_server.py", "9000"], 9000)
    run.client([PYTHON, f"{PROGRAMS}/threads_client.py", run.server_addr, "9000", run.file(), "8"])
    server.stop()


@case("python-multiprocessing", quick=("UU",), sizes=("fork", "spawn", "forkserver"), table=("python3 multiprocessing", "python3"))
def python_multiprocessing(run):
    """A manager over TCP, and a pool whose workers call it; in the client, in its three ways to start."""
    server = run.server([PYTHON, f"{PROGRAMS}/manager.py", "serve", run.server_addr, "9000"], 9000)
    client = run.client([PYTHON, f"{PROGRAMS}/manager.py", "call", run.server_addr, "9000", run.size])
    run.check("total 4950" in client.stdout(), client.stdout())
    server.stop()
