"""Prints what a URL gives."""
import shutil
import sys
import urllib.request

with urllib.request.urlopen(sys.argv[1], timeout=30) as answer:
    shutil.copyfileobj(answer, sys.stdout.buffer, 1 << 18)
