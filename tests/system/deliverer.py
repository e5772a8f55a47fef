"""Numbered messages, and a program that delivers them: imported by tests, run by itself in the host.

usage: deliverer.py MAILBOX FIRST PAUSE LOG

Appends the messages FIRST, FIRST + 1, and so on until SIGTERM, PAUSE seconds apart, as an MTA does that
respects fcntl locks and dotlocks: both, or none and try again. Numbers of messages that are in the mailbox
go to LOG before it is unlocked.
"""

import base64
import contextlib
import fcntl
import os
import random
import re
import signal
import sys
import time

LARGEST = 128 << 10

# Text that repeats nowhere: a piece of a message is at its right place or the message differs.
_POOL = base64.encodebytes(random.Random(3).randbytes(2 << 20))
_BEGINNING = re.compile(rb"From deliverer@example\.org Mon Nov  2 09:00:00 2026\nX-Number: (\d+)\n")


def stored(number):
    """The message with this number as it is in an mbox."""
    chosen = random.Random(number)
    length = chosen.randrange(1, LARGEST)
    start = chosen.randrange(len(_POOL) - length)
    return (b"From deliverer@example.org Mon Nov  2 09:00:00 2026\nX-Number: %d\nSubject: message\n\n" % number
            + _POOL[start:start + length] + b"\n\n")


def numbers_in(mailbox):
    """The numbers of the messages in MAILBOX (bytes or a map of them), or None if it holds anything but
    whole messages."""
    found, place = [], 0
    while place < len(mailbox):
        beginning = _BEGINNING.match(mailbox, place)
        if not beginning:
            return None
        message = stored(int(beginning[1]))
        if mailbox[place:place + len(message)] != message:
            return None
        found.append(int(beginning[1]))
        place += len(message)
    return found


@contextlib.contextmanager
def _locked(path):
    """The mailbox, open to append, with both locks held."""
    dotlock = f"{path}.lock"
    while True:
        with open(path, "ab", buffering=0) as mailbox:
            with contextlib.suppress(BlockingIOError):
                fcntl.lockf(mailbox, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if _make(dotlock):
                    try:
                        yield mailbox
                    finally:
                        os.unlink(dotlock)
                    return
        time.sleep(0.005)


def _make(dotlock):
    """Whether we made the lock file. One of a dead process goes, as liblockfile does it."""
    own = f"{dotlock}.{os.getpid()}"
    with open(own, "w", encoding="ascii") as file:
        file.write(f"{os.getpid()}\n")
    try:
        os.link(own, dotlock)
        return True
    except FileExistsError:
        with contextlib.suppress(FileNotFoundError):
            try:
                with open(dotlock, encoding="ascii") as file:
                    os.kill(int(file.read()), 0)
            except ProcessLookupError:
                os.unlink(dotlock)
        return False
    finally:
        os.unlink(own)


def _deliver(path, number, log):
    message = stored(number)
    with _locked(path) as mailbox:
        if mailbox.write(message) != len(message):
            raise OSError("a short write")
        log.write(b"%d\n" % number)


def main(path, first, pause, log):
    ended = []
    signal.signal(signal.SIGTERM, lambda *_: ended.append(True))
    number = int(first)
    with open(log, "ab", buffering=0) as numbers:
        while not ended:
            _deliver(path, number, numbers)
            number += 1
            time.sleep(float(pause))


if __name__ == "__main__":
    main(*sys.argv[1:])
