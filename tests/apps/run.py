#!/usr/bin/python3
"""The application matrix: unmodified programs on the user stack. See framework.py for what is checked.

    run.py                     all cases of `make check`
    run.py -k nginx -k /UU/    those whose name contains all these words
    run.py --pairing KK        the same without the shim, to test the tests
    run.py --list, --keep, --soak (adds 1 GB for all), -j N (small cases side by side)
    run.py --long              also the cases whose programs are large (`make check-apps`)
"""

import argparse
import concurrent.futures
import os
import shutil
import signal
import sys
import tempfile
import threading

sys.dont_write_bytecode = True  # the checkout stays as it is

import framework
import cases_address
import cases_exec
import cases_guard
import cases_http
import cases_ingress
import cases_keeper
import cases_link
import cases_process
import cases_services
import cases_store
import cases_stream
import cases_trace
import cases_web
import table
from lab import require

# Each registers its cases.
GROUPS = (cases_http, cases_stream, cases_store, cases_address, cases_guard, cases_ingress, cases_process,
          cases_keeper, cases_exec, cases_web, cases_services, cases_link, cases_trace)


def selection(options):
    for one in framework.CASES:
        if one.long and not (options.long or options.k):
            continue
        pairings = one.pairings if options.long or options.k else one.quick
        if options.pairing:
            pairings = [p for p in (options.pairing.split(","))
                        if p in one.pairings or (p == "KK" and one.kernel)]
        for pairing in pairings:
            for size in one.sizes + (one.soak_sizes if options.soak else ()):
                name = f"{one.name}/{pairing}/{size}"
                if all(word in name for word in options.k):
                    yield name, one, pairing, size


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("-k", action="append", default=[], metavar="WORD")
    parser.add_argument("-j", type=int, default=2)
    parser.add_argument("--pairing", help="UK, KU, UU or KK; several with commas")
    parser.add_argument("--build", default="build")
    parser.add_argument("--table", metavar="FILE", help="write docs/applications.md: all pairings of the cases in it")
    parser.add_argument("--long", action="store_true")
    parser.add_argument("--soak", action="store_true")
    parser.add_argument("--keep", action="store_true", help="leave the files of failed cases")
    parser.add_argument("--list", action="store_true")
    parser.add_argument("--repeat", type=int, default=1)
    parser.add_argument("--again", action="store_true",
                        help="run what failed twice more, alone: what passes both times is called unsteady and passes")
    options = parser.parse_args()

    if options.table:
        options.long, options.pairing = True, "KK,UK,KU,UU"
    chosen = list(selection(options)) * options.repeat
    if options.table:
        chosen = [job for job in chosen if job[1].table and framework.BYTES.get(job[3], 0) < (64 << 20)]
    measured = {}
    if options.list:
        print("\n".join(name for name, *_ in chosen))
        return 0
    require()
    library = os.path.abspath(os.path.join(options.build, "libtcpshim.so"))
    if any("U" in pairing for _, _, pairing, _ in chosen) and not os.path.exists(library):
        print(f"apps: {library} is not there: build it first", file=sys.stderr)
        return 1

    work = tempfile.mkdtemp(prefix="tcpshim-apps-")
    os.chmod(work, 0o711)
    data = framework.Data(framework.data_directory())
    for size in sorted({size for *_, size in chosen if size in framework.BYTES}):
        data.path(size)
    counts = {"ok": 0, "FAIL": 0, "skip": 0}
    lock = threading.Lock()
    failed = []

    def run_case(index, job, final):
        name, one, pairing, size = job
        verdict, seconds, text = framework.execute(
            one, pairing, size, os.path.join(work, str(index)), data, library, options.keep,
            lambda run: measured.update({name: (run.seconds, run.note)}))
        with lock:
            shown = "fail" if verdict == "FAIL" and not final else verdict  # who looks for FAIL finds what counts
            print(f"{shown:4} {name:40} {seconds:6.2f} s{'  ' + text if text else ''}", flush=True)
        return verdict, text

    def one_case(index, job):
        verdict, text = run_case(index, job, final=not options.again)
        with lock:
            counts[verdict] += 1
            if verdict == "FAIL":
                failed.append((index, job, text))

    def run_again():
        for index, job, text in failed:
            if all(run_case(f"{index}-{turn}", job, final=True)[0] == "ok" for turn in ("second", "third")):
                counts["FAIL"] -= 1
                counts["ok"] += 1
                print(f"unsteady {job[0]}: failed once, then passed twice: {text}", flush=True)

    # Large transfers want the machine for themselves.
    jobs = list(enumerate(chosen))
    small = [job for job in jobs if framework.BYTES.get(job[1][3], 0) < (64 << 20)]
    large = [job for job in jobs if job not in small]
    try:
        for batch, width in ((small, options.j), (large, 1)):
            pool = concurrent.futures.ThreadPoolExecutor(max_workers=max(1, width))
            try:
                for done in [pool.submit(one_case, *job) for job in batch]:
                    done.result()
            except BaseException:
                framework.interrupted.set()  # those that run end soon, the others never start
                raise
            finally:
                pool.shutdown(cancel_futures=True)
        if options.again and len(failed) <= 10:
            run_again()
        elif options.again:  # more than that is no chance
            for _, job, text in failed:
                print(f"FAIL {job[0]}: {text}", flush=True)
    finally:
        shutil.rmtree(data.directory, ignore_errors=True)
        if not (options.keep and counts["FAIL"]):
            shutil.rmtree(work, ignore_errors=True)
        else:
            print(f"kept: {work}")
    if options.table:
        table.write(options.table, chosen, measured)
    print(f"apps: {counts['ok']} passed, {counts['FAIL']} failed, {counts['skip']} skipped")
    return 1 if counts["FAIL"] or not sum(counts.values()) else 0


if __name__ == "__main__":
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: sys.exit(130))
    sys.exit(main())
