"""tcpshim doctor: its verdicts are those of trying."""

import os
import shutil

from framework import PYTHON, Skipped, case, check, equal


def verdict(b, *words, user=False):
    result = b.tcpshim("doctor", *words, user=user)
    for line in result.out.splitlines():
        check(len(line) < 80, f"{len(line)} columns: {line}")
    check(result.status in (0, 1), result.err)
    return result


@case("doctor/machine")
def machine(b):
    result = verdict(b)
    equal(result.status, 0, f"as root: {result.out}")
    for word in ("CAP_NET_RAW", "guard of ports", "memory", "laboratories", "library"):
        check(word in result.out, f"nothing about {word}")
    result = verdict(b, user=True)
    equal(result.status, 1, "as a user without CAP_NET_RAW")
    check("cure:" in result.out and "setcap" in result.out, result.out)
    result = verdict(b, "-q")
    equal((result.status, result.out), (0, ""), "quiet, and all is well")


@case("doctor/no-network")
def no_network(b):
    result = b.run("unshare", "-n", b.command, "doctor")
    equal(result.status, 1, "without an interface")
    check("interface" in result.out and "cure:" in result.out, result.out)


@case("doctor/no-keeper")
def no_keeper(b):
    directory = os.path.join(b.directory, "bare")
    os.makedirs(directory, exist_ok=True)
    shutil.copy(b.command, directory)
    result = b.run(f"{directory}/tcpshim", "doctor")
    equal(result.status, 1, "without the library")
    shutil.copy(os.path.join(b.directory, "libtcpshim.so"), directory)
    result = b.run(f"{directory}/tcpshim", "doctor")
    equal(result.status, 0, "without the keeper")
    check("tcpshim-keeper" in result.out, result.out)
    with open(f"{directory}/libtcpshim.so", "w", encoding="ascii") as file:
        file.write("no library")
    equal(b.run(f"{directory}/tcpshim", "doctor").status, 1, "a library that is none")


@case("doctor/memory")
def memory(b):
    result = b.run("sh", "-c", f"ulimit -v 400000; {b.command} doctor")
    equal(result.status, 1, "with little address space")
    check("--mem" in result.out, result.out)


def script(b, name, text):
    path = os.path.join(b.directory, name)
    with open(path, "w", encoding="ascii") as file:
        file.write(text)
    os.chmod(path, 0o755)
    return path


@case("doctor/programs")
def programs(b):
    static = b.compile("static", "int main(void){return 5;}", "-static")
    pie = b.compile("static-pie", "int main(void){return 0;}", "-static-pie", "-fPIE")
    plain = b.compile("plain", "int main(void){return 0;}")
    go = b.compile("like-go", '__attribute__((section(".go.buildinfo"), used)) char b[32]; int main(void){return 0;}')
    ring = b.compile("liburing.so.2", "int io_uring_queue_init(void){return 0;}", "-shared", "-fPIC",
                     "-Wl,-soname,liburing.so.2")
    uring = b.compile("uring", "int io_uring_queue_init(void); int main(void){return io_uring_queue_init();}",
                      ring)
    for name, status, words in (
            (plain, 0, ["dynamically linked"]),
            (PYTHON, 0, ["would work"]),
            (static, 1, ["statically linked", "cure:"]),
            (pie, 1, ["statically linked"]),
            (go, 1, ["Go program"]),
            (uring, 0, ["io_uring"]),
            ("sh", 0, ["found: "]),
            ("no-such-program-here", 1, ["no such program"]),
            ("/etc/passwd", 1, []),
            (script(b, "s1", "#!/bin/sh\ntrue\n"), 0, ["is a script, run by /bin/sh"]),
            (script(b, "s2", "#!/usr/bin/env -S LC_ALL=C cat -n\n"), 0, ["run by /usr/bin/cat"]),
            (script(b, "s3", f"#!{static} x\n"), 1, ["statically linked"]),
            (script(b, "s4", "#!/no/such/interpreter\n"), 1, []),
            (script(b, "s5", "\x7fELF is no program"), 1, [])):
        result = verdict(b, name)
        equal(result.status, status, f"doctor {name}: {result.out}")
        for word in words:
            check(word in " ".join(result.out.split()), f"doctor {name} does not say '{word}': {result.out}")
        run = b.tcpshim("run", "-n", "--", name)
        equal(run.status == 0, status == 0, f"run {name} does not agree: {run.err}")


@case("doctor/privileged-programs", needs=["setcap"])
def privileged(b):
    """Whether the loader really drops LD_PRELOAD is tried with a program that shows its memory."""
    path = os.path.join(b.directory, "cat-caps")
    own = os.path.join(b.directory, "cat-suid")
    shutil.copy("/bin/cat", path)
    shutil.copy("/bin/cat", own)
    os.chmod(own, 0o4755)
    if b.run("setcap", "cap_net_raw+ep", path).status != 0 or os.statvfs(own).f_flag & os.ST_NOSUID:
        raise Skipped("this file system has neither")
    for program, word in ((path, "file capabilities"), (own, "setuid")):
        for user in (True, False):
            result = verdict(b, program, user=user)
            said = word in " ".join(result.out.split())
            loaded = b.run(program, "/proc/self/maps", user=user,
                           env={"LD_PRELOAD": f"{b.directory}/libtcpshim.so"}).out
            equal(said, "libtcpshim.so" not in loaded, f"{program} as {'user' if user else 'root'}")


@case("doctor/broken-programs")
def broken(b):
    """Programs whose headers lie: a verdict, no crash."""
    with open(b.compile("plain", "int main(void){return 0;}"), "rb") as file:
        good = file.read()
    path = os.path.join(b.directory, "broken")
    for i in range(150):
        data = bytearray(good[:] if i % 3 else good[:64 + i * 37 % len(good)])
        for j in range(3):
            at = (i * 131 + j * 977) % min(len(data), 1000 if i % 2 else len(data))
            data[at] = (data[at] + 1 + i) & 255
        with open(path, "wb") as file:
            file.write(data)
        os.chmod(path, 0o755)
        result = b.tcpshim("doctor", path, seconds=20)
        check(result.status in (0, 1), f"number {i}: {result.status} {result.err}")
