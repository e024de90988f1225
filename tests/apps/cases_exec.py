"""Sockets that go from one image or process to another: exec, spawn, descriptors in messages."""

import os
import shutil

from framework import PROGRAMS, PYTHON, case, find_program

PORT = 9000
IMAGES = f"{PROGRAMS}/images.py"


@case("exec-image", pairings=("KU",),
      sizes=("exec", "failing", "clean", "pass_fds", "keep_fds", "posix_spawn", "system", "popen",
             "fork-exec"))
def exec_image(run):
    """A connection goes to another image by every way there is; every byte comes from that one."""
    wanted = run.data.path("1M")
    server = run.server([PYTHON, IMAGES, run.size, PORT, wanted], PORT)
    begin = run.write("begin", "begin")
    run.client(["socat", "-t", "10", "-,ignoreeof", f"TCP:{run.server_addr}:{PORT}"], stdin=begin, same=wanted)
    server.wait()


@case("rights", pairings=("KU",), sizes=tuple(f"{when}-{what}" for when in ("after", "before", "exec")
                                              for what in ("connection", "listener")))
def rights(run):
    """A socket goes to another process in a message; that process serves it, the first one closes it."""
    wanted = run.data.path("1M")
    server = run.server([PYTHON, f"{PROGRAMS}/rights.py", *run.size.split("-"), PORT, wanted], PORT,
                        env={"PEER": run.lab.b.addr})
    begin = run.write("begin", "begin")
    run.client(["socat", "-t", "10", "-,ignoreeof", f"TCP:{run.server_addr}:{PORT}"], stdin=begin,
               same=wanted)
    server.wait()


@case("rights-handed", pairings=("KU",), sizes=("-",))
def rights_handed(run):
    """Connections go to a worker with a clean environment, who is another user by then (as dovecot's)."""
    wanted = run.data.path("1M")
    server = run.server([PYTHON, f"{PROGRAMS}/handed.py", PORT, wanted], PORT)
    begin = run.write("begin", "begin")
    for _ in range(3):
        run.client(["socat", "-t", "10", "-,ignoreeof", f"TCP:{run.server_addr}:{PORT}"], stdin=begin, same=wanted)
    server.wait()


def exchange(run, wanted):
    """Sends the file and compares what comes back."""
    run.client(["socat", "-t", "10", f"TCP:{run.server_addr}:{PORT}", "STDIO"], stdin=run.file(), same=wanted)


def upper_case(run):
    with open(run.data.path("1M"), "rb") as file:
        text = file.read()
    wanted = run.path("wanted")
    with open(wanted, "wb") as upper:
        upper.write(text.translate(bytes(range(97)) + bytes(range(65, 91)) + bytes(range(123, 256))))
    return wanted


def exec_program(run, program):
    """socat becomes the program, with the connection as its standard input and output."""
    server = run.server(["socat", f"TCP-LISTEN:{PORT},reuseaddr", f"EXEC:{program},nofork"], PORT)
    run.client(["socat", "-t", "10", f"TCP:{run.server_addr}:{PORT}", "STDIO"], stdin=run.data.path("1M"),
               same=upper_case(run))
    return server


@case("socat-nofork", sizes=("1M",), needs=("socat", "tr"))
def socat_nofork(run):
    """The image of a program that uses stdio."""
    exec_program(run, "tr a-z A-Z").wait()


@case("stdio-dup", pairings=("KU",), sizes=("dup", "dup2", "fcntl"), needs=("gcc",))
def stdio_dup(run):
    """A program that puts a connection in the place of its standard input and output, and prints."""
    program = run.path("standard")
    run.client(["gcc", "-O1", "-o", program, f"{PROGRAMS}/standard.c"], user=False, role="gcc")
    lines = run.write("lines", "".join(f"line {n} of the text\n" for n in range(20000)))
    wanted = run.write("wanted", "printed before\n" + "".join(f"LINE {n} OF THE TEXT\n" for n in range(20000)))
    server = run.server([program, PORT, run.size], PORT)
    run.client(["socat", "-t", "10", f"TCP:{run.server_addr}:{PORT}", "STDIO"], stdin=lines, same=wanted)
    server.wait()


@case("relay", pairings=("KU",), sizes=("static", "setuid", "early-close"), needs=("socat", "gcc", "tr"))
def relay(run):
    """Images that LD_PRELOAD does not reach: their bytes are carried. They see no child."""
    program = run.path("upper")
    if run.size == "setuid":
        shutil.copy(find_program("tr"), program)
        os.chown(program, 65534, -1)
        os.chmod(program, 0o4755)
        os.chmod(run.directory, 0o755)
        exec_program(run, program + " a-z A-Z").wait()
    else:
        run.client(["gcc", "-static", "-O1", "-o", program, f"{PROGRAMS}/upper.c"], user=False, role="gcc")
        if run.size == "static":
            exec_program(run, program).wait()
            return
        # The client leaves in the middle: the program ends, and so does the relay.
        server = run.server(["socat", f"TCP-LISTEN:{PORT},reuseaddr", f"EXEC:{program},nofork"], PORT)
        run.client(["socat", "-u", "/dev/null", f"TCP:{run.server_addr}:{PORT}"])
        server.wait()


@case("relay-busybox", pairings=("KU",), sizes=("filter", "wget"), needs=("socat", "busybox", "nc"))
def relay_busybox(run):
    """Debian's static busybox behind a user socket; its wget fetches from the kernel and prints into it."""
    busybox = find_program("busybox")
    if run.size == "filter":
        exec_program(run, f"{busybox} tr a-z A-Z").wait()
        return
    wanted = run.data.path("1M")
    web = run.server([PYTHON, "-m", "http.server", "--bind", "127.0.0.1", "--directory", os.path.dirname(wanted), PORT + 1],
                     PORT + 1, role="web", user=False)
    fetch = f"{busybox} wget -q -O - http\\://127.0.0.1\\:{PORT + 1}/1M"
    server = run.server(["socat", f"TCP-LISTEN:{PORT},reuseaddr", f"EXEC:{fetch},nofork"], PORT)
    run.client(["nc", "-d", run.server_addr, PORT], same=wanted)
    server.wait()
    web.stop(codes=(-15,))


@case("inetd", sizes=("-",), needs=("inetd", "git", "nc"))
def inetd(run):
    """openbsd-inetd with two services: one child for each connection, by exec."""
    program = find_program("inetd")
    seed = run.path("seed")
    quiet = {"GIT_CONFIG_GLOBAL": "/dev/null", "GIT_CONFIG_SYSTEM": "/dev/null", "HOME": run.directory}
    for argv in (["git", "init", "-q", seed],
                 ["git", "-C", seed, "-c", "user.name=t", "-c", "user.email=t@t", "commit", "-q",
                  "--allow-empty", "-m", "first"]):
        run.client(argv, user=False, role="git", env=quiet)
    git = f"git daemon --inetd --export-all --base-path={run.directory}"
    config = run.write("inetd.conf", f"9000 stream tcp nowait root /usr/bin/git {git}\n"
                                     f"9001 stream tcp nowait root /bin/cat cat\n")
    server = run.server([program, "-i", config], PORT, env=quiet)
    for number in range(2):
        run.client(["git", "clone", "-q", f"git://{run.server_addr}:{PORT}/seed", run.path(f"copy{number}")],
                   env=quiet, role="clone")
        run.check(os.path.isdir(run.path(f"copy{number}", ".git")), "nothing was cloned")
    run.client(["nc", "-N", run.server_addr, "9001"], stdin=run.data.path("1M"), same=run.data.path("1M"))
    server.stop()


@case("against-kernel", pairings=("KU",), sizes=("threads", "family", "leader", "limits", "sets"), needs=("gcc",))
def against_kernel(run):
    """Threads, or processes, against each other on the sockets that they share; main threads that end
    before others; limits reached: the same results as on the kernel's."""
    program = run.path(run.size)
    run.client(["gcc", "-O1", "-pthread", "-o", program, f"{PROGRAMS}/{run.size}.c"], user=False, role="gcc")
    run.resets_allowed.update("ab")
    outputs = [run.client([program], role=role, host=run.server_host, user=user,
                          shim={"TCPSHIM_LOOPBACK": "user"}).stdout()
               for role, user in (("kernel", False), ("server", True))]
    for kernel, user in zip(*(text.splitlines() for text in outputs)):
        run.check(kernel == user, f"kernel: {kernel}; user: {user}")
    run.check(outputs[0] == outputs[1] and len(outputs[0].splitlines()) >= 9, outputs[1][-200:])


@case("copies", pairings=("U-",), sizes=("-",), needs=("gcc",))
def copies(run):
    """Large transfers inside the arena: many at once, a writer killed, a reset, a bad pointer in the middle."""
    program = run.path("copies")
    run.client(["gcc", "-O1", "-pthread", "-o", program, f"{PROGRAMS}/copies.c"], user=False, role="gcc")
    said = run.client([program], shim={"TCPSHIM_LOOPBACK": "user"}).stdout()
    run.check(said == "well\n", said)


@case("own-sigaction", pairings=("UK",), sizes=("-",), needs=("gcc",))
def own_sigaction(run):
    """A hook that calls another does not meet what the program defines by that name."""
    program = run.path("own_sigaction")
    run.client(["gcc", "-O1", "-o", program, f"{PROGRAMS}/own_sigaction.c"], user=False, role="gcc")
    said = run.client([program], engine=False).stdout()
    run.check(said == "1\n", said)


@case("io-uring", pairings=("KU",), sizes=("deny", "allow"), kernel=False)
def io_uring(run):
    """Programs find no io_uring, so that they take epoll; a variable lifts that."""
    script = ("import ctypes, errno; libc = ctypes.CDLL(None, use_errno=True); "
              "libc.syscall(425, 0, None); print(errno.errorcode[ctypes.get_errno()])")
    said = run.client([PYTHON, "-c", script], user=True, engine=False,
                      shim={"TCPSHIM_IO_URING": run.size}).stdout().strip()
    run.check((said == "ENOSYS") == (run.size == "deny"), said)
