"""Traces and captures made by hand, for the cases of trace and diagram."""

import json
import random
import struct

CLIENT, SERVER = "10.0.0.2:40000", "10.0.0.1:80"


class Side:
    """One end's trace: lines in the order of their times."""

    def __init__(self, pid, cmd, local, peer, iss, irs):
        self.pid, self.local, self.peer, self.iss, self.irs = pid, local, peer, iss, irs
        self.lines = [{"ev": "trace", "v": 1, "t": 99.9, "pid": pid, "cmd": cmd,
                       "realtime": "2026-11-22T08:00:00.000000000Z", "classes": "all"}]

    def add(self, t, cls, ev, **arguments):
        self.lines.append({"t": round(t, 9), "pid": self.pid, "class": cls, "ev": ev, "conn": 1,
                           "local": self.local, "peer": self.peer, **arguments})

    def state(self, t, old, new, why):
        self.add(t, "state", "state", **{"from": old, "to": new, "why": why, "why_id": "x"})

    def segment(self, t, ev, flags, seq, ack, length=0, wnd=65536, **more):
        """seq and ack relative to their beginnings."""
        ours, theirs = (self.iss, self.irs) if ev == "tx" else (self.irs, self.iss)
        arguments = {"flags": flags, "seq": (seq + ours) % 2**32, "seq_rel": seq, "len": length,
                     "wnd": wnd, **more}
        if "ACK" in flags:
            arguments.update(ack=(ack + theirs) % 2**32, ack_rel=ack)
        self.add(t, "segment", ev, **arguments)

    def call(self, t, name, result, begin=None, **more):
        self.add(t, "call", "call", call=name, fd=5, result=result,
                 begin=round(t - 1e-6 if begin is None else begin, 9), **more)

    def write(self, path):
        with open(path, "w", encoding="utf-8") as file:
            for line in sorted(self.lines, key=lambda o: o["t"]):
                file.write(json.dumps(line) + "\n")
        return path


class Wire:
    """Both sides, and what passes between them."""

    def __init__(self, seed, delay=0.01, port=40000):
        self.random = random.Random(seed)
        self.delay = delay
        client = f"10.0.0.2:{port}"
        iss, irs = self.random.randrange(2**32), self.random.randrange(2**32)
        self.client = Side(100, "curl", client, SERVER, iss, irs)
        self.server = Side(200, "nginx", SERVER, client, irs, iss)
        self.t = 100.0
        self.lost = 0

    def pass_on(self, sender, t, flags, seq, ack, length=0, lost=False, **more):
        """Returns when it arrives, or None."""
        receiver = self.server if sender is self.client else self.client
        why = {"why": more.pop("why")} if "why" in more else {}
        sender.segment(t, "tx", flags, seq, ack, length, **why, **more)
        if lost:
            self.lost += 1
            return None
        arrival = t + self.delay * self.random.uniform(1, 1.4)
        receiver.segment(arrival, "rx", flags, seq, ack, length, **more)
        return arrival

    def open(self):
        c, s, opt = self.client, self.server, {"mss": 1460, "wscale": 7, "sack_ok": True, "ts": [1, 0]}
        c.state(self.t, "CLOSED", "SYN_SENT", "connect()")
        t = self.pass_on(c, self.t, "SYN", 0, 0, opt=opt, why="open")
        s.state(t, "LISTEN", "SYN_RECEIVED", "rx SYN")
        s.add(t, "queue", "syn-queued", syn_queue=1, accept_queue=0, backlog=128)
        t = self.pass_on(s, t, "SYN,ACK", 0, 1, opt=opt, why="answer to SYN")
        c.state(t, "SYN_SENT", "ESTABLISHED", "rx SYN,ACK")
        c.call(t + 1e-5, "connect", 0, begin=self.t, args="10.0.0.1:80")
        t = self.pass_on(c, t, "ACK", 1, 1, why="third ACK of the handshake")
        s.state(t, "SYN_RECEIVED", "ESTABLISHED", "rx ACK of our SYN")
        s.add(t, "queue", "accept-queued", syn_queue=0, accept_queue=1, backlog=128)
        s.add(t + 1e-4, "queue", "accepted", syn_queue=0, accept_queue=0, backlog=128)
        s.call(t + 1.1e-4, "accept4", 7)
        self.t = t + 2e-4
        return self

    def data(self, segments, loss=0.0, size=1448, burst=10):
        """The server sends; each burst is acknowledged, lost segments are sent again."""
        seq, acked, missing = 1, 1, []
        while seq < 1 + segments * size or missing:
            arrivals, t = [], self.t
            self.server.call(t + 2e-4, "send", size * burst, begin=t)
            self.server.add(t, "buffer", "to-sndbuf", bytes=size * burst, queued=size * burst, limit=87040)
            again, missing = missing, []
            batch = [(s, "fast retransmit") for s in again]
            while len(batch) < burst and seq < 1 + segments * size:
                batch.append((seq, "data"))
                seq += size
            for number, why in batch:
                t += 2e-5
                arrival = self.pass_on(self.server, t, "ACK", number, 1, size, why=why,
                                       lost=self.random.random() < loss)
                if arrival is None:
                    missing.append(number)
                else:
                    arrivals.append(arrival)
            acked = min(missing) if missing else seq
            at = max(arrivals, default=t + self.delay * 2)
            more = {"opt": {"sack": [[(missing[-1] + size + self.client.irs) % 2**32,
                                      (seq + self.client.irs) % 2**32]]}} if missing else {}
            self.t = self.pass_on(self.client, at, "ACK", 1, acked, **more)
            self.client.call(at + 1e-5, "recv", size)
            self.server.add(self.t, "cc", "cwnd", cwnd=14480 + acked // 4, ssthresh=4294967295,
                            srtt=0.0213, rto=0.2213)
        self.bytes = seq
        return self

    def close(self):
        c, s, seq = self.client, self.server, getattr(self, "bytes", 1)
        c.state(self.t, "ESTABLISHED", "FIN_WAIT_1", "close()")
        c.call(self.t + 1e-5, "close", 0, begin=self.t)
        t = self.pass_on(c, self.t, "FIN,ACK", 1, seq, why="close")
        s.state(t, "ESTABLISHED", "CLOSE_WAIT", "rx FIN")
        t2 = self.pass_on(s, t, "ACK", seq, 2, why="ACK of FIN")
        c.state(t2, "FIN_WAIT_1", "FIN_WAIT_2", "rx ACK of our FIN")
        s.state(t + 1e-3, "CLOSE_WAIT", "LAST_ACK", "close()")
        t = max(t2, self.pass_on(s, t + 1e-3, "FIN,ACK", seq, 2, why="close"))
        c.state(t, "FIN_WAIT_2", "TIME_WAIT", "rx FIN")
        t = self.pass_on(c, t, "ACK", 2, seq + 1, why="ACK of FIN")
        s.state(t, "LAST_ACK", "CLOSED", "rx ACK of our FIN")
        return self

    def write(self, directory, name):
        return (self.client.write(f"{directory}/{name}-client.json"),
                self.server.write(f"{directory}/{name}-server.json"))


def capture(path, wire):
    """What the client sent and got, as a pcap with nanoseconds."""

    def endpoint(text):
        host, port = text.rsplit(":", 1)
        return bytes(int(p) for p in host.split(".")), int(port)

    bits = {"FIN": 1, "SYN": 2, "RST": 4, "PSH": 8, "ACK": 16}
    with open(path, "wb") as file:
        file.write(struct.pack("<IHHiIII", 0xA1B23C4D, 2, 4, 0, 0, 65535, 1))
        for line in sorted(wire.client.lines, key=lambda o: o["t"]):
            if line.get("class") != "segment":
                continue
            ends = [endpoint(line["local"]), endpoint(line["peer"])]
            (src, sport), (dst, dport) = ends if line["ev"] == "tx" else reversed(ends)
            flags = sum(bits[f] for f in line["flags"].split(","))
            options = bytes([2, 4, 5, 180, 3, 3, 7, 0]) if flags & 2 else b""
            wnd = line["wnd"] if flags & 2 else line["wnd"] >> 7
            tcp = struct.pack("!HHIIBBHHH", sport, dport, line["seq"], line.get("ack", 0),
                              (20 + len(options)) << 2, flags, min(wnd, 65535), 0, 0) + options
            total = 20 + len(tcp) + line["len"]
            ip = struct.pack("!BBHHHBBH4s4s", 0x45, 0, total, 0, 0, 64, 6, 0, src, dst)
            frame = bytes(12) + b"\x08\x00" + ip + tcp
            ns = round(line["t"] * 1e9)
            file.write(struct.pack("<IIII", ns // 10**9, ns % 10**9, len(frame), 14 + total) + frame)
    return path
