"""tcpshim run: what it sets, checks, refuses, and how an ordinary user gets the raw socket."""

import os
import re
import shutil

from framework import PYTHON, USER, Skipped, case, check, equal

SHOW = "import os; print(*sorted(f'{k}={v}' for k, v in os.environ.items() if 'TCPSHIM' in k or k == 'LD_PRELOAD'))"
NET_RAW, NET_ADMIN = 1 << 13, 1 << 12


def capable(b, capabilities):
    """A copy of the command with file capabilities."""
    directory = os.path.join(b.directory, "with-" + capabilities.replace(",", "-"))
    if not os.path.isdir(directory):
        os.mkdir(directory, 0o755)
        for name in ("tcpshim", "tcpshim-keeper", "libtcpshim.so"):
            shutil.copy(os.path.join(b.directory, name), directory)
        if b.run("setcap", capabilities + "+ep", f"{directory}/tcpshim").status != 0:
            raise Skipped("setcap is not possible on this file system")
    if os.statvfs(directory).f_flag & os.ST_NOSUID:
        raise Skipped("the temporary directory is mounted nosuid")
    return os.path.join(directory, "tcpshim")


@case("run/variables")
def variables(b):
    library = f"{b.directory}/libtcpshim.so"
    out = b.must("run", "--mem", "64M", "--trace=state,queue", "--cc", "reno", "--fallback",
                 "--loopback", "--", PYTHON, "-c", SHOW).out.split()
    equal(out, sorted([f"LD_PRELOAD={library}", "TCPSHIM_CC=reno", "TCPSHIM_FALLBACK=kernel",
                       "TCPSHIM_LOOPBACK=user", "TCPSHIM_MEM=64M", "TCPSHIM_TRACE=state,queue"]),
          "the environment")
    out = b.must("run", PYTHON, "-c", SHOW, env={"LD_PRELOAD": "/nonexistent/x.so", "TCPSHIM_CC": "reno"})
    check(out.out.startswith(f"LD_PRELOAD={library}:/nonexistent/x.so"), f"prepended: {out.out}")
    check("TCPSHIM_CC=reno" in out.out, "a variable of the environment is kept")
    out = b.must("run", "--cc", "cubic", PYTHON, "-c", SHOW, env={"TCPSHIM_CC": "reno"})
    check("TCPSHIM_CC=cubic" in out.out, "an option overrides")


@case("run/every-option")
def every_option(b):
    """Each option reaches its variable, and the library takes each name for one of its own."""
    text = b.must("run", "--help").out
    text = text[text.index("set a variable"):]
    options = re.findall(r"^ +--([\w-]+)(?: (\S+))?(?: {2,}|$)", text, re.M)
    check(len(options) >= 12, f"only {options}")
    for name, arg in options:
        words = ["run", "-n", f"--{name}"] + (["#"] if arg else []) + ["--", "true"]
        result = b.tcpshim(*words)
        said = result.out + result.err
        check("is no variable of tcpshim" not in said, f"--{name}: {said}")
        check("TCPSHIM_" + name.upper().replace("-", "_") + "=" in said, f"--{name}: {said}")


@case("run/statuses")
def statuses(b):
    equal(b.tcpshim("run", "--", "sh", "-c", "exit 7").status, 7, "the program's status")
    equal(b.tcpshim("run", "no-such-program-here").status, 127, "not found")
    equal(b.tcpshim("run", "/etc/passwd").status, 126, "no program")
    equal(b.tcpshim("run", "/etc").status, 126, "a directory")
    result = b.tcpshim("run", "--addr", "10.0.0.300/24", "true")
    equal(result.status, 2, "a malformed value")
    check("TCPSHIM_ADDR=10.0.0.300/24: not understood; allowed:" in result.err, result.err)
    equal(b.tcpshim("run", "--library", "/nonexistent.so", "true").status, 125, "no library")
    odd = os.path.join(b.directory, "odd dir")
    os.makedirs(odd, exist_ok=True)
    shutil.copy(f"{b.directory}/libtcpshim.so", odd)
    result = b.tcpshim("run", "--library", f"{odd}/libtcpshim.so", "true")
    equal(result.status, 125, "a path that LD_PRELOAD cannot hold")
    check("blank" in result.err, result.err)


@case("run/out-of-reach")
def out_of_reach(b):
    static = b.compile("static", "int main(void){return 5;}", "-static")
    result = b.tcpshim("run", static)
    equal(result.status, 126, "a static program")
    check("statically linked" in result.err and "cure:" in result.err, result.err)
    equal(b.tcpshim("run", "--force", static).status, 5, "with --force")
    own = os.path.join(b.directory, "set-uid")
    shutil.copy("/bin/true", own)
    os.chmod(own, 0o4755)
    if not os.statvfs(own).f_flag & os.ST_NOSUID:
        check("setuid" in b.tcpshim("run", own, user=True).err, "a setuid program of root, as a user")
    equal(b.tcpshim("run", own).status, 0, "a setuid program of root, as root")


@case("run/unprivileged")
def unprivileged(b):
    result = b.tcpshim("run", "true", user=True)
    equal(result.status, 125, "without CAP_NET_RAW")
    check("CAP_NET_RAW" in result.err and "setcap" in result.err and "lab" in result.err, result.err)
    equal(b.tcpshim("run", "--off", "true", user=True).status, 0, "with --off it is not needed")


CAPS = ("import re; t = open('/proc/self/status').read(); "
        "print(*(re.search(k + r':\\s*(\\S+)', t)[1] for k in ('CapEff', 'Uid', 'Gid')), "
        "'libtcpshim.so' in open('/proc/self/maps').read())")


@case("run/ambient", needs=["setcap"])
def ambient(b):
    """A file capability on the command is the program's as an ambient one, and LD_PRELOAD is kept."""
    for capabilities, wanted in (("cap_net_raw", NET_RAW),
                                 ("cap_net_raw,cap_net_admin", NET_RAW | NET_ADMIN)):
        result = b.run(capable(b, capabilities), "run", "--", PYTHON, "-c", CAPS, user=True)
        equal(result.status, 0, f"{capabilities}: {result.err}")
        effective, uid, gid, loaded = result.out.split()
        equal(int(effective, 16), wanted, f"capabilities with {capabilities}")
        equal((uid, gid, loaded), (str(USER), str(USER), "True"), "ids, and the library")


FETCH = """
import socket, sys
s = socket.create_connection((sys.argv[1], int(sys.argv[2])))
s.sendall(b'x' * 10000); s.shutdown(socket.SHUT_WR)
n = 0
while True:
    d = s.recv(65536)
    if not d: break
    n += len(d)
print(n)
"""
ECHO = """
import socket
l = socket.create_server(('', 5000)); print('ready', flush=True)
while True:
    c, _ = l.accept(); data = b''
    while True:
        d = c.recv(65536)
        if not d: break
        data += d
    c.sendall(data * 10); c.close()
"""


def echo_server(b, lab, user=False):
    server = b.start(b.command, "lab", "exec", f"{lab}/a", PYTHON, "-c", ECHO, user=user)
    equal(server.stdout.readline(), "ready\n", "the server")


@case("run/ordinary-user", needs=["setcap", "setpriv"])
def ordinary_user(b):
    """The whole way: file capability, ambient capability, raw socket, a connection in user space."""
    command = capable(b, "cap_net_raw")
    lab = b.lab()
    echo_server(b, lab)
    result = b.run(b.command, "lab", "exec", f"{lab}/b", "setpriv", f"--reuid={USER}", f"--regid={USER}",
                   "--clear-groups", command, "run", "--trace", "state", "--",
                   PYTHON, "-c", FETCH, "10.77.0.1", "5000")
    equal(result.out, "100000\n", f"bytes ({result.err})")
    check("-> ESTABLISHED" in result.err, f"not in user space: {result.err}")


@case("run/lab-unprivileged")
def lab_unprivileged(b):
    """Without any privilege at all: user namespaces."""
    lab_name = f"u{os.getpid()}"
    up = b.tcpshim("lab", "up", lab_name, user=True)
    if up.status != 0 and "user namespace" in up.err:
        raise Skipped("user namespaces are not allowed here")
    equal(up.status, 0, up.err)
    b.labs.append((lab_name, True))
    echo_server(b, lab_name, user=True)
    result = b.tcpshim("run", "--lab", f"{lab_name}/b", "--trace", "state", "--", PYTHON, "-c", FETCH,
                       "10.77.0.1", "5000", user=True)
    equal(result.out, "100000\n", f"bytes ({result.err})")
    check("-> ESTABLISHED" in result.err, f"not in user space: {result.err}")
