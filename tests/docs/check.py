#!/usr/bin/python3
"""Documents that are made by scripts are what the scripts make now.

Each tests/docs/*.sh writes documents into the directory that it is given; `make docs` gives docs/.
"""

import argparse
import glob
import json
import os
import subprocess
import sys
import tempfile

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


def read(path):
    with open(path, "rb") as file:
        return file.read()


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--build", default=os.path.join(ROOT, "build"))
    build = os.path.abspath(parser.parse_args().build)
    passed = failed = 0
    subprocess.run(["make", "-s", "--no-print-directory", f"BUILD={build}", "docs-programs"], cwd=ROOT, check=True)
    for script in sorted(glob.glob(os.path.join(ROOT, "tests/docs/*.sh"))):
        with tempfile.TemporaryDirectory() as directory:
            subprocess.run([script, build, directory], cwd=ROOT, check=True)
            for name in sorted(os.listdir(directory)):
                there = os.path.join(ROOT, "docs", name)
                good = os.path.exists(there) and read(there) == read(os.path.join(directory, name))
                print(f"{'ok  ' if good else 'FAIL'} docs/{name}{'' if good else ': stale; run make docs'}")
                passed += good
                failed += not good
    import jsonschema
    jsonschema.Draft202012Validator.check_schema(json.load(open(os.path.join(ROOT, "docs/trace.schema.json"))))
    print("ok   docs/trace.schema.json is a schema")
    print(f"docs: {passed + 1} passed, {failed} failed, 0 skipped")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
