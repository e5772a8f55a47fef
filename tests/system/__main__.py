"""python3 -m system RELEASE DEB [TEST...]: runs the tests (of which TESTs name some) on one host."""

import signal
import sys
import time
import unittest

from host import RELEASES, Host

from . import case


class Result(unittest.TextTestResult):
    """Says each test's name and time: what is slow should be seen."""

    def startTest(self, test):
        self._started = time.monotonic()
        super().startTest(test)

    def addSuccess(self, test):
        unittest.TestResult.addSuccess(self, test)
        self.stream.writeln(f"ok ({time.monotonic() - self._started:.1f} s)")


def main(release, deb, *names):
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    loader = unittest.defaultTestLoader
    suite = (loader.loadTestsFromNames([f"system.{name}" for name in names]) if names
             else loader.discover("system", top_level_dir="."))
    case.DEB, case.RELEASE = deb, release
    with Host(release, layers=("clients",), deb=deb) as host:
        host.run("systemctl", "enable", "--now", "popa3d.socket", "popa3ds.socket")
        case.HOST = host
        result = unittest.TextTestRunner(stream=sys.stdout, verbosity=2, resultclass=Result).run(suite)
    if not result.testsRun:
        print("no test ran")
    # A test with several failed parts is one failed test.
    failed = len({str(getattr(test, "test_case", test)) for test, _ in result.failures + result.errors})
    skipped = len(result.skipped)
    print(f"Debian {RELEASES[release]}: {result.testsRun - failed - skipped} passed, {failed} failed, "
          f"{skipped} skipped", flush=True)
    return 1 if failed or not result.testsRun else 0


sys.exit(main(*sys.argv[1:]))
