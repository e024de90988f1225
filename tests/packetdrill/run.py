#!/usr/bin/python3
"""packetdrill against the shim in virtual time.

Always: a driver of our own plays packetdrill's part (build/tests/packetdrill_smoke).
With a packetdrill binary (PACKETDRILL=path, or in PATH): the scripts beside this file.
With PACKETDRILL_SCRIPTS=dir[:dir...] (or --scripts): every *.pkt below, too. differs.txt says which
of the public ones are not expected to pass, and why. What it does not name must pass, and an entry all
of whose scripts pass counts as a failure, too.

Scripts set Linux's sysctls. Each one runs in a network and a mount namespace of its own, where
/proc/sys/net/ipv4 is a directory of plain files with Linux's defaults, which the shared object reads.
Commands that would speak to a kernel (ip, tc, nstat, ...) are replaced by nothing.
"""

import argparse
import collections
import concurrent.futures
import os
import re
import shutil
import subprocess
import sys
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
LOCAL, REMOTE = "192.168.0.1", "192.0.2.1"

# Linux 6.x. What the engine has no choice for is here because scripts read or write it.
SETTINGS = {
    "tcp_congestion_control": "cubic",
    "tcp_rmem": "4096\t131072\t6291456",
    "tcp_wmem": "4096\t16384\t4194304",
    "tcp_sack": "1", "tcp_dsack": "1", "tcp_fack": "0", "tcp_timestamps": "1", "tcp_window_scaling": "1",
    "tcp_syn_retries": "6", "tcp_synack_retries": "5", "tcp_retries2": "15", "tcp_frto": "2",
    "tcp_reordering": "3", "tcp_slow_start_after_idle": "1", "tcp_early_retrans": "3",
    "tcp_recovery": "1", "tcp_tso_win_divisor": "3", "tcp_ecn": "2", "tcp_ecn_option": "2",
    "tcp_ecn_option_beacon": "3", "tcp_ecn_fallback": "1", "tcp_pacing_ss_ratio": "200",
    "tcp_pacing_ca_ratio": "120", "tcp_notsent_lowat": "4294967295", "tcp_fastopen": "1",
    "tcp_fastopen_key": "00000000-00000000-00000000-00000000", "tcp_syncookies": "1",
    "tcp_min_tso_segs": "2", "tcp_mtu_probing": "0", "tcp_base_mss": "1024", "tcp_probe_interval": "600",
    "tcp_no_metrics_save": "0", "tcp_limit_output_bytes": "4194304", "tcp_invalid_ratelimit": "500",
    "tcp_shrink_window": "0", "tcp_adv_win_scale": "1", "tcp_moderate_rcvbuf": "1", "tcp_autocorking": "1",
    "tcp_min_rtt_wlen": "300", "tcp_rto_min_us": "200000", "tcp_comp_sack_delay_ns": "1000000",
    "tcp_comp_sack_nr": "44", "tcp_comp_sack_slack_ns": "100000", "tcp_fin_timeout": "60",
    "tcp_fastopen_blackhole_timeout_sec": "0", "tcp_challenge_ack_limit": "2147483647",
    "tcp_fwmark_accept": "0", "tcp_thin_linear_timeouts": "0", "tcp_stdurg": "0", "tcp_rfc1337": "0",
    "tcp_max_syn_backlog": "4096", "tcp_abort_on_overflow": "0", "tcp_workaround_signed_windows": "0",
    "tcp_keepalive_time": "7200", "tcp_keepalive_intvl": "75", "tcp_keepalive_probes": "9",
    "tcp_retries1": "3", "tcp_orphan_retries": "0", "tcp_tw_reuse": "2", "tcp_rto_max_ms": "120000",
    "tcp_plb_enabled": "0", "tcp_backlog_ack_defer": "1", "tcp_pingpong_thresh": "1",
    "tcp_rcvbuf_low_rtt": "1000", "tcp_app_win": "31", "tcp_max_reordering": "300",
    "ip_no_pmtu_disc": "0", "icmp_ratelimit": "1000", "icmp_ratemask": "6168",
    "ip_forward_use_pmtu": "0", "ip_local_port_range": "32768\t60999", "tcp_metrics_flush": "0",
}

# What packetdrill's own runner defines for IPv4 (names from the scripts that use them).
DEFINES = ["TFO_COOKIE=3021b9d889017eeb", "TFO_COOKIE_ZERO=b7c12350a90dc8f5", "CODE=host_unreachable",
           "CMSG_LEVEL_IP=SOL_IP", "CMSG_TYPE_RECVERR=IP_RECVERR"]

# Programs that scripts call for the kernel's sake.
NO_PROGRAMS = ["ip", "tc", "nstat", "ethtool", "modprobe", "iptables", "ss", "conntrack"]

# What our link can do of theirs.
PROGRAMS = {
    "nstat": "cat /proc/sys/net/ipv4/nstat 2>/dev/null",
    "ethtool": "case \"$*\" in *'gso off'*|*'tso off'*) echo 0 >/proc/sys/net/ipv4/tun_gso;; esac",
    "ip": "case \"$*\" in *'tcp_metrics flush'*) cd /proc/sys/net/ipv4; "
          "echo $((`cat tcp_metrics_flush` + 1)) >tcp_metrics_flush;; "
          "*'set dev tun0 mtu '*) for last; do :; done; echo $last >/proc/sys/net/ipv4/tun_mtu;; esac",
}

Result = collections.namedtuple("Result", "name passed why")


def prepare(top):
    """A directory of settings to copy for each script, and one of programs that do nothing."""
    os.makedirs(f"{top}/settings")
    os.makedirs(f"{top}/bin")
    for name, value in SETTINGS.items():
        with open(f"{top}/settings/{name}", "w") as out:
            out.write(value + "\n")
    for name in NO_PROGRAMS:
        path = f"{top}/bin/{name}"
        with open(path, "w") as out:
            out.write(f"#!/bin/sh\n{PROGRAMS.get(name, '')}\nexit 0\n")
        os.chmod(path, 0o755)


# FreeBSD connects by sendto() to an address and does not wait; Linux does.
FREEBSD_FAST_OPEN = r"^ *(\S+) +(sendto\(\d+, \.\.\., \d+, )0(, \.\.\., \.\.\.\) = )"
LINUX_FAST_OPEN = r"\1...0.05 \2MSG_FASTOPEN\3"


def translate(text):
    """A FreeBSD script for a stack with Linux's habits: its sysctls mean nothing here; windows, the order
    of options, the sizes of buffers and ACKs at the start of a connection are each system's own."""
    lines = []
    text = re.sub(FREEBSD_FAST_OPEN, LINUX_FAST_OPEN, text, flags=re.M)
    for line in text.splitlines():
        if re.search(r"`.*(sysctl|ifconfig|kldload|sockstat)", line) or re.search(r"SO_(RCV|SND)BUF", line):
            continue
        if re.match(r"\s*\+?[\d.~+*]+\s*>", line):
            line = re.sub(r"\bwin \d+\b", "", line)
            line = re.sub(r"<[^>]*>", "<...>", line)
        lines.append(line)
        listens = re.search(r"\blisten\((\d+),", line)
        if listens:  # FreeBSD delays the first ACKs of a connection, Linux sends them at once
            lines.append(f"+0 setsockopt({listens.group(1)}, IPPROTO_TCP, TCP_QUICKACK, [0], 4) = 0")
    return "\n".join(lines) + "\n"


def run_script(path, name, options, top):
    """One script in its namespaces. Result."""
    settings = tempfile.mkdtemp(dir=top)
    shutil.copytree(f"{top}/settings", settings, dirs_exist_ok=True)
    with open(path) as script:
        text = script.read()
    if "net.inet.tcp" in text:
        path = f"{settings}/{os.path.basename(path)}"
        with open(path, "w") as out:
            out.write(translate(text))
    if re.search(r"tcp_ecn=[345]", text):  # Linux cuts segments of accurate ECN itself (SKB_GSO_TCP_ACCECN)
        with open(f"{settings}/tun_gso", "w") as out:
            out.write("0\n")
    so = options.so
    own = dict(re.findall(r"^--(local_ip|remote_ip)=(\S+)", text, re.M))  # the command line would win
    local, remote = own.get("local_ip", LOCAL), own.get("remote_ip", REMOTE)
    argv = [options.packetdrill, f"--so_filename={so}",
            f"--so_flags=local={local},sysctl=/proc/sys/net/ipv4", "--ip_version=ipv4",
            f"--local_ip={local}", f"--gateway_ip={local}", "--netmask_ip=255.255.0.0",
            f"--remote_ip={remote}", "--send_omit_free", "--tolerance_usecs=14000"]
    for define in DEFINES:
        argv += ["-D", define]
    # the scripts' shell lines are bash's, and packetdrill calls /bin/sh
    inside = ('mount --bind "$1" /proc/sys/net/ipv4 && mount --bind /bin/bash "$(readlink -f /bin/sh)" '
              '&& shift && exec env LD_PRELOAD="$SO" "$@"')
    environment = dict(os.environ, PATH=f"{top}/bin:{os.environ['PATH']}", SO=so)
    command = ["unshare", "--net", "--mount", "--propagation", "private", "sh", "-c", inside, "sh", settings]
    try:
        process = subprocess.Popen(command + argv + [os.path.basename(path)], cwd=os.path.dirname(path),
                                   env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                   stderr=subprocess.STDOUT)
        try:
            text = process.communicate(timeout=options.seconds)[0].decode("utf-8", "replace")
        except subprocess.TimeoutExpired:
            process.kill()
            text = process.communicate()[0].decode("utf-8", "replace") + "\ntakes too long"
        restore = f"/tmp/sysctl_restore_{process.pid}.sh"  # some scripts' way to put settings back
        if os.path.exists(restore):
            os.unlink(restore)
    finally:
        shutil.rmtree(settings, ignore_errors=True)
    return Result(name, process.returncode == 0, text.strip())


def find_scripts(directories):
    """(path, name) of every script, the name being the path from the directory's own name on."""
    for directory in directories:
        directory = os.path.abspath(directory)
        for root, _, files in sorted(os.walk(directory)):
            for file in sorted(files):
                if file.endswith(".pkt") and not file.endswith("v6.pkt"):
                    path = os.path.join(root, file)
                    with open(path) as script:
                        if "\n--ip_version=ipv6\n" not in script.read():
                            yield path, os.path.relpath(path, os.path.dirname(directory))


def read_differs():
    """differs.txt: `REGEX  class: reason` per line."""
    rows = []
    with open(f"{HERE}/differs.txt") as source:
        for line in source:
            if line.strip() and not line.startswith("#"):
                pattern, reason = line.split(None, 1)
                rows.append((re.compile(pattern), reason.strip()))
    return rows


def report(result, reason, verbose):
    first = next((line for line in result.why.splitlines()
                  if re.search(r"\.pkt:\d+|error|never|broken|long", line)), result.why[:200])
    if result.passed:
        if verbose:
            print(f"ok    {result.name}{' although ' + reason if reason else ''}")
    elif reason:
        if verbose:
            print(f"known {result.name}: {reason}")
    else:
        print(f"FAIL  {result.name}: {first}")
        if verbose:
            print("      " + result.why.replace("\n", "\n      "))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--build", default="build")
    parser.add_argument("--packetdrill", default=os.environ.get("PACKETDRILL") or shutil.which("packetdrill"))
    parser.add_argument("--scripts", default=os.environ.get("PACKETDRILL_SCRIPTS", ""))
    parser.add_argument("-k", metavar="WORD", nargs="+", help="only scripts whose name has it")
    parser.add_argument("-v", action="store_true")
    parser.add_argument("--seconds", type=int, default=30, help="for one script")
    parser.add_argument("--jobs", type=int, default=os.cpu_count())
    options = parser.parse_args()
    options.so = os.path.abspath(f"{options.build}/tests/packetdrill_tcpshim.so")

    passed = failed = skipped = known = 0
    if not options.k:
        smoke = subprocess.run([os.path.abspath(f"{options.build}/tests/packetdrill_smoke"), options.so],
                               stdin=subprocess.DEVNULL, timeout=60)
        passed, failed = (1, 0) if smoke.returncode == 0 else (0, 1)
    directories = [HERE] + [d for d in options.scripts.split(":") if d]
    scripts = [s for s in find_scripts(directories) if not options.k or any(w in s[1] for w in options.k)]
    if not options.packetdrill:
        print("no packetdrill: its scripts are left out (PACKETDRILL=path names one)")
        skipped, scripts = len(scripts), []
    differs = read_differs()
    met, needed = set(), set()  # entries that name a script; those that name one which does not pass
    with tempfile.TemporaryDirectory(prefix="tcpshim-packetdrill-") as top, \
            concurrent.futures.ThreadPoolExecutor(options.jobs) as pool:
        prepare(top)
        for result in pool.map(lambda s: run_script(*s, options, top), scripts):
            entry = next((e for e in differs if e[0].search(result.name)), None)
            reason = entry[1] if entry else None
            if entry:
                met.add(entry)
                if not result.passed:
                    needed.add(entry)
            report(result, reason, options.v)
            if result.passed:
                passed += 1
            elif reason:
                known += 1
            else:
                failed += 1
    if not options.k:
        for pattern, reason in sorted(met - needed, key=str):
            print(f"FAIL  differs.txt: all scripts of {pattern.pattern} pass ({reason})")
            failed += 1
    if known:
        print(f"{known} scripts differ as differs.txt says")
    print(f"{passed} passed, {failed} failed, {skipped} skipped")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
