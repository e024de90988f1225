"""Stores: redis with its client and its benchmark, memcached."""

import re

from framework import PROGRAMS, PYTHON, case


def start_redis(run):
    return run.server(["redis-server", "--port", "6379", "--bind", "0.0.0.0", "--protected-mode", "no",
                       "--save", "", "--appendonly", "no", "--dir", run.directory], 6379)


@case("redis-cli", needs=("redis-server", "redis-cli"), table=("redis-server", "redis-cli"))
def redis_cli(run):
    server = start_redis(run)
    cli = ["redis-cli", "-h", run.server_addr, "--raw"]
    wanted = run.path("wanted")
    with open(run.file(), "rb") as file, open(wanted, "wb") as out:
        out.write(file.read() + b"\n")  # the client ends what it prints with a newline
    answer = run.client(cli + ["-x", "SET", "key"], stdin=run.file()).stdout()
    run.check(answer.strip() == "OK", f"SET answered {answer!r}")
    run.client(cli + ["GET", "key"], same=wanted)
    server.stop()


@case("redis-benchmark", sizes=("plain", "pipelined", "threads"),
      needs=("redis-server", "redis-benchmark"),
      table=("redis-server", "redis-benchmark"))
def redis_benchmark(run):
    server = start_redis(run)
    flags = {"plain": [], "pipelined": ["-P", "16"], "threads": ["--threads", "2"]}[run.size]
    # Clients that still wait for an answer when the last one is counted are closed as they are.
    run.resets_allowed = {"b"}
    client = run.client(["redis-benchmark", "-h", run.server_addr, "-n", "5000", "-c", "20", "-q",
                         "-t", "ping_inline,set,get,lrange_100"] + flags)
    text = client.stdout() + client.stderr()
    run.check(len(re.findall(r"requests per second", text)) >= 4, "not all tests ran")
    run.check("rror" not in text, "an error was reported")
    server.stop()


@case("memcached", needs=("memcached",), table=("memcached", "python3"))
def memcached(run):
    server = run.server(["memcached", "-u", "root", "-l", "0.0.0.0", "-p", "11211", "-U", "0",
                         "-I", "8m", "-m", "64"], 11211)
    run.client([PYTHON, f"{PROGRAMS}/memcached_client.py", run.server_addr, "11211", run.file()])
    server.stop()
