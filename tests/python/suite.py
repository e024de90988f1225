#!/usr/bin/python3
"""Runs modules of Python's own test suite and writes what became of each test, a line of JSON each.

    suite.py RESULTS MODULE [--only FILE]

RESULTS gets {"start": id} when a test begins and {"id", "outcome", "text"} when it is over, so that a
process that dies says in which test. FILE has the ids to run, one a line; default: all.
"""

import faulthandler
import json
import os
import sys
import unittest

HANGS = 60  # seconds after which a test is said to hang
# Not TCP, and dependent on the machine: connections to the host of a virtual machine may never end.
LEFT_OUT = ("VSOCK",)


class Recorder(unittest.TestResult):
    def __init__(self, path):
        super().__init__()
        self.out = open(path, "a", encoding="utf-8")
        self.owner = os.getpid()
        self.outcome = {}

    def _write(self, **row):
        if os.getpid() == self.owner:  # a test may fork and run on in the child
            self.out.write(json.dumps(row) + "\n")
            self.out.flush()

    def _set(self, test, outcome, text=""):
        # The first that went wrong stands; a test in several parts (subTest) is one test.
        test = test.test_case if hasattr(test, "test_case") else test
        if self.outcome.get(test.id(), ("ok",))[0] == "ok":
            self.outcome[test.id()] = (outcome, text)

    def startTest(self, test):
        super().startTest(test)
        self._write(start=test.id())
        self.outcome[test.id()] = ("ok", "")
        faulthandler.dump_traceback_later(HANGS, exit=True)

    def stopTest(self, test):
        super().stopTest(test)
        faulthandler.cancel_dump_traceback_later()
        outcome, text = self.outcome.pop(test.id(), ("ok", ""))
        self._write(id=test.id(), outcome=outcome, text=text)

    def addSkip(self, test, reason):
        self._set(test, "skipped", reason)

    def addError(self, test, err):
        text = self._exc_info_to_string(err, test)
        if test.id() in self.outcome or hasattr(test, "test_case"):
            self._set(test, "error", text)
        else:  # of a class or a module, outside every test
            self._write(id=test.id(), outcome="error", text=text)

    def addFailure(self, test, err):
        self._set(test, "failure", self._exc_info_to_string(err, test))

    def addSubTest(self, test, subtest, err):
        if err is not None:
            wrong = "failure" if issubclass(err[0], test.failureException) else "error"
            self._set(test, wrong, self._exc_info_to_string(err, test))

    def addExpectedFailure(self, test, err):
        self._set(test, "expected failure")

    def addUnexpectedSuccess(self, test):
        self._set(test, "unexpected success")


def filtered(suite, only):
    """The same nesting, which fixtures depend on, with the tests of `only` alone (None: all)."""
    kept = unittest.TestSuite()
    for one in suite:
        if isinstance(one, unittest.TestSuite):
            one = filtered(one, only)
            if one.countTestCases():
                kept.addTest(one)
        elif (only is None or one.id() in only) and not any(word in one.id() for word in LEFT_OUT):
            kept.addTest(one)
    return kept


def main():
    results, module = sys.argv[1:3]
    from test import support
    from test.support import os_helper
    support.use_resources = ["network"]  # that of the namespace alone
    with os_helper.temp_cwd(quiet=True):
        only = None
        if sys.argv[3:4] == ["--only"]:
            with open(sys.argv[4], encoding="utf-8") as file:
                only = set(file.read().split("\n"))
        suite = filtered(unittest.defaultTestLoader.loadTestsFromName("test." + module), only)
        recorder = Recorder(results)
        suite.run(recorder)
        recorder._write(end=module)
    support.reap_children()


if __name__ == "__main__":
    main()
