"""tcpshim compare: the same commands on two stacks."""

import os
import subprocess

from drawings import drawings, readable
from framework import case, check, equal

NGINX = """
daemon off; master_process off; error_log stderr; pid %(dir)s/nginx.pid; user root;
events {}
http { access_log off; server { listen 8080; location / { root %(dir)s; } }
 client_body_temp_path %(dir)s/t1; proxy_temp_path %(dir)s/t2; fastcgi_temp_path %(dir)s/t3;
 uwsgi_temp_path %(dir)s/t4; scgi_temp_path %(dir)s/t5; }
"""


def rows(result):
    return {row["id"]: row for row in result.json["rows"]}


def same(found, *names):
    for name in names:
        check(not found[name]["differs"], f"{name} differs: {found[name]['values']}")


def values(found, name):
    return list(found[name]["values"].values())


@case("compare: nginx and curl", needs=("nginx", "curl"))
def http(bench):
    www = os.path.join(bench.directory, "www")
    os.makedirs(www, exist_ok=True)
    with open(f"{www}/file", "wb") as file:
        file.write(bytes(range(256)) * 1000)
    with open(f"{www}/nginx.conf", "w", encoding="ascii") as file:
        file.write(NGINX % {"dir": www})
    page = os.path.join(bench.directory, "page.html")
    result = bench.tcpshim("compare", "-s", f"nginx -p {www} -c {www}/nginx.conf", "-c",
                           "curl -sS http://{server}:{port}/file", "--pairs", "kk,uu,ku,uk",
                           "-l", "delay=2ms", "-o", page, "--json", "--keep", f"{bench.directory}/kept",
                           seconds=120)
    check(result.status in (0, 1), f"status {result.status}\n{result.err}")
    found = rows(result)
    equal(result.status == 1, any(r["differs"] for r in found.values()), "status says what the rows say")
    same(found, "client_status", "client_output", "connections", "client_bytes", "server_bytes",
         "syn_options", "syn_ack_options", "client_errors", "server_errors")
    equal(values(found, "client_status"), ["0"] * 4, "curl")
    check(all(v.startswith("256000 B") for v in values(found, "client_output")), found["client_output"])
    check(all(v > 256000 for v in values(found, "server_bytes")), found["server_bytes"])
    check(all(v >= 0.004 for v in values(found, "handshake")), f"a round trip of 4 ms: {found['handshake']}")
    for walk in values(found, "client_states") + values(found, "server_states"):
        check("ESTABLISHED" in walk, walk)
    check(all(w.startswith("CLOSED → SYN_SENT → ESTABLISHED") for w in values(found, "client_states")),
          found["client_states"])
    check(all(w.startswith("LISTEN → SYN_RECEIVED → ESTABLISHED") for w in values(found, "server_states")),
          found["server_states"])
    with open(page, encoding="utf-8") as file:
        html = file.read()
    pictures = drawings(html)
    check(len(pictures) >= 12, f"{len(pictures)} drawings: ladders and plots of four pairs")
    for index, picture in enumerate(pictures):
        readable(picture, f"drawing {index} of the page")
    check("http://" not in html.replace("http://www.w3.org/", "").replace("http://{server}", ""), "self-contained")
    # what is kept can be drawn again
    kept = f"{bench.directory}/kept"
    readable(bench.must("diagram", f"{kept}/kk-client.pcap", "-o", "-").out, "kept capture")
    traces = [os.path.join(kept, n) for n in os.listdir(kept) if n.startswith("uu-") and "-trace." in n]
    check("accept queue" in bench.must("diagram", *traces, "-o", "-").out, "kept traces")


@case("compare: redis", needs=("redis-server", "redis-cli"))
def redis(bench):
    result = bench.tcpshim("compare", "-p", "7000", "-s",
                           "redis-server --port {port} --save '' --protected-mode no --dir {dir}", "-c",
                           "redis-cli -h {server} -p {port} eval 'return string.rep(\"x\", 100000)' 0",
                           "--json", seconds=120)
    check(result.status in (0, 1), f"status {result.status}\n{result.err}")
    found = rows(result)
    same(found, "client_status", "client_output", "client_bytes", "server_bytes", "client_errors")
    check(all(v.startswith("100001 B") for v in values(found, "client_output")), found["client_output"])
    equal(values(found, "server_status"), ["0", "0"], "redis ends by itself on SIGTERM")


SSHD = """
ListenAddress 0.0.0.0
HostKey %(dir)s/host
AuthorizedKeysFile %(dir)s/user.pub
PidFile none
StrictModes no
PermitRootLogin yes
PasswordAuthentication no
KbdInteractiveAuthentication no
UsePAM %(pam)s
UseDNS no
"""


@case("compare: ssh", needs=("sshd", "ssh", "ssh-keygen"))
def ssh(bench):
    """sshd hands the connection through exec, chroot, another uid and its sandbox."""
    os.makedirs("/run/sshd", mode=0o755, exist_ok=True)
    home = os.path.join(bench.directory, "ssh")
    os.makedirs(home, exist_ok=True)
    for name in ("host", "user"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", f"{home}/{name}"], check=True)
    with open("/etc/shadow", encoding="utf-8") as shadow:
        locked = any(line.startswith("root:!") for line in shadow)
    with open(f"{home}/config", "w", encoding="ascii") as file:
        file.write(SSHD % {"dir": home, "pam": "yes" if locked else "no"})
    result = bench.tcpshim(
        "compare", "-s", f"/usr/sbin/sshd -D -e -p {{port}} -f {home}/config", "-c",
        f"ssh -F none -p {{port}} -i {home}/user -o BatchMode=yes -o StrictHostKeyChecking=no -o LogLevel=ERROR "
        f"-o UserKnownHostsFile={home}/known root@{{server}} head -c 200000 /dev/zero", "--json", seconds=120)
    check(result.status in (0, 1), f"status {result.status}\n{result.err}")
    found = rows(result)
    same(found, "client_status", "client_output", "client_errors")
    equal(values(found, "client_status"), ["0", "0"], "ssh's status")
    check(all(v.startswith("200000 B") for v in values(found, "client_output")), found["client_output"])


@case("compare: who is refused is refused alike", needs=("curl",))
def refused(bench):
    result = bench.tcpshim("compare", "-c", "curl -sS http://{server}:{port}/", "--json")
    equal(result.status, 0, f"same behaviour\n{result.err}{result.out}")
    found = rows(result)
    equal(values(found, "client_status"), ["7", "7"], "curl's status")
    equal(values(found, "server_resets"), [1, 1], "resets")
    watched = result.json["kernel_states"]["kk"]
    wanted = "ECONNREFUSED" if watched == "tracepoint" else "?"
    equal(values(found, "client_errors")[0], wanted, "the kernel's error")
    equal(values(found, "client_errors")[1], "ECONNREFUSED", "the user stack's error")


@case("compare: status 1 where behaviour differs, 2 where a run was not possible")
def statuses(bench):
    result = bench.tcpshim("compare", "-c", "test -z \"$LD_PRELOAD\"")
    equal(result.status, 1, f"a client that ends otherwise\n{result.out}{result.err}")
    check("≠ client's exit status" in result.out, result.out)
    longest = max(len(line) for line in result.out.splitlines())
    check(longest <= 80, f"a line of {longest} columns")
    result = bench.tcpshim("compare", "-s", "false", "-c", "true")
    equal((result.status, "the server ended at once" in result.err), (2, True), result.err)
    equal(bench.tcpshim("compare", "-s", "true").status, 2, "no client")
    equal(bench.tcpshim("compare", "-c", "true", "--pairs", "kx").status, 2, "--pairs kx")
    equal(bench.tcpshim("compare", "-c", "true", "-l", "speed=1").status, 2, "--lab speed=1")


@case("compare: by an ordinary user, states by sock_diag", needs=("curl",))
def ordinary(bench):
    if bench.tcpshim("lab", "up", "probe", user=True).status != 0:
        from framework import Skipped
        raise Skipped("no user namespaces here")
    bench.must("lab", "down", "probe", user=True)
    server = "python3 -c 'import http.server as h; h.HTTPServer((\"\", {port}), h.SimpleHTTPRequestHandler).serve_forever()'"
    result = bench.tcpshim("compare", "-s", server, "-c", "curl -s -o /dev/null http://{server}:{port}/",
                           "-l", "delay=10ms", "--json", user=True, env={"TMPDIR": "/tmp"}, seconds=120)
    check(result.status in (0, 1), f"status {result.status}\n{result.err}")
    equal(result.json["kernel_states"], {"kk": "sock_diag"}, "how states were watched")
    found = rows(result)
    check("ESTABLISHED" in values(found, "client_states")[0], found["client_states"])
    same(found, "client_status", "connections", "client_bytes")
