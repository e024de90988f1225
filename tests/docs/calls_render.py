"""Traces as docs/calls.md shows them: two columns on one time line, the client's host and the server's.

    rendered(directory, scenario)   the trace files of one run as [(time, column, text)]
    laid_out(lines)                 those as lines of the document
    normal(text, scenario)          lines of the document as what is compared: {column: [text]}
    agree(old, new, scenario)       whether two such texts say the same
"""

import glob
import json
import os
import re

CLIENT, SERVER, ONLOOKER = "client", "server", ""
LEFT, RIGHT = 11, 51  # where the columns begin
HIDDEN_CALLS = {"getsockname", "getpeername", "fcntl", "ioctl"}
HIDDEN_TIMERS = {"loss-probe", "reorder", "pace", "delayed-ack"}
ALWAYS = {"impaired", "rx", "held", "ignored"}
DEFAULT = {"state", "call", "queue", "tx", "said"}
EDGE = 2  # lines that a cut may leave in the other column, or not
# When these are sent is the scheduler's choice as much as the protocol's.
LOOSE = re.compile(r"\((quick ACK|delayed ACK|ACK of two segments or more|ACK of a duplicate|window update)\)"
                   r"|: acknowledged$|arrives: ACK seq \d+ ack \d+$")


def of_scenario(scenario):
    words = scenario.options.get("show", "")
    hidden = set(filter(None, scenario.options.get("hide", "").split(",")))
    return (DEFAULT | set(filter(None, words.split(",")))) - hidden


def options_text(opt, syn):
    words = []
    if "mss" in opt:
        words.append(f"mss {opt['mss']}")
    if "wscale" in opt:
        words.append(f"wscale {opt['wscale']}")
    if opt.get("sack_ok"):
        words.append("SACK")
    if "ts" in opt and syn:
        words.append("TS")
    return f" <{', '.join(words)}>" if words else ""


def segment(e, show):
    text = e["flags"] + (f" seq {e['seq_rel']}" if "seq_rel" in e else "")
    if "ack_rel" in e:
        text += f" ack {e['ack_rel']}"
    if e["len"]:
        text += f" len {e['len']}"
    if "win" in show:
        text += f" win {e['wnd']}"
    return text + (options_text(e.get("opt", {}), "SYN" in e["flags"]) if "options" in show else "")


def seconds(value):
    return f"{value:.3g} s" if value >= 1 else f"{value * 1000:.3g} ms"


def queues(e):
    limit = f"/{e['backlog']}" if "backlog" in e else ""
    return f"SYN queue {e['syn_queue']}" + (f", accept queue {e['accept_queue']}{limit}" if "accept_queue" in e else "")


def runs(e):
    return " + ".join(f"{r['len']}" + (f" of a segment of {r['segment']}" if r["len"] != r["segment"] else "")
                      for r in e.get("from", []))


BUFFER = {
    "to-sndbuf": lambda e: f"send buffer +{e['bytes']} = {e['queued']}, not sent yet: {e['unsent']}",
    "acked": lambda e: f"send buffer -{e['bytes']} = {e['queued']}: acknowledged",
    "to-rcvbuf": lambda e: f"receive buffer +{e['bytes']} = {e['ready']}"
                           + (f", behind a hole: {e['ooo']}" if e.get("ooo") else ""),
    "from-rcvbuf": lambda e: f"receive buffer -{e['bytes']} = {e['ready']}",
    "recv-from": lambda e: f"came as {runs(e)}",
}
QUEUE = {
    "syn-queued": lambda e: f"entry made: {queues(e)}",
    "accept-queued": lambda e: f"handshake done: {queues(e)}",
    "accepted": lambda e: f"accept() takes it: {queues(e)}",
    "refused": lambda e: f"refused, {e['why']}: {queues(e)}",
    "syn-dropped": lambda e: f"entry given up, {e['why']}: {queues(e)}",
    "cookie-sent": lambda e: f"answered by a SYN cookie: {queues(e)}",
}


def call(e):
    result = e.get("error") or str(e["result"])
    args = str(e["fd"]) + (", " + e["args"] if e.get("args") else "")
    return f"{e['call']}({args})", result


def words_of(e, show, column):
    """The line of an event, None where the document does not show it."""
    kind, name = e["class"], e["ev"]
    if kind == "state":
        return f"{e['from']} → {e['to']}  ({e['why']})"
    if name == "tx":
        text = segment(e, show) + f"  ({e['why']})"
        return f"{text} ──►" if column == CLIENT else f"◄── {text}"
    if name == "rx":
        return f"arrives: {segment(e, show)}" if "rx" in show else None
    if name == "ignored":
        return f"not used: {segment(e, ())}  ({e['why']})"
    if name == "held":
        return f"held: {e['unsent']} bytes wait  ({e['why']})" if "held" in show else None
    if kind == "queue":
        return QUEUE[name](e) if name in QUEUE else None
    if kind == "buffer":
        return BUFFER[name](e) if "buffer" in show and name in BUFFER else None
    if kind == "timer" and "timer" in show and e["timer"] not in HIDDEN_TIMERS:
        if name == "timer":
            return f"timer {e['timer']} fires ({e['count']})"
        return f"timer {e['timer']} " + (f"in {seconds(e['in'])}" if name == "timer-armed" else "cancelled")
    if name == "impaired":
        return f"{e['what']} {e['dir']} {e['flags']}  ({e['rule']})"
    if kind == "rule" and "rule" in show:
        return f"{e['call']}() decides: {'user stack' if e['user'] else 'kernel'}  ({e['why']})"
    if kind == "link" and "link" in show and name.startswith("arp"):
        return f"{name} {e['addr']}"
    return None


def of_file(path, column, show):
    """[[t, column, conn, text or None, event]] of one process, the beginnings of calls put before what they did."""
    lines, keeper = [], ""
    for raw in open(path, encoding="utf-8"):
        e = json.loads(raw)
        if e["ev"] == "trace":
            keeper = "keeper: " if "keeper" in e["cmd"] else ""
        if "class" not in e:
            continue
        conn = e.get("conn", 0) if e.get("peer") else 0
        if e["ev"] != "call":
            text = words_of(e, show, column)
            shown = text and (e["class"] in show or e["ev"] in show or e["ev"] in ALWAYS)
            if shown or e["ev"] in ("tx", "rx"):
                lines.append([e["t"], column, conn, keeper + text if shown else None, e])
            continue
        if e["call"] in HIDDEN_CALLS or "call" not in show:
            continue
        words, result = call(e)
        begin = e.get("begin", e["t"])
        first = len(lines)
        while first > 0 and lines[first - 1][0] >= begin:
            first -= 1
        if any(line[3] for line in lines[first:]):
            lines.insert(first, [begin, column, conn, f"{words} ...", {}])
            lines.append([e["t"], column, conn, f"... {e['call']}() = {result}", {}])
        else:
            lines.append([e["t"], column, conn, f"{words} = {result}", {}])
    return lines


def merged(files):
    """One time line. The clock is read once for a batch of segments, so a stamp may lie before its cause: what arrived
    stands behind what was sent all the same, at its time at the earliest."""
    sent = {}  # (local, peer): how far its numbers and its ACKs have come
    out, now = [], 0.0

    def blocked(line):
        e = line[4]
        if e.get("ev") != "rx" or (e.get("peer"), e.get("local")) not in tuples:
            return False
        end, ack = sent.get((e["peer"], e["local"]), (-1, -1))
        return e.get("seq_rel", 0) + e["len"] > end or e.get("ack_rel", -1) > ack

    tuples = {(l[4].get("local"), l[4].get("peer")) for file in files for l in file if l[4].get("ev") == "tx"}
    queues_of = [list(reversed(file)) for file in files if file]
    while queues_of:
        heads = sorted(queues_of, key=lambda q: q[-1][0])
        queue = next((q for q in heads if not blocked(q[-1])), heads[0])
        line = queue.pop()
        if not queue:
            queues_of.remove(queue)
        e = line[4]
        if e.get("ev") == "tx" and "seq_rel" in e:
            key = (e["local"], e["peer"])
            end, ack = sent.get(key, (-1, -1))
            sent[key] = (max(end, e["seq_rel"] + e["len"]), max(ack, e.get("ack_rel", -1)))
        now = max(now, line[0])
        out.append((now, line[1], line[2], line[3]))
    return [line for line in out if line[3]]


def cut(lines, options):
    """From the first line that contains FROM to the last that contains TO."""
    texts = [line[3] for line in lines]
    first = next((i for i, t in enumerate(texts) if options.get("from", "") in t), 0)
    last = next((i for i in range(len(texts) - 1, -1, -1) if options.get("to", "") in texts[i]), len(texts) - 1)
    return lines[first:last + 1]


def rendered(directory, scenario):
    show = of_scenario(scenario)
    files = []
    for path in sorted(glob.glob(f"{directory}/*.json")):
        column = SERVER if os.path.basename(path).startswith("server") else CLIENT
        files.append(of_file(path, column, show))
    spoken = {}
    with open(f"{directory}/said", encoding="utf-8") as file:
        for t, role, text in json.load(file):
            column = ONLOOKER if not role else SERVER if role.startswith("server") else CLIENT
            spoken.setdefault(role, []).append([t, column, 0, text, {}])
    lines = cut(merged(files + [sorted(said) for said in spoken.values()]), scenario.options)
    for column in (CLIENT, SERVER):
        numbers = list(dict.fromkeys(l[2] for l in lines if l[1] == column and l[2]))
        if len(numbers) > 1:
            lines = [(t, c, n, f"#{numbers.index(n) + 1} {text}" if n and c == column else text)
                     for t, c, n, text in lines]
    return [(t, column, text) for t, column, _, text in lines]


def laid_out(lines):
    out = [f"{'ms':>9}  {'client, 10.77.0.2':<{RIGHT - LEFT}}server, 10.77.0.1"]
    zero = lines[0][0] if lines else 0
    for t, column, text in lines:
        stamp = f"{(t - zero) * 1000:9.1f}  "
        if column == ONLOOKER:
            first, *rest = text.split("\n")
            out.append(f"{'':9}  {first}")
            out += [f"{'':9}  | {line}".rstrip() for line in rest]
        else:
            out.append(stamp + (" " * (RIGHT - LEFT) if column == SERVER else "") + text)
    return out


VARYING = [
    (re.compile(r"keeper: "), ""),
    (re.compile(r":\d{5}\b"), ":PORT"),
    (re.compile(r" ack \d+"), ""),
    (re.compile(r" win \d+"), ""),
    (re.compile(r"\b\d+(\.\d+)?(e\+\d+)? ?(ms|s)\b"), "TIME"),
    (re.compile(r"/\d+$"), "/PID"),
    (re.compile(r"pid=\d+"), "pid=PID"),
    (re.compile(r"  +"), " "),
]


def column_of(line):
    if not line[:LEFT].strip():
        return ONLOOKER
    return SERVER if line[LEFT:].startswith(" " * (RIGHT - LEFT)) else CLIENT


def normal(text, scenario):
    strict = "acks" in of_scenario(scenario)
    found = {CLIENT: [], SERVER: [], ONLOOKER: []}
    for line in text.splitlines()[1:]:
        body = line[LEFT:].strip()
        if body.endswith(" ...") or (not strict and LOOSE.search(body)):
            continue
        if body.startswith("... "):  # a call that others came before: where its beginning stands does not count
            body = body[4:]
        else:
            body = re.sub(r"^(#\d+ )?(\w+)\(\d.*\) = ", r"\1\2() = ", body)
        for pattern, word in VARYING:
            body = pattern.sub(word, body)
        found[column_of(line)].append(body)
    return found


def trims(lines, head, tail):
    return [lines[h:len(lines) - t] for h in range(head + 1) for t in range(tail + 1)]


def agree(old, new, scenario):
    """Whether two traces say the same. At a cut (from, to) only the column is exact in which the text was found."""
    if not old or not new:
        return False
    ends = [lines.splitlines()[i] for lines in (old, new) for i in (1, -1)]
    before, now = normal(old, scenario), normal(new, scenario)
    for column in before:
        head = EDGE * ("from" in scenario.options and column not in (column_of(ends[0]), ONLOOKER))
        tail = EDGE * ("to" in scenario.options and column_of(ends[1]) not in (column, ONLOOKER) and column != ONLOOKER)
        if now[column] not in trims(before[column], head, tail) and before[column] not in trims(now[column], head, tail):
            return False
    return True
