"""HTTP: curl, wget, ab, wrk, python, node against nginx, lighttpd, haproxy, python, node."""

import re

from framework import ALL_SIZES, PROGRAMS, PYTHON, case


def nginx_config(run, port=80, extra=""):
    run.write("put/.keep", "")
    return run.write("nginx.conf", f"""
daemon off; master_process off; user root;
pid {run.path("nginx.pid")}; error_log {run.path("nginx.log")} notice;
events {{ worker_connections 512; }}
http {{
    access_log off; sendfile on; client_max_body_size 0; keepalive_requests 1000000;
    client_body_temp_path {run.path("body")}; proxy_temp_path {run.path("proxy")};
    fastcgi_temp_path {run.path("fcgi")}; uwsgi_temp_path {run.path("uwsgi")};
    scgi_temp_path {run.path("scgi")};
    {extra}
    server {{
        listen {port};
        root {run.data.directory};
        location /put/ {{ alias {run.path("put")}/; dav_methods PUT; }}
        location /copied/ {{ alias {run.data.directory}/; sendfile off; }}
    }}
}}
""")


def start_nginx(run, port=80, **options):
    argv = ["nginx", "-p", run.directory, "-e", run.path("nginx.log"), "-c", nginx_config(run, port)]
    return run.server(argv, port, **options)


def stop_nginx(run, server):
    server.stop()
    with open(run.path("nginx.log"), encoding="utf-8", errors="replace") as log:
        bad = [l for l in log if re.search(r"\[(alert|crit|emerg|error)\]", l)]
    run.check(not bad, f"nginx complains: {bad[:1]}")


def url(run, port=80, path=None, addr=None):
    path = "/" + run.size if path is None else path
    return f"http://{addr or run.server_addr}:{port}{path}"


@case("curl-nginx", sizes=ALL_SIZES, needs=("curl", "nginx"), table=("nginx", "curl"))
def curl_nginx(run):
    server = start_nginx(run)
    run.client(["curl", "-sS", "--fail", url(run)], same=run.file())
    stop_nginx(run, server)


@case("curl-put-nginx", needs=("curl", "nginx"), soak=("1G",), table=("nginx, PUT", "curl"))
def curl_put_nginx(run):
    server = start_nginx(run)
    run.client(["curl", "-sS", "--fail", "-T", run.file(), url(run, path="/put/received")])
    run.client(["cmp", run.path("put", "received"), run.file()], user=False)
    stop_nginx(run, server)


@case("curl-reuse-nginx", sizes=("1M",), needs=("curl", "nginx"))
def curl_reuse(run):
    """Thirty requests on one connection, answered without sendfile."""
    server = start_nginx(run)
    wanted = run.path("wanted")
    with open(run.file(), "rb") as one, open(wanted, "wb") as out:
        out.write(one.read() * 30)
    run.client(["curl", "-sS", "--fail"] + [url(run, path="/copied/1M")] * 30, same=wanted)
    stop_nginx(run, server)


@case("curl-parallel-nginx", sizes=("1M",), needs=("curl", "nginx"), table=("nginx", "curl -Z, 30 at once"))
def curl_parallel(run):
    """Thirty transfers at once from one process."""
    server = start_nginx(run)
    argv = ["curl", "-sS", "--fail", "-Z", "--parallel-immediate", "--parallel-max", "30"]
    for number in range(30):
        argv += ["-o", run.path(f"got{number}"), url(run)]
    run.client(argv)
    for number in range(30):
        run.client(["cmp", run.path(f"got{number}"), run.file()], user=False)
    stop_nginx(run, server)


@case("wget-nginx", sizes=ALL_SIZES, needs=("wget", "nginx"), table=("nginx", "wget"))
def wget_nginx(run):
    server = start_nginx(run)
    run.client(["wget", "-nv", "--tries=1", "--no-config", "-O", "-", url(run)], same=run.file())
    stop_nginx(run, server)


@case("curl-lighttpd", sizes=ALL_SIZES, needs=("curl", "lighttpd"), table=("lighttpd", "curl"))
def curl_lighttpd(run):
    config = run.write("lighttpd.conf", f"""
server.document-root = "{run.data.directory}"
server.port = 80
server.bind = "0.0.0.0"
server.errorlog = "{run.path("lighttpd.log")}"
server.upload-dirs = ( "{run.directory}" )
""")
    server = run.server(["lighttpd", "-D", "-f", config], 80)
    run.client(["curl", "-sS", "--fail", url(run)], same=run.file())
    server.stop()


def haproxy(run, mode, options=""):
    """Client and backend in host b, the proxy in host a: both of its sides cross the wire."""
    backend = start_nginx(run, port=8000, role="backend", host=run.client_host,
                          user=run.pairing == "UU")
    config = run.write("haproxy.cfg", f"""
defaults
    mode {mode}
    timeout connect 5s
    timeout client 60s
    timeout server 60s
    {options}
frontend front
    bind :80
    default_backend back
backend back
    server one {run.client_host.addr}:8000
""")
    proxy = run.server(["haproxy", "-db", "-f", config], 80)
    run.client(["curl", "-sS", "--fail", url(run)], same=run.file())
    # It keeps an idle connection to the backend, which goes first then: the proxy sees it close.
    backend.stop(settle=False)
    proxy.stop(codes=(0, 143, -15))


@case("curl-haproxy-http", needs=("curl", "nginx", "haproxy"), sizes=ALL_SIZES, table=("haproxy", "curl"))
def haproxy_http(run):
    haproxy(run, "http")


@case("curl-haproxy-tcp", needs=("curl", "nginx", "haproxy"), soak=("1G",), table=("haproxy, splice", "curl"))
def haproxy_tcp(run):
    """With splice(2), through pipes."""
    haproxy(run, "tcp", "option splice-auto\n    option splice-request\n    option splice-response")


@case("ab-nginx", sizes=("close", "keep"), needs=("ab", "nginx"), table=("nginx", "ab"))
def ab_nginx(run):
    run.data.path("1B")
    server = start_nginx(run)
    keep = ["-k"] if run.size == "keep" else []
    client = run.client(["ab", "-q", "-n", "2000", "-c", "20"] + keep + [url(run, path="/1B")])
    text = client.stdout()
    run.check(re.search(r"Complete requests: +2000\b", text), "not all requests completed")
    run.check(re.search(r"Failed requests: +0\b", text), "requests failed")
    run.check("Write errors" not in text, "write errors")
    stop_nginx(run, server)


@case("wrk-nginx", sizes=("1B", "1M"), needs=("wrk", "nginx"), table=("nginx", "wrk"))
def wrk_nginx(run):
    server = start_nginx(run)
    # wrk closes its connections in the middle of the answers when its time is over.
    run.resets_allowed = {"b"}
    client = run.client(["wrk", "-t2", "-c20", "-d1s", url(run)])
    text = client.stdout()
    run.check("Socket errors" not in text, "socket errors")
    run.check("Non-2xx" not in text, "bad answers")
    done = re.search(r"(\d+) requests in", text)
    run.check(done and int(done.group(1)) > 20, "hardly any request was answered")
    server.stop()


@case("python-http", sizes=ALL_SIZES, table=("python3 http.server", "python3 urllib"))
def python_http(run):
    """urllib against http.server."""
    server = run.server([PYTHON, "-u", "-m", "http.server", "8080", "--directory", run.data.directory],
                        8080)
    run.client([PYTHON, f"{PROGRAMS}/fetch.py", url(run, 8080)], same=run.file())
    server.stop()


@case("node-http", needs=("node",), sizes=ALL_SIZES, table=("node http", "node http"))
def node_http(run):
    """Listens on :: as node does; the client speaks IPv4."""
    server = run.server(["node", f"{PROGRAMS}/http_server.js", "8080", run.data.directory], 8080)
    run.client(["node", f"{PROGRAMS}/http_client.js", url(run, 8080)], same=run.file())
    server.stop()


@case("node-put", needs=("node",), soak=("1G",), table=("node http, POST", "node http"))
def node_put(run):
    """A request with a body; the server sends the digest of what it got."""
    server = run.server(["node", f"{PROGRAMS}/http_server.js", "8080", run.data.directory], 8080)
    client = run.client(["node", f"{PROGRAMS}/http_client.js", url(run, 8080, "/digest"), run.file()])
    sums = run.client(["sha256sum", run.file()], user=False).stdout()
    run.check(client.stdout().strip() == sums.split()[0], "the digest differs")
    server.stop()
