"""What every application case stands on: processes with or without the shim, and the checks after.

A case is a function that gets a Run. Its server lives in host a, its client in host b. The pairing
says who is on the user stack: UK the client, KU the server, UU both, KK none (to test the test).
A case passes when its own comparison holds and, after it:

  * each shimmed process really used the engine (its trace has a connection that was ESTABLISHED)
  * no shimmed process wrote a line that begins with `tcpshim:`
  * no reset was on the wire (but of programs that reset connections by themselves)
  * every process ended, and as it should
"""

import glob
import os
import random
import re
import shutil
import signal
import struct
import subprocess
import sys
import threading
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lab"))
from lab import Lab, end_group, stand_ins, wait_for  # noqa: E402  (the path above comes first)

HERE = os.path.dirname(os.path.abspath(__file__))
PROGRAMS = os.path.join(HERE, "programs")
PYTHON = "/usr/bin/python3"

CRASHES = (-signal.SIGSEGV, -signal.SIGBUS, -signal.SIGABRT, -signal.SIGILL, -signal.SIGFPE)
BYTES = {"1B": 1, "1M": 1 << 20, "100M": 100 << 20, "1G": 1 << 30}
SMALL = ("1B", "1M")
ALL_SIZES = ("1B", "1M", "1G")
USER_PAIRINGS = ("UK", "KU", "UU")

# A connection ends once: in TIME_WAIT, or by leaving one of these states for CLOSED.
ESTABLISHED = re.compile(r"-> ESTABLISHED\b")
ENDED = re.compile(r"-> TIME_WAIT\b|"
                   r"\b(?:ESTABLISHED|CLOSE_WAIT|LAST_ACK|FIN_WAIT_1|FIN_WAIT_2|CLOSING) +-> +CLOSED\b")


class Failed(Exception):
    """The case failed; the text says why."""


class Skipped(Exception):
    """The case cannot run here; the text says why."""


class Case:
    def __init__(self, function, name, pairings, sizes, needs, soak_sizes, kernel, table, long, quick):
        self.function = function
        self.name = name
        self.pairings = pairings
        self.sizes = sizes
        self.needs = needs
        self.soak_sizes = soak_sizes
        self.kernel = kernel
        self.table = table
        self.long = long
        self.quick = quick or pairings


CASES = []
interrupted = threading.Event()  # the whole run is being ended


def case(name, pairings=USER_PAIRINGS, sizes=SMALL, needs=(), soak=(), kernel=True, table=None, long=False,
         quick=None):
    """Registers a case.

    sizes: what `make check` runs; soak: what `make soak` adds; kernel: it also makes sense as KK
    table: (server, client) as docs/applications.md names them, the first word being the program
    long: `make check-apps` alone runs it; quick: the pairings of `make check`, where not all
    """

    def register(function):
        CASES.append(Case(function, name, pairings, sizes, needs, soak, kernel, table, long, quick))
        return function

    return register


def find_program(name):
    """Programs of the system come before whatever the caller has put first in PATH."""
    for directory in ("/usr/bin", "/usr/sbin", "/bin", "/sbin"):
        path = os.path.join(directory, name)
        if os.access(path, os.X_OK):
            return path
    return None


class Data:
    """Reference files of each size. No two aligned megabytes are equal: misplaced data shows."""

    def __init__(self, directory):
        self.directory = directory
        self.lock = threading.Lock()  # cases run side by side
        os.makedirs(directory, exist_ok=True)
        os.chmod(directory, 0o755)

    def path(self, size):
        path = os.path.join(self.directory, size)
        with self.lock:
            if not os.path.exists(path):
                self._make(path + ".part", BYTES[size])
                os.rename(path + ".part", path)
        return path

    @staticmethod
    def _make(path, count):
        block = 1 << 20
        noise = random.Random(793).randbytes(3 * block)
        with open(path, "wb") as file:
            for number in range((count + block - 1) // block):
                start = number * 1021 % (2 * block)
                piece = struct.pack(">Q", number) + noise[start:start + block - 8]
                file.write(piece[:min(block, count - number * block)])


def data_directory():
    """Memory where it is large enough, so that the disk is not what is measured."""
    try:
        room = shutil.disk_usage("/dev/shm").free
    except OSError:
        room = 0
    base = "/dev/shm" if room > (3 << 30) else os.environ.get("TMPDIR", "/tmp")
    for stale in glob.glob(f"{base}/tcpshim-apps-data-*"):  # of a run that was killed
        if not os.path.exists("/proc/" + stale.rsplit("-", 1)[1]):
            shutil.rmtree(stale, ignore_errors=True)
    return os.path.join(base, f"tcpshim-apps-data-{os.getpid()}")


class Process:
    """A program of a case. `user`: it runs under the shim."""

    def __init__(self, run, role, popen, user, engine, compare, log):
        self.run = run
        self.role = role
        self.popen = popen
        self.user = user
        self.engine = engine
        self.compare = compare
        self.log = log
        self.complains = False  # a case of bad input expects a line of the shim on stderr

    def trace(self):
        text = ""
        for path in sorted(glob.glob(self.log + ".*.trace")):
            with open(path, encoding="utf-8", errors="replace") as file:
                text += file.read()
        return text

    def stderr(self):
        with open(self.log + ".err", encoding="utf-8", errors="replace") as file:
            return file.read()

    def stdout(self):
        with open(self.log + ".out", encoding="utf-8", errors="replace") as file:
            return file.read()

    def wait(self, codes=(0,)):
        """Waits for the end by itself; checks the exit code and, where asked for, the bytes."""
        try:
            code = self.popen.wait(self.run.time_left())
        except subprocess.TimeoutExpired:
            raise Failed(f"{self.role} did not end in time") from None
        if code in CRASHES and code not in (codes or ()):
            raise Failed(f"{self.role} crashed: {signal.Signals(-code).name}")
        if codes is not None and code not in codes:
            raise Failed(f"{self.role} ended with {code}, not {'/'.join(map(str, codes))}")
        if self.compare:
            try:
                status = self.compare.wait(self.run.time_left())
            except subprocess.TimeoutExpired:
                raise Failed(f"{self.role}: its output did not end") from None
            if status != 0:
                with open(self.log + ".cmp", encoding="utf-8", errors="replace") as file:
                    raise Failed(f"{self.role}: bytes differ: {file.read().strip()}")
        return code

    def stop(self, codes=(0, -signal.SIGTERM), number=signal.SIGTERM, settle=True):
        """Asks it to end, as an init system would; settle: when its connections are over."""
        if self.popen.poll() is not None:
            raise Failed(f"{self.role} ended by itself with {self.popen.returncode}")
        if settle:
            self.run.settle()
        self.popen.send_signal(number)
        try:
            code = self.popen.wait(5)
        except subprocess.TimeoutExpired:
            raise Failed(f"{self.role} did not end within 5 s of signal {number}") from None
        if code not in codes:
            raise Failed(f"{self.role} ended with {code} after signal {number}")


class Run:
    """One execution of a case in a fresh laboratory."""

    def __init__(self, lab, pairing, size, directory, data, library):
        self.lab = lab
        self.pairing = pairing
        self.size = size
        self.bytes = BYTES.get(size, 0)
        self.directory = directory
        self.data = data
        self.library = library
        self.processes = []
        self.seconds = 0.0  # that the clients took
        self.note = ""      # for the table, where the time says nothing
        # Hosts whose program resets connections by itself, also on the kernel's stack.
        self.resets_allowed = set()
        self.deadline = time.monotonic() + 15 + self.bytes / 30e6
        os.makedirs(directory)
        os.chmod(directory, 0o1777)  # for programs that give up root, and for the traces of their children

    # Who and where.
    client_host = property(lambda self: self.lab.b)
    server_host = property(lambda self: self.lab.a)
    client_user = property(lambda self: self.pairing[0] == "U")
    server_user = property(lambda self: self.pairing[1] == "U")
    server_addr = property(lambda self: self.lab.a.addr)

    def time_left(self):
        return 0.1 if interrupted.is_set() else max(0.1, self.deadline - time.monotonic())

    def file(self):
        """The reference file of this run's size."""
        return self.data.path(self.size)

    def path(self, *names):
        return os.path.join(self.directory, *names)

    def write(self, name, text):
        path = self.path(name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "w", encoding="utf-8") as file:
            file.write(text)
        return path

    def shim_env(self, log, extra=None):
        env = {"LD_PRELOAD": self.library, "TCPSHIM_TRACE": "state",
               "TCPSHIM_TRACE_FILE": log + ".%p.trace"}
        # For hunting: APPS_ENV="TCPSHIM_TRACE=all" adds to or replaces these.
        for word in os.environ.get("APPS_ENV", "").split():
            key, _, value = word.partition("=")
            env[key] = value
        env.update(extra or {})
        return env

    def start(self, role, argv, host, user, engine=None, stdin=None, same=None, env=None, shim=None):
        """Starts a program.

        engine  whether a connection of it must show in its trace (default: when it is shimmed)
        stdin   path of a file to read from
        same    path: what it prints must be equal to that file, checked by wait()
        env     variables for the program; shim: TCPSHIM_ variables where it is shimmed
        """
        log = self.path(f"{len(self.processes)}-{role}")
        program = find_program(argv[0]) if "/" not in argv[0] else argv[0]
        if not program:
            raise Skipped(f"{argv[0]} is not installed")
        variables = dict(env or {})
        if user:
            variables.update(self.shim_env(log, shim))
        compare = None
        source = open(stdin, "rb") if stdin else subprocess.DEVNULL
        with open(log + ".err", "wb") as err, open(log + ".out", "wb") as out:
            sink = subprocess.PIPE if same else out
            popen = self.lab.popen(host, [program] + list(map(str, argv[1:])), env=variables,
                                   stdin=source, stdout=sink, stderr=err, cwd=self.directory)
        if stdin:
            source.close()
        if same:
            with open(log + ".cmp", "wb") as verdict:
                compare = subprocess.Popen(["cmp", "-", same], stdin=popen.stdout, stdout=verdict,
                                           stderr=subprocess.STDOUT, start_new_session=True)
            popen.stdout.close()
        process = Process(self, role, popen, user, user if engine is None else engine, compare, log)
        self.processes.append(process)
        return process

    def server(self, argv, port=None, **options):
        """Starts the server of the pairing; with a port, returns when it listens."""
        options.setdefault("user", self.server_user)
        options.setdefault("host", self.server_host)
        process = self.start(options.pop("role", "server"), argv, **options)
        if port:
            self.wait_listening(process, options["host"], port)
        return process

    def client(self, argv, codes=(0,), **options):
        """Runs a client of the pairing to its end."""
        options.setdefault("user", self.client_user)
        options.setdefault("host", self.client_host)
        role = options.pop("role", "client")
        process = self.start(role, argv, **options)
        begin = time.monotonic()
        process.wait(codes)
        if role == "client":
            self.seconds += time.monotonic() - begin
        return process

    def wait_listening(self, process, host, port):
        """By the kernel's socket (a guard stands behind each user listener), or by the trace."""

        def listens():
            if process.popen.poll() is not None:
                raise Failed(f"{process.role} ended with {process.popen.returncode} before it listened")
            if process.user and re.search(r"-> LISTEN\b", process.trace()):
                return True
            return host.kernel_listens(port)

        if not wait_for(listens, min(10, self.time_left())):
            raise Failed(f"{process.role} does not listen on port {port}")

    def settle(self):
        """Waits until the connections are over on both sides, so that ending a program resets none."""

        def quiet():
            kept = False
            for host in self.lab.hosts:
                busy = host.kernel_busy()
                if busy and len(stand_ins(host, busy)) < len(busy):
                    return False
                kept = kept or bool(busy)
            for process in self.processes:
                # what stands for a keeper's connections stays for TIME_WAIT: its trace tells them apart
                if process.user and (kept or process.popen.poll() is None):
                    trace = process.trace()
                    if len(ESTABLISHED.findall(trace)) > len(ENDED.findall(trace)):
                        return False
            return True

        wait_for(quiet, min(1.5, self.time_left()))

    def check(self, condition, text):
        if not condition:
            raise Failed(text)

    def finish(self):
        """The checks that hold for every case."""
        for process in self.processes:
            if process.popen.poll() is None:
                raise Failed(f"{process.role} still runs")
        for process in self.processes:
            if not process.user:
                continue
            lines = [l for l in process.stderr().splitlines() if "tcpshim:" in l]
            if lines and not process.complains:
                raise Failed(f"{process.role} printed: {lines[0]}")
            if process.engine and not ESTABLISHED.search(process.trace()):
                raise Failed(f"{process.role}: no connection went through the user stack")
        seen, kernel = self.lab.resets()
        for host, shimmed in (("a", self.server_user), ("b", self.client_user)):
            # Late segments of connections that the program itself reset may meet the kernel when
            # the process is gone.
            if shimmed and kernel[host] and host not in self.resets_allowed:
                raise Failed(f"the kernel of host {host} sent {kernel[host]} resets: {seen[:3]}")
        foreign = [reset for reset in seen if reset[0] not in self.resets_allowed]
        if foreign:
            raise Failed(f"{len(foreign)} resets on the wire: {foreign[:3]}")

    def end(self):
        for process in self.processes:
            end_group(process.popen)
            if process.compare:
                end_group(process.compare)

    def report(self, lines=12):
        """The tails of what the processes left behind."""
        text = []
        for path in sorted(glob.glob(self.path("*"))):
            if not os.path.isfile(path) or not path.endswith((".err", ".out", ".trace", ".log", ".cmp")):
                continue
            with open(path, "rb") as file:
                file.seek(max(0, os.path.getsize(path) - 8000))
                tail = file.read().decode("ascii", "replace").splitlines()[-lines:]
            if tail:
                text.append(f"    --- {os.path.basename(path)}")
                text += ["    " + "".join(c if c.isprintable() else "?" for c in line[:200])
                         for line in tail]
        return "\n".join(text)


def execute(one, pairing, size, directory, data, library, keep=False, measured=None):
    """Runs a case once. Returns (verdict, seconds, text); measured(run) is called when it is over."""
    begin = time.monotonic()
    for program in one.needs:
        if not find_program(program):
            return "skip", 0.0, f"{program} is not installed"
    with Lab() as lab:
        run = Run(lab, pairing, size, directory, data, library)
        try:
            try:
                one.function(run)
                run.settle()
                run.finish()
                verdict, text = "ok", ""
                if measured:
                    measured(run)
            except Skipped as reason:
                verdict, text = "skip", str(reason)
            except Failed as reason:
                verdict, text = "FAIL", str(reason)
            except Exception as error:  # a mistake in the case itself must not end the whole run
                verdict, text = "FAIL", f"{type(error).__name__}: {error}"
            run.end()
            if verdict == "FAIL":
                text += "\n" + run.report()
        finally:
            run.end()
            if not (keep and verdict == "FAIL"):
                shutil.rmtree(directory, ignore_errors=True)
    return verdict, time.monotonic() - begin, text
