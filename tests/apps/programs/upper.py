"""A service of inetd: what comes in on stdin goes out on stdout in capital letters."""
import sys

for line in sys.stdin:
    sys.stdout.write(line.upper())
