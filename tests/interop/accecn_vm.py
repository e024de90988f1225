#!/usr/bin/python3
"""Accurate ECN (RFC 9768) against a Linux kernel that has it: one of Debian's, of version 7 or later, in a virtual
machine (vm.py). The way between the hosts is a bridge, on which nftables marks, clears and drops packets.

What must hold, with the user stack as client and as server, is what holds between two kernels, which play
everything first: what is negotiated from all settings of both ends (tcp_ecn of 0 to 5, TCPSHIM_ECN), how SYN and
SYN-ACK that were changed on the way are told of, that transfers arrive whole, that each side counts the marks that
the capture shows and hears of them from the other, and that senders slow down for them.

    accecn_vm.py [--kernel DEB...]    packages of the kernel (image or binary, modules); without, apt downloads them
"""

import argparse
import itertools
import os
import signal
import struct
import subprocess
import sys
import tempfile
import time

sys.dont_write_bytecode = True
HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "..", "lab"))
sys.path.insert(0, HERE)
import vm  # noqa: E402  (the paths above come first)
from lab import NotAllowed, require  # noqa: E402

# In the order of the kernel's tcp_ecn.
WORDS = ("off", "ask", "accept", "accurate", "accurate-ask", "accurate-accept")
ASKED = (0, 1, 0, 2, 1, 0)  # what each of them asks for: nothing, RFC 3168's marks, accurate ones
GRANTED = (0, 1, 1, 2, 2, 2)  # the most that each of them grants
PAIRS = ("bc", "ab", "ba")  # client and server: two kernels, then the user stack (a) as either
FIN, SYN, ACK = 0x01, 0x02, 0x10
ECT0, CE, ECE, CWR = 2, 3, 0x40, 0x80
NO_ECT, NO_OPTION = 2, 4  # of TCP_INFO's failures: the path spoils ECN's field; the option is not sent any more
ENDLESS = 0x7fffffff  # of ssthresh: nothing has reduced the window yet
M = 1 << 20

TEXT = "ip ecn != not-ect ip length > 200"
MARK = "numgen random mod {} 0 ip ecn set ce"
STRIP = "reset tcp option 172\nreset tcp option 174"

# name, tcp_ecn of client and server, what is sent and received (MB), at the same time?, what the way does, checks
TRANSFERS = (
    ("nothing marked", (3, 3), 4, 4, False, "", "unmarked exact"),
    ("a tenth of the text marked", (3, 3), 4, 4, False, f"{TEXT} {MARK.format(10)}", "exact"),
    ("the same, both at the same time", (3, 3), 4, 4, True, f"{TEXT} {MARK.format(10)}", "exact"),
    ("half of it", (3, 3), 2, 2, False, f"{TEXT} {MARK.format(2)}", "exact"),
    ("all of it", (3, 3), 1, 1, False, f"{TEXT} ip ecn set ce", "exact"),
    ("a tenth of everything", (3, 3), 4, 4, False, f"ip ecn != not-ect {MARK.format(10)}", "about"),
    ("options taken away", (3, 3), 4, 4, False, f"{TEXT} {MARK.format(10)}\n{STRIP}", "exact bare"),
    ("a hundredth lost besides", (3, 3), 4, 4, False, f"{TEXT} {MARK.format(10)}\nnumgen random mod 100 0 drop", "about"),
    ("marks cleared", (3, 3), 2, 2, False, "ip ecn set not-ect", ""),
    ("client accurate, server classic", (3, 1), 4, 4, False, f"{TEXT} {MARK.format(100)}", "classic"),
    ("client classic, server accurate", (4, 3), 4, 4, False, f"{TEXT} {MARK.format(100)}", "classic"),
)


class Packet:
    """What counts of a TCP segment in a capture."""

    def __init__(self, frame):
        ihl = (frame[14] & 15) * 4
        tcp = frame[14 + ihl:]
        self.source = frame[29]
        self.ecn = frame[15] & 3
        self.ports = struct.unpack("!HH", tcp[:4])
        self.seq = struct.unpack("!I", tcp[4:8])[0]
        self.flags = tcp[13]
        self.ace = (tcp[12] & 1) << 2 | tcp[13] >> 6
        self.text = struct.unpack("!H", frame[16:18])[0] - ihl - (tcp[12] >> 4) * 4
        self.option = self._option(tcp[20:(tcp[12] >> 4) * 4])

    @staticmethod
    def _option(rest):
        while rest and rest[0] != 0:
            if rest[0] in (172, 174):
                return True
            rest = rest[1:] if rest[0] == 1 else rest[max(rest[1], 2):] if len(rest) > 1 else b""
        return False

    def kind(self):
        if self.flags & SYN:
            return "SYN-ACK" if self.flags & ACK else "SYN"
        return "text" if self.text else "FIN" if self.flags & FIN else "ACK"


def read_capture(path):
    """{port of the server: [packets]}"""
    found = {}
    with open(path, "rb") as file:
        data = file.read()
    at = 24
    while at + 16 <= len(data):
        size = struct.unpack("<I", data[at + 8:at + 12])[0]
        packet = Packet(data[at + 16:at + 16 + size])
        at += 16 + size
        for port in packet.ports:
            if port < Game.LAST:
                found.setdefault(port, []).append(packet)
    return found


class Connection:
    """One that was played: what both ends said of it, and what was seen at their ports."""

    def __init__(self, port, client, server):
        self.port, self.ends, self.said, self.seen = port, (client, server), {}, {}

    def wrong(self):
        return [f"{end.name}: {self.said[end.name]}" for end in self.ends if not self.said[end.name].startswith("ok ")]

    def told(self, end):
        return {key: int(value) for key, value in (word.split("=") for word in self.said[end.name].split()[1:])}

    def host(self, end):
        return int(end.addr.rpartition(".")[2])

    def sent(self, end):
        return [p for p in self.seen[end.name] if p.source == self.host(end)]

    def got(self, end):
        return [p for p in self.seen[end.name] if p.source != self.host(end)]

    def deal(self):
        """What was negotiated, in words that do not depend on time."""
        parts = []
        for role, end in zip(("client", "server"), self.ends):
            sent = self.sent(end)
            opening = [p for p in sent if p.flags & SYN][:1] + [p for p in sent if not p.flags & SYN][:1]
            parts += [f"{role} {p.kind() if p.flags & SYN else 'first'} ACE {p.ace}{' option' if p.option else ''}"
                      for p in opening]
            rest = list({(p.seq, p.kind()): p for p in reversed(sent) if not p.flags & SYN}.values())  # none that came again
            parts += [f"{role} {kind} ECN " + "/".join(map(str, sorted({p.ecn for p in rest if p.kind() == kind})))
                      for kind in ("text", "ACK", "FIN")]
            told = self.told(end)
            parts.append(f"{role} says ecn {told['ecn']} mode {told['mode'] & 3} failures {told['mode'] >> 4 & 15}")
        return parts


class Game:
    """Plays connections; each has a port of its own."""

    FIRST, LAST = 1024, 4096

    def __init__(self, lab, build, scratch):
        self.lab, self.build, self.port, self.mode = lab, build, self.FIRST, {}
        self.files = {name: os.path.join(scratch, f"port_{name}.pcap") for name in "abc"}
        self.captures = []
        for name, file in self.files.items():
            argv = ["tcpdump", "-i", f"port_{name}", "-s", "120", "-U", "-B", "32768", "-w", file, "tcp"]
            process = lab.popen(lab.b, argv, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
            process.stderr.readline()
            self.captures.append(process)

    def set_mode(self, name, mode):
        if self.mode.get(name) == mode:
            return
        self.mode[name] = mode
        if name == "a":
            self.lab.user({"LD_PRELOAD": f"{self.build}/libtcpshim.so", "TCPSHIM_ECN": WORDS[mode], "TCPSHIM_CC": "reno"})
        else:
            said = self.lab.ends[name].ask(f"set /proc/sys/net/ipv4/tcp_ecn {mode}")
            if said != "ok":
                raise NotAllowed(f"this kernel takes no tcp_ecn of {mode}: {said}")

    def spoil(self, rules):
        text = f"flush ruleset\ntable bridge way {{\nchain forward {{\ntype filter hook forward priority 0;\n{rules}\n}}\n}}\n"
        process = self.lab.popen(self.lab.b, ["nft", "-f", "-"], stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        problem = process.communicate(text)[1]
        if process.returncode:
            raise NotAllowed(f"nft: {problem.strip().splitlines()[0]}")

    def play(self, *row):
        """One connection; once more where it does not end well, for the machine may have slept meanwhile."""
        made = self._play(*row)
        return self._play(*row) if made.wrong() else made

    def _play(self, pair, modes, there, back, turns):
        for name, mode in zip(pair, modes):
            self.set_mode(name, mode)
        client, server = (self.lab.ends[name] for name in pair)
        self.port += 1
        made = Connection(self.port, client, server)
        word = " turns" if turns else ""
        ready = server.ask(f"listen {server.addr} {self.port} {back} {there}{word}")
        if ready != "ready":
            made.said = {server.name: ready, client.name: "not asked"}
            return made
        made.said[client.name] = client.ask(f"connect {server.addr} {self.port} {there} {back}{word}")
        made.said[server.name] = server.hear()
        return made

    def finish(self, connections):
        """Ends the captures and gives each connection what was seen of it."""
        self.lab.end_user()
        sizes = None
        while sizes != (sizes := [os.path.getsize(file) for file in self.files.values()]):
            time.sleep(1)  # tcpdump says nothing when it has caught up
        for process in self.captures:
            process.send_signal(signal.SIGINT)
            process.wait(20)
        seen = {name: read_capture(file) for name, file in self.files.items()}
        for made in connections:
            made.seen = {end.name: seen[end.name].get(made.port, []) for end in made.ends}


def expected(modes):
    """What must be among the words of Connection.deal()."""
    asked = ASKED[modes[0]]
    mode = min(asked, GRANTED[modes[1]])
    words = [f"client SYN ACE {(0, 3, 7)[asked]}", f"server SYN-ACK ACE {('0', '1', '2 option')[mode]}",
             f"client first ACE {('0', '0', '2 option')[mode]}"]
    for role in ("client", "server"):
        words += [f"{role} text ECN {ECT0 if mode else 0}", f"{role} ACK ECN {ECT0 if mode == 2 else 0}",
                  f"{role} says ecn {int(mode > 0)} mode {mode} failures 0"]
    return words


def usual(what, pair, deal):
    """What two kernels agreed on, and where the user stack follows RFC 9768 3.2.2.3 and Linux does not: a client whose
    SYN was made ECN-capable on the way sends no more of that (Linux looks only where the SYN-ACK had CE)."""
    if not what.startswith("SYN becomes") or pair[0] != "a":
        return deal
    changed = [line.replace("ECN 2", "ECN 0").replace("failures 0", f"failures {NO_ECT}") for line in deal]
    return [new if new.startswith("client ") else old for old, new in zip(deal, changed)]


def check_classic(role, sent, back, reduced):
    echo = any(p.flags & ECE for p in back if not p.flags & SYN)
    answer = any(p.flags & CWR for p in sent if not p.flags & SYN)
    return [] if echo and answer and reduced else [f"{role}'s marks: ECE {echo}, CWR {answer}, window reduced {reduced}"]


def check_direction(role, made, sender, receiver, demands, offloads):
    """What one of them sent to the other."""
    wrong = []
    got, told, heard = made.got(receiver), made.told(receiver), made.told(sender)
    marked = [p for p in got if p.ecn == CE]
    reduced = heard["ssthresh"] < ENDLESS
    if "classic" in demands:
        return check_classic(role, made.sent(sender), made.sent(receiver), reduced) if marked else wrong
    if bool(marked) == ("unmarked" in demands):
        wrong.append(f"{role}'s marks: {len(marked)} of them")
    if reduced != bool(marked) and not heard["retrans"]:
        wrong.append(f"{role}'s window: ssthresh {heard['ssthresh']}")
    bare = "bare" in demands
    if bare and any(p.option for p in got):
        wrong.append(f"{role}'s options: some came")
    near = 8 + len(marked) // 50 if "about" in demands else 0  # what came after TCP_INFO, ACKs that nothing followed
    seen, counted, known = sum(p.text for p in marked), told["received_bytes"], heard["delivered_bytes"]
    stopped = bare or told["mode"] >> 4 & NO_OPTION
    if abs(seen - counted) > near * 1460 or not stopped and abs(known - counted) > near * 1460:
        wrong.append(f"{role}'s marks in bytes: {seen} seen, {counted} counted, {known} known to the sender")
    if offloads:  # Linux counts a large frame of a virtual card as one segment
        return wrong
    seen, counted, known = len(marked), told["received_ce"], heard["delivered_ce"]
    # Eights too many are the safe side (3.2.2.5.2): without options, and on Linux where one tells of two kinds of bytes.
    safe = (stopped or sender.name != "a") and marked and known > counted and (near or (known - counted) % 8 == 0)
    if abs(seen - counted) > near or abs(known - counted) > near and not safe:
        wrong.append(f"{role}'s marks: {seen} seen, {counted} counted, {known} known to the sender")
    last = [p for p in made.sent(receiver) if p.flags & FIN][:1]
    if not near and last and last[0].ace != (5 + counted) & 7:
        wrong.append(f"{role}'s marks: the last ACE field says {last[0].ace}, counted were {counted}")
    return wrong


def check(made, demands, offloads):
    """What is not as it must be, of a transfer that arrived whole."""
    if not demands:
        return []
    client, server = made.ends
    return (check_direction("client", made, client, server, demands, offloads)
            + check_direction("server", made, server, client, demands, offloads))


class Score:
    def __init__(self):
        self.passed = self.failed = 0

    def add(self, name, wrong):
        self.failed += bool(wrong)
        self.passed += not wrong
        print(f"{'FAIL' if wrong else 'ok':4} accecn: {name}", flush=True)
        for line in wrong:
            print("     " + line, flush=True)


def title(pair, modes):
    return ", ".join(f"{role} {f'user stack {WORDS[mode]}' if end == 'a' else f'kernel {mode}'}"
                     for role, end, mode in zip(("client", "server"), pair, modes))


def handshakes(game):
    """{(what, settings): {pair: connection}} of all settings, and of SYNs and SYN-ACKs that the way changes."""
    rows = [("", modes, "") for modes in itertools.product(range(len(WORDS)), repeat=2)]
    rows += [(f"{name} becomes {field}: ", (3, 3), f"tcp flags & (syn|ack) == {flags} ip ecn set {field}")
             for name, flags in (("SYN", "syn"), ("SYN-ACK", "syn|ack")) for field in ("ect1", "ect0", "ce")]
    found = {}
    for pair in PAIRS:
        for what, modes, rules in rows:
            game.spoil(rules)
            found.setdefault((what, modes), {})[pair] = game.play(pair, modes, 5000, 5000, True)
    return found


def transfers(game):
    found = {}
    for row in TRANSFERS:
        _, modes, there, back, together, rules, _ = row
        game.spoil(rules)
        for pair in PAIRS:
            found.setdefault(row, {})[pair] = game.play(pair, modes, there * M, back * M, not together)
    return found


def judge_handshakes(score, dealt):
    for (what, modes), plays in dealt.items():
        kernels = plays[PAIRS[0]]
        theirs = [] if kernels.wrong() else kernels.deal()
        for pair in PAIRS:
            wrong = plays[pair].wrong()
            if not wrong and pair == PAIRS[0]:
                wrong = [f"not so: {line}" for line in expected(modes) if not what and line not in theirs]
            elif not wrong:
                wrong = [f"{a}; expected: {b}" for a, b in zip(plays[pair].deal(), usual(what, pair, theirs)) if a != b]
            score.add(what + title(pair, modes), wrong)


def judge_transfers(score, moved, offloads):
    for (what, modes, *_, demands), plays in moved.items():
        for pair in PAIRS:
            wrong = plays[pair].wrong() or check(plays[pair], demands, offloads)
            score.add(f"{'large frames, ' if offloads else ''}{what}: {title(pair, modes)}", wrong)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--build", default="build")
    parser.add_argument("--kernel", nargs="*", default=[], metavar="DEB")
    options = parser.parse_args()
    require()
    build = os.path.abspath(options.build)
    score, skipped = Score(), 0
    try:
        kernel = vm.find_kernel(os.path.join(build, "accecn"), [os.path.abspath(path) for path in options.kernel])
        for offloads in (False, True):
            with tempfile.TemporaryDirectory(prefix="tcpshim-accecn-") as scratch:
                os.chmod(scratch, 0o777)  # tcpdump gives up root
                with vm.VmLab(scratch, kernel, f"{build}/tests/accecn_peer.static", offloads) as lab:
                    lab.boot()
                    game = Game(lab, build, scratch)
                    dealt = handshakes(game) if not offloads else {}
                    moved = transfers(game)
                    game.finish([made for plays in (*dealt.values(), *moved.values()) for made in plays.values()])
                judge_handshakes(score, dealt)
                judge_transfers(score, moved, offloads)
    except NotAllowed as reason:
        print(f"skip accecn: {reason}", flush=True)
        skipped = 1
    print(f"accecn: {score.passed} passed, {score.failed} failed, {skipped} skipped")
    return 1 if score.failed else 0


if __name__ == "__main__":
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: sys.exit(130))
    sys.exit(main())
