"""What the programs of docs/calls.md share.

    say(...)   a line of the program's own on the time line of its trace
    sh(CMD)    a command of the onlooker, outside the two hosts' programs (as in another terminal)

By hand: `PYTHONPATH=tests/docs/programs`; sh() then runs the command itself.
"""

import os
import sys
import time


def say(*words):
    """Prints; behind the time where tests/docs/calls.py listens."""
    stamp = f"{time.monotonic():.9f} " if "LESSON" in os.environ else ""
    print(stamp + " ".join(map(str, words)), flush=True)


def sh(command):
    """The onlooker runs the command; returns when it is over."""
    if "LESSON" not in os.environ:
        os.system("env -u LD_PRELOAD " + command)
        return
    say("$ " + command)
    sys.stdin.readline()
