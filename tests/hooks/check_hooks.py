#!/usr/bin/python3
"""Is every way to a descriptor hooked?

    check_hooks.py [build/libtcpshim.so]

Asks libc's headers for every function with a parameter that is a descriptor (or a set of them), adds
the aliases under which libc exports it (`__name`, `__name_chk`, `name64`, ...), and demands of each
that libtcpshim.so exports it or that not_hooked.txt says why not. Names on that list which libc does
not have or which are hooked after all are errors too, and so is any exported name that is not libc's.
Ends with the line `N passed, N failed, N skipped`.
"""

import os
import re
import subprocess
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
LIST = os.path.join(HERE, "not_hooked.txt")

HEADERS = """
aio.h arpa/inet.h dirent.h fcntl.h ftw.h mqueue.h netdb.h netinet/in.h poll.h pty.h rpc/netdb.h
signal.h spawn.h stdio.h stdlib.h sys/epoll.h sys/eventfd.h sys/fanotify.h sys/file.h sys/inotify.h
sys/ioctl.h sys/mman.h sys/mount.h sys/pidfd.h sys/random.h sys/select.h sys/sendfile.h
sys/signalfd.h sys/socket.h sys/stat.h sys/statfs.h sys/statvfs.h sys/syscall.h sys/time.h
sys/timerfd.h sys/uio.h sys/un.h sys/wait.h sys/xattr.h termios.h unistd.h utime.h utmp.h wchar.h
""".split()

# How glibc and the manual pages call a parameter that is a descriptor.
NAMED = re.compile(
    r"\bint\s+_*(fd\d?|fildes\d?|filedes|fdin|fdout|in_?fd|out_?fd|infd|outfd|oldfd|newfd|epfd|"
    r"dirfd|dfd|fromfd|tofd|from_dfd|to_dfd|oldfd|sockfd|sock|s|d|socket|lowfd|desc|ufd|"
    r"timerfd|inotify_fd|fanotify_fd|pidfd|fd_limit|desfd|low)\s*$"
)
TYPED = re.compile(r"struct\s+pollfd|\bfd_set\b|struct\s+aiocb|struct\s+epoll_event|\bint\s*\*?\s*_*(fds|fildes|pipedes)\b")

# Take a descriptor, but under no name that says so; or make one out of nothing.
UNNAMED = ["socket", "syscall", "close_range", "closefrom", "epoll_create", "epoll_create1"]


def run(*argv):
    return subprocess.run(argv, check=True, capture_output=True, text=True).stdout


def libc_path():
    for line in run("ldd", "/bin/sh").splitlines():
        if "libc.so" in line:
            return line.split()[2]
    raise SystemExit("check_hooks: /bin/sh does not use libc.so")


def exported(path, private=False):
    """Functions that a shared object exports."""
    names = set()
    for line in run("nm", "-D", "--defined-only", path).splitlines():
        kind, name = line.split()[-2:]
        if kind not in "TWi" or ("GLIBC_PRIVATE" in name and not private):
            continue
        names.add(name.split("@")[0])
    return names


def prototypes():
    """{name: parameter list} of everything that the headers declare."""
    present = [h for h in HEADERS if os.path.exists(f"/usr/include/{h}")
               or os.path.exists(f"/usr/include/x86_64-linux-gnu/{h}")]
    source = "".join(f"#include <{h}>\n" for h in present)
    text = subprocess.run(
        ["gcc", "-E", "-P", "-O2", "-D_GNU_SOURCE", "-D_FORTIFY_SOURCE=2", "-x", "c", "-"],
        input=source, check=True, capture_output=True, text=True).stdout
    text = re.sub(r"__attribute__\s*\(\((?:[^()]|\((?:[^()]|\([^()]*\))*\))*\)\)", " ", text)
    text = re.sub(r"__asm__\s*\((?:[^()]|\([^()]*\))*\)", " ", text)
    found = {}
    for name, params in re.findall(r"\b(\w+)\s*\(((?:[^();{}]|\([^();{}]*\))*)\)\s*(?=[;{])", text):
        found.setdefault(name, params)
    return found


def takes_descriptor(params):
    return TYPED.search(params) or any(NAMED.search(p.strip()) for p in params.split(","))


def aliases(name):
    """Names under which the same function may be exported as well."""
    base = name.strip("_")
    for stem in {name, base}:
        yield from (stem, f"__{stem}", f"__{stem}_chk", f"{stem}64", f"__{stem}64",
                    f"__{stem}64_chk", f"_IO_{stem}")
        if stem.endswith("64"):
            yield from aliases(stem[:-2])


def concerned(libc):
    names = set(UNNAMED)
    for name, params in prototypes().items():
        if takes_descriptor(params):
            names.add(name)
    return {alias for name in names for alias in aliases(name)} & libc


def reasons():
    listed = {}
    with open(LIST, encoding="utf-8") as file:
        for number, line in enumerate(file, 1):
            line = line.split("#", 1)[0].strip()
            if not line:
                continue
            name, _, why = line.partition(" ")
            if not why.strip():
                raise SystemExit(f"{LIST}:{number}: {name} has no reason")
            listed[name] = why.strip()
    return listed


def main():
    shim_path = sys.argv[1] if len(sys.argv) > 1 else os.path.join(HERE, "../../build/libtcpshim.so")
    libc, shim = exported(libc_path()), exported(shim_path)
    listed, wanted = reasons(), concerned(libc)
    problems = []
    for name in sorted(wanted - shim - set(listed)):
        problems.append(f"{name}: takes a descriptor, is neither hooked nor in not_hooked.txt")
    for name in sorted(shim - libc):
        problems.append(f"{name}: exported, but not a name of libc")
    for name in sorted(set(listed) & shim):
        problems.append(f"{name}: hooked, and in not_hooked.txt")
    for name in sorted(set(listed) - libc):
        problems.append(f"{name}: in not_hooked.txt, but libc has no such function")
    for name in sorted((set(listed) & libc) - wanted - shim):
        problems.append(f"{name}: in not_hooked.txt, but nothing says that it takes a descriptor")
    for problem in problems:
        print(f"check_hooks: {problem}")
    checked = len(wanted | set(listed) | shim)
    print(f"{checked - len(problems)} passed, {len(problems)} failed, 0 skipped")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
