"""Help texts, the manual page, completions, installation."""

import os
import re
import subprocess

from framework import ROOT, Failed, case, check, equal


def subcommands(b):
    text = b.must("--help").out
    names = re.findall(r"^  (\w+) +\w", text[text.index("Commands:"):text.index("Options:")], re.M)
    names = [n for n in names if n != "tcpshim"]
    check(len(names) >= 6, f"only {names}")
    return names


@case("help/width")
def width(b):
    texts = {"": b.must("--help").out}
    for name in subcommands(b):
        texts[name] = b.must(name, "--help").out
        equal(b.must("help", name).out, texts[name], f"help {name}")
        equal(b.must(name, "-h").out, texts[name], f"{name} -h")
        check(texts[name].startswith("usage: tcpshim " + name), f"{name} --help does not begin so")
        check("Examples:" in texts[name], f"{name} --help has no examples")
    for name, text in texts.items():
        for line in text.splitlines():
            check(len(line) < 80, f"{name} --help: {len(line)} columns: {line}")
            check(line == line.rstrip(), f"{name} --help: blanks at the end: {line!r}")
        check("\033" not in text, f"{name} --help: colours, and this is no terminal")


@case("help/terminal", needs=["script"])
def terminal(b):
    """Colours on a terminal, none where NO_COLOR says so or TERM is dumb."""
    def on(**env):
        return b.run("script", "-qec", f"{b.command} --help", "/dev/null", env={"TERM": "xterm", **env}).out

    check("\033[1m" in on(), "no colours on a terminal")
    check("\033" not in on(NO_COLOR="1"), "colours in spite of NO_COLOR")
    check("\033" not in on(TERM="dumb"), "colours on a dumb terminal")


@case("help/statuses")
def statuses(b):
    check(re.fullmatch(r"tcpshim [\d.]+\n", b.must("--version").out), "--version")
    for words in ([], ["nosuch"], ["--nosuch"], ["ss", "--nosuch"], ["ss", "-Z"], ["run"],
                  ["run", "--mem"], ["lab"], ["lab", "nosuch"], ["help", "nosuch"],
                  ["ss", "--port", "70000"], ["ss", "--state", "open"], ["ss", "word"],
                  ["lab", "up", "--delay", "never"], ["lab", "up", "--loss", "101%"],
                  ["lab", "set"], ["lab", "up", "a"], ["ss", "--all=1"], ["run", "--mem", "1", "true"]):
        result = b.tcpshim(*words)
        equal(result.status, 2, f"status of tcpshim {' '.join(words)}")
        equal(result.out, "", f"stdout of tcpshim {' '.join(words)}")
        check(result.err.startswith("tcpshim") or not words, f"{words}: {result.err}")
    with open("/dev/full", "w", encoding="ascii") as full:
        process = subprocess.run([b.command, "--help"], stdout=full, stderr=subprocess.PIPE)
        equal(process.returncode, 3, "status when the output cannot be written")


@case("man/current")
def current(b):
    with open(os.path.join(ROOT, "docs", "tcpshim.1"), encoding="utf-8") as file:
        check(file.read() == b.must("--generate", "man").out,
              "docs/tcpshim.1 is stale: run make docs")


@case("man/lint", needs=["mandoc"])
def lint(b):
    result = b.run("mandoc", "-Tlint", "-Wstyle", os.path.join(ROOT, "docs", "tcpshim.1"))
    equal((result.status, result.out), (0, ""), "mandoc")
    for name in subcommands(b):
        check(f".SS tcpshim {name}\n" in b.must("--generate", "man").out, f"{name} is not in the page")


@case("completion/bash")
def bash(b):
    script = b.must("--generate", "bash").out
    path = os.path.join(b.directory, "completion")
    with open(path, "w", encoding="utf-8") as file:
        file.write(script)

    def complete(*words):
        text = (f". {path}; COMP_WORDS=(\"$@\"); COMP_CWORD=$(($#-1)); _tcpshim; "
                "printf '%s\\n' \"${COMPREPLY[@]}\"")
        result = b.run("bash", "-c", text, "bash", *words)
        equal(result.err, "", f"completion of {words}")
        return set(result.out.split())

    check(set(subcommands(b)) <= complete("tcpshim", ""), "a subcommand is missing")
    equal(complete("tcpshim", "do"), {"doctor"}, "tcpshim do")
    equal(complete("tcpshim", "run", "--trace-fo"), {"--trace-format"}, "--trace-fo")
    equal(complete("tcpshim", "lab", "s"), {"shell", "set"}, "lab s")
    equal(complete("tcpshim", "lab", "up", "--del"), {"--delay"}, "lab up --del")
    equal(complete("tcpshim", "run", "--trace-file", "/etc/hostn"), {"/etc/hostname"}, "a file")
    equal(complete("tcpshim", "run", "--", "mkfif"), {"mkfifo"}, "a command")
    equal(complete("tcpshim", "run", "--mem", "m"), set(), "a value")
    for name in subcommands(b):
        text = b.must(name, "--help").out.split("\nExamples:")[0]
        wanted = set(re.findall(r"^  (?:-\w, |    )(--[\w-]+)(?: \S+)?(?:  |$)", text, re.M))
        equal(complete("tcpshim", name, "--"), wanted, f"options of {name}")


@case("completion/zsh", needs=["zsh"])
def zsh(b):
    path = os.path.join(b.directory, "_tcpshim")
    with open(path, "w", encoding="utf-8") as file:
        file.write(b.must("--generate", "zsh").out)
    result = b.run("zsh", "-n", path)
    equal((result.status, result.err), (0, ""), "zsh -n")


@case("install", needs=["make"])
def install(b):
    to = os.path.join(b.directory, "installed")
    flags = {k: "" for k in ("MAKEFLAGS", "MFLAGS", "MAKELEVEL")}
    result = b.run("make", "-s", "-C", ROOT, f"BUILD={b.build}", f"DESTDIR={to}", "PREFIX=/usr",
                   "install", env=flags, seconds=300)
    equal(result.status, 0, f"make install: {result.err}")
    found = {os.path.relpath(os.path.join(d, f), to) for d, _, files in os.walk(to) for f in files}
    equal(found, {"usr/bin/tcpshim", "usr/lib/tcpshim/libtcpshim.so", "usr/lib/tcpshim/tcpshim-keeper", "usr/lib/tcpshim/tcpshim-relay",
                  "usr/share/man/man1/tcpshim.1", "usr/share/bash-completion/completions/tcpshim",
                  "usr/share/zsh/site-functions/_tcpshim"}, "installed files")
    line = b.run(f"{to}/usr/bin/tcpshim", "run", "-n", "--", "true").out
    equal(line, f"LD_PRELOAD={to}/usr/lib/tcpshim/libtcpshim.so true\n", "what it runs")


@case("readme/variables")
def readme(b):
    """Each option of run that sets a variable has its row in README.md."""
    with open(os.path.join(ROOT, "README.md"), encoding="utf-8") as file:
        text = file.read()
    with open(os.path.join(ROOT, "shim", "core", "config.h"), encoding="utf-8") as file:
        listing = file.read()
    names = re.findall(r"^    X\(([A-Z_]+), ", listing, re.M)
    check(len(names) >= 12, f"the list of variables: {names}")
    missing = [n for n in names if f"TCPSHIM_{n}" not in text]
    if missing:
        raise Failed(f"README.md does not mention {missing}")


