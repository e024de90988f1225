"""trace_reader.py LIBRARY COPY never|late GOT URL: an HTTP client with a traced stack, whose stderr is a pipe.

Its small requests make far more events than pipe and buffer hold. never: the pipe is not read before
the client has ended; late: when it has made them all, and then it makes some more. What came through
the pipe goes to COPY, the last answer to GOT.
"""

import http.client
import os
import subprocess
import sys
import threading
import urllib.parse

MANY, MORE = 800, 20


def client(got, url):
    where = urllib.parse.urlsplit(url)
    server = http.client.HTTPConnection(where.hostname, where.port or 80)

    def get(path):
        server.request("GET", path)
        return server.getresponse().read()

    for _ in range(MANY):
        assert len(get("/1B")) == 1
    print("many", flush=True)
    sys.stdin.readline()
    for _ in range(MORE):
        assert len(get("/1B")) == 1
    with open(got, "wb") as file:
        file.write(get(where.path))


def main(library, copy, when, got, url):
    reader, writer = os.pipe()
    environment = dict(os.environ, LD_PRELOAD=library, TCPSHIM_TRACE="all", TCPSHIM_TRACE_FORMAT="json")
    process = subprocess.Popen([sys.executable, __file__, got, url], env=environment, stderr=writer,
                               stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    os.close(writer)

    def read():
        with open(copy, "wb") as file:
            while piece := os.read(reader, 65536):
                file.write(piece)
                if file.tell() > 40000:
                    room.set()  # most of what a pipe holds
        room.set()

    assert process.stdout.readline() == b"many\n"
    room = threading.Event()
    thread = threading.Thread(target=read)
    if when == "late":
        thread.start()
        room.wait()
    process.stdin.close()
    code = process.wait()
    if when == "never":
        thread.start()
    thread.join()
    return code


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]) if len(sys.argv) > 3 else client(*sys.argv[1:]))
