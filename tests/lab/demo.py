#!/usr/bin/python3
"""Shows the user stack at work: an unmodified curl and an unmodified nginx, each on either stack.

Two hosts in network namespaces, three transfers of one file, the trace of each, the checksums
compared. Ends by itself, leaves nothing behind; exit status 0 when all three were right.
"""

import argparse
import glob
import hashlib
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time

sys.dont_write_bytecode = True  # the checkout stays as it is

import lab

WIDTH = 100
SIZE = 1 << 20
TRACE = "state,queue,segment"
FIRST, LAST = 10, 10  # segments of the data phase that are shown at either end

COLOURS = {"state": "32;1", "queue": "35", "rx": "36", "tx": "33", "title": "1", "good": "32", "bad": "31;1",
           "dim": "2"}
STATE = re.compile(r"\b[A-Z][A-Z0-9_]+ +-> +[A-Z]")
QUEUE = re.compile(r"\b(syn-queued|accept-queued|accepted|refused|syn-dropped|cookie-sent)\b")
SEGMENT = re.compile(r"\b(rx|tx)\b")
# Time since the start, pid, connection, its two ends; then what happened.
PREFIX = re.compile(r"^ *(\d+\.\d+) (\d+) (#\d+) (\S+(?: -> \S+)?)  ?(.*)$")
# Segments that open or close a connection are worth showing wherever they are.
MARKED = re.compile(r"\b(SYN|FIN|RST)\b")


def paint(kind, text):
    return f"\033[{COLOURS[kind]}m{text}\033[0m" if kind in COLOURS and sys.stdout.isatty() else text


def kind_of(line):
    if STATE.search(line):
        return "state"
    if QUEUE.search(line):
        return "queue"
    match = SEGMENT.search(line)
    return match.group(1) if match else "held" if " held " in line else "other"


def show_trace(path_pattern):
    """Prints a trace; from the long middle of the data only the count. Returns its text."""
    lines = []
    for path in sorted(glob.glob(path_pattern)):
        with open(path, encoding="utf-8", errors="replace") as file:
            lines += file.read().splitlines()
    kinds = [kind_of(line) for line in lines]
    plain = [i for i, (kind, line) in enumerate(zip(kinds, lines))
             if kind not in ("state", "queue") and not (kind in ("rx", "tx") and MARKED.search(line))]
    hidden = set(plain[FIRST:-LAST]) if len(plain) > FIRST + LAST + 3 else set()
    waiting = {}
    named = set()

    def brief(line):
        """The ends of a connection once, as a heading; then its number is enough."""
        match = PREFIX.match(line)
        if not match:
            return line
        when, pid, number, ends, rest = match.groups()
        if (pid, number) not in named:
            named.add((pid, number))
            noun = "connection" if "->" in ends else "listener"
            print(f"    {paint('title', f'{noun} {number} of process {pid}: {ends}')}")
        # Beside the numbers counted from the start of the connection the true ones are noise.
        return f"{when} {number} " + (rest if "SYN" in rest else re.sub(r" \(\d+\)", "", rest))

    def flush():
        if waiting:
            counts = ", ".join(f"{number} {kind}" for kind, number in sorted(waiting.items()))
            print("    " + paint("dim", f"... {sum(waiting.values())} segments of the data phase ({counts})"))
            waiting.clear()

    for index, (kind, line) in enumerate(zip(kinds, lines)):
        if index in hidden:
            waiting[kind] = waiting.get(kind, 0) + 1
            continue
        flush()
        text = brief(line)
        print("    " + paint(kind, text[:WIDTH - 4]))
    flush()
    return "\n".join(lines)


class Demo:
    def __init__(self, library, laboratory, directory):
        self.library = library
        self.lab = laboratory
        self.directory = directory
        self.failures = 0
        self.file = os.path.join(directory, "www", "file")
        os.makedirs(os.path.dirname(self.file))
        with open(self.file, "wb") as file:
            file.write(os.urandom(SIZE))
        self.digest = self.sha256(self.file)
        with open(os.path.join(directory, "nginx.conf"), "w", encoding="ascii") as file:
            file.write(f"""
daemon off; master_process off; user root; pid {directory}/pid; error_log {directory}/error.log;
events {{ worker_connections 64; }}
http {{
    access_log off; sendfile on;
    client_body_temp_path {directory}/t1; proxy_temp_path {directory}/t2;
    fastcgi_temp_path {directory}/t3; uwsgi_temp_path {directory}/t4; scgi_temp_path {directory}/t5;
    server {{ listen 80; root {directory}/www; }}
}}
""")

    @staticmethod
    def sha256(path):
        with open(path, "rb") as file:
            return hashlib.sha256(file.read()).hexdigest()

    def shim(self, name):
        return {"LD_PRELOAD": self.library, "TCPSHIM_TRACE": TRACE,
                "TCPSHIM_TRACE_FILE": f"{self.directory}/{name}.%p.trace"}

    def check(self, good, text):
        """One line on what was shown, and whether it was."""
        self.failures += not good
        print("  " + paint("good" if good else "bad", ("ok    " if good else "WRONG ") + text))
        return good

    def transfer(self, number, title, client_user, server_user, shown):
        """curl in host b fetches the file from nginx in host a."""
        print(f"\n{paint('title', f'{number}. {title}')}")
        nginx = ["nginx", "-p", self.directory, "-e", f"{self.directory}/error.log", "-c",
                 f"{self.directory}/nginx.conf"]
        got = f"{self.directory}/got{number}"
        curl = ["curl", "-sS", "--fail", "--max-time", "20", "-o", got, f"http://{self.lab.a.addr}/file"]
        preload = "LD_PRELOAD=libtcpshim.so "
        print(f"  host a $ {preload if server_user else ''}nginx")
        print(f"  host b $ {preload if client_user else ''}curl http://{self.lab.a.addr}/file")
        with open(f"{self.directory}/stderr{number}", "w+", encoding="utf-8") as err:
            server = self.lab.popen(self.lab.a, nginx, self.shim(f"server{number}") if server_user else None,
                                    stdout=err, stderr=err)
            listens = lab.wait_for(lambda: server.poll() is not None or self.lab.a.kernel_listens(80), 10)
            if not listens or server.poll() is not None:
                err.seek(0)
                self.check(False, f"nginx does not listen: {err.read().strip()[:200]}")
                lab.end_group(server)
                return
            client = self.lab.popen(self.lab.b, curl, self.shim(f"client{number}") if client_user else None,
                                    stdout=err, stderr=err)
            try:
                code = client.wait(30)
            except subprocess.TimeoutExpired:
                code = "no end after 30 s"
            lab.wait_for(lambda: not self.lab.a.kernel_busy() and not self.lab.b.kernel_busy(), 1)
            time.sleep(0.05)  # the last ACKs of a user stack, which the kernel's tables do not show
            server.send_signal(signal.SIGTERM)
            lab.end_group(server, patience=5)
            lab.end_group(client)
            err.seek(0)
            complaints = err.read().strip()

        traces = []
        for name, user in (("client", client_user), ("server", server_user)):
            if user:
                print(f"  trace of the {name} ({TRACE}):")
                traces.append(show_trace(f"{self.directory}/{name}{number}.*.trace"))
        if complaints:
            print("  on stderr: " + complaints[:300])
        seen, _ = self.lab.resets()
        digest = self.sha256(got) if os.path.exists(got) else "nothing"
        print(f"  sha256 of the file {self.digest[:24]}..., received {digest[:24]}...")
        carried = all("-> ESTABLISHED" in text for text in traces)
        good = code == 0 and digest == self.digest and carried and not seen
        if good:
            self.check(True, shown)
            return
        why = []
        if code != 0:
            why.append(f"curl ended with {code}")
        if digest != self.digest:
            why.append("the checksums differ")
        if not carried:
            why.append("no connection went through the user stack")
        if seen:
            why.append(f"{len(seen)} resets were on the wire")
        self.check(False, "; ".join(why))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--library", default="build/libtcpshim.so")
    options = parser.parse_args()
    library = os.path.abspath(options.library)
    if not os.path.exists(library):
        print(f"demo: {library} is not there: run make first", file=sys.stderr)
        return 2
    lab.require()
    directory = tempfile.mkdtemp(prefix="tcpshim-demo-")
    try:
        with lab.Lab() as laboratory:
            print("Two hosts in network namespaces, joined by a veth pair:")
            print(f"  host a {laboratory.a.addr} eth0 <------> eth0 {laboratory.b.addr} host b")
            demo = Demo(library, laboratory, directory)
            demo.transfer(1, "curl on the user stack, nginx on the kernel's stack", True, False,
                          "an unmodified curl fetched 1 MB through the user stack from the kernel's; equal")
            demo.transfer(2, "curl on the kernel's stack, nginx on the user stack", False, True,
                          "an unmodified nginx served 1 MB through the user stack to the kernel's; equal")
            demo.transfer(3, "both on the user stack", True, True,
                          "the user stack carried 1 MB from itself to itself; equal, no kernel TCP involved")
            failures = demo.failures
    finally:
        shutil.rmtree(directory, ignore_errors=True)
    print(f"\n{3 - failures} of 3 transfers were right.")
    return 1 if failures else 0


if __name__ == "__main__":
    for caught in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(caught, lambda *_: sys.exit(130))
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
