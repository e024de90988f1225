#!/usr/bin/python3
"""The user stack against the kernel's, with every combination of options off and on.

Timestamps, SACK, window scaling, ECN and Fast Open (sysctls of the kernel's side), MTUs from 576 to
65535, segmentation offload on and off; the user stack as server and as client; 100 KB each way. What
must hold: the bytes arrive, and tshark's expert finds nothing in the capture that it does not find in
that of two kernels. Then against lwIP (lwip.py).

    run.py            a subset: each option off alone, all off, all on; three MTUs
    run.py --all      all combinations
"""

import argparse
import itertools
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading

sys.dont_write_bytecode = True
HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "..", "lab"))
sys.path.insert(0, HERE)
import lwip  # noqa: E402  (the paths above come first)
import peer  # noqa: E402
from lab import Lab, in_namespace, require  # noqa: E402

OPTIONS = ("timestamps", "sack", "window_scaling", "ecn", "fastopen")
PORT = 7101
NOTE = 0x400000  # of tshark's severities, the lowest that counts
# What depends on how fast the processes are woken, not on the stack.
TIMING = ("Duplicate ACK", "window specified by the receiver is now completely full", "Zero", "Window",
          "keep-alive", "Out-Of-Order", "out-of-order")


def combinations(everything):
    if everything:
        return list(itertools.product((0, 1), repeat=len(OPTIONS)))
    rows = [(1,) * 5, (0,) * 5]
    return rows + [tuple(int(i != off) for i in range(5)) for off in range(5)]


def sysctl(lab, host, **values):
    words = [f"net.ipv4.tcp_{key}={value}" for key, value in values.items()]
    lab.popen(host, ["sysctl", "-qw", *words]).wait(5)


def shape(lab, mtu, gso):
    for host in lab.hosts:
        lab.popen(host, ["ip", "link", "set", "eth0", "mtu", str(mtu)]).wait(5)
        word = "on" if gso else "off"
        lab.popen(host, ["ethtool", "-K", "eth0", "tso", word, "gso", word, "gro", word],
                  stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL).wait(5)


def expert(path):
    """The kinds of what tshark's expert finds worth a note or more."""
    ended = subprocess.run(["tshark", "-r", path, "-Y", f"_ws.expert.severity >= {NOTE}", "-T", "fields",
                            "-E", "separator=|", "-E", "aggregator=~", "-e", "_ws.expert.severity",
                            "-e", "_ws.expert.message"],
                           stdin=subprocess.DEVNULL, capture_output=True, text=True)
    kinds = set()
    for line in ended.stdout.splitlines():
        severities, _, messages = line.partition("|")
        for severity, message in zip(severities.split("~"), messages.split("~")):
            message = re.sub(r"\d+", "N", message).strip()
            if int(severity) >= NOTE and not any(word in message for word in TIMING):
                kinds.add(message)
    return kinds


def play(build, user, everything, mtu, gso, path):
    """All combinations in one laboratory; user: host a's program is on the user stack. Returns (how many
    transfers were right, what was wrong, the kinds of the expert)."""
    wrong, right = [], 0
    with Lab() as lab:
        shape(lab, mtu, gso)
        sysctl(lab, lab.a, fastopen=3)
        env = {"LD_PRELOAD": f"{build}/libtcpshim.so", "TCPSHIM_ECN": "ask"} if user else {}
        if not user:
            sysctl(lab, lab.a, ecn=1)
        # checksums of a local kernel are partial, lengths of large segments are the kernel's business
        capture = lab.popen(lab.b, ["tcpdump", "-i", "eth0", "-s", "160", "-U", "--immediate-mode", "-B", "8192", "-w", path, "tcp"],
                            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        capture.stderr.readline()
        program = lab.popen(lab.a, ["/usr/bin/python3", os.path.join(HERE, "peer.py"), lab.a.addr, str(PORT)],
                            env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1)
        program.stdout.readline()
        listener = in_namespace(lab.b.path, socket.socket)
        peer.listen(listener, (lab.b.addr, PORT))
        threading.Thread(target=serve, args=(listener,), daemon=True).start()
        for row in combinations(everything):
            sysctl(lab, lab.b, **{**dict(zip(OPTIONS, row)), "fastopen": 3 * row[-1]})
            name = ",".join(word for word, on in zip(OPTIONS, row) if on) or "none"
            for client in ("kernel", "program"):
                if client == "kernel":
                    said = peer.transfer(in_namespace(lab.b.path, socket.socket), (lab.a.addr, PORT), row[-1])
                else:
                    program.stdin.write(f"{lab.b.addr} {PORT} {row[-1]}\n")
                    said = program.stdout.readline().strip()
                if said == "ok":
                    right += 1
                else:
                    wrong.append(f"mtu {mtu}, gso {gso}, {name}, client {client}: {said}")
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        program.stdin.close()
        program.wait(10)
        capture.send_signal(signal.SIGINT)
        capture.wait(10)
    return right, wrong, expert(path)


def serve(listener):
    try:
        peer.serve(listener)
    except OSError:
        pass


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--build", default="build")
    parser.add_argument("--all", action="store_true")
    options = parser.parse_args()
    require()
    build = os.path.abspath(options.build)
    mtus = (576, 1280, 1500, 9000, 32768, 65535) if options.all else (576, 1500, 65535)
    shapes = [(mtu, gso) for mtu in mtus for gso in ((True, False) if options.all or mtu == 1500 else (True,))]
    passed = failed = 0
    with tempfile.TemporaryDirectory(prefix="tcpshim-interop-") as directory:
        os.chmod(directory, 0o777)  # tcpdump gives up root
        for mtu, gso in shapes:
            *_, usual = play(build, False, options.all, mtu, gso, os.path.join(directory, f"kernel-{mtu}-{gso}"))
            right, wrong, found = play(build, True, options.all, mtu, gso,
                                       os.path.join(directory, f"user-{mtu}-{gso}"))
            odd = found - usual
            for again in range(2):  # a probe that came before a late ACK is the scheduler's doing: it does not repeat
                if odd:
                    _, amiss, found = play(build, True, options.all, mtu, gso,
                                           os.path.join(directory, f"user-{mtu}-{gso}-{again}"))
                    wrong += amiss
                    odd &= found
            wrong += [f"mtu {mtu}, gso {gso}: the expert says: {kind}" for kind in sorted(odd)]
            passed += right
            failed += len(wrong)
            print(f"{'FAIL' if wrong else 'ok':4} interop: mtu {mtu}, segmentation offload {'on' if gso else 'off'}: "
                  f"{right} transfers", flush=True)
            for line in wrong:
                print("     " + line, flush=True)
    skipped = 0 if os.path.exists(lwip.program(build)) else 1
    for name, shape_of in lwip.SHAPES if not skipped else ():
        right, wrong = lwip.play(build, *shape_of)
        passed += right
        failed += len(wrong)
        print(f"{'FAIL' if wrong else 'ok':4} interop: lwIP, {name}: {right} transfers", flush=True)
        for line in wrong:
            print("     " + line, flush=True)
    print(f"interop: {passed} passed, {failed} failed, {skipped} skipped")
    return 1 if failed or not passed else 0


if __name__ == "__main__":
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: sys.exit(130))
    sys.exit(main())
