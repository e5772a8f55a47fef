"""Other programs change the mailbox during a session: what is sent, what is refused, what QUIT leaves."""

import contextlib
import dataclasses
import fcntl
import itertools
import mmap
import os
import random
import re
import threading
import time

from .case import HostCase
from .mail import SEPARATOR, Message, mbox, message, messages

CHANGING = re.compile(rb"^-ERR \[SYS/TEMP\] another program is changing the mailbox")
GONE = re.compile(rb"^-ERR another program removed or edited this message")

NOTES = b"Status: RO\nX-Status: A\nX-Keywords: \n"


def noted(item):
    """The message as a mail program leaves it that keeps its notes in the header."""
    return Message(item.text.replace(b"\n\n", b"\n" + NOTES + b"\n", 1))


class Changes(HostCase):
    """The mailbox and the programs that change it."""

    def put(self, user, content):
        """A new mailbox, before any session."""
        self.host.mailbox(user).unlink(missing_ok=True)
        self.host.deliver(user, content)

    @contextlib.contextmanager
    def locked(self, user, respectful=True):
        """The open mailbox, locked as Debian's policy says unless this program does not care."""
        with open(self.host.mailbox(user), "r+b") as file:
            dotlock = self.host.path(f"/var/mail/{user}.lock")
            if respectful:
                fcntl.lockf(file, fcntl.LOCK_EX)
                os.close(self.until(lambda: self._exclusively(dotlock), f"{dotlock}"))
            try:
                yield file
            finally:
                if respectful:
                    dotlock.unlink()

    def rewrite(self, user, content, respectful=True):
        """What programs do that keep the inode."""
        with self.locked(user, respectful) as file:
            file.write(content)
            file.truncate()

    def replace(self, user, content):
        """What programs do that don't."""
        with self.locked(user):
            new = f"/var/mail/{user}.new"
            self.host.write(new, content, 0o660)
            status = os.stat(self.host.mailbox(user))
            os.chown(self.host.path(new), status.st_uid, status.st_gid)
            self.host.path(new).rename(self.host.mailbox(user))

    def stored(self, user):
        return self.host.mailbox(user).read_bytes()

    def at_rest(self, session, command):
        """The reply to COMMAND: its lines, or None when the message is refused for good."""
        def reply():
            line = session.command(command)
            if CHANGING.match(line):
                return None
            self.assertRegex(line, rb"^\+OK |" + GONE.pattern)
            return (session.lines(),) if line.startswith(b"+OK ") else (None,)
        return self.until(reply, "an answer while nobody changes the mailbox")[0]

    def assert_sent(self, session, item, number):
        self.assertEqual(self.at_rest(session, f"RETR {number}"), item.lines)
        self.assertEqual(self.at_rest(session, f"TOP {number} 0"), item.lines[:item.lines.index(b"") + 1])

    def assert_gone(self, session, number):
        self.assertIsNone(self.at_rest(session, f"RETR {number}"))
        self.assertIsNone(self.at_rest(session, f"TOP {number} 1"))

    def close(self, session, missing=0):
        """QUIT, which says how many of the marked messages it did not find."""
        reply = session.command("QUIT")
        self.assertRegex(reply, rb"^-ERR \[SYS/TEMP\] %d deleted messages not found" % missing if missing else rb"^\+OK")
        session.ended()

    @staticmethod
    def _exclusively(path):
        with contextlib.suppress(FileExistsError):
            return os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
        return None


class OneChange(Changes):
    def setUp(self):
        self.mail = messages(6, b"A line of text.\n.a dot\n" * 20)
        self.user = self.account(self.mail)
        self.session = self.login(self.user)
        self.listed = self.session.multi("LIST"), self.session.multi("UIDL")

    def assert_all_as_listed(self):
        self.assertEqual((self.session.multi("LIST"), self.session.multi("UIDL")), self.listed)

    def test_mail_that_arrives_disturbs_nothing(self):
        late = [message(number, b"late\n") for number in range(90, 99)]
        for number, item in enumerate(self.mail, 1):
            with self.locked(self.user) as file:
                file.seek(0, os.SEEK_END)
                file.write(late[number].stored)
            # At once: new mail is no reason to say "later".
            self.assertEqual(self.session.multi(f"RETR {number}"), item.lines)
        self.assert_all_as_listed()
        self.session.ok("DELE 6")
        self.close(self.session)
        self.assertEqual(self.stored(self.user), mbox(self.mail[:5] + late[1:7]))

    def test_mail_that_arrives_behind_a_message_without_its_last_line_end(self):
        user = self.account(mbox(self.mail).removesuffix(b"\n\n"))
        session = self.login(user)
        late = message(99)
        with self.locked(user) as file:
            file.seek(0, os.SEEK_END)
            file.write(b"\n\n" + late.stored)
        self.assert_sent(session, self.mail[5], 6)
        session.ok("DELE 6")
        self.close(session)
        self.assertEqual(self.stored(user), mbox([*self.mail[:5], late]))

    def test_notes_in_the_header_move_messages_and_belong_to_them(self):
        with_notes = [noted(item) if number in (1, 3, 6) else item for number, item in enumerate(self.mail, 1)]
        self.rewrite(self.user, mbox(with_notes))
        for number, item in enumerate(with_notes, 1):
            self.assert_sent(self.session, item, number)
            self.assertEqual(self.session.ok(f"RETR {number}"), b"+OK %d octets" % item.octets)
            self.session.lines()
        self.assert_all_as_listed()
        for number in (1, 2, 6):
            self.session.ok(f"DELE {number}")
        self.close(self.session)
        self.assertEqual(self.stored(self.user), mbox(with_notes[2:5]))

    def test_removed_messages_are_refused_and_the_others_go_on(self):
        for respectful, gone in ((True, {1}), (True, {6}), (False, {3, 4}), (False, {1, 4, 6})):
            with self.subTest(respectful=respectful, gone=gone):
                user = self.account(self.mail)
                session = self.login(user)
                session.ok("DELE 5")
                self.rewrite(user, mbox([item for number, item in enumerate(self.mail, 1) if number not in gone]), respectful)
                for number, item in enumerate(self.mail, 1):
                    if number in gone:
                        self.assert_gone(session, number)
                    elif number != 5:
                        self.assert_sent(session, item, number)
                self.close(session)
                kept = [item for number, item in enumerate(self.mail, 1) if number not in gone | {5}]
                self.assertEqual(self.stored(user), mbox(kept))

    def test_marked_messages_that_are_gone_are_counted(self):
        for number in (1, 2, 5):
            self.session.ok(f"DELE {number}")
        self.rewrite(self.user, mbox(self.mail[2:]))
        self.close(self.session, missing=2)
        self.assertEqual(self.stored(self.user), mbox([self.mail[2], self.mail[3], self.mail[5]]))

    def test_another_order(self):
        self.rewrite(self.user, mbox(reversed(self.mail)), respectful=False)
        for number, item in enumerate(self.mail, 1):
            self.assert_sent(self.session, item, number)
        self.session.ok("DELE 1")
        self.session.ok("DELE 4")
        self.close(self.session)
        self.assertEqual(self.stored(self.user), mbox([self.mail[number] for number in (5, 4, 2, 1)]))

    def test_replaced_by_rename(self):
        late = message(99)
        self.session.ok("DELE 2")
        self.session.ok("DELE 6")
        self.replace(self.user, mbox([late, self.mail[1], noted(self.mail[0]), self.mail[3]]))
        # What the session has open is what it was.
        self.assert_sent(self.session, self.mail[0], 1)
        self.assert_sent(self.session, self.mail[4], 5)
        self.close(self.session, missing=1)
        self.assertEqual(self.stored(self.user), mbox([late, noted(self.mail[0]), self.mail[3]]))

    def test_shortened(self):
        half = mbox(self.mail)[:len(mbox(self.mail)) // 2 + 50]
        for content, missing in ((half, 2), (b"", 3)):
            with self.subTest(length=len(content)):
                user = self.account(self.mail)
                session = self.login(user)
                for number in (2, 4, 5):  # the fourth is cut
                    session.ok(f"DELE {number}")
                self.rewrite(user, content, respectful=False)
                if content:
                    self.assert_sent(session, self.mail[2], 3)
                else:
                    self.assert_gone(session, 3)
                self.assert_gone(session, 6)
                self.close(session, missing)
                self.assertEqual(self.stored(user), content.replace(self.mail[1].stored, b""))

    def test_removed_file(self):
        self.session.ok("DELE 2")
        self.host.mailbox(self.user).unlink()
        self.assert_sent(self.session, self.mail[0], 1)
        self.close(self.session)
        self.assertFalse(self.host.mailbox(self.user).exists())

    def test_removed_file_and_new_mail(self):
        late = message(99)
        self.session.ok("DELE 2")
        self.put(self.user, late.stored)
        self.assert_sent(self.session, self.mail[0], 1)
        self.close(self.session, missing=1)
        self.assertEqual(self.stored(self.user), late.stored)

    def test_one_octet_of_a_body(self):
        changed = mbox(self.mail).replace(b"A line", b"A lime")
        at = len(mbox(self.mail[:3]))
        content = mbox(self.mail[:2]) + changed[len(mbox(self.mail[:2])):at] + mbox(self.mail[3:])
        for number in (2, 3):
            self.session.ok(f"DELE {number}")
        self.session.ok("RSET")
        self.rewrite(self.user, content, respectful=False)
        self.assert_sent(self.session, self.mail[1], 2)
        self.assert_gone(self.session, 3)
        self.session.ok("DELE 2")
        self.session.ok("DELE 3")
        self.close(self.session, missing=1)
        self.assertEqual(self.stored(self.user), content.replace(self.mail[1].stored, b""))

    def test_a_copy(self):
        self.rewrite(self.user, mbox([self.mail[2], *self.mail]))
        self.assert_sent(self.session, self.mail[2], 3)
        self.session.ok("DELE 3")
        self.close(self.session)
        self.assertIn(self.stored(self.user), (mbox(self.mail), mbox([self.mail[2], *self.mail[:2], *self.mail[3:]])))

    def test_of_two_copies_one_is_marked_and_another_program_removes_one(self):
        user = self.account([self.mail[0], self.mail[0], self.mail[1]])
        session = self.login(user)
        session.ok("DELE 1")
        # It may have been that very one; the other one nobody marked.
        self.rewrite(user, mbox(self.mail[:2]))
        self.assert_sent(session, self.mail[1], 3)
        self.close(session, missing=1)
        self.assertEqual(self.stored(user), mbox(self.mail[:2]))

    def test_a_message_that_was_delivered_half_at_login_is_not_removed(self):
        half, rest = self.mail[5].stored[:-50], self.mail[5].stored[-50:]
        user = self.account(mbox(self.mail[:5]) + half)
        session = self.login(user)
        self.host.deliver(user, rest)
        self.assert_gone(session, 6)
        session.ok("DELE 6")
        self.close(session, missing=1)
        self.assertEqual(self.stored(user), mbox(self.mail))

    def test_a_write_that_takes_long(self):
        """A file has the time of the beginning of a write(2), which may wait for a disk half-way; in pages
        that were written to and wait for the disk, changes show no time at all."""
        new = [*self.mail[:2], *self.mail[4:], *self.mail[2:4]]
        with self.locked(self.user) as file, mmap.mmap(file.fileno(), 0) as pages:
            for page in range(0, len(pages), mmap.PAGESIZE):
                pages[page] = pages[page]
            os.pwrite(file.fileno(), pages[:1], 0)
            time.sleep(0.3)  # the time is old enough to be trusted
            for _ in range(2):
                for number, item in enumerate(self.mail, 1):
                    self.assert_sent(self.session, item, number)
            pages[:] = mbox(new)
        for number, item in enumerate(self.mail, 1):
            self.assert_sent(self.session, item, number)
        self.session.ok("DELE 3")
        self.close(self.session)
        self.assertEqual(self.stored(self.user), mbox([item for item in new if item != self.mail[2]]))

    def test_a_message_is_fetched_while_another_one_comes_in_bit_by_bit(self):
        large = message(7, b"A line of a large message.\n" * 200_000)
        user = self.account([*self.mail, large])
        session = self.login(user)
        started, done = threading.Event(), threading.Event()

        def deliver():
            with self.locked(user) as file:
                file.seek(0, os.SEEK_END)
                file.write(message(99).stored[:-1])
                while not done.is_set():
                    file.write(b"more\n")
                    file.flush()
                    started.set()
                    time.sleep(0.0005)
                file.write(b"\n")

        delivery = threading.Thread(target=deliver)
        delivery.start()
        try:
            started.wait()
            for number, item in ((7, large), (1, self.mail[0]), (7, large)):
                self.assertEqual(session.multi(f"RETR {number}"), item.lines)
        finally:
            done.set()
            delivery.join()
        session.ok("DELE 7")
        self.close(session)
        self.assertTrue(self.stored(user).startswith(mbox([*self.mail, message(99)])[:-1]))

    def test_mutt_deletes_one_message_and_marks_another_as_read(self):
        self.host.write(f"/home/{self.user}/.muttrc",
                        "set delete=yes quit=yes move=no mark_old=no sleep_time=0 wait_key=no resolve=no\n"
                        f"set mbox_type=mbox folder=/home/{self.user} spoolfile=/var/mail/{self.user}\n")
        self.session.ok("DELE 5")
        keys = "2<enter><delete-message>4<enter><set-flag>!<clear-flag>N<sync-mailbox><quit>"
        self.host.run("script", "-qec", f"stty rows 24 cols 80; mutt -f /var/mail/{self.user} -e 'push {keys}'", "/dev/null",
                      environment=("TERM=xterm",), user=self.user)
        left = self.stored(self.user)
        self.assertNotIn(b"Subject: message 2\n", left)
        self.assertRegex(left, rb"Subject: message 4\n(?:.+\n)*(Status: RO|X-Status: F)\n")
        parts = dict(zip((1, 3, 4, 5, 6), (SEPARATOR + part for part in left.split(SEPARATOR)[1:]), strict=True))
        self.assert_gone(self.session, 2)
        for number in (1, 3, 4, 6):
            sent = Message(parts[number].removeprefix(SEPARATOR).removesuffix(b"\n"))
            self.assert_sent(self.session, sent, number)
            self.assertEqual(sent.text.split(b"\n\n", 1)[1], self.mail[number - 1].text.split(b"\n\n", 1)[1])
        self.close(self.session)
        del parts[5]
        self.assertEqual(self.stored(self.user), b"".join(parts.values()))


@dataclasses.dataclass(frozen=True)
class Item:
    """Something in a mailbox: which message of the session it is (None: another one), and its bytes."""

    number: int | None
    stored: bytes

    @property
    def lines(self):
        return self.stored.split(b"\n", 1)[1].rstrip(b"\n").split(b"\n")


class AnyChanges(Changes):
    ROUNDS, SECONDS = 300, 40

    def test_random_changes_and_commands(self):
        user = self.account([], method="MD5")
        end = time.monotonic() + self.SECONDS
        rounds = 0
        for seed in range(self.ROUNDS):
            with self.subTest(seed=seed):
                self._round(random.Random(seed), user)
            rounds += 1
            if time.monotonic() > end:
                break
        self.assertGreater(rounds, 20)

    def _round(self, rng, user):
        count = rng.randint(1, 7)
        mail = [Item(number, message(number, b"Text.\n" * rng.choice([1, 1, 50, 9000])).stored) for number in range(1, count + 1)]
        self.put(user, b"".join(item.stored for item in mail))
        session = self.login(user)
        # What the session has open, and what is there under the name; other messages are numbered too.
        opened = named = mail
        attached, marked, others = True, set(), itertools.count(1000)
        for _ in range(rng.randint(1, 5)):
            if named is not None and rng.random() < 0.7:
                change = rng.choice([self._appended, self._noted, self._removed, self._reversed, self._shuffled, self._edited,
                                     self._shortened, self._copied])
                named = change(rng, named, next(others))
                content = b"".join(item.stored for item in named)
                if rng.random() < 0.15:
                    self.replace(user, content)
                    attached = False
                else:
                    self.rewrite(user, content, respectful=rng.random() < 0.7)
                if attached:
                    opened = named
                if rng.random() < 0.03:
                    self.host.mailbox(user).unlink()
                    named, attached = None, False
            for _ in range(rng.randint(0, 4)):
                number = rng.randint(1, count)
                if number in marked:
                    session.err(rng.choice([f"RETR {number}", f"DELE {number}", f"TOP {number} 3"]))
                elif rng.random() < 0.2:
                    session.ok(f"DELE {number}")
                    marked.add(number)
                elif rng.random() < 0.05:
                    session.ok("RSET")
                    marked.clear()
                else:
                    self._assert_right(session, number, opened)
        self._end(session, user, named, marked)

    def _assert_right(self, session, number, opened):
        expected = [item.lines for item in opened if item.number == number]
        if expected:
            self.assertIn(self.at_rest(session, f"RETR {number}"), expected)
        else:
            self.assert_gone(session, number)

    def _end(self, session, user, named, marked):
        if named is None:
            self.close(session)
            self.assertFalse(self.host.mailbox(user).exists())
            return
        content = b"".join(item.stored for item in named)
        if marked and content and not content.startswith(b"From "):
            session.err("QUIT", b"SYS/TEMP")
            self.assertEqual(self.stored(user), content)
            return
        choices = []
        for number in marked:
            places = [at for at, item in enumerate(named) if item.number == number]
            if places:
                choices.append(places)  # of copies any one, but only one
        self.close(session, len(marked) - len(choices))
        possible = {b"".join(item.stored for at, item in enumerate(named) if at not in chosen)
                    for chosen in itertools.product(*choices)}
        self.assertIn(self.stored(user), possible)

    # What other programs leave of the items

    def _appended(self, rng, items, other):
        return [*items, Item(other, message(other, b"Late.\n" * rng.choice([1, 100])).stored)] if self._is_whole(items) else items

    def _noted(self, rng, items, other):
        if not self._is_whole(items):
            return items
        return [Item(item.number, self._with_notes(rng, item.stored)) if rng.random() < 0.5 else item for item in items]

    def _with_notes(self, rng, stored):
        without = re.sub(rb"\n(?:Status|X-Status): .*(?=\n)", b"", stored)
        return without.replace(b"\n\n", rng.choice([b"\nStatus: O\n\n", b"\nStatus: RO\nX-Status: AF\n\n", b"\n\n"]), 1)

    def _removed(self, rng, items, other):
        gone = set(rng.sample(range(len(items)), min(len(items), rng.randint(1, 3))))
        return [item for at, item in enumerate(items) if at not in gone]

    def _reversed(self, rng, items, other):
        return items[::-1] if self._is_whole(items) else items

    def _shuffled(self, rng, items, other):
        return rng.sample(items, len(items)) if self._is_whole(items) else items

    def _edited(self, rng, items, other):
        if not items or not self._is_whole(items):
            return items
        at = rng.randrange(len(items))
        stored = items[at].stored
        place = rng.randrange(stored.index(b"\n\n") + 2, len(stored) - 2)
        if stored[place:place + 1] == b"\n":
            place -= 1
        edited = stored[:place] + b"#" + stored[place + 1:]
        same = edited == stored
        return [*items[:at], Item(items[at].number if same else other, edited), *items[at + 1:]]

    def _shortened(self, rng, items, other):
        left = rng.choice([0, rng.randint(0, sum(len(item.stored) for item in items))])
        kept = []
        for item in items:
            stored = item.stored[:left]
            left -= len(stored)
            if stored == item.stored or item.stored.removesuffix(b"\n\n") == stored.rstrip(b"\n"):
                kept.append(Item(item.number, stored))  # but for line ends that nobody sees
            elif 0 < len(stored) < len(b"From ") and kept:
                kept[-1] = Item(other, kept[-1].stored + stored)  # no From line: a line of the one before
            elif stored:
                kept.append(Item(other, stored))
        return kept

    def _copied(self, rng, items, other):
        if not items or not self._is_whole(items):
            return items
        return [*items[:rng.randint(0, len(items))], rng.choice(items), *items] if rng.random() < 0.3 else \
            [rng.choice(items), *items]

    @staticmethod
    def _is_whole(items):
        """Whether another message can follow any of them."""
        return all(item.stored.endswith(b"\n\n") for item in items)
