"""popa3d --mailbox: how popa3d sees a maildrop, without changing it."""

import contextlib
import fcntl
import json
import os

from differential import mailboxes

from .case import HostCase
from .mail import message, messages

FROM = b"From sender@example.org Mon Nov  2 09:00:00 2026\n"


class ShowMailbox(HostCase):
    def look(self, name, *options, **more):
        """The object that programs get."""
        return json.loads(self.host.run("popa3d", "--mailbox", name, "--json", *options, **more).output)

    def not_shown(self, name, *options, **more):
        """Why it is not shown."""
        refused = self.host.run("popa3d", "--mailbox", name, *options, check=False, **more)
        self.assertEqual((refused.code, refused.output), (1, ""))
        return refused.errors

    def put(self, user, content):
        self.host.mailbox(user).unlink(missing_ok=True)
        if content is not None:
            self.host.deliver(user, content)

    def traces(self, user):
        """All that looking could change."""
        found = []
        for path in (f"/var/mail/{user}", f"/var/lib/popa3d/unique-ids/{user}", f"/var/lib/popa3d/redo/{user}"):
            with contextlib.suppress(FileNotFoundError):
                status = os.stat(self.host.path(path))
                found.append((path, self.host.read(path), status.st_ino, status.st_mtime_ns, status.st_ctime_ns,
                              status.st_mode, status.st_uid, status.st_gid))
        return found

    @contextlib.contextmanager
    def unchanged(self, user):
        before = self.traces(user)
        yield
        after = self.traces(user)
        # Mailboxes of many megabytes are no text for a failure.
        differences = [(old[0], *old[2:], *new[2:]) for old, new in zip(before, after) if old != new]
        self.assertEqual((differences, len(after)), ([], len(before)))
        self.assertFalse(self.host.path(f"/var/mail/{user}.lock").exists())

    def kinds(self, item):
        return {oddity["kind"]: oddity["value"] for oddity in item["oddities"]}

    def test_numbers_octets_and_unique_ids_are_those_of_a_session(self):
        user = self.account(messages(1))
        odd = list(mailboxes.by_hand()) + [(f"generated-{seed}", mailboxes.generated(seed)) for seed in range(40)]
        odd.append(("copies", message(1).stored * 5))
        served = 0
        for name, content in odd:
            with self.subTest(name):
                self.put(user, content)
                session = self.connect()
                session.ok(f"USER {user}")
                with self.unchanged(user):
                    before = self.host.run("popa3d", "--mailbox", user, "--json", check=False)
                reply = session.command("PASS correct horse battery")
                self.assertEqual(before.code, 0 if reply.startswith(b"+OK") else 1, (before, reply))
                if before.code:
                    self.assertRegex(before.errors, f"^popa3d: /var/mail/{user}: .")
                    session.close()
                    continue
                served += 1
                sizes, ids = session.multi("LIST"), session.multi("UIDL")
                session.quit()
                # It may be about to write down what it remembers.
                self.until_idle()
                # Before a session has remembered anything, and after.
                for shown in (json.loads(before.output), self.look(user)):
                    listed = shown["messages"]
                    self.assertEqual([f"{item['number']} {item['octets']}".encode() for item in listed], sizes)
                    self.assertEqual([f"{item['number']} {item['unique_id']}".encode() for item in listed], ids)
                    self.assertEqual(shown["count"], len(listed))
                    self.assertEqual(shown["octets"], sum(item["octets"] for item in listed))
                    self.assertEqual((shown["exists"], shown["size"]),
                                     (content is not None, None if content is None else len(content)))
        self.assertGreater(served, 60)

    def test_what_is_remembered_of_messages_that_share_an_id_shows(self):
        copies = message(1).stored * 3
        user = self.account(copies)
        session = self.login(user)
        ids = [line.split()[1].decode() for line in session.multi("UIDL")]
        session.ok("DELE 1")
        session.quit()
        self.until_idle()
        with self.unchanged(user):
            shown = self.look(user)
        self.assertEqual([item["unique_id"] for item in shown["messages"]], ids[1:])
        self.assertIn("shares-unique-id", self.kinds(shown["messages"][0]))
        # Not known to the user, who is told so.
        own = self.look(user, user=user)
        self.assertIn("unique-ids-not-known", self.kinds(own))

    def test_what_is_odd_is_told(self):
        user = self.account(
            b"\n\n" + mailboxes.INTERNAL_DATA
            + FROM + b"Message-ID: <1@example.org>\r\n\r\ntext\r\n\r\n"
            + FROM + b"Message-ID:\n <1@example.org>\n\nNo empty line:\n" + FROM + b"Subject: lost\n\nx\n\n"
            + FROM + b"no header\n\n" + b"z" * 2000 + b"\n\0\0\n\n"
            + FROM
            + FROM + b"Subject: x\nno empty line\nthe end")
        with self.unchanged(user):
            shown = self.look(user)
            text = self.host.run("popa3d", "--mailbox", user).output
        self.assertEqual([self.kinds(item) for item in shown["messages"]], [
            {"crlf-lines": 4},
            {"from-lines-inside": 1, "shares-message-id": 1},
            {"no-fields": 1, "nul-octets": 2, "long-line": 2000},
            {"only-from-line": None, "shares-unique-id": None},
            {"header-without-end": None, "no-fields": 2, "shares-unique-id": None},
        ])
        self.assertEqual(self.kinds(shown), {"empty-lines-first": 2, "internal-data": None, "no-final-line-end": None})
        for item in [*shown["messages"], shown]:
            for oddity in item["oddities"]:
                self.assertIn(f"- {oddity['text']}\n", text)

    def test_terminal_gets_no_octet_of_a_message_as_it_is(self):
        user = self.account(FROM + b"Message-ID: <\x1b[2J\xff\x07>\n\nx\n")
        text = self.host.run("popa3d", "--mailbox", user).output
        self.assertIn(r"<\u{1b}[2J\xff\u{7}>", text)
        self.assertEqual(self.look(user)["messages"][0]["message_id"], "<\x1b[2J\ufffd\x07>")

    def test_a_locked_mailbox_is_waited_for_and_then_left_alone(self):
        user = self.account(messages(1))
        self.settings('lock-timeout = "1s"\n')
        with open(self.host.mailbox(user), "rb+") as mailbox:
            fcntl.lockf(mailbox, fcntl.LOCK_EX)
            self.assertRegex(self.not_shown(user), f"^popa3d: /var/mail/{user} is locked: fcntl lock of ")
        self.host.write(f"/var/mail/{user}.lock", "1\n")
        self.assertRegex(self.not_shown(user), rf"^popa3d: /var/mail/{user} is locked: .*process 1 \(systemd\)")
        self.host.path(f"/var/mail/{user}.lock").unlink()
        self.assertEqual(self.look(user)["count"], 1)

    def test_a_session_that_goes_on_is_no_obstacle(self):
        user = self.account(messages(2))
        session = self.login(user)
        session.ok("DELE 1")
        self.assertEqual(self.look(user)["count"], 2)
        session.quit()
        self.assertEqual(self.look(user)["count"], 1)

    def test_nobody_waits_for_somebody_who_reads_slowly(self):
        user = self.account(messages(3000))
        self.settings('lock-timeout = "1s"\n')
        self.host.shell(f"(popa3d --mailbox {user} --json | sleep 300) >/dev/null 2>&1 &")
        self.until(lambda: self.host.run("pgrep", "-f", "popa3d --mailbox", check=False).output, "the command")
        self.login(user).quit()
        self.host.run("pkill", "-x", "sleep")

    def test_an_update_that_was_interrupted_is_told_and_not_finished(self):
        user = self.account(messages(1))
        self.login(user).quit()
        self.until_idle()
        self.host.shell(f"umask 077; mkdir -p /var/lib/popa3d/redo; echo x >/var/lib/popa3d/redo/{user}")
        with self.unchanged(user):
            self.assertIn("redo-record", self.kinds(self.look(user)))
            self.assertIn("an update was interrupted", self.host.run("popa3d", "--mailbox", user).output)
        self.host.run("rm", f"/var/lib/popa3d/redo/{user}")
        self.assertEqual(self.look(user)["oddities"], [])

    def test_users_see_their_own_mailbox_and_no_other(self):
        user, other = self.account(messages(2)), self.account(messages(1))
        with self.unchanged(user):
            own = self.look(user, user=user)
        self.assertEqual(own["messages"], self.look(user)["messages"])
        self.assertEqual((own["owner"], own["group"], own["mode"]), (user, "mail", "0660"))
        self.assertEqual(self.not_shown(other, user=user),
                         "popa3d: only root can look at the mailbox of somebody else\n")
        self.assertEqual(self.not_shown("nobody-of-this-name"), "popa3d: there is no user nobody-of-this-name\n")
        self.assertEqual(self.not_shown("root"), "popa3d: root: the mail of root is not served\n")

    def test_what_is_no_mailbox_is_refused_as_a_session_refuses_it(self):
        user = self.account()
        self.host.shell(f"ln -s /etc/shadow /var/mail/{user}")
        self.assertEqual(self.not_shown(user), f"popa3d: /var/mail/{user}: it is a symbolic link\n")
        self.host.shell(f"rm /var/mail/{user}; cp /etc/passwd /var/mail/{user}; chown {user} /var/mail/{user}")
        self.assertRegex(self.not_shown(user), f"^popa3d: /var/mail/{user}: it is not in mbox format")
        self.put(user, None)
        self.assertEqual(self.host.run("popa3d", "--mailbox", user).output,
                         f"mailbox   /var/mail/{user}\nfile      none, so the maildrop is empty\n"
                         "maildrop  0 messages, 0 octets\n")

    def test_settings_of_another_file_hold(self):
        user = self.account()
        self.configure("/etc/other.toml", 'mailbox = "{home}/Mailbox"\nmax-messages = 2\n')
        self.host.write(f"/home/{user}/Mailbox", b"".join(item.stored for item in messages(2)))
        self.host.run("chown", user, f"/home/{user}/Mailbox")
        shown = self.look(user, "--config", "/etc/other.toml")
        self.assertEqual((shown["mailbox"], shown["count"]), (f"/home/{user}/Mailbox", 2))
        self.host.write(f"/home/{user}/Mailbox", b"".join(item.stored for item in messages(3)))
        self.assertRegex(self.not_shown(user, "--config", "/etc/other.toml"), "more messages than max-messages allows")
