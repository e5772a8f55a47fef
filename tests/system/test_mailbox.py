"""The mailbox on disk: what is served, what is refused, what UPDATE leaves."""

import os

from .case import PASSWORD, HostCase
from .mail import SEPARATOR, mbox, message, messages


class Update(HostCase):
    def test_exactly_the_marked_messages_are_removed(self):
        mail = messages(7, b"line\n\n>From here\nFrom here too\n" * 30)
        for marked in ([1], [7], [4], [1, 2, 3], [5, 6, 7], [2, 4, 6], [1, 2, 3, 4, 5, 6, 7], []):
            with self.subTest(marked=marked):
                user = self.account(mail)
                before = self._identity(user)
                session = self.login(user)
                for number in marked:
                    session.ok(f"DELE {number}")
                session.quit()
                kept = [item for number, item in enumerate(mail, 1) if number not in marked]
                self.assertEqual(self.host.mailbox(user).read_bytes(), mbox(kept))
                self.assertEqual(self._identity(user), before, "inode, owner and mode stay")
                self._assert_nothing_left(user)

    def test_what_is_odd_in_the_rest_stays_to_the_byte(self):
        odd = (SEPARATOR + b"Subject: crlf\r\n\r\nbody\r\n\r\n" + SEPARATOR + b"Status: RO\nX-Status: A\nSubject: nul\0\n\n\0\xff\n\n"
               + SEPARATOR + b"Subject: no final newline\n\nend")
        victim = message(1)
        user = self.account(victim.stored + odd)
        session = self.login(user)
        session.ok("DELE 1")
        session.quit()
        self.assertEqual(self.host.mailbox(user).read_bytes(), odd)

    def test_mail_that_arrives_during_a_session_stays_and_shows_up_in_the_next(self):
        mail, late = messages(4), message(99, b"late\n")
        user = self.account(mail)
        session = self.login(user)
        session.ok("DELE 2")
        self.host.deliver(user, late.stored)
        self.assertRegex(session.ok("STAT"), rb"^\+OK 3 ")
        session.ok("DELE 4")
        session.quit()
        self.assertEqual(self.host.mailbox(user).read_bytes(), mbox([mail[0], mail[2], late]))
        session = self.login(user)
        self.assertEqual(session.multi("RETR 3"), late.lines)
        session.quit()

    def test_a_dropped_connection_deletes_nothing(self):
        mail = messages(3)
        user = self.account(mail)
        session = self.login(user)
        for number in (1, 2, 3):
            session.ok(f"DELE {number}")
        session.close()
        self.until_idle()
        self.assertEqual(self.host.mailbox(user).read_bytes(), mbox(mail))
        self._assert_nothing_left(user)

    def test_a_dropped_connection_in_the_middle_of_dele_deletes_nothing(self):
        mail = messages(12)
        user = self.account(mail)
        session = self.login(user)
        session.send(b"DELE 12")
        session.close()
        self.until_idle()
        self.assertEqual(self.host.mailbox(user).read_bytes(), mbox(mail))

    def test_a_kicked_session_deletes_nothing(self):
        mail = messages(3)
        user = self.account(mail)
        session = self.login(user)
        session.ok("DELE 1")
        self.host.shell("systemctl stop 'popa3d@*.service'")
        self.until_idle()
        self.assertEqual(self.host.mailbox(user).read_bytes(), mbox(mail))
        session.close()

    def test_a_mailbox_that_was_changed_meanwhile_loses_nothing_else(self):
        # Another program removed the first message, so that everything moved.
        mail = messages(4, b"text\n" * 50)
        user = self.account(mail)
        session = self.login(user)
        session.ok("DELE 3")
        self.host.mailbox(user).write_bytes(mbox(mail[1:]))
        session.command("QUIT")
        session.ended()
        left = self.host.mailbox(user).read_bytes()
        self.assertIn(left, (mbox(mail[1:]), mbox([mail[1], mail[3]])))

    def test_nothing_is_written_when_nothing_was_deleted(self):
        user = self.account(messages(3))
        before = os.stat(self.host.mailbox(user))
        session = self.login(user)
        session.multi("RETR 1")
        session.quit()
        after = os.stat(self.host.mailbox(user))
        self.assertEqual((after.st_mtime_ns, after.st_ctime_ns), (before.st_mtime_ns, before.st_ctime_ns))

    def _identity(self, user):
        status = os.stat(self.host.mailbox(user))
        return status.st_ino, status.st_uid, status.st_gid, status.st_mode

    def _assert_nothing_left(self, user):
        self.until_idle()
        beside = [name for name in os.listdir(self.host.path("/var/mail")) if name.startswith(f"{user}.")]
        self.assertEqual(beside, [])


class Locks(HostCase):
    def test_a_second_session_is_told_that_the_maildrop_is_in_use(self):
        self.settings('session-wait = "1s"\n')
        user = self.account(messages(1))
        first = self.login(user)
        self.refused(user, b"IN-USE")
        first.ok("STAT")
        first.quit()
        self.login(user).quit()

    def test_a_second_session_gets_in_when_the_first_ends_in_time(self):
        user = self.account(messages(1))
        first = self.login(user)
        second = self.connect()
        second.send(f"USER {user}\r\nPASS {PASSWORD}\r\n".encode())
        self.assertRegex(second.line(), rb"^\+OK")
        first.quit()
        self.assertRegex(second.line(), rb"^\+OK")
        second.quit()

    def test_a_session_that_was_killed_leaves_no_lock(self):
        user = self.account(messages(1))
        session = self.login(user)
        self.host.shell("systemctl kill --signal=KILL 'popa3d@*.service'")
        self.until_idle()
        session.close()
        self.login(user).quit()

    def test_another_programs_dotlock_is_respected_within_bounds(self):
        self.settings('lock-timeout = "1s"\n')
        mail = messages(2)
        user = self.account(mail)
        self.host.shell(f"echo 1 >/var/mail/{user}.lock; chown {user}: /var/mail/{user}.lock")
        session = self.connect()
        session.ok(f"USER {user}")
        session.err(f"PASS {PASSWORD}", b"IN-USE")
        self.assertTrue(self.host.path(f"/var/mail/{user}.lock").exists(), "the lock is not ours to remove")
        self.host.path(f"/var/mail/{user}.lock").unlink()
        self.login(user).quit()

    def test_dotlock_that_is_older_than_the_boot_keeps_nobody_out(self):
        user = self.account(messages(2))
        lock = self.host.path(f"/var/mail/{user}.lock")
        # As a power failure leaves one, and with a number that another process has by now.
        for content in ("", "1\n"):
            self.host.shell(f"printf '{content}' >/var/mail/{user}.lock; chown {user}: /var/mail/{user}.lock; "
                            f"touch -d '10 years ago' /var/mail/{user}.lock")
            self.login(user).quit()
            self.until_idle()
            self.assertFalse(lock.exists())

    def test_another_programs_fcntl_lock_is_respected_within_bounds(self):
        self.settings('lock-timeout = "1s"\n')
        user = self.account(messages(2))
        holder = ("import fcntl, signal, sys; mailbox = open(sys.argv[1], 'r+b')\n"
                  "fcntl.lockf(mailbox, fcntl.LOCK_EX); open(sys.argv[2], 'w'); signal.pause()")
        self.host.run("systemd-run", "--quiet", "--unit=holder", "python3", "-c", holder, f"/var/mail/{user}", "/tmp/held")
        try:
            self.until(self.host.path("/tmp/held").exists, "the lock")
            session = self.connect()
            session.ok(f"USER {user}")
            session.err(f"PASS {PASSWORD}", b"IN-USE")
        finally:
            self.host.shell("systemctl stop holder.service; rm /tmp/held")
        self.login(user).quit()

    def test_delivery_goes_on_during_a_session(self):
        user = self.account(messages(1))
        session = self.login(user)
        late = message(2)
        # A delivery agent takes both locks, or gives up.
        self.host.run("procmail", "-d", user, stdin=late.text)
        self.assertIn(late.text, self.host.mailbox(user).read_bytes())
        session.ok("DELE 1")
        session.quit()
        self.assertIn(late.text, self.host.mailbox(user).read_bytes())
        self.assertNotIn(messages(1)[0].text, self.host.mailbox(user).read_bytes())


class Odd(HostCase):
    def test_no_mailbox_is_an_empty_maildrop(self):
        user = self.account()
        session = self.login(user)
        self.assertEqual(session.ok("STAT").split()[:3], [b"+OK", b"0", b"0"])
        self.assertEqual(session.multi("LIST"), [])
        self.assertEqual(session.multi("UIDL"), [])
        session.err("RETR 1")
        session.quit()
        self.assertFalse(self.host.mailbox(user).exists())

    def test_an_empty_mailbox_is_an_empty_maildrop(self):
        user = self.account(b"")
        session = self.login(user)
        self.assertEqual(session.ok("STAT").split()[:3], [b"+OK", b"0", b"0"])
        session.quit()

    def test_message_of_a_from_line_that_breaks_off_can_be_deleted(self):
        user = self.account(b"From ")
        session = self.login(user)
        self.assertRegex(session.ok("STAT"), rb"^\+OK 1 ")
        session.ok("DELE 1")
        session.quit()
        self.assertEqual(self.host.mailbox(user).read_bytes(), b"")

    def test_mail_that_arrives_where_no_mailbox_was_stays(self):
        user = self.account()
        session = self.login(user)
        self.host.deliver(user, mbox(messages(1)))
        session.quit()
        self.assertEqual(self.host.mailbox(user).read_bytes(), mbox(messages(1)))

    def test_the_pseudo_message_of_uw_imap_is_hidden_and_kept(self):
        pseudo = (b"From MAILER-DAEMON Mon Nov  2 09:00:00 2026\nDate: 02 Nov 2026 09:00:00 +0000\n"
                  b"From: Mail System Internal Data <MAILER-DAEMON@example.org>\n"
                  b"Subject: DON'T DELETE THIS MESSAGE -- FOLDER INTERNAL DATA\n"
                  b"Message-ID: <1@example.org>\nX-IMAP: 1792000000 0000000002\nStatus: RO\n\n"
                  b"This text is part of the internal format of your mail folder, and is not\n"
                  b"a real message.  It is created automatically by the mail system software.\n\n")
        mail = messages(2)
        user = self.account(pseudo + mbox(mail))
        session = self.login(user)
        self.assertRegex(session.ok("STAT"), rb"^\+OK 2 ")
        self.assertEqual(session.multi("RETR 1"), mail[0].lines)
        session.ok("DELE 1")
        session.ok("DELE 2")
        session.quit()
        self.assertEqual(self.host.mailbox(user).read_bytes(), pseudo)

    def test_ids_survive_status_headers_of_other_programs(self):
        plain = message(1)
        user = self.account([plain])
        session = self.login(user)
        before = session.multi("UIDL")
        session.quit()
        marked = plain.text.replace(b"\n\n", b"\nStatus: RO\nX-Status: A\nX-Keywords: x\n\n", 1)
        self.host.mailbox(user).write_bytes(SEPARATOR + marked + b"\n")
        session = self.login(user)
        self.assertEqual(session.multi("UIDL"), before)
        session.quit()

    def test_different_messages_never_share_an_id_and_keep_theirs(self):
        # All that 1.0.3 hashes is the same.
        same = b"Received: from a by b; Mon, 2 Nov 2026 09:00:00 +0000\nSubject: %s\n\n%s\n"
        texts = [SEPARATOR + same % (b"first", b"1") + b"\n", SEPARATOR + same % (b"second", b"2") + b"\n"]
        user = self.account(b"".join(texts))
        session = self.login(user)
        ids = [line.split()[1] for line in session.multi("UIDL")]
        self.assertEqual(len(set(ids)), 2)
        session.ok("DELE 1")
        session.quit()
        session = self.login(user)
        self.assertEqual(session.multi("UIDL"), [b"1 " + ids[1]])
        session.quit()

    def test_ids_that_cannot_be_read_for_a_moment_are_there_again_later(self):
        same = b"From a\nSubject: %d\n\nbody\n\n"
        user = self.account(b"".join(same % number for number in range(3)))
        path = f"/var/lib/popa3d/unique-ids/{user}"
        session = self.login(user)
        ids = [line.split()[1] for line in session.multi("UIDL")]
        session.ok("DELE 1")
        session.quit()
        self.until_idle()
        file = self.host.path(path)
        file.rename(f"{file}.away")
        # The first one cannot be opened, the second one can, and cannot be read.
        for out_of_reach in (f"ln -s {path} {path}", f"rm {path}; mkdir {path}"):
            self.host.shell(out_of_reach)
            session = self.login(user)
            self.assertEqual(len(session.multi("UIDL")), 2)
            session.quit()
            self.until_idle()
            self.assertFalse(file.is_file())
        said = self.messages(POPA3D_EVENT="unique-ids-not-kept", POPA3D_USER=user)
        self.assertEqual([line.split(": ")[1] for line in said], ["reading those that are remembered"] * 2, said)
        file.rmdir()
        file.with_name(f"{file.name}.away").rename(file)
        session = self.login(user)
        self.assertEqual([line.split()[1] for line in session.multi("UIDL")], ids[1:])
        session.quit()

    def test_damage_in_the_file_of_ids_is_told_once_and_costs_nothing_else(self):
        same = b"From a\nSubject: %d\n\nbody\n\n"
        user = self.account(b"".join(same % number for number in range(2)))
        session = self.login(user)
        ids = session.multi("UIDL")
        session.quit()
        self.until_idle()
        path = f"/var/lib/popa3d/unique-ids/{user}"
        before = self.host.read(path)
        self.host.write(path, before + b"\0\0\0\0\n", mode=0o600)
        for _ in range(2):
            session = self.login(user)
            self.assertEqual(session.multi("UIDL"), ids)
            session.quit()
            self.until_idle()
        self.assertEqual(self.host.read(path), before)
        (said,) = self.messages(POPA3D_EVENT="unique-ids-not-kept", POPA3D_USER=user)
        self.assertTrue(said.endswith(": 1 damaged lines are dropped"), said)


class Refused(HostCase):
    """Not served, with a clear reply and a clear journal line, and not touched."""

    def test_a_symbolic_link(self):
        user = self.account()
        self.host.shell(f"ln -s /etc/shadow /var/mail/{user}")
        self._assert_refused(user, "symbolic link")

    def test_a_link_to_a_mailbox_of_ones_own(self):
        user = self.account()
        self.host.shell(f"echo >/home/{user}/mbox; chown {user}: /home/{user}/mbox; ln -s /home/{user}/mbox /var/mail/{user}")
        self._assert_refused(user, "symbolic link")

    def test_a_fifo(self):
        user = self.account()
        self.host.shell(f"mkfifo /var/mail/{user}; chown {user}:mail /var/mail/{user}")
        self._assert_refused(user, "regular file")

    def test_a_directory(self):
        user = self.account()
        self.host.shell(f"mkdir /var/mail/{user}; chown {user}:mail /var/mail/{user}")
        self._assert_refused(user, "regular file|directory")

    def test_a_file_of_another_owner(self):
        user, other = self.account(messages(1)), self.account()
        self.host.run("chown", f"{other}:mail", f"/var/mail/{user}")
        self.host.run("chmod", "0666", f"/var/mail/{user}")
        self._assert_refused(user, "belongs")

    def test_a_file_that_the_user_may_not_read(self):
        user = self.account(messages(1))
        self.host.run("chmod", "0", f"/var/mail/{user}")
        self._assert_refused(user, "ermission")

    def test_more_messages_than_the_limit(self):
        self.settings("max-messages = 3\n")
        user = self.account(messages(4))
        self._assert_refused(user, "messages")
        other = self.account(messages(3))
        self.login(other).quit()

    def test_more_octets_than_the_limit(self):
        self.settings('max-mailbox-size = "1K"\n')
        user = self.account([message(1, b"x" * 2000 + b"\n")])
        self._assert_refused(user, "large|size|limit|bytes|octets")

    def test_a_file_that_is_no_mbox(self):
        user = self.account(b"this is\nno mailbox\n")
        self._assert_refused(user, "From|mbox")

    def _assert_refused(self, user, reason):
        path = f"/var/mail/{user}"
        before = self.host.run("stat", "-c", "%F %i %s %u %Y", path).output
        self.refused(user, b"SYS/(TEMP|PERM)")
        self.until_idle()
        said = [line for line in self.messages(POPA3D_USER=user) if path in line]
        self.assertTrue(said, self.messages(POPA3D_USER=user))
        self.assertRegex(said[-1], r"^Failed or refused to load ")
        self.assertRegex(said[-1], reason)
        self.assertEqual(self.host.run("stat", "-c", "%F %i %s %u %Y", path).output, before)


class Templates(HostCase):
    def test_a_mailbox_in_the_home_directory(self):
        self.settings('mailbox = "{home}/Mailbox"\n')
        mail = messages(2)
        user = self.account()
        self.host.write(f"/home/{user}/Mailbox", mbox(mail))
        self.host.run("chown", f"{user}:", f"/home/{user}/Mailbox")
        session = self.login(user)
        self.assertEqual(session.multi("RETR 2"), mail[1].lines)
        session.ok("DELE 1")
        session.quit()
        self.assertEqual(self.host.read(f"/home/{user}/Mailbox"), mbox(mail[1:]))

    def test_the_group_of_the_spool_follows_no_link_of_a_user_into_the_spool(self):
        self.settings('mailbox = "{home}/mail/inbox"\n')
        user = self.account()
        self.host.shell(f"ln -s /var/mail /home/{user}/mail; chown -h {user}: /home/{user}/mail\n"
                        f"install -o {user} -g mail -m 660 /dev/null /var/mail/inbox")
        try:
            self.login(user).quit()
            # With the group it could have made /var/mail/inbox.lock, a name that its user chose.
            self.assert_said("No dotlock for ", POPA3D_USER=user)
        finally:
            self.host.shell("rm /var/mail/inbox")

    def test_the_group_of_the_spool_follows_a_link_of_roots(self):
        self.host.shell("ln -s ../mail /var/spool/popa3d-test")
        try:
            self.settings('mailbox = "/var/spool/popa3d-test/{user}"\n')
            user = self.account(messages(1))
            self.login(user).quit()
            self.assertFalse(self.messages(POPA3D_USER=user, POPA3D_EVENT="no-dotlock"))
        finally:
            self.host.shell("rm /var/spool/popa3d-test")
