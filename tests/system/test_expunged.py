"""Who deleted my mail? A record in the journal for each message that is gone, in both modes."""

import os
import signal

from .case import HostCase
from .mail import Message, mbox, message, messages
from .standalone import Standalone, lock, owner

# journald's usual limit is 10,000 lines of a unit, a few times that with room on the disk.
MANY = 60_000


def with_id(number, header):
    """A message whose Message-ID header is this, its line ends included."""
    plain = message(number).text
    return Message(plain.replace(b"Message-ID: <%d@example.org>\n" % number, header))


class Records:
    """The tests, whoever starts the sessions."""

    def ask(self, user, *more):
        """What the admin's question finds about USER."""
        return self.host.journal("POPA3D_EVENT=expunged", f"POPA3D_USER={user}", *more)

    def delete(self, user, *numbers, **options):
        """A session that deletes these messages; returns the unique-ids that it saw."""
        session = self.login(user, **options)
        unique_ids = dict(line.split() for line in session.multi("UIDL"))
        for number in numbers:
            session.ok(f"DELE {number}")
        session.quit()
        self.until_idle()
        return [unique_ids[b"%d" % number].decode() for number in numbers]

    def test_each_message_that_is_gone_has_a_record_that_answers_the_question(self):
        mail = messages(5)
        user = self.account(mail)
        unique_ids = self.delete(user, 4, 2, source="127.0.5.1")
        entries = self.ask(user)
        self.assertEqual([(entry["POPA3D_UNIQUE_ID"], entry["POPA3D_MESSAGE_ID"], entry["POPA3D_OCTETS"])
                          for entry in entries],
                         [(unique_ids[1], "<2@example.org>", str(mail[1].octets)),
                          (unique_ids[0], "<4@example.org>", str(mail[3].octets))])
        for entry in entries:
            self.assertEqual((entry["POPA3D_CLIENT"], entry["POPA3D_METHOD"], entry["PRIORITY"]),
                             ("127.0.5.1", "USER", "6"))
        self.assertEqual(entries[0]["MESSAGE"],
                         f"Deleted {unique_ids[1]} ({mail[1].octets}) of {user} from 127.0.5.1, message-id=<2@example.org>")
        of_session = self.journal(POPA3D_SESSION=entries[0]["POPA3D_SESSION"])
        self.assertEqual([entry["POPA3D_EVENT"] for entry in of_session][-3:], ["expunged", "expunged", "session-ended"])
        self.assertEqual(self.ask(user, "POPA3D_MESSAGE_ID=<4@example.org>"), entries[1:])

    def test_what_is_not_removed_has_none(self):
        user = self.account(messages(3))
        session = self.login(user)
        session.ok("DELE 1")
        session.ok("RSET")
        session.quit()
        broken = self.login(user)
        broken.ok("DELE 1")
        broken.close()
        self.until_idle()
        self.settings('lock-timeout = "0s"\n')
        locked = self.login(user)
        locked.ok("DELE 1")
        with open(self.host.mailbox(user), "rb+") as mailbox:
            lock(mailbox)
            locked.err("QUIT", b"IN-USE")
            locked.close()
        self.until_idle()
        self.assertEqual(self.ask(user), [])

    def test_message_that_another_program_removed_has_none_and_one_that_moved_has_its_own(self):
        mail = messages(3)
        user = self.account(mail)
        session = self.login(user)
        session.ok("DELE 1")
        session.ok("DELE 3")
        self.host.mailbox(user).write_bytes(mbox(mail[1:]))
        session.err("QUIT", b"SYS/TEMP")
        session.close()
        self.until_idle()
        self.assertEqual([entry["POPA3D_MESSAGE_ID"] for entry in self.ask(user)], ["<3@example.org>"])
        self.assertEqual(self.host.mailbox(user).read_bytes(), mbox(mail[1:2]))

    def test_message_ids_of_any_kind_are_one_bounded_line_of_plain_text(self):
        headers = [b"", b"MESSAGE-ID:\n <folded@a>\n", b"Message-ID: \x1b[2J\x07<a\xff\xe2\x80\xaeb>\x00\n",
                   b"Message-ID: " + b"x" * 5000 + b"\n", b"Message-ID:\n", b"Message-id:<a\\nMESSAGE=forged>\n",
                   b"X-Padding: " + b"x" * 20_000 + b"\nMessage-ID: <late@a>\n"]
        user = self.account([with_id(number, header) for number, header in enumerate(headers, 1)])
        self.delete(user, *range(1, len(headers) + 1))
        found = [entry.get("POPA3D_MESSAGE_ID") for entry in self.ask(user)]
        self.assertEqual(found, [None, "<folded@a>", r"\u{1b}[2J\u{7}<a\xff\u{202e}b>\u{0}", "x" * 250, None,
                                 r"<a\\nMESSAGE=forged>", "<late@a>"])

    def test_it_can_be_switched_off(self):
        self.settings("log-expunged = false\n")
        user = self.account(messages(2))
        self.delete(user, 1)
        self.assertEqual(self.ask(user), [])
        (ended,) = self.journal(POPA3D_USER=user, POPA3D_EVENT="session-ended")
        self.assertEqual(ended["POPA3D_DELETED_MESSAGES"], "1")

    def test_very_many_have_one_each_though_a_signal_comes_meanwhile(self):
        user = self.account(mbox(messages(MANY)))
        session = self.login(user)
        session.send(b"".join(b"DELE %d\r\n" % number for number in range(1, MANY + 1)))
        for _ in range(MANY):
            session.line()
        session.send(b"QUIT\r\n")
        self.until(lambda: self.host.run("journalctl", "-n1", "POPA3D_EVENT=expunged", f"POPA3D_USER={user}", "-o",
                                         "cat").output, "the first record")
        (monitor,) = [process for process in self.processes() if owner(process) == 0]
        os.kill(monitor, signal.SIGTERM)
        self.assertRegex(session.line(), rb"^\+OK ")
        session.close()
        self.until_idle()
        entries = self.ask(user)
        self.assertEqual([entry["POPA3D_MESSAGE_ID"] for entry in entries],
                         [f"<{number}@example.org>" for number in range(1, MANY + 1)])
        self.assertEqual(len({entry["POPA3D_UNIQUE_ID"] for entry in entries}), MANY)
        (ended,) = self.journal(POPA3D_USER=user, POPA3D_EVENT="session-ended")
        self.assertEqual((ended["POPA3D_DELETED_MESSAGES"], ended["POPA3D_MESSAGES"]), (str(MANY), "0"))


class StartedBySystemd(Records, HostCase):
    pass


class StandingAlone(Records, Standalone):
    pass
