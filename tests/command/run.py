#!/usr/bin/python3
"""Tests of the tcpshim command: each subcommand, from outside.

    run.py --build build [-k WORD...] [--list]

Needs root (network namespaces, file capabilities). Ends with `N passed, N failed, N skipped`.
"""

import argparse
import os
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import framework  # noqa: E402

for module in ("cases_help", "cases_run", "cases_lab", "cases_ss", "cases_doctor",
               "cases_trace", "cases_diagram", "cases_compare"):
    __import__(module)

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
parser.add_argument("--build", default="build")
parser.add_argument("-k", nargs="+", default=[], metavar="WORD", help="cases with this in their names")
parser.add_argument("--list", action="store_true")
options = parser.parse_args()
sys.exit(framework.main(os.path.join(framework.ROOT, options.build), options.k, options.list))
