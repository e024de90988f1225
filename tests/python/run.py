#!/usr/bin/python3
"""Python's own test suite (libpython3.11-testsuite) on the kernel's TCP and on the user stack.

Each module runs twice in a network namespace that has nothing but a loopback: plainly, and under
LD_PRELOAD with TCPSHIM_LOOPBACK=user, where both ends of every IPv4 connection are in the engine. A
test passes when it has the same outcome on both. One that has not runs again alone, on both: where the
two then agree it is unsteady, and named. Differences that are explained stand in differences.txt; a
line there that is not needed any more is said, too.

    run.py                        all modules of issue 3
    run.py --short                those of `make check`
    run.py test_ssl test_socket   these
"""

import argparse
import collections
import concurrent.futures
import fnmatch
import glob
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
PYTHON = "/usr/bin/python3"
# Long ones first, so that the end is not one of them alone.
MODULES = """test_multiprocessing_spawn test_multiprocessing_forkserver test_multiprocessing_fork
    test_asyncio test_subprocess test_threading test_ssl test_socket test_eintr test_httplib
    test_httpservers test_ftplib test_smtplib test_poplib test_imaplib test_xmlrpc test_urllib2_localnet
    test_asyncore test_asynchat test_socketserver test_selectors test_select test_poll test_epoll
    test_wsgiref test_telnetlib test_nntplib test_logging test_signal test_robotparser""".split()
SHORT = """test_socket test_selectors test_poll test_ftplib test_poplib test_smtplib test_asyncore test_asynchat
    test_urllib2_localnet test_socketserver test_httpservers test_httplib test_select test_epoll""".split()
# Of test_asyncio, what uses sockets.
SHORT_PARTS = ["test_asyncio.test_sock_lowlevel", "test_asyncio.test_streams", "test_asyncio.test_server",
               "test_asyncio.test_selector_events"]
SECONDS = 900
AGAIN = 3
NETNS = "ip link set lo up && exec \"$@\""
ARRIVED = re.compile(r"-> ESTABLISHED")


class Runner:
    def __init__(self, library, directory, keep_traces):
        self.library, self.directory, self.keep = library, directory, keep_traces
        self.connections = collections.Counter()
        self.serial = 0

    def run(self, shim, module, only=None):
        """{id: (outcome, text)}"""
        self.serial += 1
        stem = os.path.join(self.directory, f"{self.serial}-{module}-{'user' if shim else 'kernel'}")
        os.makedirs(stem)
        environment = {k: v for k, v in os.environ.items() if not k.startswith(("TCPSHIM_", "LD_"))}
        environment["TMPDIR"] = stem
        argv = ["unshare", "-n", "sh", "-c", NETNS, "sh"]
        if shim:
            argv += ["env", f"LD_PRELOAD={self.library}", "TCPSHIM_LOOPBACK=user", "TCPSHIM_TRACE=state",
                     f"TCPSHIM_TRACE_FILE={stem}.%p.trace"]
            argv += os.environ.get("PYTHON_ENV", "").split()  # for hunting: TCPSHIM_TRACE=all
        argv += [PYTHON, os.path.join(HERE, "suite.py"), stem + ".results", module]
        if only:
            with open(stem + ".only", "w", encoding="utf-8") as file:
                file.write("\n".join(only))
            argv += ["--only", stem + ".only"]
        with open(stem + ".out", "wb") as out:
            process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=out, stderr=out,
                                       env=environment, cwd=stem, start_new_session=True)
            try:
                ending = f"ended with {process.wait(SECONDS)}"
            except subprocess.TimeoutExpired:
                ending = f"stopped after {SECONDS} s"
        try:
            os.killpg(process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        process.wait()
        found = self.collect(stem, module, ending)
        if shim:
            self.count(stem, module)
        shutil.rmtree(stem, ignore_errors=True)
        return found

    def collect(self, stem, module, ending):
        found, running, ended = {}, None, False
        try:
            with open(stem + ".results", encoding="utf-8") as file:
                for row in map(json.loads, file):
                    if "start" in row:
                        running = row["start"]
                    elif "id" in row:
                        found[row["id"]] = row["outcome"], row["text"]
                        running = None
                    else:
                        ended = True
        except OSError:
            pass
        if not ended or not ending.endswith(" 0"):
            with open(stem + ".out", encoding="utf-8", errors="replace") as out:
                tail = "".join(out.readlines()[-60:])
            found[running or f"{module} (its process)"] = "died", f"{ending}\n{tail}"
        return found

    def count(self, stem, module):
        for path in glob.glob(glob.escape(stem) + ".*.trace"):
            with open(path, encoding="utf-8", errors="replace") as file:
                self.connections[module] += sum(1 for line in file if ARRIVED.search(line))
            if not self.keep:
                os.unlink(path)


def explanations():
    """[(pattern, why)]"""
    rows = []
    with open(os.path.join(HERE, "differences.txt"), encoding="utf-8") as file:
        for line in file:
            if line.strip() and not line.startswith("#"):
                pattern, _, why = line.partition(" ")
                rows.append((pattern, why.strip()))
    return rows


def outcome(results, test):
    return results[test][0] if test in results else "did not run"


def compare(runner, module):
    """((seconds on each), number of tests, those that passed on both, [(test, kernel, user, text of the user side)], [unsteady])"""
    begin = time.monotonic()
    kernel = runner.run(False, module)
    between = time.monotonic()
    user = runner.run(True, module)
    seconds = between - begin, time.monotonic() - between
    everything = sorted(set(kernel) | set(user))
    differ = [t for t in everything if outcome(kernel, t) != outcome(user, t)]
    unsteady = []
    for _ in range(AGAIN):
        if not differ:
            break
        again = [runner.run(shim, module, differ) for shim in (False, True)]
        for test in list(differ):
            both = {outcome(results, test) for results in again}
            if len(both) == 1 and both != {"did not run"}:
                differ.remove(test)
                unsteady.append(test)
    passed = sum(1 for t in everything if outcome(user, t) == "ok" and outcome(kernel, t) == "ok")
    rows = [(t, outcome(kernel, t), outcome(user, t), (user.get(t) or kernel.get(t))[1]) for t in differ]
    return seconds, len(everything), passed, rows, unsteady


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--build", default="build")
    parser.add_argument("--short", action="store_true")
    parser.add_argument("--keep", action="store_true", help="leave traces and results")
    parser.add_argument("-j", type=int, default=2)
    parser.add_argument("modules", nargs="*")
    options = parser.parse_args()
    library = os.path.join(ROOT, options.build, "libtcpshim.so")
    if not os.path.exists(library):
        print(f"python: {library} is missing (run make)\npython: 0 passed, 1 failed, 0 skipped")
        return 1
    if subprocess.run([PYTHON, "-c", "import test.test_socket"], capture_output=True).returncode != 0:
        print("python: libpython3.11-testsuite is not installed\npython: 0 passed, 0 failed, 1 skipped")
        return 0
    modules = options.modules or (SHORT + SHORT_PARTS if options.short else MODULES)
    # Names like /tmp/x-PID/1-test_ssl-user leave room for unix sockets' 108 bytes.
    directory = tempfile.mkdtemp(prefix=f"py-{os.getpid()}-")
    try:
        return run_all(Runner(library, directory, options.keep), modules, options)
    finally:
        if options.keep:
            print(f"kept: {directory}")
        else:
            shutil.rmtree(directory, ignore_errors=True)


def run_all(runner, modules, options):
    known, used = explanations(), set()
    passed = failed = explained = 0
    with concurrent.futures.ThreadPoolExecutor(options.j) as pool:
        for module, (seconds, total, good, rows, unsteady) in zip(
                modules, pool.map(lambda m: compare(runner, m), modules)):
            print(f"{module:40} {total:5} tests, {good:5} passed on both, {len(rows):3} differ, "
                  f"{runner.connections[module] // 2:6} connections in the engine, "
                  f"{seconds[0]:.0f} and {seconds[1]:.0f} s", flush=True)
            for test in unsteady:
                print(f"    unsteady {test}")
            for test, kernel, user, text in rows:
                why = [row for row in known if fnmatch.fnmatchcase(test, row[0])]
                if why:
                    used.add(why[0])
                    explained += 1
                    print(f"    explained {test}: kernel {kernel}, user {user}: {why[0][1]}")
                    continue
                failed += 1
                print(f"    DIFFERS {test}: kernel {kernel}, user {user}")
                print("".join(f"        {line}\n" for line in text.rstrip().splitlines()[-25:]), end="", flush=True)
            passed += total - len(rows)
    for row in known:
        if row not in used and any(fnmatch.fnmatchcase("test." + m, row[0].split(".test_", 1)[0] + "*")
                                   for m in modules) and not options.short:
            print(f"python: not needed any more in differences.txt: {row[0]}")
    connections = sum(runner.connections.values()) // 2
    print(f"connections that the engine carried: {connections}; differences that are explained: {explained}")
    if connections == 0:
        print("no connection ran in the engine: this compared the kernel with itself")
        failed += 1
    print(f"python: {passed} passed, {failed} failed, {explained} skipped")
    return 1 if failed else 0


if __name__ == "__main__":
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: sys.exit(130))
    sys.exit(main())
