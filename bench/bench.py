"""One measurement: a laboratory, a server and a client in it, each on the stack that its variant says."""

import os
import select
import subprocess
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "..", "tests", "lab"))
from lab import Lab, end_group, wait_for  # noqa: E402  (the path above comes first)

from measure import LIMITS  # noqa: E402

PORT = 8000
CPUS = sorted(os.sched_getaffinity(0))
PATIENCE = 120  # seconds that a program may take for a step
SNDBUF = 256 << 10  # what `k` sides say by SO_SNDBUF


class BenchLab(Lab):
    """The usual laboratory, where nobody looks at the frames."""

    def _watch(self):
        pass


class Failed(Exception):
    """No number came out; the text says why."""


class Bench:
    """Starts servers and clients for one variant after another."""

    def __init__(self, args, directory):
        self.lab = None  # a new one for each measurement: what an earlier one left behind is gone
        self.build = os.path.abspath(args.build)
        self.seconds = args.seconds
        self.idle = args.idle
        self.directory = directory
        self.libraries = {"U": os.path.join(self.build, "libtcpshim.so"),
                          "K": self.program("cubic.so"), "k": self.program("cubic.so")}
        if args.against:
            self.libraries["V"] = os.path.abspath(args.against)
        self.variant = None
        self.place = None  # (server's, client's), each an index of CPUS
        self.extra = {}    # variables for user sides
        self.round = 0

    def program(self, name):
        return os.path.join(self.build, "bench", name)

    @property
    def limit(self):
        return self.variant in LIMITS.values()

    def environment(self, side):
        """Variables of a side: U, K, k or V; of the limit none."""
        if self.limit:
            return {}
        env = {"LD_PRELOAD": self.libraries[side]}
        if side == "k":
            env["BENCH_SNDBUF"] = str(SNDBUF)
        if side in "UV":
            env.update(self.extra)
        return env

    def _placed(self, argv, which):
        return argv if self.place is None else ["taskset", "-c", str(CPUS[self.place[which]]), *argv]

    def start(self, host, argv, which, env, **options):
        """which: 0 for a server, 1 for a client."""
        return self.lab.popen(host, self._placed(argv, which), env, **options)

    def wait_listening(self, *ports):
        for port in ports:
            if not wait_for(lambda port=port: self.lab.a.kernel_listens(port), 10):
                raise Failed("the server does not listen")

    def server(self, make_argv):
        """make_argv(port) in host a, once it listens."""
        process = self.start(self.lab.a, make_argv(str(PORT)), 0, self.environment(self.variant[2]),
                             stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self.wait_listening(PORT)
        return process

    def client(self, make_argv, env=None):
        """make_argv(address, port) in host b; its standard output."""
        argv = make_argv(self.lab.a.addr, str(PORT))
        env = self.environment(self.variant[0]) if env is None else env
        return self.output(self.start(self.lab.b, argv, 1, env, stdout=subprocess.PIPE,
                                      stderr=subprocess.PIPE, text=True), argv[0])

    def output(self, process, name):
        """What it prints, once it has ended well."""
        try:
            text, errors = process.communicate(timeout=self.seconds + 30)
        except subprocess.TimeoutExpired:
            raise Failed(f"{name} does not end") from None
        finally:
            end_group(process)
        if process.returncode != 0:
            raise Failed(f"{name}: {' '.join((text + errors).strip().splitlines()[-1:])}")
        return text

    def both(self, server, client):
        process = self.server(server)
        try:
            return self.client(client)
        finally:
            end_group(process)

    def raw(self, there, here):
        """The limit's two ends: packet sockets on the hosts' interfaces, no library."""
        return self.frames([self.program("raw"), there, "eth0"], [self.program("raw"), here[0], "eth0", *here[1:]])

    def frames(self, there, here, last=False):
        """A server and a client without the library: the client's text; with `last` the server's last line, too."""
        kernels = {"LD_PRELOAD": self.libraries["K"]}
        process = self.start(self.lab.a, there, 0, kernels, stdout=subprocess.PIPE, text=True)
        try:
            self.expect(process, "ready")
            text = self.client(lambda *_: here, kernels)
            return text + self.ask(process) if last else text
        finally:
            end_group(process)

    @staticmethod
    def ask(process, line=None):
        """The next line that a program prints; with `line` it is told to go on first."""
        if line is not None:
            process.stdin.write(line + "\n")
            process.stdin.flush()
        if not select.select([process.stdout], [], [], PATIENCE)[0]:
            raise Failed("no answer")
        answer = process.stdout.readline().strip()
        if not answer:
            raise Failed("it ended early")
        return answer

    @staticmethod
    def expect(process, word, line=None):
        answer = Bench.ask(process, line)
        if answer != word:
            raise Failed(f"{answer} instead of {word}")


def known_pair(name):
    """Whether it is a pair of stacks that --pairs may name."""
    return len(name) == 3 and name[1] == "-" and name[0] in "UKkV" and name[2] in "UKV"


__all__ = ["Bench", "BenchLab", "CPUS", "Failed", "PORT", "end_group", "known_pair", "wait_for"]
