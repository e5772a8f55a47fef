"""What clients delete is kept for a while, and comes back when an admin wants it."""

import collections
import os
import random
import re
import time

from .mail import Message, mbox, message, messages
from .test_storage import BODY, STATE, StorageCase

KEPT = f"{STATE}/deleted"
DAY = 24 * 3600

# A line of the list: when, unique-id, octets, and the texts.
LINE = re.compile(r"(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d)  (\S+) +(\d+)  (.*)")


class UndoCase(StorageCase):
    def setUp(self):
        self.settings('keep-deleted = "7d"\n')

    def undelete(self, user, *options, **more):
        """What `popa3d --undelete` says."""
        return self.host.run("popa3d", "--undelete", user, *options, **more).output

    def refused_undelete(self, user, *options):
        """Why it does not do that."""
        finished = self.host.run("popa3d", "--undelete", user, *options, check=False)
        self.assertNotEqual(finished.code, 0, finished)
        return finished.errors

    def listed(self, user, *options):
        """The list, as tuples of its columns."""
        heading, *lines = self.undelete(user, *options).splitlines()
        if not lines:
            self.assertEqual(heading, "nothing is kept")
            return []
        self.assertRegex(heading, "^DELETED +UNIQUE-ID +OCTETS +MESSAGE$")
        return [LINE.fullmatch(line).groups() for line in lines]

    def files(self, user):
        """The names of the files of what is kept, and of nothing else."""
        directory = self.host.path(f"{KEPT}/{user}")
        return sorted(os.listdir(directory)) if directory.exists() else []

    def kept(self, user):
        """What is kept, the oldest first."""
        return b"".join(self.host.read(f"{KEPT}/{user}/{name}") for name in self.files(user))

    def age(self, user, name, seconds):
        """Makes what was removed in this file be removed so much earlier."""
        whole, part = name.split(".")
        aged = self.host.path(f"{KEPT}/{user}/{int(whole) - seconds}.{part}")
        os.rename(self.host.path(f"{KEPT}/{user}/{name}"), aged)
        os.utime(aged, (int(whole) - seconds,) * 2)

    def remove(self, user, *numbers):
        """A session that deletes these messages."""
        self.assertRegex(self.delete(user, *numbers), rb"^\+OK ")
        self.until_idle()

    def unique_ids(self, user):
        session = self.login(user)
        ids = [line.split()[1].decode() for line in session.multi("UIDL")]
        session.quit()
        self.until_idle()
        return ids


class Undo(UndoCase):
    def test_deleted_messages_are_listed_and_come_back_with_their_unique_ids(self):
        mail = messages(4)
        user = self.account(mail)
        ids = self.unique_ids(user)
        self.remove(user, 1, 3, 4)
        self.assert_mailbox(user, mbox([mail[1]]))
        self.assertEqual(self.kept(user), mbox([mail[0], mail[2], mail[3]]))
        listed = self.listed(user)
        self.assertEqual([(line[1], int(line[2])) for line in listed],
                         [(ids[number], mail[number].octets) for number in (0, 2, 3)])
        self.assertEqual(listed[0][3], "sender@example.org  message 1  <1@example.org>")
        said = self.undelete(user, ids[2])
        self.assertEqual(said, f"1 message put back into /var/mail/{user}\n")
        self.assert_mailbox(user, mbox([mail[1], mail[2]]))
        self.assertEqual([line[1] for line in self.listed(user)], [ids[0], ids[3]])
        self.undelete(user, "--all")
        self.assertEqual(self.unique_ids(user), [ids[1], ids[2], ids[0], ids[3]])
        session = self.login(user)
        self.assertEqual(session.multi("RETR 3"), mail[0].lines)
        session.quit()
        self.assertEqual(self.listed(user), [])
        self.assertEqual(self.files(user), [])
        self.assert_said("1 messages (", POPA3D_EVENT="undeleted", POPA3D_USER=user)
        self.assert_said("2 messages (", POPA3D_EVENT="undeleted", POPA3D_USER=user)
        self.assert_nothing_left(user)

    def test_nothing_is_kept_unless_it_is_wanted(self):
        self.settings("")
        user = self.account(messages(2))
        self.remove(user, 1)
        self.assertFalse(self.host.path(f"{KEPT}/{user}").exists())
        self.assertEqual(self.undelete(user), "nothing is kept; keep-deleted is off, see /etc/popa3d.toml\n")

    def test_only_what_was_deleted_since_then_is_listed_and_put_back(self):
        mail = messages(3)
        user = self.account(mail)
        for days in (3, 1, 0):
            self.remove(user, 1)
            self.age(user, self.files(user)[-1], days * DAY)
        self.assertEqual(len(self.listed(user)), 3)
        self.assertEqual(len(self.listed(user, "--since", "2d")), 2)
        self.assertEqual(len(self.listed(user, "--since", "2h")), 1)
        when = self.host.run("date", "-d", "36 hours ago", "+%Y-%m-%d %H:%M").output.strip()
        self.assertEqual(len(self.listed(user, "--since", when)), 2)
        self.assertEqual(len(self.listed(user, "--since", when[:10])), 2)
        self.assertEqual(self.listed(user)[0][0][:10],
                         self.host.run("date", "-d", "3 days ago", "+%Y-%m-%d").output.strip())
        self.undelete(user, "--since", when, "--all")
        self.assert_mailbox(user, mbox(mail[1:]))
        ((_, old, *_),) = self.listed(user)
        self.assertEqual(self.undelete(user, "--since", when),
                         "nothing that was deleted since then is kept; 1 older message is\n")
        self.assertEqual(self.refused_undelete(user, "--since", when, old),
                         f"popa3d: {user}: {old} is kept, but was deleted before that; nothing was put back\n")

    def test_what_is_not_kept_keeps_all_from_being_put_back(self):
        user = self.account(messages(2))
        self.remove(user, 1)
        (line,) = self.listed(user)
        why = self.refused_undelete(user, line[1], "0123456789abcdef")
        self.assertEqual(why, f"popa3d: {user}: 0123456789abcdef is not kept; nothing was put back\n")
        self.assertIn("nothing of that is kept", self.refused_undelete(user, "--since", "0s", "--all"))
        self.assertEqual(self.listed(user), [line])

    def test_user_and_nobody_else_than_root_can_read_what_is_kept(self):
        user = self.account(messages(1))
        self.remove(user, 1)
        found = self.host.run("find", KEPT, "-printf", "%M %U:%G\n").output.splitlines()
        self.assertEqual(set(found), {"drwx------ 0:0", "-rw------- 0:0"})
        refused = self.host.run("ls", f"{KEPT}/{user}", user=user, check=False)
        self.assertIn("Permission denied", refused.errors)
        for option in (("--undelete", user), ("--expire",), ("--recover",)):
            refused = self.host.run("/usr/sbin/popa3d", *option, user=user, check=False)
            self.assertEqual((refused.code, refused.output, refused.errors), (1, "", "popa3d: only root can do that\n"))

    def test_mail_of_one_user_is_never_taken_for_that_of_another(self):
        (one, other), mail = (self.account(messages(1)), self.account([message(7)])), messages(1)
        self.remove(one, 1)
        self.remove(other, 1)
        self.assertIn("is not kept", self.refused_undelete(other, self.listed(one)[0][1]))
        self.undelete(one, "--all")
        self.assert_mailbox(one, mbox(mail))
        self.assert_mailbox(other, b"")
        self.assertEqual(len(self.listed(other)), 1)
        for name in ("../" + one, ".", "", f"{one}/", "root", "no-such-user"):
            self.assertNotEqual(self.refused_undelete(name, "--all"), "")

    def test_kept_file_that_is_damaged_is_named_and_keeps_nobody_from_the_rest(self):
        mail = messages(3)
        user = self.account(mail)
        for _ in range(3):
            self.remove(user, 1)
        path = f"{KEPT}/{user}/{self.files(user)[1]}"
        for damaged in (b"not a mailbox\n", b"\0" * 500):
            self.host.write(path, damaged, mode=0o600)
            *lines, left_out = self.undelete(user).splitlines()
            self.assertEqual([LINE.fullmatch(line)[4].split()[-1][:3] for line in lines[1:]], ["<1@", "<3@"])
            self.assertTrue(left_out.startswith(f"left out: {path}: not a mailbox in mbox format"), left_out)
        said = self.undelete(user, "--all").splitlines()
        self.assertEqual(said, [f"2 messages put back into /var/mail/{user}", left_out])
        self.assert_mailbox(user, mbox([mail[0], mail[2]]))
        self.assertEqual(self.host.read(path), damaged)
        self.assertIn(f"nothing of that can be read: {path}", self.refused_undelete(user, "--all"))

    def test_mail_that_looks_like_internal_data_comes_back_as_well(self):
        data = Message(
            b"Subject: DON'T DELETE THIS MESSAGE -- FOLDER INTERNAL DATA\nX-IMAP: 1 2\nMessage-ID: <a@b>\n\nno\n")
        mail = [message(1), data, message(3)]
        user = self.account(mail)
        self.remove(user, 2)
        self.assertEqual(len(self.listed(user)), 1)
        self.undelete(user, "--all")
        self.assert_mailbox(user, mbox([mail[0], mail[2], data]))

    def test_texts_of_others_do_nothing_to_the_terminal(self):
        user = self.account([Message(
            b"From: a\x1b[2Jb\nSubject: c\x07\n\td\xff\nMessage-ID: <\\>\n\nbody\n")])
        self.remove(user, 1)
        self.assertEqual(self.listed(user)[0][3], r"a\u{1b}[2Jb  c\u{7} d\xff  <\\>")

    def test_messages_that_share_an_id_can_be_told_apart(self):
        mail = [b"From a\nSubject: %d\n\nbody\n\n" % number for number in range(3)]
        user = self.account(b"".join(mail))
        ids = self.unique_ids(user)
        self.remove(user, 2, 3)
        listed = [line[1] for line in self.listed(user)]
        self.assertEqual(len(set(listed)), 2)
        self.undelete(user, listed[1])
        self.assert_mailbox(user, mail[0] + mail[2])
        self.assertEqual(self.unique_ids(user), [ids[0], ids[2]])

    def test_message_is_found_by_the_unique_id_that_uidl_and_the_journal_told(self):
        mail = [b"From a\nSubject: %d\n\nbody\n\n" % number for number in range(2)]
        user = self.account(b"".join(mail))
        ids = self.unique_ids(user)
        self.remove(user, 2)
        self.assert_said(f"Deleted {ids[1]} ", POPA3D_EVENT="expunged", POPA3D_USER=user)
        (line,) = self.listed(user)
        self.assertEqual(line[1], ids[0])
        self.assertIn("is not kept", self.refused_undelete(user, ids[1][:-1]))
        self.undelete(user, ids[1])
        self.assert_mailbox(user, b"".join(mail))
        self.assertEqual(self.unique_ids(user), ids)
        self.assertEqual(self.listed(user), [])


class Mailboxes(UndoCase):
    """What messages are put back into."""

    def test_mail_that_came_meanwhile_stays_in_front(self):
        mail, late = messages(2), message(9)
        user = self.account(mail)
        self.remove(user, 1)
        self.host.deliver(user, late.stored)
        self.undelete(user, "--all")
        self.host.deliver(user, message(10).stored)
        self.assert_mailbox(user, mbox([mail[1], late, mail[0], message(10)]))

    def test_line_ends_that_are_missing_glue_no_messages_together(self):
        mail = messages(3)
        for lacking in (1, 2):
            user = self.account(mbox(mail)[:-lacking])
            self.remove(user, 3)
            self.host.mailbox(user).write_bytes(mbox(mail[:2])[:-lacking])
            self.undelete(user, "--all")
            self.assert_mailbox(user, mbox(mail))

    def test_mailbox_that_is_missing_is_made_for_its_user(self):
        mail = messages(2)
        user = self.account(mail)
        self.remove(user, 1, 2)
        self.host.mailbox(user).unlink()
        self.undelete(user, "--all")
        self.assert_mailbox(user, mbox(mail))
        made = self.host.run("stat", "-c", "%a %U", f"/var/mail/{user}").output
        self.assertEqual(made, f"600 {user}\n")
        session = self.login(user)
        session.quit()

    def test_mailbox_that_cannot_be_made_or_is_not_the_users_leaves_all_kept(self):
        user = self.account(messages(1))
        self.remove(user, 1)
        self.host.mailbox(user).unlink()
        self.host.run("ln", "-s", "/etc/passwd", f"/var/mail/{user}")
        self.assertIn("symbolic link", self.refused_undelete(user, "--all"))
        self.host.mailbox(user).unlink()
        self.settings('keep-deleted = "7d"\nmailbox = "/srv/mail/{user}"\n')
        self.assertIn("No such file", self.refused_undelete(user, "--all"))
        self.host.run("mkdir", "-p", "/srv/mail")
        self.assertIn("Permission denied", self.refused_undelete(user, "--all"))
        self.assertEqual(len(self.listed(user)), 1)
        self.assert_nothing_left(user)

    def test_user_who_is_logged_in_is_not_disturbed(self):
        self.settings('keep-deleted = "7d"\nsession-wait = "1s"\n')
        mail = messages(2)
        user = self.account(mail)
        self.remove(user, 1)
        session = self.login(user)
        self.assertIn("a session of this user goes on (process", self.refused_undelete(user, "--all"))
        session.ok("DELE 1")
        session.quit()
        self.until_idle()
        self.undelete(user, "--all")
        self.assert_mailbox(user, mbox(mail))

    def test_mailbox_does_not_become_larger_than_it_may_be(self):
        mail = messages(20, BODY)
        user = self.account(mail)
        self.remove(user, *range(1, 16))
        self.settings('keep-deleted = "7d"\nmax-mailbox-size = "2M"\n')
        self.assertIn("larger than max-mailbox-size", self.refused_undelete(user, "--all"))
        self.assert_mailbox(user, mbox(mail[15:]))
        self.assertEqual(len(self.listed(user)), 15)

    def test_locks_of_others_are_waited_for(self):
        self.settings('keep-deleted = "7d"\nlock-timeout = "1s"\n')
        user = self.account(messages(2))
        self.remove(user, 1)
        self.host.write(f"/var/mail/{user}.lock", "1\n")
        self.assertIn("is locked: dotlock of process 1", self.refused_undelete(user, "--all"))
        self.host.path(f"/var/mail/{user}.lock").unlink()
        self.undelete(user, "--all")
        self.assert_nothing_left(user)


class Expiry(UndoCase):
    def test_what_was_kept_long_enough_goes_and_says_so(self):
        mail = messages(3)
        user = self.account(mail)
        for days in (8, 6):
            self.remove(user, 1)
            self.age(user, self.files(user)[-1], days * DAY)
        self.host.run("systemctl", "start", "popa3d-expire.service")
        self.assertEqual(self.kept(user), mbox([mail[1]]))
        self.assert_said(f"1 kept removals of {user} expired (", POPA3D_EVENT="kept-expired", POPA3D_USER=user)
        # The next one goes when the user deletes something.
        self.age(user, self.files(user)[0], 2 * DAY)
        self.remove(user, 1)
        self.assertEqual(self.kept(user), mbox([mail[2]]))

    def test_timer_is_there_and_what_it_does_is_nothing_where_nothing_is_kept(self):
        self.assertEqual(self.host.run("systemctl", "is-active", "popa3d-expire.timer").output, "active\n")
        self.host.run("rm", "-rf", KEPT)
        self.host.run("systemctl", "start", "popa3d-expire.service")
        result = self.host.run("systemctl", "show", "-P", "ConditionResult", "popa3d-expire.service").output
        self.assertEqual(result, "no\n")

    def test_users_who_are_gone_and_those_for_whom_nothing_is_kept_any_more_leave_nothing(self):
        gone, user = self.account(messages(1)), self.account(messages(1))
        self.remove(gone, 1)
        self.remove(user, 1)
        self.host.run("userdel", gone)
        self.assertEqual(len(self.listed(gone)), 1)
        self.assertIn("no such user", self.refused_undelete(gone, "--all"))
        self.age(gone, self.files(gone)[0], 8 * DAY)
        self.host.run("popa3d", "--expire")
        self.assertFalse(self.host.path(f"{KEPT}/{gone}").exists())
        listed = self.host.run("popa3d", "--undelete", gone, check=False)
        self.assertEqual(listed.code, 1)
        self.assertIn("no such user", listed.errors)
        self.assertEqual(len(self.files(user)), 1)
        self.settings("")
        self.host.run("popa3d", "--expire")
        self.assertFalse(self.host.path(f"{KEPT}/{user}").exists())

    def test_what_cannot_be_looked_at_keeps_nobody_else_from_it_and_is_a_failure(self):
        user = self.account(messages(1))
        self.remove(user, 1)
        self.age(user, self.files(user)[0], 8 * DAY)
        self.host.write(f"{KEPT}/a-file", "")
        self.addCleanup(self.host.path(f"{KEPT}/a-file").unlink)
        expired = self.host.run("popa3d", "--expire", check=False)
        self.assertEqual((expired.code, expired.output), (1, ""))
        self.assertRegex(expired.errors, r"^popa3d: when a-file deleted what is kept: Not a directory [^\n]*\n$")
        self.assertFalse(self.host.path(f"{KEPT}/{user}").exists())

    def test_with_a_mistake_in_the_settings_nothing_expires_and_it_says_so(self):
        user = self.account(messages(1))
        self.remove(user, 1)
        self.age(user, self.files(user)[0], 8 * DAY)
        self.settings('keep-deleted = "week"\n')
        refused = self.host.run("popa3d", "--expire", check=False)
        self.assertEqual((refused.code, refused.errors),
                         (1, 'popa3d: /etc/popa3d.toml:1: "week" is not a duration such as "90s", "10m", "2h", "7d"\n'))
        self.assertEqual(len(self.files(user)), 1)

    def test_oldest_removals_make_room_for_newer_ones(self):
        self.settings('keep-deleted = "7d"\nkeep-deleted-size = "500K"\n')
        mail = messages(5, BODY)  # 200 kB each
        user = self.account(mail)
        for _ in range(4):
            self.remove(user, 1)
        self.assertEqual(self.kept(user), mbox(mail[2:4]))
        self.assert_said(f"1 kept removals of {user} dropped", POPA3D_EVENT="kept-dropped", POPA3D_USER=user)

    def test_what_was_deleted_while_the_clock_was_ahead_crowds_nothing_out_and_expires(self):
        self.settings('keep-deleted = "7d"\nkeep-deleted-size = "500K"\n')
        mail = messages(6, BODY)  # 200 kB each
        user = self.account(mail)
        for _ in range(2):
            self.remove(user, 1)
            self.age(user, self.files(user)[-1], -400 * DAY)
        self.remove(user, 1)
        self.assertEqual(self.kept(user), mbox(mail[1:3]))
        self.age(user, self.files(user)[0], -400 * DAY)
        self.host.run("systemctl", "start", "popa3d-expire.service")
        for name in self.files(user):
            self.assertLess(float(name), time.time() + DAY)
            self.age(user, name, 8 * DAY)
        self.host.run("systemctl", "start", "popa3d-expire.service")
        self.assertEqual(self.files(user), [])

    def test_clock_that_is_behind_for_a_while_takes_nothing_of_what_is_kept(self):
        mail = messages(4)
        user = self.account(mail)
        for _ in range(2):
            self.remove(user, 1)
        # As if this host's clock, right until now, had begun to be 400 days behind: what is there is from the future.
        for name in self.files(user):
            self.age(user, name, -400 * DAY)
        self.remove(user, 1)
        self.host.run("systemctl", "start", "popa3d-expire.service")
        for name in self.files(user):
            self.assertLess(float(name), time.time() + DAY)
        # As if it were right again.
        for name in self.files(user):
            aged = self.host.path(f"{KEPT}/{user}/{name}")
            modified = aged.stat().st_mtime - 400 * DAY
            aged = aged.rename(aged.with_name(f"{int(float(name)) - 400 * DAY}.{name.partition('.')[2]}"))
            os.utime(aged, (modified,) * 2)
        self.host.run("systemctl", "start", "popa3d-expire.service")
        self.assertEqual(self.kept(user), mbox(mail[:3]))

    def test_removal_larger_than_all_that_may_be_kept_happens_and_nothing_else_goes_for_it(self):
        self.settings('keep-deleted = "7d"\nkeep-deleted-size = "500K"\n')
        mail = messages(6, BODY)
        user = self.account(mail)
        self.remove(user, 1)
        self.remove(user, 1, 2, 3)
        self.assert_mailbox(user, mbox(mail[4:]))
        self.assertEqual(self.kept(user), mbox(mail[:1]))
        self.assert_said("3 (", POPA3D_EVENT="not-kept", POPA3D_USER=user)


class Full(UndoCase):
    def test_what_cannot_be_kept_is_not_deleted(self):
        with self.file_system("ext4", "16M", STATE):
            mail = messages(20, BODY)
            user = self.account(mail)
            # For the record it would do.
            self.fill(room=800_000)
            self.assertRegex(self.delete(user, *range(2, 12)), rb"^-ERR \[SYS/TEMP\] ")
            self.assert_mailbox(user, mbox(mail))
            said = [line for line in self.messages(POPA3D_USER=user) if line.startswith("Failed to update")]
            self.assertIn("keeping what is removed in /var/lib/popa3d (keep-deleted): No space left on device", said[0])
            self.assertEqual(self.files(user), [])
            self.assert_nothing_left(user)
            # The last ones need no record, and are kept all the same.
            self.assertRegex(self.delete(user, *range(11, 21)), rb"^-ERR \[SYS/TEMP\] ")
            self.assert_mailbox(user, mbox(mail))
            self.host.shell("rm /small/filler")
            self.assertRegex(self.delete(user, *range(2, 12)), rb"^\+OK ")
            self.assertEqual(self.kept(user), mbox(mail[1:11]))
            self.assert_nothing_left(user)

    def test_full_spool_leaves_what_is_kept(self):
        with self.file_system("ext4", "16M", "/var/mail"):
            mail = messages(20, BODY)
            user = self.account(mail)
            self.remove(user, *range(1, 6))
            self.fill()
            self.assertIn("No space left on device", self.refused_undelete(user, "--all"))
            self.assert_mailbox(user, mbox(mail[5:]))
            self.assertEqual(self.kept(user), mbox(mail[:5]))
            self.assert_nothing_left(user)
            self.host.shell("rm /small/filler")
            self.undelete(user, "--all")
            self.assert_mailbox(user, mbox([*mail[5:], *mail[:5]]))

    def test_full_disk_of_what_is_kept_leaves_it(self):
        with self.file_system("ext4", "16M", STATE):
            mail = messages(20, BODY)
            user = self.account(mail)
            self.remove(user, *range(1, 6))
            self.fill(room=200_000)
            self.assertIn("No space left on device", self.refused_undelete(user, "--all"))
            self.assert_mailbox(user, mbox(mail[5:]))
            self.assertEqual(self.kept(user), mbox(mail[:5]))
            self.assert_nothing_left(user)

    def test_file_size_limit_of_the_shell_leaves_all_as_it_is(self):
        mail = messages(20, BODY)
        user = self.account(mail)
        self.remove(user, *range(1, 6))
        for kib in (1, 800, 1500):
            limited = self.host.run("bash", "-c", f"ulimit -f {kib}; popa3d --undelete {user} --all", check=False)
            self.assertIn("file", limited.errors.lower())
            self.assertEqual(limited.code, 1)
            self.assert_mailbox(user, mbox(mail[5:]))
            self.assertEqual(self.kept(user), mbox(mail[:5]))
            self.assert_nothing_left(user)
        self.undelete(user, "--all")

    def test_other_file_systems(self):
        for kind in ("xfs", "btrfs"):
            with self.subTest(kind), self.file_system(kind, "400M", "/var/mail", STATE):
                mail = messages(6, BODY)
                user = self.account(mail)
                self.remove(user, 1, 3, 6)
                self.assertEqual(self.kept(user), mbox([mail[0], mail[2], mail[5]]))
                self.undelete(user, "--all")
                self.assert_mailbox(user, mbox([mail[1], mail[3], mail[4], mail[0], mail[2], mail[5]]))
                self.assertEqual(self.files(user), [])
                self.assert_nothing_left(user)


class Killed(UndoCase):
    """All of popa3d is killed while it deletes and while it puts back: each message is in one place."""

    COUNT, ROUNDS = 400, 24  # 80 MB

    def setUp(self):
        super().setUp()
        self.settings('keep-deleted = "7d"\nkeep-deleted-size = "unlimited"\n')
        self.random = random.Random(3)
        self.mail = messages(self.COUNT, BODY)
        self.user = self.account(self.mail)
        self.outcomes = collections.Counter()

    def test_whenever_popa3d_is_killed_each_message_is_in_the_mailbox_or_kept(self):
        for number in range(self.ROUNDS):
            if number % 3 == 2:
                self._put_back(number)
            else:
                self._delete()
            # Mail that comes before anything is recovered.
            self.mail.append(message(len(self.mail) + 1, BODY))
            self.host.deliver(self.user, self.mail[-1].stored)
            if number % 2:
                self.host.run("popa3d", "--recover")
            else:
                self.login(self.user).quit()
            self.until_idle()
            mailbox, kept = self._numbers(self.host.mailbox(self.user).read_bytes()), self._numbers(self.kept(self.user))
            self.assertEqual(sorted(mailbox + kept), list(range(1, len(self.mail) + 1)), f"round {number}")
            self.assertFalse([name for name in self.files(self.user) if name.endswith(".new")], f"round {number}")
            self.assertFalse(self.host.path(f"{STATE}/redo/{self.user}").exists(), f"round {number}")
        print(f"{self.ROUNDS} kills, each message in one place: {dict(self.outcomes)}", flush=True)
        self.assertGreater(self.outcomes["delete, half-way"] + self.outcomes["put back, half-way"], 0,
                           "no kill fell into the middle of anything")

    def _delete(self):
        session = self.login(self.user)
        count = int(session.ok("STAT").split()[1])
        for index in sorted(self.random.sample(range(count), min(count, self.random.choice([1, 5, 60])))):
            session.ok(f"DELE {index + 1}")
        session.send(b"QUIT\r\n")
        self._kill_within(0.25, "delete")
        session.close()

    def _put_back(self, number):
        self.host.run("systemd-run", "-q", "--collect", f"--unit=undelete-{number}", "popa3d", "--undelete", self.user, "--all")
        self._kill_within(0.08, "put back")

    def _kill_within(self, seconds, what):
        """Kills at some time so soon after there is a record."""
        record = self.host.path(f"{STATE}/redo/{self.user}")
        end = time.monotonic() + 1
        while not record.exists() and time.monotonic() < end:
            time.sleep(0.0005)
        time.sleep(self.random.uniform(0, seconds))
        self.host.run("systemctl", "kill", "--signal=KILL", "popa3d@*", "undelete-*", check=False)
        self.until_idle()
        self.outcomes[f"{what}, {'half-way' if record.exists() else 'early or late'}"] += 1

    def _numbers(self, content):
        """The numbers of the messages of an mbox; each must be whole."""
        numbers = [int(found) for found in re.findall(rb"^Message-ID: <(\d+)@", content, re.MULTILINE)]
        self.assertTrue(content == mbox([self.mail[number - 1] for number in numbers]), "a message is torn")
        return numbers
