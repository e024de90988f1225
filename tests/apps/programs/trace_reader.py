"""trace_reader.py LIBRARY COPY never|late GOT URL: curl with a traced stack whose stderr is a pipe.

never: the pipe is not read before curl has ended; late: not for a second. What came goes to COPY.
"""

import os
import subprocess
import sys
import threading
import time

library, copy, when, got, url = sys.argv[1:]
reader, writer = os.pipe()
environment = dict(os.environ, LD_PRELOAD=library, TCPSHIM_TRACE="all", TCPSHIM_TRACE_FORMAT="json")
limit = ["--limit-rate", "40M"] if when == "late" else []
process = subprocess.Popen(["curl", "-sS", "-o", got] + limit + [url], env=environment, stderr=writer)
os.close(writer)


def read():
    with open(copy, "wb") as file:
        while piece := os.read(reader, 65536):
            file.write(piece)


if when == "late":
    time.sleep(1)
    thread = threading.Thread(target=read)
    thread.start()
code = process.wait()
if when == "late":
    thread.join()
else:
    read()
sys.exit(code)
