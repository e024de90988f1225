"""Sockets that go from one image or process to another: exec, spawn, descriptors in messages."""

from framework import PROGRAMS, PYTHON, case

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
