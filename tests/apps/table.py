"""docs/applications.md, from one run of the cases that name their programs."""

import os
import platform
import re
import subprocess

import framework

ROLES = (("server", "KU", 0), ("client", "UK", 1), ("both ends", "UU", None))
# Where the program is not named as its file.
FILES = {"apache2": "apache2", "postgresql": "/usr/lib/postgresql/15/bin/postgres",
         "psql": "/usr/lib/postgresql/15/bin/psql", "redis": "redis-server", "openbsd-inetd": "inetd",
         "php-fpm": "php-fpm8.2", "mariadb": "mariadbd", "aria2": "aria2c", "java": "javac"}

HEAD = """# Applications

Made by `make docs-applications`; do not edit. Unmodified programs of Debian {debian} (Linux {kernel}), each of them
as server, as client and at both ends of connections between two hosts in network namespaces. The result is
that of the test: bytes compared, no reset by the kernel, no request lost. The times are those that the clients
took, from start to exit, in one run of this table: they say what to expect,
not which stack is faster (`make bench` does).

| program | version | role | with | what | result | kernel | user |
|---|---|---|---|---|---|---|---|
"""


def version(name, known={}):
    """Of the package that has the program; by its first word."""
    word = re.split(r"[, ]", name)[0]
    if word not in known:
        path = FILES.get(word, word)
        path = os.path.realpath(path if "/" in path else framework.find_program(path) or "/")
        # Debian 12 lists some files under the directory that /usr replaced.
        for guess in (path, path.removeprefix("/usr")):
            owner = subprocess.run(["dpkg-query", "-S", guess], capture_output=True, text=True).stdout
            if owner:
                break
        package = owner.split(":")[0]
        text = subprocess.run(["dpkg-query", "-W", "-f", "${Version}", package], capture_output=True, text=True).stdout
        known[word] = re.sub(r"^\d+:|[-+].*$", "", text) or "?"
    return known[word]


def shown(measured):
    if measured is None:
        return ""
    seconds, note = measured
    return note or f"{seconds:.2f} s"


def rows(chosen, measured):
    done = set()
    for _, one, _, size in chosen:
        if (one.name, size) in done:
            continue
        done.add((one.name, size))
        kernel = measured.get(f"{one.name}/KK/{size}")
        for role, pairing, side in ROLES:
            if pairing not in one.pairings:
                continue
            user = measured.get(f"{one.name}/{pairing}/{size}")
            server, client = one.table
            program = one.table[side] if side is not None else server
            peer = one.table[1 - side] if side is not None else client
            yield (program, version(program), role, peer, f"{one.name} {size}".rstrip(" -"),
                   "works" if user else "fails", shown(kernel), shown(user))


def write(path, chosen, measured):
    with open("/etc/os-release", encoding="utf-8") as file:
        debian = re.search(r'^VERSION_ID="?(\w+)', file.read(), re.M)
    found = sorted(rows(chosen, measured), key=lambda row: (row[0].lower(), row[4], row[2]))
    with open(path, "w", encoding="utf-8") as out:
        out.write(HEAD.format(debian=debian.group(1) if debian else "?", kernel=".".join(platform.release().split(".")[:2])))
        for row in found:
            out.write("| " + " | ".join(row) + " |\n")
        out.write("\nmosh speaks UDP and is left alone: its traffic is the kernel's.\n")
