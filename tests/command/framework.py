"""What the cases of the tcpshim command stand on. A case is a function that gets a Bench."""

import atexit
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
PYTHON = "/usr/bin/python3"
USER = 64998  # an ordinary user that nobody is
PROGRAMS = os.path.join(os.path.dirname(os.path.abspath(__file__)), "programs")


class Failed(Exception):
    """The case failed; the text says why."""


class Skipped(Exception):
    """The case cannot run here; the text says why."""


CASES = []


def case(name, needs=()):
    def register(function):
        CASES.append((name, function, needs))
        return function

    return register


def check(what, text):
    if not what:
        raise Failed(text)


def equal(got, wanted, text):
    if got != wanted:
        raise Failed(f"{text}: {got!r}, should be {wanted!r}")


def until(what, text, seconds=20):
    """Waits until what() gives something true; returns that."""
    end = time.monotonic() + seconds
    while True:
        value = what()
        if value:
            return value
        if time.monotonic() > end:
            raise Failed(f"waited {seconds} s for {text}")
        time.sleep(0.02)


class Result:
    def __init__(self, process, out, err):
        self.status, self.out, self.err = process.returncode, out, err

    @property
    def json(self):
        return json.loads(self.out)


class Bench:
    """The command under test, in a directory that every user can reach."""

    def __init__(self, build):
        self.build = build
        self.directory = tempfile.mkdtemp(prefix="tcpshim-command-")
        os.chmod(self.directory, 0o755)
        for name in ("tcpshim", "tcpshim-keeper", "tcpshim-relay", "libtcpshim.so"):
            shutil.copy(os.path.join(build, name), self.directory)
        self.command = os.path.join(self.directory, "tcpshim")
        self.runtime = os.path.join(self.directory, "run")
        os.mkdir(self.runtime, 0o700)
        os.chown(self.runtime, USER, USER)
        self.processes, self.labs = [], []
        self.number = 0
        atexit.register(self.clean)

    def environment(self, extra=None):
        keep = {k: v for k, v in os.environ.items()
                if not k.startswith(("TCPSHIM_", "LD_", "LAB")) and k not in ("NO_COLOR", "COLUMNS")}
        keep["XDG_RUNTIME_DIR"] = self.runtime
        keep.update(extra or {})
        return keep

    def _options(self, user, env):
        options = {"env": self.environment(env), "cwd": "/"}
        if user:
            options.update(user=USER, group=USER, extra_groups=[])
        return options

    def start(self, *argv, user=False, env=None, stdin=subprocess.DEVNULL):
        """A program that goes on; ended with the case."""
        process = subprocess.Popen(argv, stdin=stdin, stdout=subprocess.PIPE,
                                   stderr=subprocess.PIPE, text=True, start_new_session=True,
                                   **self._options(user, env))
        self.processes.append(process)
        return process

    def run(self, *argv, user=False, env=None, seconds=60):
        process = self.start(*argv, user=user, env=env)
        try:
            out, err = process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            raise Failed(f"{' '.join(argv)}: not over after {seconds} s") from None
        check(process.returncode >= 0 or argv[0] != self.command,
              f"{' '.join(argv)}: ended by signal {-process.returncode}\n{err}")
        return Result(process, out, err)

    def tcpshim(self, *words, **options):
        return self.run(self.command, *words, **options)

    def must(self, *words, **options):
        """The same, and it must succeed."""
        result = self.tcpshim(*words, **options)
        check(result.status == 0, f"tcpshim {' '.join(words)}: status {result.status}\n{result.err}")
        return result

    def lab(self, *options, user=False):
        """The name of a new laboratory."""
        self.number += 1
        name = f"t{os.getpid()}-{self.number}"
        self.must("lab", "up", *options, name, user=user)
        self.labs.append((name, user))
        return name

    def compile(self, name, source, *flags):
        path = os.path.join(self.directory, name)
        if not os.path.exists(path):
            made = subprocess.run(["gcc", "-x", "c", "-", "-x", "none", "-o", path, *flags], input=source,
                                  text=True, capture_output=True)
            check(made.returncode == 0, made.stderr)
        return path

    def end_case(self):
        for name, user in self.labs:
            self.tcpshim("lab", "down", name, user=user)
        self.labs = []
        for process in self.processes:
            if process.poll() is None:
                try:
                    os.killpg(process.pid, signal.SIGKILL)
                except ProcessLookupError:
                    pass
                process.wait()
            for stream in (process.stdout, process.stderr, process.stdin):
                if stream:
                    stream.close()
        self.processes = []

    def clean(self):
        self.end_case()
        shutil.rmtree(self.directory, ignore_errors=True)


CASE_SECONDS = 60


def too_late(*_):
    raise Failed(f"not over after {CASE_SECONDS} s")


def main(build, words, listing):
    signal.signal(signal.SIGALRM, too_late)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # and clean up
    wanted = [c for c in CASES if not words or any(w in c[0] for w in words)]
    if listing:
        for name, _, _ in wanted:
            print(name)
        return 0
    bench = Bench(build)
    passed = failed = skipped = 0
    for name, function, needs in wanted:
        missing = [n for n in needs if not shutil.which(n)]
        try:
            if missing:
                raise Skipped("needs " + ", ".join(missing))
            signal.alarm(CASE_SECONDS)
            function(bench)
            passed += 1
        except Skipped as why:
            skipped += 1
            print(f"command: {name}: skipped: {why}", flush=True)
        except (Failed, subprocess.SubprocessError, OSError, ValueError, KeyError, IndexError,
                TypeError) as why:
            failed += 1
            print(f"command: {name}: FAILED: {type(why).__name__}: {why}", flush=True)
        finally:
            signal.alarm(0)
            bench.end_case()
    print(f"command: {passed} passed, {failed} failed, {skipped} skipped", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit("this is no program; see run.py")
