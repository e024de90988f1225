"""Traces of unmodified programs: JSON by its schema, filters, the ring, and readers that do not read."""

import json
import os
import re
import signal
import subprocess

from cases_http import start_nginx, stop_nginx, url
from framework import PROGRAMS, PYTHON, Skipped, case

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
SCHEMA = os.path.join(ROOT, "docs", "trace.schema.json")


def valid(run, text, least):
    """The lines are objects that the schema describes (of many, some are looked at). Returns them."""
    import jsonschema
    with open(SCHEMA, encoding="utf-8") as file:
        validator = jsonschema.Draft202012Validator(json.load(file))
    lines = [json.loads(line) for line in text.splitlines()]
    run.check(len(lines) >= least, f"only {len(lines)} lines")
    for line in lines[::len(lines) // 600 + 1]:
        error = next(validator.iter_errors(line), None)
        run.check(error is None, f"{line}: {error and error.message}")
    run.check(lines[0]["ev"] == "trace" and lines[0]["v"] == 1, f"begins with {lines[0]}")
    return lines


@case("trace-json", pairings=("UK",), sizes=("1M",), needs=("curl", "nginx"), kernel=False)
def trace_json(run):
    """The trace of a transfer is valid, its bytes add up, and relative numbers count from the SYN."""
    run.file()
    server = start_nginx(run)
    client = run.client(["curl", "-sS", "-o", run.path("got"), url(run)], engine=False,
                        shim={"TCPSHIM_TRACE": "all", "TCPSHIM_TRACE_FORMAT": "json"})
    lines = valid(run, client.trace(), 50)
    stop_nginx(run, server)
    # beside curl's own there may be the keeper's, whose file may come first
    pids = [line["pid"] for line in lines if line["ev"] == "trace" and line["cmd"] == "curl"]
    run.check(len(pids) == 1, f"processes that are called curl: {pids}")
    lines = [line for line in lines if line["pid"] == pids[0]]
    of = {}
    for line in lines:
        of.setdefault(line["ev"], []).append(line)
    run.check("lost" not in {line["ev"] for line in lines if "class" not in line}, "events were lost")
    received = sum(line["bytes"] for line in of["to-rcvbuf"])  # not rx: a segment may come twice
    run.check(received > run.bytes, f"{received} bytes of text arrived")
    run.check(sum(line["bytes"] for line in of["recv-from"]) == received, "recv() took other bytes than came")
    for line in of["recv-from"]:
        parts = sum(part["len"] for part in line["from"]) + line.get("more", 0)
        run.check(parts == line["bytes"], f"recv-from does not add up: {line}")
    run.check(of["tx"][0]["flags"] == "SYN" and of["tx"][0]["opt"]["mss"] == 1460, f"first: {of['tx'][0]}")
    run.check(all(line["seq_rel"] == 1 for line in of["tx"] if line["why_id"] == "send_ack_handshake"), "seq_rel")
    connects = [line for line in of["call"] if line["call"] == "connect"]
    run.check(connects and connects[0]["args"] == f"{run.server_addr}:80", f"connect: {connects}")
    times = [line["t"] for line in lines]
    run.check(times == sorted(times), "times run back")


@case("trace-blocked", pairings=("UK",), sizes=("1M",), needs=("curl", "nginx"), kernel=False)
def trace_blocked(run):
    """A pipe that nobody reads holds nothing up; what was lost is said when there is room again."""
    run.data.path("1B")
    run.deadline += 30
    server = start_nginx(run)
    for when in ("never", "late"):
        got = run.path("got-" + when)
        run.client([PYTHON, f"{PROGRAMS}/trace_reader.py", run.library, run.path(when), when, got, url(run)],
                   user=False)
        run.check(open(got, "rb").read() == open(run.file(), "rb").read(), f"{when}: other bytes")
    stop_nginx(run, server)
    run.check(os.path.getsize(run.path("never")) > 40000, "the pipe was not full: nothing was blocked")
    with open(run.path("late"), encoding="utf-8") as file:
        lines = valid(run, file.read(), 1000)
    lost = [i for i, line in enumerate(lines) if line["ev"] == "lost"]
    run.check(sum(lines[i]["count"] for i in lost) > 100, "little was lost, or it was not said")
    run.check(any(line["ev"] == "to-rcvbuf" for line in lines[lost[-1]:]), "nothing came behind the gap")


@case("trace-ring", pairings=("UK",), sizes=("dump", "silent"), needs=("curl",), kernel=False)
def trace_ring(run):
    """The last events of a refused connection are told when that is asked for, and nothing otherwise."""
    run.resets_allowed = {"a"}
    shim = {"TCPSHIM_TRACE": "", "TCPSHIM_TRACE_FORMAT": "json", "TCPSHIM_TRACE_RING": run.size}
    client = run.client(["curl", "-sS", f"http://{run.server_addr}:81/"], codes=(7,), engine=False, shim=shim)
    if run.size == "silent":
        run.check(client.trace() == "", "not silent")
        return
    lines = valid(run, client.trace(), 5)[1:]
    run.check(all(line["past"] for line in lines), "not from the ring")
    run.check([line["ev"] for line in lines] == ["state", "tx", "rx", "state"], f"{lines}")


@case("trace-filter", pairings=("UK",), sizes=("port", "other"), needs=("curl", "nginx"), kernel=False)
def trace_filter(run):
    """Only the connections that the filter names are shown."""
    run.data.path("1B")
    server = start_nginx(run)
    terms = {"port": "port 80 and not conn 1000", "other": "port 81,addr 192.0.2.0/24"}[run.size]
    client = run.client(["curl", "-sS", url(run, path="/1B")], engine=False,
                        shim={"TCPSHIM_TRACE": "all", "TCPSHIM_TRACE_FILTER": terms})
    stop_nginx(run, server)
    run.check(("ESTABLISHED" in client.trace()) == (run.size == "port"), client.trace()[:300])


@case("trace-crash", pairings=("UK",), sizes=("segv", "abort", "exit"), needs=("nginx",), kernel=False)
def trace_crash(run):
    """A program that crashes tells what happened last, and ends as it would have ended."""
    run.data.path("1B")
    server = start_nginx(run)
    shim = {"TCPSHIM_TRACE": "", "TCPSHIM_TRACE_FORMAT": "json", "TCPSHIM_TRACE_RING": "dump"}
    code = {"segv": -signal.SIGSEGV, "abort": -signal.SIGABRT, "exit": 0}[run.size]
    client = run.client([PYTHON, f"{PROGRAMS}/traced.py", run.size, run.server_addr, 80], codes=(code,),
                        engine=False, shim=shim)
    stop_nginx(run, server)
    if code == 0:
        run.check(client.trace() == "", "told without a crash")
        return
    lines = valid(run, client.trace(), 8)[1:]
    run.check(all(line["past"] for line in lines), "not from the ring")
    states = [line["to"] for line in lines if line["ev"] == "state"]
    run.check(states[:2] == ["SYN_SENT", "ESTABLISHED"], f"states: {states}")
    run.check({"tx", "rx"} <= {line["ev"] for line in lines}, "no segments")


@case("trace-closed", pairings=("UK",), sizes=("pipe", "socket", "tty"), needs=("nginx",), kernel=False)
def trace_closed(run):
    """The reader of a trace goes away: no SIGPIPE, no errno, no other result of any call."""
    run.data.path("1B")
    server = start_nginx(run)
    run.client([PYTHON, f"{PROGRAMS}/traced.py", run.size, run.library, run.server_addr, 80], user=False)
    stop_nginx(run, server)


class Attached:
    """A probe of the library, attached by the kernel's uprobes, in an instance of tracefs of its own."""

    FILES = "/sys/kernel/tracing"

    def __init__(self, library, notes, name):
        self.group = f"tcpshim{os.getpid()}"
        found = re.search(rf"Name: {name}\s+Location: (\w+),.*Semaphore: (\w+)\s+Arguments: (.*)", notes)
        location, semaphore = (self.offset(library, int(found[i], 16)) for i in (1, 2))
        words = []
        for i, where in enumerate(word.split("@")[1] for word in found[3].split()):
            if not where.startswith("$"):
                words.append(f"a{i}={where.replace('%rsp', '%sp').replace('%rbp', '%bp')}:u64")
        self.line = f"p:{self.group}/{name} {library}:{location:#x}({semaphore:#x}) {' '.join(words)}"

    @staticmethod
    def offset(library, address):
        """Of an address in the file."""
        text = subprocess.run(["readelf", "-lW", library], capture_output=True, text=True, check=True).stdout
        for line in re.findall(r"LOAD (.*)", text):
            at, begin, _, size = (int(word, 16) for word in line.split()[:4])
            if begin <= address < begin + size:
                return address - begin + at
        raise ValueError(f"{address:#x} is in no segment")

    def write(self, name, text):
        # not open("a"), which asks for the file's end; without O_APPEND all probes would go
        fd = os.open(os.path.join(self.FILES, name), os.O_WRONLY | os.O_APPEND)
        try:
            os.write(fd, text.encode("ascii"))
        finally:
            os.close(fd)

    def __enter__(self):
        try:
            self.write("uprobe_events", self.line + "\n")
            os.mkdir(f"{self.FILES}/instances/{self.group}")
            self.write(f"instances/{self.group}/events/{self.group}/enable", "1")
        except OSError as error:
            self.__exit__()
            raise Skipped(f"no uprobes here: {error}") from None
        return self

    def text(self):
        with open(f"{self.FILES}/instances/{self.group}/trace", encoding="ascii") as file:
            return file.read()

    def __exit__(self, *_):
        for step in (lambda: self.write(f"instances/{self.group}/events/{self.group}/enable", "0"),
                     lambda: os.rmdir(f"{self.FILES}/instances/{self.group}"),
                     lambda: self.write("uprobe_events", f"-:{self.line[2:].split()[0]}\n")):
            try:
                step()
            except OSError:
                pass


@case("trace-probes", pairings=("UK",), sizes=("listed", "attached"), needs=("readelf", "curl", "nginx"),
      kernel=False)
def trace_probes(run):
    """Each event is a USDT probe; one that somebody attached to fires without TCPSHIM_TRACE."""
    notes = subprocess.run(["readelf", "-n", "-W", run.library], capture_output=True, text=True, check=True).stdout
    if not os.path.exists("/usr/include/x86_64-linux-gnu/sys/sdt.h") and "stapsdt" not in notes:
        raise Skipped("<sys/sdt.h> was not there at build time")
    if run.size == "listed":
        names = re.findall(r"Provider: tcpshim\s+Name: (\w+)", notes)
        with open(SCHEMA, encoding="utf-8") as file:
            events = set(json.load(file)["properties"]["ev"]["enum"]) - {"trace"}
        run.check(len(events) > 20, f"events in the schema: {events}")
        run.check(set(names) == {event.replace("-", "_") for event in events}, f"probes: {sorted(set(names))}")
        return
    run.data.path("1B")
    server = start_nginx(run)
    with Attached(run.library, notes, "state") as probe:
        run.client(["curl", "-sS", "-o", "/dev/null", url(run, path="/1B")], engine=False, shim={"TCPSHIM_TRACE": ""})
        text = probe.text()
    stop_nginx(run, server)
    run.check(re.search(r"a3=2 a4=1\b", text), f"SYN_SENT -> ESTABLISHED: {text}")
