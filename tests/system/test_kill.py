"""All of popa3d is killed during UPDATE of a large mailbox, again and again, while mail comes in.

`POPA3D_KILL_ROUNDS` sets how often.
"""

import collections
import contextlib
import fcntl
import mmap
import os
import pathlib
import random
import time

from . import deliverer
from .case import PASSWORD, HostCase

ROUNDS = int(os.environ.get("POPA3D_KILL_ROUNDS", "30"))
COUNT = 3300  # messages of 64 KiB each on average: more than 200 MB
PAUSE = 0.01  # between deliveries: several fall into each round

# What a kill left.
EARLY = "before the redo record was there"
UNTOUCHED = "with the record, before the mailbox was changed"
HALF_WAY = "with the record and the mailbox half-way"
NEW = "with the record, when the mailbox was new"
LATE = "after the record was dropped"


class Kill(HostCase):
    def setUp(self):
        self.random = random.Random(11)
        self.numbers = list(range(1, COUNT + 1))
        self.user = self.account(b"".join(map(deliverer.stored, self.numbers)), method="SHA512")
        self.log = f"/var/tmp/{self.user}.delivered"
        self.host.write("/var/tmp/deliverer.py", pathlib.Path(deliverer.__file__).read_bytes())
        self.host.run("install", "-o", self.user, "/dev/null", self.log)
        self.host.run("systemd-run", "--unit=deliverer", f"--uid={self.user}", "--gid=mail", "python3",
                      "/var/tmp/deliverer.py", f"/var/mail/{self.user}", COUNT + 1, PAUSE, self.log)
        self.addCleanup(self.host.run, "systemctl", "stop", "deliverer", check=False)

    def test_nothing_is_lost_torn_or_doubled_whenever_popa3d_is_killed(self):
        self._measure()
        kills, outcomes = collections.Counter(), collections.Counter()
        for number in range(ROUNDS):
            doomed = self._choose()
            said = self._kill_during_update(doomed)
            left = self._phase(doomed)
            kills[left] += 1
            if left == HALF_WAY and number % 2:
                self._kill_during_recovery()
                kills["once more, in recovery"] += 1
            outcome = self._recover_and_judge(number, doomed)
            outcomes[outcome] += 1
            if said.startswith(b"+OK") or left in (HALF_WAY, NEW, LATE):
                self.assertEqual(outcome, "new", f"round {number}, killed {left}; QUIT was told {said!r}")
        self.host.run("systemctl", "is-active", "deliverer")
        print(f"{ROUNDS} of {ROUNDS} kills left the old mailbox ({outcomes['old']}) or the new one ({outcomes['new']}), "
              f"each with all that came in ({self.numbers[-1] - COUNT} messages); killed",
              *(f"  {count} {what}" for what, count in kills.most_common()), sep="\n", flush=True)
        self.assertGreaterEqual(kills[UNTOUCHED] + kills[HALF_WAY] + kills[NEW], ROUNDS // 3,
                                "too few kills fell into UPDATE to mean anything")
        self.assertTrue(kills[HALF_WAY], "no kill fell between the first write and the last")

    def _measure(self):
        """How long an UPDATE takes until there is a record, and with it."""
        doomed = self._choose()
        session = self._say_quit(doomed)
        begun = time.monotonic()
        self._until(self._has_record)
        recorded = time.monotonic()
        self._until(lambda: not self._has_record())
        self.before_record, self.with_record = recorded - begun, time.monotonic() - recorded
        self.assertRegex(session.line(), rb"^\+OK ")
        session.close()
        self.until_idle()
        self.assertEqual(self._recover_and_judge(0, doomed), "new")

    def _kill_during_update(self, doomed):
        """Returns what came of QUIT."""
        session = self._say_quit(doomed)
        if self.random.random() < 0.25:
            self._sleep_within(self.before_record)
        else:
            # An UPDATE that is over already is as good: not every one has to be met.
            with contextlib.suppress(TimeoutError):
                self._until(self._has_record, 10 * self.before_record)
            self._sleep_within(self.with_record)
        self._kill()
        try:
            said = session.connection.recv(100)
        except ConnectionResetError:
            said = b""
        session.close()
        return said

    def _kill_during_recovery(self):
        """A login finds the record, and is killed as well."""
        session = self.connect()
        session.ok(f"USER {self.user}")
        session.send(f"PASS {PASSWORD}\r\n".encode())
        self._sleep_within(self.with_record)
        self._kill()
        session.close()

    def _kill(self):
        self.host.run("systemctl", "kill", "--signal=KILL", "popa3d@*", check=False)
        self.until_idle()

    def _choose(self):
        """The indexes of a few of the first messages, so that nearly all of the mailbox has to move; just one of
        them, or as many as have come in."""
        many = max(2, min(200, len(self.numbers) - COUNT))
        return set(self.random.sample(range(250), self.random.choice([1, 3, many])))

    def _say_quit(self, doomed):
        """A session that deletes and has just said QUIT."""
        session = self.login(self.user)
        session.send(b"".join(b"DELE %d\r\n" % (index + 1) for index in sorted(doomed)))
        for _ in doomed:
            self.assertRegex(session.line(), rb"^\+OK ")
        session.send(b"QUIT\r\n")
        return session

    def _phase(self, doomed):
        """Which one the kill fell into, by what it left."""
        recorded = self._has_record()
        found, since = self._mailbox()
        if found == self.numbers + since:
            return UNTOUCHED if recorded else EARLY
        if found == self._without(doomed) + since:
            return NEW if recorded else LATE
        self.assertTrue(recorded, "the mailbox is half-way, and nothing says how it goes on")
        return HALF_WAY

    def _recover_and_judge(self, number, doomed):
        """Whether the mailbox is the old or the new one, each with what has come in; it must be one of them."""
        if number % 2:
            self.host.run("popa3d", "--recover")
        else:
            self.login(self.user).quit()
        self.until_idle()
        self.assertFalse(self._has_record(), f"round {number}")
        found, since = self._mailbox()
        self.assertIsNotNone(found, f"round {number}: a message is torn")
        outcome = {tuple(self.numbers + since): "old", tuple(self._without(doomed) + since): "new"}.get(tuple(found))
        self.assertIsNotNone(outcome, f"round {number}: neither old nor new: without {doomed}, with {since}: {found}")
        self.numbers = found
        return outcome

    def _without(self, doomed):
        return [number for index, number in enumerate(self.numbers) if index not in doomed]

    def _mailbox(self):
        """The numbers of its messages (None: it is torn), and of those that were delivered since we last knew them."""
        with open(self.host.mailbox(self.user), "r+b") as mailbox:
            fcntl.lockf(mailbox, fcntl.LOCK_EX)  # the deliverer logs what it did before it unlocks
            delivered = self.host.read(self.log).split()
            with mmap.mmap(mailbox.fileno(), 0, access=mmap.ACCESS_READ) as content:
                found = deliverer.numbers_in(content)
        return found, [number for number in map(int, delivered) if number > self.numbers[-1]]

    def _has_record(self):
        return self.host.path(f"/var/lib/popa3d/redo/{self.user}").exists()

    def _until(self, condition, limit=60):
        """Without a pause, as what is waited for is soon over."""
        end = time.monotonic() + limit
        while not condition():
            if time.monotonic() > end:
                raise TimeoutError
            time.sleep(0.001)

    def _sleep_within(self, duration):
        time.sleep(self.random.uniform(0, duration))
