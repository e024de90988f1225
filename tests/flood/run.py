#!/usr/bin/python3
"""A server on the user stack while somebody floods it: SYN, ACK, FIN, RST, fragments, ARP.

The flooder (flood.c) sends as fast as it can from sources that do not exist. Meanwhile clients on the
kernel's stack fetch a file again and again. What must hold: they get it, whole, during the flood
(under a SYN flood by cookies), and at once after it; the server lives; its memory grows by no more
than a bound that has nothing to do with the number of frames.

    run.py [--seconds N] [-k KIND]
"""

import argparse
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time

sys.dont_write_bytecode = True
HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
sys.path.insert(0, os.path.join(ROOT, "tests", "lab"))
from lab import Lab, in_namespace, require, wait_for  # noqa: E402  (the path above comes first)

KINDS = ("syn", "ack", "fin", "rst", "fragment", "arp")
PORT = 8080
BYTES = 20000
PATIENCE = 20     # seconds that one client may take in the flood: SYNs are lost at the full queue of the device
GROWTH = 24 << 20  # bytes that the server may grow by, half of them the queues of half-open connections

SERVER = """
import socket, sys, threading
s = socket.socket()
s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
s.bind(("0.0.0.0", %d))
s.listen(128)
def serve(c):
    with c:
        c.settimeout(30)
        try:
            if c.recv(1) == b"?":
                c.sendall(bytes(i %% 251 for i in range(%d)))
        except OSError:
            pass
while True:
    threading.Thread(target=serve, args=(s.accept()[0],), daemon=True).start()
""" % (PORT, BYTES)
WANTED = bytes(i % 251 for i in range(BYTES))


class Failed(Exception):
    """What did not hold."""


def fetch(lab, patience):
    """A client in host b. Returns the seconds that it took."""
    begin = time.monotonic()
    sock = in_namespace(lab.b.path, socket.socket)
    with sock:
        sock.settimeout(patience)
        sock.connect((lab.a.addr, PORT))
        sock.sendall(b"?")
        got = b""
        while len(got) < BYTES:
            piece = sock.recv(65536)
            if not piece:
                break
            got += piece
    if got != WANTED:
        raise Failed(f"a client got {len(got)} bytes, or others")
    return time.monotonic() - begin


def resident(pid):
    """Bytes of memory of a process, the arena's pages among them."""
    with open(f"/proc/{pid}/smaps_rollup", encoding="ascii") as file:
        return next(int(line.split()[1]) << 10 for line in file if line.startswith("Rss:"))


def mac_of(host):
    def read():
        sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
        with sock:
            sock.bind(("eth0", 0))
            return sock.getsockname()[4]
    return in_namespace(host.path, read).hex(":")


def counters(build, pid):
    """What the server's stack has counted."""
    ended = subprocess.run([f"{build}/tcpshim", "ss", "-c", "-p", str(pid)], stdin=subprocess.DEVNULL,
                           capture_output=True, text=True, timeout=30)
    return ended.stdout


def flood(build, kind, seconds, directory):
    """Returns a line of what was measured."""
    with Lab() as lab:
        with open(os.path.join(directory, kind + ".err"), "wb") as err:
            server = lab.popen(lab.a, ["/usr/bin/python3", "-c", SERVER],
                               env={"LD_PRELOAD": f"{build}/libtcpshim.so"}, stderr=err)
        if not wait_for(lambda: lab.a.kernel_listens(PORT), 15):
            raise Failed("the server does not listen")
        usual = max(fetch(lab, PATIENCE) for _ in range(3))
        before = resident(server.pid)
        flooder = lab.popen(
            lab.b, [f"{build}/tests/flood", kind, "eth0", mac_of(lab.a), lab.a.addr, str(PORT), str(seconds)],
            stdout=subprocess.PIPE, text=True)
        served, failed, slowest, last = 0, 0, 0.0, None
        time.sleep(0.3)
        while flooder.poll() is None:
            try:
                slowest = max(slowest, fetch(lab, PATIENCE))
                served += 1
            except OSError as error:
                failed += 1
                last = error
            if server.poll() is not None:
                raise Failed(f"the server ended with {server.returncode}")
        frames, took = flooder.stdout.read().split()
        flooder.stdout.close()
        after = resident(server.pid)
        recovered = fetch(lab, 5)
        note = (f"{int(frames) / float(took) / 1000:.0f},000 frames/s, {served} served, slowest {slowest:.2f} s "
                f"(usually {usual:.2f}), memory {(after - before) / 1e6:+.1f} MB, after it {recovered:.2f} s")
        if failed:
            raise Failed(f"{failed} clients failed ({last}): {note}")
        if served == 0:
            raise Failed(f"no client was served: {note}")
        if after - before > GROWTH:
            raise Failed(f"memory grew: {note}")
        if kind == "syn" and "cookies-valid" not in counters(build, server.pid):
            raise Failed(f"no client came by a cookie: {note}")
        with open(os.path.join(directory, kind + ".err"), encoding="utf-8", errors="replace") as err:
            said = err.read()
        if "tcpshim:" in said:
            raise Failed("the server said: " + said.strip())
        return note


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--build", default="build")
    parser.add_argument("--seconds", type=float, default=3)
    parser.add_argument("-k", action="append", default=[], metavar="KIND")
    options = parser.parse_args()
    require()
    build = os.path.abspath(options.build)
    passed = failed = 0
    with tempfile.TemporaryDirectory(prefix="tcpshim-flood-") as directory:
        for kind in KINDS:
            if options.k and kind not in options.k:
                continue
            try:
                print(f"ok   flood/{kind}: {flood(build, kind, options.seconds, directory)}", flush=True)
                passed += 1
            except (Failed, OSError) as error:
                print(f"FAIL flood/{kind}: {error}", flush=True)
                failed += 1
    print(f"flood: {passed} passed, {failed} failed, 0 skipped")
    return 1 if failed or not passed else 0


if __name__ == "__main__":
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: sys.exit(130))
    sys.exit(main())
