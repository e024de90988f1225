"""A virtual machine with a kernel of Debian's that is newer than the host's: two hosts of the laboratory.

The machine has one processor, 512 MB, no disk and two network cards, each in a network namespace of its own with
one program (accecn_peer.c, linked statically), which a serial line gives its orders. Without hardware that
virtualises (KVM over PVM wants a guest made for it) QEMU translates; that is slow but does.
"""

import glob
import os
import re
import shutil
import socket
import subprocess

from lab import Lab, NotAllowed, ip, must, wait_for

SUITE = "sid"
PACKAGE = "linux-image-cloud-amd64"
MODULES = ("net/core/failover", "drivers/net/net_failover", "drivers/net/virtio_net")
CARDS = ("port_b", "port_c")
OFFLOADS = ("csum", "gso", "guest_csum", "guest_tso4", "guest_ecn", "guest_ufo", "host_tso4", "host_ecn", "host_ufo")
BOOT_SECONDS = 120
VIRTUALISE = ("-accel", "kvm", "-cpu", "host")
TRANSLATE = ("-accel", "tcg", "-cpu", "max")
COMMAND_LINE = "console=ttyS0 quiet panic=-1"

INIT = """#!/bin/busybox sh
/bin/busybox --install -s /bin
mount -t proc proc /proc; mount -t sysfs sysfs /sys; mount -t devtmpfs dev /dev
for module in failover net_failover virtio_net; do insmod /$module.ko; done
i=0
while [ $i -lt 2 ]; do
    unshare -n /host $i &
    while [ -e /sys/class/net/eth$i ]; do ip link set eth$i netns $!; done
    i=$((i + 1))
done
wait
"""
HOST = """#!/bin/sh
until ip link set eth$1 name eth0 2>/dev/null; do usleep 10000; done
ip link set lo up; ip addr add 10.77.0.$((3 + $1))/24 dev eth0; ip link set eth0 up
cd /proc/sys/net/ipv4
echo 1 >tcp_no_metrics_save; echo reno >tcp_congestion_control
exec 0<>/dev/ttyS$((1 + $1)) 1>&0 2>&1
stty raw -echo
exec /peer
"""


def download(directory):
    """Debian's kernel of SUITE, through apt with lists of its own: those of this machine stay as they are."""
    lists = os.path.join(directory, "apt")
    for name in ("lists/partial", "cache/archives/partial"):
        os.makedirs(os.path.join(lists, name), exist_ok=True)
    for name, text in (("sources", f"deb http://deb.debian.org/debian {SUITE} main\n"), ("status", "")):
        with open(os.path.join(lists, name), "w", encoding="ascii") as file:
            file.write(text)
    settings = {"Dir::Etc::SourceList": "sources", "Dir::Etc::SourceParts": "none", "Dir::State": "",
                "Dir::State::Lists": "lists", "Dir::State::Status": "status", "Dir::Cache": "cache"}
    words = [f"-o{key}={os.path.join(lists, value)}" for key, value in settings.items()]
    words += ["-oAcquire::Languages=none", "-oAPT::Sandbox::User=root", "-qq"]

    def apt(*command):
        return subprocess.run(["apt-get", *words, *command], cwd=directory, capture_output=True, text=True,
                              stdin=subprocess.DEVNULL)

    must(f"apt-get update of {SUITE}", apt("update"))
    plan = apt("install", "-y", "--print-uris", "--no-install-recommends", PACKAGE)
    must(f"apt-get install --print-uris {PACKAGE}", plan)
    names = sorted(set(re.findall(r" (linux-(?:image|binary|modules)-\d\S*?)_\S+\.deb ", plan.stdout)))
    must(f"apt-get download {' '.join(names)}", apt("download", *names))
    return sorted(glob.glob(os.path.join(directory, "linux-*.deb")))


def find_kernel(directory, packages):
    """(kernel image, its directory of modules) from packages, which are downloaded where there are none."""
    tree = os.path.join(directory, "tree")
    os.makedirs(directory, exist_ok=True)
    if packages:
        shutil.rmtree(tree, ignore_errors=True)
    if not os.path.isdir(tree):
        for package in packages or download(directory):
            must(f"dpkg-deb -x {package}", subprocess.run(["dpkg-deb", "-x", package, tree], capture_output=True,
                                                          text=True))
    modules = glob.glob(f"{tree}/lib/modules/*") + glob.glob(f"{tree}/usr/lib/modules/*")
    images = glob.glob(f"{tree}/boot/vmlinuz-*") + [f"{place}/vmlinuz" for place in modules]
    images = [image for image in images if os.path.exists(image)]
    if not modules or not images:
        raise NotAllowed(f"{tree} holds no kernel with modules")
    return images[0], modules[0]


def make_initrd(directory, modules, peer):
    """A root file system in memory: busybox, three modules, the program."""
    root = os.path.join(directory, "root")
    shutil.rmtree(root, ignore_errors=True)
    for name in ("bin", "proc", "sys", "dev"):
        os.makedirs(os.path.join(root, name))
    for module in MODULES:
        found = glob.glob(f"{modules}/kernel/{module}.ko*")
        if not found:
            raise NotAllowed(f"{modules} has no {module}")
        with open(os.path.join(root, os.path.basename(module) + ".ko"), "wb") as file:
            unpack = {".xz": ["xz", "-dc"], ".zst": ["zstd", "-dc"]}.get(os.path.splitext(found[0])[1], ["cat"])
            subprocess.run([*unpack, found[0]], stdout=file, check=True)
    for name, text in (("init", INIT), ("host", HOST)):
        with open(os.path.join(root, name), "w", encoding="ascii") as file:
            file.write(text)
        os.chmod(os.path.join(root, name), 0o755)
    shutil.copy("/bin/busybox", os.path.join(root, "bin"))
    shutil.copy(peer, os.path.join(root, "peer"))
    names = "".join(os.path.relpath(path, root) + "\n" for path in glob.glob(root + "/**", recursive=True))
    archive = os.path.join(directory, "initrd")
    with open(archive, "wb") as file:
        subprocess.run(["busybox", "cpio", "-o", "-H", "newc"], cwd=root, input=names.encode(), stdout=file,
                       stderr=subprocess.DEVNULL, check=True)
    return archive


class End:
    """A peer and the two streams that lead to it."""

    def __init__(self, name, addr, reader, writer):
        self.name, self.addr, self._reader, self._writer = name, addr, reader, writer

    def say(self, line):
        self._writer.write(line + "\n")
        self._writer.flush()

    def hear(self):
        try:
            return self._reader.readline().strip()
        except OSError as error:
            return f"no answer: {error}"

    def ask(self, line):
        self.say(line)
        return self.hear()


class VmLab(Lab):
    """Host a as always. Host b is the way: a bridge, with the cards of the machine and what spoils packets."""

    def __init__(self, directory, kernel, peer, offloads):
        super().__init__()
        self.directory, self.kernel, self.peer, self.offloads = directory, kernel, peer, offloads
        self.ends = {}

    def _wire(self):
        way = self.b.namespace
        self._join(self.a.namespace, "eth0", way, "port_a")
        must("a bridge", ip("link", "add", "eth0", "type", "bridge", namespace=way))
        for name in CARDS:
            must("a TAP device", ip("tuntap", "add", name, "mode", "tap", "vnet_hdr", namespace=way))
        for name in ("port_a", *CARDS):
            must("a port of the bridge", ip("link", "set", name, "master", "eth0", "up", namespace=way))
        if not self.offloads:
            for host, device in ((self.a, "eth0"), (self.b, "port_a")):
                self.popen(host, ["ethtool", "-K", device, "tx", "off", "tso", "off", "gso", "off", "gro", "off"],
                           stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL).wait(5)

    def boot(self):
        """Starts the machine: ends b and c of self.ends."""
        image, modules = self.kernel
        with open("/proc/cpuinfo", encoding="ascii") as file:
            kvm = os.path.exists("/dev/kvm") and re.search(r"\b(vmx|svm)\b", file.read())
        argv = ["qemu-system-x86_64", *(VIRTUALISE if kvm else TRANSLATE), "-m", "512",
                "-smp", "1", "-nodefaults", "-no-reboot", "-display", "none", "-kernel", image,
                "-initrd", make_initrd(self.directory, modules, self.peer),
                "-append", COMMAND_LINE, "-serial", f"file:{self.directory}/console"]
        switch = "".join(f",{word}=off" for word in OFFLOADS) if not self.offloads else ""
        sockets = []
        for number, name in enumerate(CARDS):
            sockets.append(os.path.join(self.directory, f"serial-{os.getpid()}-{name}"))
            argv += ["-serial", f"unix:{sockets[-1]},server=on,wait=off",
                     "-netdev", f"tap,id={name},ifname={name},script=no,downscript=no",
                     "-device", f"virtio-net-pci,netdev={name},mac=02:00:00:00:77:{3 + number:02x}{switch}"]
        machine = self.popen(self.b, argv, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        for name, path, addr in zip("bc", sockets, (self.a.spare, self.b.spare)):
            if not wait_for(lambda p=path: os.path.exists(p) or machine.poll() is not None, 10) or machine.poll():
                raise NotAllowed(f"qemu-system-x86_64: {(machine.stderr.readline() or 'does not start').strip()}")
            line = socket.socket(socket.AF_UNIX)
            line.settimeout(BOOT_SECONDS)
            line.connect(path)
            os.unlink(path)
            stream = line.makefile("rw", newline="\n")
            self.ends[name] = End(name, addr, stream, stream)
        for end in self.ends.values():
            if "here" not in end.hear():
                raise NotAllowed(f"the machine did not come up; see {self.directory}/console")

    def user(self, env):
        """A new end a with these variables, in the place of the one before."""
        self.end_user()
        program = self.popen(self.a, [self.peer.removesuffix(".static")], env=env, stdin=subprocess.PIPE,
                             stdout=subprocess.PIPE, text=True)
        end = self.ends["a"] = End("a", self.a.addr, program.stdout, program.stdin)
        end.program = program
        end.hear()
        return end

    def end_user(self):
        end = self.ends.pop("a", None)
        if end:
            end.program.stdin.close()
            end.program.wait(20)
