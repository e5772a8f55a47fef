"""An UPDATE that is killed: the mailbox is the old one or the new one, and mail that came since is there."""

import contextlib
import os
import random
import select
import signal
import time

from .case import HostCase
from .mail import mbox, message, messages

RECORDS = "/var/lib/popa3d/redo"

# Large enough for a kill to hit it half-way, by way of the record as well as directly.
COUNT, BODY = 3000, b"one of many lines of about the usual length of a line in a message\n" * 300


class Crash(HostCase):
    def setUp(self):
        self.random = random.Random(5)

    def test_killed_update_leaves_the_old_or_the_new_mailbox_and_all_that_came_since(self):
        mail = messages(COUNT, BODY)
        user = self.account(mail)
        outcomes = set()
        for number in range(16):
            self._write(user, mbox(mail))
            doomed = set(self.random.sample(range(COUNT), self.random.choice([1, 2, COUNT // 2])))
            said = self._kill_during_update(user, doomed, self.random.uniform(0, 0.3))
            late = message(COUNT + number)
            with open(self._mailbox(user), "ab") as mailbox:
                mailbox.write(late.stored)
            if number % 2:
                self.host.run("popa3d", "--recover")
            else:
                self.login(user).ok("QUIT")
            self.until_idle()
            after = self._mailbox(user).read_bytes()
            kept = [item for index, item in enumerate(mail) if index not in doomed]
            outcome = {mbox([*mail, late]): "old", mbox([*kept, late]): "new"}.get(after)
            self.assertIsNotNone(outcome, f"round {number}: neither old nor new")
            if said.startswith(b"+OK"):
                self.assertEqual(outcome, "new", "+OK was said")
            outcomes.add(outcome)
            self.assertEqual(self._records(), [])
        self.assertIn("new", outcomes, "every kill came too early to mean anything")

    def test_helper_that_is_killed_half_way_is_followed_by_one_that_finishes(self):
        mail = messages(COUNT, BODY)
        user = self.account(mail)
        uid = int(self.host.run("id", "-u", user).output)
        for _ in range(30):
            self._write(user, mbox(mail))
            session = self.login(user)
            session.ok("DELE 1")
            session.send(b"QUIT\r\n")
            killed = None
            while not killed:  # no pause: half-way is a few hundredths of a second
                killed = self._kill_half_way(user, uid) or self._is_over(session)
            said = session.line()
            session.close()
            self.until_idle()
            self.assertEqual(self._records(), [])
            if said.startswith(b"-ERR [SYS/TEMP] "):  # killed before the new mailbox was decided on
                self.assertEqual(self._mailbox(user).read_bytes(), mbox(mail))
                continue
            self.assertRegex(said, rb"^\+OK ")
            self.assertEqual(self._mailbox(user).read_bytes(), mbox(mail[1:]))
            if killed == "killed":
                return
        self.fail("no kill came at the right time")

    def test_recovery_service_finishes_what_was_interrupted(self):
        user, kept = self._interrupted()
        self.host.run("systemctl", "start", "popa3d-recover.service")
        self.assertEqual(self._mailbox(user).read_bytes(), mbox(kept))
        *_, entry = self.journal(POPA3D_EVENT="update-recovered", POPA3D_USER=user)
        octets = str(messages(1, BODY)[0].octets)
        self.assertEqual((entry["POPA3D_DELETED_MESSAGES"], entry["POPA3D_DELETED_OCTETS"]), ("1", octets))
        self.assertTrue(entry["MESSAGE"].endswith(f"it is finished now, 1 ({octets}) deleted"), entry["MESSAGE"])
        self.assertEqual(self._records(), [])

    def test_record_of_a_replaced_mailbox_is_kept_aside_and_the_mailbox_left_alone(self):
        user, _ = self._interrupted()
        other = messages(3)
        self.host.shell(f"mv /var/mail/{user} /var/mail/{user}.old")
        self.host.deliver(user, mbox(other))
        session = self.login(user)
        self.assertRegex(session.ok("STAT"), rb"^\+OK 3 ")
        session.ok("QUIT")
        self.assertEqual(self._mailbox(user).read_bytes(), mbox(other))
        self.assert_said("Update of ", POPA3D_EVENT="update-not-recovered", POPA3D_USER=user)
        aside = self.host.path(f"/var/lib/popa3d/redo-aside/{user}")
        self.assertEqual(len(os.listdir(aside)), 1)
        self.assertEqual(self._records(), [])

    def test_record_of_a_user_who_is_gone_keeps_no_other_from_recovering(self):
        gone, _ = self._interrupted(name="aagone")
        user, kept = self._interrupted()
        self.host.run("userdel", gone)
        recovery = self.host.run("popa3d", "--recover", check=False)
        self.assertEqual(recovery.code, 1)
        self.assertEqual(self._mailbox(user).read_bytes(), mbox(kept))
        # A name service that is not up yet says the same.
        self.assertEqual(self._records(), [gone])
        self._removed_as_told(recovery.output)

    def test_record_waits_for_a_mailbox_that_is_not_there_now(self):
        user, kept = self._interrupted()
        self.host.run("mv", f"/var/mail/{user}", f"/var/mail/{user}.elsewhere")
        recovery = self.host.run("popa3d", "--recover", check=False)
        self.assertEqual(recovery.code, 1)
        self.refused(user, b"SYS/TEMP")
        self.until_idle()
        self.assert_said(f"Update of /var/mail/{user} that was interrupted cannot be finished: /var/mail/{user} is not "
                         "there, and its redo record waits",
                         POPA3D_EVENT="update-not-recovered", POPA3D_USER=user)
        self.host.run("mv", f"/var/mail/{user}.elsewhere", f"/var/mail/{user}")
        self.login(user).quit()
        self.assertEqual(self._mailbox(user).read_bytes(), mbox(kept))
        self.assertEqual(self._records(), [])

    def test_record_of_a_mailbox_that_is_gone_on_purpose_is_removed_by_the_command_that_is_told(self):
        user, _ = self._interrupted()
        self._mailbox(user).unlink()
        self._removed_as_told(self.host.run("popa3d", "--recover", check=False).output)
        session = self.login(user)
        self.assertRegex(session.ok("STAT"), rb"^\+OK 0 ")
        session.quit()

    def test_record_that_says_nothing_keeps_nobody_out(self):
        user = self.account()
        self.host.run("mkdir", "-p", RECORDS)
        self.host.write(f"{RECORDS}/{user}", b"", 0o600)
        session = self.login(user)
        self.assertRegex(session.ok("STAT"), rb"^\+OK 0 ")
        session.quit()
        self.assertEqual(self._records(), [])
        self.host.write(f"{RECORDS}/{user}", bytes(4096), 0o600)
        self.assertEqual(self.host.run("popa3d", "--recover").output,
                         f"/var/mail/{user}: it had not begun, the mailbox is as it was\n")
        self.assertEqual(self._records(), [])

    def _removed_as_told(self, output):
        """The line that is left of a recovery names the command that ends it."""
        (command,) = (line.partition("run: ")[2] for line in output.splitlines() if "run: " in line)
        self.host.shell(command)
        self.assertEqual(self._records(), [])
        self.assertEqual(self.host.run("popa3d", "--recover").output, "no update was interrupted\n")

    def test_nothing_to_recover_is_said_so(self):
        self.assertEqual(self.host.run("popa3d", "--recover").output, "no update was interrupted\n")

    def test_full_state_directory_refuses_the_update_and_leaves_the_mailbox(self):
        mail = messages(40, BODY)
        user = self.account(mail)
        self.host.shell(f"mkdir -p {RECORDS}; mount -t tmpfs -o size=64k,mode=700 tmpfs {RECORDS}")
        try:
            session = self.login(user)
            session.ok("DELE 1")
            session.err("QUIT", rb"SYS/TEMP")
            self.until_idle()
        finally:
            self.host.shell(f"umount {RECORDS}")
        self.assertEqual(self._mailbox(user).read_bytes(), mbox(mail))
        self.assert_said("Failed to update", POPA3D_USER=user)

    def test_deleting_works_on_a_full_spool(self):
        self.host.shell("mount -t tmpfs -o size=1m,mode=2775,gid=$(getent group mail | cut -d: -f3) "
                        "tmpfs /var/mail")
        try:
            mail = messages(10, BODY)
            user = self.account(mail)
            self.host.shell("dd if=/dev/zero of=/var/mail/filler bs=4k 2>/dev/null || true")
            session = self.login(user)
            session.ok("DELE 1")
            session.ok("QUIT")
            self.until_idle()
            self.assertEqual(self._mailbox(user).read_bytes(), mbox(mail[1:]))
        finally:
            self.host.shell("umount /var/mail")

    def _kill_half_way(self, user, uid):
        """Kills the helper of this user if its redo record is there already."""
        if user not in self._records():
            return None
        time.sleep(self.random.uniform(0, 0.1))
        for process in self.processes():
            with contextlib.suppress(OSError):
                if os.stat(f"/proc/{process}").st_uid == uid:
                    os.kill(process, signal.SIGKILL)
                    return "killed"
        return None

    def _is_over(self, session):
        return "over" if select.select([session.connection], [], [], 0)[0] else None

    def _interrupted(self, name=None):
        """A user whose UPDATE was killed after it was decided on, and the messages that it keeps."""
        mail = messages(COUNT, BODY)
        user = self.account(mail, name=name)
        for _ in range(50):
            self._write(user, mbox(mail))
            self._kill_during_update(user, {0}, self.random.uniform(0.02, 0.2))
            self.until_idle()
            if user in self._records() and self._mailbox(user).read_bytes() not in (mbox(mail), mbox(mail[1:])):
                return user, mail[1:]
            # Of this user alone: another one's record may be waiting for the test.
            self.login(user).quit()
            self.until_idle()
        return self.fail("no kill came at the right time")

    def _kill_during_update(self, user, doomed, delay):
        """Deletes, says QUIT and kills all of popa3d a moment later; returns what came of QUIT."""
        session = self.login(user)
        session.send(b"".join(b"DELE %d\r\n" % (index + 1) for index in sorted(doomed)))
        for _ in doomed:
            self.assertRegex(session.line(), rb"^\+OK ")
        session.send(b"QUIT\r\n")
        time.sleep(delay)
        self.host.run("systemctl", "kill", "--signal=KILL", "popa3d@*", check=False)
        try:
            said = session.connection.recv(100)
        except ConnectionResetError:
            said = b""
        session.close()
        self.until_idle()
        return said

    def _write(self, user, content):
        self._mailbox(user).write_bytes(content)

    def _mailbox(self, user):
        return self.host.path(f"/var/mail/{user}")

    def _records(self):
        directory = self.host.path(RECORDS)
        return sorted(os.listdir(directory)) if directory.exists() else []
