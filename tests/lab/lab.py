#!/usr/bin/python3
"""A private laboratory: two hosts in network namespaces, joined by a veth pair.

    host a  10.77.0.1/24  eth0 <-------> eth0  10.77.0.2/24  host b

The namespaces carry the pid in their names, so that any number of laboratories run side by side.
Both hosts have `lo` up, MTU 1500, all offloads on and forwarding off. 10.77.0.3 (on a) and 10.77.0.4
(on b) are left free for a stack with an address of its own.

As a program:

    lab.py check              says whether this machine allows a laboratory; exit 2 when not
    lab.py run COMMAND...     runs COMMAND with LAB_A, LAB_B (namespaces), LAB_ADDR_A, LAB_ADDR_B
"""

import atexit
import ctypes
import errno
import os
import signal
import socket
import struct
import subprocess
import sys
import threading
import time

NETWORK = "10.77.0"
PREFIX = "tcpshim"
ETH_P_ALL = 0x0003
ETH_P_IP = 0x0800
SO_ATTACH_FILTER = 26
SOL_PACKET = 263
PACKET_STATISTICS = 6
PACKET_OUTGOING = 4
SO_RCVBUFFORCE = 33
TCP_RST = 0x04
CLONE_NEWNET = 0x40000000

_libc = ctypes.CDLL(None, use_errno=True)


class NotAllowed(Exception):
    """This machine does not permit what the laboratory needs; the text is one line that says what."""


def ip(*words, namespace=None):
    argv = ["ip"] + (["-n", namespace] if namespace else []) + list(words)
    return subprocess.run(argv, capture_output=True, text=True, stdin=subprocess.DEVNULL)


def must(what, result):
    if result.returncode != 0:
        detail = (result.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise NotAllowed(f"{what} is not permitted here: {detail}")


def in_namespace(path, function):
    """Calls function in a thread that has entered the namespace; what it opens stays there."""
    outcome = {}

    def body():
        try:
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            try:
                if _libc.setns(fd, CLONE_NEWNET) != 0:
                    raise OSError(ctypes.get_errno(), "setns")
            finally:
                os.close(fd)
            outcome["value"] = function()
        except BaseException as error:  # handed to the caller below
            outcome["error"] = error

    thread = threading.Thread(target=body)
    thread.start()
    thread.join()
    if "error" in outcome:
        raise outcome["error"]
    return outcome["value"]


class Host:
    """One of the two machines."""

    def __init__(self, name, namespace, addr, spare):
        self.name = name
        self.namespace = namespace
        self.addr = addr
        self.spare = spare  # an address that the kernel does not have

    @property
    def path(self):
        return f"/run/netns/{self.namespace}"

    def command(self, argv, env=None):
        """argv as to be run in this host. Variables reach the program alone, not the tools before it."""
        prefix = ["nsenter", f"--net={self.path}"]
        if env:
            prefix += ["env"] + [f"{key}={value}" for key, value in env.items()]
        return prefix + list(argv)

    def snmp(self, group="Tcp"):
        """The kernel's counters of this host (/proc/net/snmp, netstat for TcpExt), as a dict."""
        file_name = "netstat" if group.endswith("Ext") else "snmp"

        # /proc/thread-self/net follows the namespace of the reading thread.
        def read():
            with open("/proc/thread-self/net/" + file_name, encoding="ascii") as file:
                return file.read()

        lines = [l.split() for l in in_namespace(self.path, read).splitlines()]
        rows = [line[1:] for line in lines if line[0] == group + ":"]
        return dict(zip(rows[0], map(int, rows[1])))

    def kernel_sockets(self):
        """[(local port, remote address in hex, state number, inode)] of the kernel's TCP sockets here."""

        def read():
            found = []
            for table in ("tcp", "tcp6"):
                try:
                    with open(f"/proc/thread-self/net/{table}", encoding="ascii") as file:
                        lines = file.read().splitlines()[1:]
                except FileNotFoundError:
                    continue
                for line in lines:
                    fields = line.split()
                    port = int(fields[1].rsplit(":", 1)[1], 16)
                    found.append((port, fields[2], int(fields[3], 16), fields[9]))
            return found

        return in_namespace(self.path, read)

    def kernel_listens(self, port):
        return any(s[0] == port and s[2] == 10 for s in self.kernel_sockets())

    def kernel_listeners(self):
        """How many sockets of the kernel listen: guards among them."""
        return sum(s[2] == 10 for s in self.kernel_sockets())

    def kernel_busy(self):
        """Connections of the kernel that are neither listeners nor in TIME_WAIT."""
        return [s for s in self.kernel_sockets() if s[2] not in (6, 7, 10)]


def stand_ins(host, sockets):
    """Those of the sockets that only stand for connections of a keeper."""
    inodes = set()
    for pid in keepers(host):
        try:
            for fd in os.listdir(f"/proc/{pid}/fd"):
                inodes.add(os.readlink(f"/proc/{pid}/fd/{fd}"))
        except OSError:
            pass
    return [s for s in sockets if f"socket:[{s[3]}]" in inodes]


def keepers(host):
    """Pids of the keepers in a host."""
    found = []
    for pid in ip("netns", "pids", host.namespace).stdout.split():
        try:
            with open(f"/proc/{pid}/comm", encoding="ascii") as file:
                if file.read().strip() == "tcpshim-keeper":
                    found.append(int(pid))
        except OSError:
            pass
    return found


class ResetWatcher:
    """Sees every TCP segment with RST that passes host a's eth0, and says which way it went.

    A reset is no fault where it answers a segment that came late to a connection that was over: both
    FINs were sent, and the reset's number says that its sender's FIN was acknowledged. A FIN that is
    repeated for a slow peer gets two ACKs, and the second finds the last one's connection gone; the
    kernel's stack does the same between two hosts of its own. So FINs are watched, too.
    """

    # ldh [12]; IPv4?; protocol TCP?; first fragment?; X = header length; flags of TCP; FIN or RST?
    _FILTER = [
        (0x28, 0, 0, 12),
        (0x15, 0, 8, ETH_P_IP),
        (0x30, 0, 0, 23),
        (0x15, 0, 6, socket.IPPROTO_TCP),
        (0x28, 0, 0, 20),
        (0x45, 4, 0, 0x1FFF),
        (0xB1, 0, 0, 14),
        (0x50, 0, 0, 27),
        (0x45, 0, 1, 0x05),
        (0x06, 0, 0, 128),
        (0x06, 0, 0, 0),
    ]

    def __init__(self, host_a):
        code = b"".join(struct.pack("HBBI", *row) for row in self._FILTER)
        buffer = ctypes.create_string_buffer(code)
        program = struct.pack("HL", len(self._FILTER), ctypes.addressof(buffer))

        def make():
            sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
            sock.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, program)
            sock.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 64 << 20)  # a case may end 50,000 connections
            sock.bind(("eth0", ETH_P_ALL))
            return sock

        self._fins = {}  # (source, destination): the number after its FIN
        self._sock = in_namespace(host_a.path, make)
        self._sock.setblocking(False)

    def take(self):
        """The resets since the last call: [(from host, source, destination, note)]."""
        found = []
        while True:
            try:
                frame, address = self._sock.recvfrom(2048)
            except BlockingIOError:
                break
            ihl = (frame[14] & 15) * 4
            tcp = frame[14 + ihl:]
            sport, dport, seq, ack = struct.unpack("!HHII", tcp[:12])
            src, dst = socket.inet_ntoa(frame[26:30]), socket.inet_ntoa(frame[30:34])
            sender = "a" if address[2] == PACKET_OUTGOING else "b"
            source, destination = f"{src}:{sport}", f"{dst}:{dport}"
            if not tcp[13] & TCP_RST:
                text = struct.unpack("!H", frame[16:18])[0] - ihl - (tcp[12] >> 4) * 4
                self._fins[source, destination] = (seq + text + 1) & 0xFFFFFFFF
                continue
            if (destination, source) in self._fins and self._fins.get((source, destination)) == seq:
                continue
            note = f"seq={seq} ack={ack} flags={tcp[13]:02x} wnd={struct.unpack('!H', tcp[14:16])[0]}"
            found.append((sender, source, destination, note))
        return found

    def close(self):
        self._sock.close()


class Lab:
    """Use as a context manager; everything that it made is gone at the end.

    What another kind of laboratory does differently: _wire() joins the hosts' eth0, _watch() counts resets.
    """

    _serial = 0

    def __init__(self):
        Lab._serial += 1
        stem = f"{PREFIX}-{os.getpid()}-{Lab._serial}"
        self.a = Host("a", stem + "a", NETWORK + ".1", NETWORK + ".3")
        self.b = Host("b", stem + "b", NETWORK + ".2", NETWORK + ".4")
        self.hosts = (self.a, self.b)
        self._made = []
        self._processes = []
        self.watcher = None
        self._resets_before = None

    def __enter__(self):
        atexit.register(self.close)
        try:
            self._build()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_):
        self.close()

    def _build(self):
        for host in self.hosts:
            self._make_namespace(host.namespace)
        self._wire()
        for host in self.hosts:
            for words in (("link", "set", "lo", "up"),
                          ("addr", "add", host.addr + "/24", "dev", "eth0"),
                          ("link", "set", "eth0", "mtu", "1500", "up")):
                must("ip " + " ".join(words), ip(*words, namespace=host.namespace))
            in_namespace(host.path, self._settle)
        self._watch()

    def _watch(self):
        try:
            self.watcher = ResetWatcher(self.a)
        except OSError as error:
            raise NotAllowed(f"an AF_PACKET socket is not permitted here: {error}") from None
        self._resets_before = {host.name: host.snmp()["OutRsts"] for host in self.hosts}

    def _make_namespace(self, name):
        must("a network namespace (ip netns add)", ip("netns", "add", name))
        self._made.append(name)

    def _wire(self):
        self._join(self.a.namespace, "eth0", self.b.namespace, "eth0")

    @staticmethod
    def _join(one, name_one, two, name_two):
        """A veth pair between two namespaces."""
        must("a veth pair (ip link add type veth)",
              ip("link", "add", name_one, "netns", one, "type", "veth",
                  "peer", "name", name_two, "netns", two))

    @staticmethod
    def _settle():
        """Forwarding off (a new namespace may inherit it); IPv6 off on the link, its chatter with it."""
        # A child of this thread, because /proc/sys/net follows the namespace of the process.
        subprocess.run(["sh", "-c", "cd /proc/sys/net; echo 0 >ipv4/ip_forward;"
                        "echo 1 >ipv6/conf/eth0/disable_ipv6"],
                       stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def host(self, name):
        return self.a if name == "a" else self.b

    def popen(self, host, argv, env=None, **options):
        """Starts argv in a host, in a process group of its own; ended at the latest by close()."""
        options.setdefault("stdin", subprocess.DEVNULL)
        process = subprocess.Popen(host.command(argv, env), start_new_session=True, **options)
        self._processes.append(process)
        return process

    def resets(self):
        """Resets on the wire since the last call, and how many each host's kernel sent since then."""
        seen = self.watcher.take()
        kernel = {}
        for host in self.hosts:
            now = host.snmp()["OutRsts"]
            kernel[host.name] = now - self._resets_before[host.name]
            self._resets_before[host.name] = now
        return seen, kernel

    def close(self):
        for process in self._processes:
            end_group(process)
        self._processes.clear()
        if self.watcher:
            self.watcher.close()
            self.watcher = None
        for namespace in self._made:
            _end_inhabitants(namespace)
            ip("netns", "del", namespace)
        self._made.clear()
        atexit.unregister(self.close)


def end_group(process, patience=0.0):
    """Kills a process and its group; waits for it."""
    if process.poll() is None and patience:
        try:
            process.wait(patience)
        except subprocess.TimeoutExpired:
            pass
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        pass
    try:
        process.wait(5)
    except subprocess.TimeoutExpired:
        pass


def _end_inhabitants(namespace):
    """Kills what still runs in one of our own namespaces (a daemon that left its process group)."""
    for word in ip("netns", "pids", namespace).stdout.split():
        try:
            os.kill(int(word), signal.SIGKILL)
        except (ProcessLookupError, ValueError):
            pass


def sweep():
    """Removes laboratories whose maker is gone (killed by SIGKILL)."""
    try:
        names = os.listdir("/run/netns")
    except FileNotFoundError:
        return
    for name in names:
        parts = name.split("-")
        if len(parts) != 3 or parts[0] != PREFIX or not parts[1].isdigit():
            continue
        if not os.path.exists(f"/proc/{parts[1]}"):
            _end_inhabitants(name)
            ip("netns", "del", name)


def require():
    """Exits with status 2 and one clear line where a laboratory is not possible."""
    try:
        if os.geteuid() != 0:
            raise NotAllowed("network namespaces are not permitted here: this needs root")
        for tool in ("ip", "nsenter"):
            if not any(os.access(os.path.join(d, tool), os.X_OK)
                       for d in os.environ.get("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").split(":")):
                raise NotAllowed(f"the program '{tool}' is not installed (iproute2, util-linux)")
        sweep()
        with Lab():
            pass
    except NotAllowed as reason:
        print(f"tcpshim: no laboratory: {reason}", file=sys.stderr)
        sys.exit(2)
    except OSError as error:
        word = errno.errorcode.get(error.errno, "?")
        print(f"tcpshim: no laboratory: {error} ({word})", file=sys.stderr)
        sys.exit(2)


def wait_for(condition, seconds, pause=0.005):
    """Polls until condition() is true; returns its value, false when the time is over."""
    end = time.monotonic() + seconds
    while True:
        value = condition()
        if value or time.monotonic() > end:
            return value
        time.sleep(pause)


def main():
    if sys.argv[1:] == ["check"]:
        require()
        print("namespaces, veth and AF_PACKET work here")
        return 0
    if len(sys.argv) > 2 and sys.argv[1] == "run":
        require()
        with Lab() as lab:
            env = dict(os.environ, LAB_A=lab.a.namespace, LAB_B=lab.b.namespace,
                       LAB_ADDR_A=lab.a.addr, LAB_ADDR_B=lab.b.addr)
            return subprocess.run(sys.argv[2:], env=env).returncode
    print(__doc__, file=sys.stderr)
    return 2


if __name__ == "__main__":
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: sys.exit(130))
    sys.exit(main())
