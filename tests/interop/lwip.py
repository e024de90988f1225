"""The user stack against lwIP 2.1 (lwip.c): 100 KB each way, the user stack as server and as client.

Debian's liblwip has neither SACK nor timestamps; window scaling it offers and takes. What depends on
those, the user stack must do without here: recovery by duplicate ACKs, round trips by ACKs alone.
"""

import os
import subprocess

import peer
from lab import Lab

HERE = os.path.dirname(os.path.abspath(__file__))
PORT = 7102
LOSSES = "drop=1%,seed=7"
DISORDER = "reorder=10%,seed=8"

# (what it is, (MTU of the link, MTU of lwIP's interface, TCPSHIM_IMPAIR, TCPSHIM_CC))
SHAPES = (
    ("plain", (1500, 1500, "", "cubic")),
    ("MSS 536", (576, 576, "", "cubic")),
    ("MSS 216 on lwIP's side alone", (1500, 256, "", "reno")),
    ("1 % lost each way, CUBIC", (1500, 1500, LOSSES, "cubic")),
    ("1 % lost each way, BBR", (1500, 1500, LOSSES, "bbr")),
    ("10 % reordered each way, MSS 536", (576, 576, DISORDER, "reno")),
)


def program(build):
    return f"{build}/tests/interop_lwip"


def play(build, link_mtu, mtu, impair, congestion):
    """Returns (how many transfers were right, what was wrong)."""
    wrong, right = [], 0
    path = f"{build}/tests/interop_lwip.bytes"
    with open(path, "wb") as file:
        file.write(peer.THERE)
    with Lab() as lab:
        for host in lab.hosts:
            lab.popen(host, ["ip", "link", "set", "eth0", "mtu", str(link_mtu)]).wait(5)
        # what lwIP sees is what is on the wire: whole segments, and their checksums
        lab.popen(lab.a, ["ethtool", "-K", "eth0", "tx", "off", "tso", "off", "gso", "off"],
                  stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL).wait(5)
        env = {"LD_PRELOAD": f"{build}/libtcpshim.so", "TCPSHIM_CC": congestion}
        if impair:
            env["TCPSHIM_IMPAIR"] = impair
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True, "bufsize": 1}
        user = lab.popen(lab.a, ["/usr/bin/python3", os.path.join(HERE, "peer.py"), lab.a.addr, str(PORT)],
                         env=env, **pipes)
        other = lab.popen(lab.b, [program(build), "eth0", lab.b.spare + "/24", str(mtu), str(PORT), path], **pipes)
        for end in (user, other):
            end.stdout.readline()
        for client, asks in ((user, f"{lab.b.spare} {PORT} 0"), (other, f"{lab.a.addr} {PORT}")) * 2:
            client.stdin.write(asks + "\n")
            said = client.stdout.readline().strip()
            if said == "ok":
                right += 1
            else:
                wrong.append(f"client {'user stack' if client is user else 'lwIP'}: {said}")
        for end in (user, other):
            end.stdin.close()
            end.wait(10)
    return right, wrong
