"""Runs all of it, and says what differs."""

import argparse
import contextlib
import pathlib
import random
import subprocess
import time

from . import differences, mailboxes
from .servers import REFUSED, Server, debians, ours

TESTS = pathlib.Path(__file__).resolve().parent.parent


def main():
    """Returns the exit status."""
    options = _options()
    passed, failed, started = 0, 0, time.monotonic()
    with contextlib.ExitStack() as stack:
        our = Server(options.root) if options.root else stack.enter_context(ours(options.deb or _package()))
        debian = stack.enter_context(debians())
        for name, case in _cases(options):
            if options.names and not any(name.startswith(wanted) for wanted in options.names):
                continue
            problem = _problem(case, our, debian)
            passed, failed = passed + (not problem), failed + bool(problem)
            if problem:
                print(f"{name}: {problem}", flush=True)
    print(f"both servers asked about {passed + failed} mailboxes in {time.monotonic() - started:.0f} s")
    print(f"{passed} passed, {failed} failed", flush=True)
    return 1 if failed or not passed else 0


def _options():
    parser = argparse.ArgumentParser(prog="tests/differential/run")
    parser.add_argument("--root", help="a Debian root with our package installed; its users and mail are changed")
    parser.add_argument("--deb", help="our package, to be installed in a throwaway root (default: build it)")
    parser.add_argument("--count", type=int, default=600, help="how many mailboxes to generate")
    parser.add_argument("--seed", type=int, default=1, help="the first of them")
    parser.add_argument("names", nargs="*", metavar="NAME", help="run only cases whose names begin so")
    return parser.parse_args()


def _package():
    built = subprocess.run([TESTS / "package"], check=True, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
    return built.stdout.decode().splitlines()[-1]


def _cases(options):
    """Names, and functions that yield mailbox, expected and actual answers."""
    for name, mailbox in mailboxes.by_hand():
        yield name, _same(mailbox, random.Random(name))
    for difference in differences.ALL:
        yield f"difference-{difference.__name__}", _named(difference)
    for seed in range(options.seed, options.seed + options.count):
        yield f"generated-{seed}", _same(mailboxes.generated(seed), random.Random(seed))


def _same(mailbox, choice):
    def case(our, debian):
        deleted = ()
        theirs = debian.serve(mailbox)
        if theirs != REFUSED:
            numbers = range(1, len(theirs.sizes) + 1)
            deleted = tuple(n for n in numbers if choice.random() < choice.choice((0, 0.1, 0.5, 1)))
            if deleted:
                theirs = debian.serve(mailbox, deleted)
        yield differences.with_ids_made_unique(theirs, mailbox), our.serve(mailbox, deleted)
    return case


def _named(difference):
    def case(our, debian):
        for mailbox, deleted, expected in difference(debian):
            yield expected, our.serve(mailbox, deleted)
            if not deleted:  # Ids have to be the same in the next session, too.
                yield expected, our.serve(mailbox, keep_ids=True)
    return case


def _problem(case, our, debian):
    """What is wrong, or None."""
    try:
        for expected, actual in case(our, debian):
            if expected != actual:
                return _described(expected, actual)
    except (AssertionError, OSError, ValueError, IndexError, subprocess.SubprocessError) as error:
        said = our.errors.read_text(errors="replace")[-500:] if our.errors.exists() else ""
        return f"{type(error).__name__}: {error} {said}"
    return None


def _described(expected, actual):
    if REFUSED in (expected, actual):
        return f"expected {_shortened(expected)}, got {_shortened(actual)}"
    return "; ".join(
        f"{field}: expected {_shortened(wanted, found)}, got {_shortened(found, wanted)}"
        for field, wanted in vars(expected).items()
        for found in [getattr(actual, field)] if wanted != found
    )


def _shortened(value, other=None):
    """VALUE from a little before where it starts to differ from OTHER."""
    if isinstance(value, list) and isinstance(other, list):
        for number, pair in enumerate(zip(value, other)):
            if pair[0] != pair[1]:
                return f"of message {number + 1} {_shortened(*pair)}"
        return f"{len(value)} values"
    if isinstance(value, dict) and isinstance(other, dict):
        for key in value:
            if value[key] != other.get(key):
                return f"for {key} {_shortened(value[key], other.get(key))}"
        return f"{len(value)} values"
    if isinstance(value, bytes) and isinstance(other, bytes):
        at = next((n for n, pair in enumerate(zip(value, other)) if pair[0] != pair[1]), min(len(value), len(other)))
        return f"…{value[max(at - 40, 0):at + 60]!r} at {at}"
    return repr(value)[:300]


