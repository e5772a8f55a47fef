"""File systems without room, and clients whose network went away."""

import concurrent.futures
import contextlib
import os
import pathlib
import signal
import subprocess
import time

from .case import CONNECTION_TIMEOUT, PASSWORD, HostCase
from .mail import mbox, message, messages

SPOOL, STATE = "/var/mail", "/var/lib/popa3d"

BODY = b"one of many lines of about the usual length of a line in a message\n" * 3000  # 200 kB

# Seconds that a client which is gone may keep its user out: two minutes, and those ten that a login
# may be made to wait.
LONGEST_ABSENCE = 130


class StorageCase(HostCase):
    """What is left in the spool and beside it; with file systems of the test's own."""

    @contextlib.contextmanager
    def file_system(self, kind, size, *directories):
        """See Host.file_system; the test is skipped where the kernel has no such thing."""
        with contextlib.suppress(FileNotFoundError):
            subprocess.run(["modprobe", "-q", "-a", "loop", kind], check=False)
        if f"\t{kind}\n" not in pathlib.Path("/proc/filesystems").read_text(encoding="ascii"):
            self.skipTest(f"the kernel of this machine has no {kind}")
        if not os.path.exists("/dev/loop-control"):
            self.skipTest("this machine has no loop devices")
        with self.host.file_system(kind, size, *directories):
            yield
            self.until_idle()

    def fill(self, room=0):
        """Fills /small up as far as a user may, but for about so many octets of ROOM."""
        write = ("setpriv --reuid=nobody --regid=nogroup --clear-groups "
                 "dd if=/dev/zero of=/small/filler oflag=append conv=fsync,notrunc")
        self.host.shell(f"chmod 1777 /small; dd if=/dev/zero of=/small/room bs=4k count={room // 4096}\n"
                        f"{write} bs=64k || {write} bs=1k || rm /small/room")

    def delete(self, user, *numbers):
        """A session that marks these messages and says QUIT; returns the reply."""
        session = self.login(user)
        for number in numbers:
            session.ok(f"DELE {number}")
        reply = session.command("QUIT")
        session.ended()
        session.close()
        return reply

    def procmail(self, user, item):
        """What comes of a delivery by procmail."""
        return self.host.run("procmail", "-d", user, stdin=item.text, check=False)

    def assert_mailbox(self, user, expected):
        self.assertTrue(self.host.mailbox(user).read_bytes() == expected, f"the mailbox of {user} is another")

    def assert_nothing_left(self, user):
        """No lock, no record."""
        self.until_idle()
        self.assertFalse(self.host.path(f"{SPOOL}/{user}.lock").exists())
        self.assertFalse(self.host.path(f"{STATE}/redo/{user}").exists())
        self.assertFalse(self.host.path(f"/run/popa3d/{user}").exists())


class Full(StorageCase):
    def test_deleting_works_on_a_full_spool_and_makes_room_for_mail(self):
        with self.file_system("ext4", "16M", SPOOL):
            mail, late = messages(20, BODY), message(99, BODY)
            user = self.account(mail)
            session = self.login(user)
            self.fill()
            self.assertNotEqual(self.procmail(user, late).code, 0, "the spool is not full")
            self.assert_mailbox(user, mbox(mail))
            session.ok("DELE 1")
            session.ok("DELE 7")
            session.quit()
            self.assert_mailbox(user, mbox([*mail[1:6], *mail[7:]]))
            self.assert_nothing_left(user)
            delivered = self.procmail(user, late)
            self.assertEqual(delivered.code, 0, delivered)
            session = self.login(user)
            self.assertEqual(session.multi("RETR 19"), late.lines)
            session.quit()

    def test_update_without_room_for_its_record_leaves_the_mailbox_and_works_later(self):
        with self.file_system("ext4", "16M", SPOOL, STATE):
            mail = messages(20, BODY)
            user = self.account(mail)
            self.fill()
            self.assertRegex(self.delete(user, 1, 7), rb"^-ERR \[SYS/TEMP\] ")
            self.assert_mailbox(user, mbox(mail))
            self.assert_said("Failed to update", POPA3D_USER=user)
            self.assert_nothing_left(user)
            # What needs no record needs no room.
            self.assertRegex(self.delete(user, 20), rb"^\+OK ")
            self.assert_mailbox(user, mbox(mail[:-1]))
            self.host.shell("rm /small/filler")
            self.assertRegex(self.delete(user, 1, 7), rb"^\+OK ")
            self.assert_mailbox(user, mbox([*mail[1:6], *mail[7:-1]]))
            self.assert_nothing_left(user)

    def test_record_makes_do_with_a_little_room(self):
        with self.file_system("ext4", "16M", SPOOL, STATE):
            mail = messages(20, BODY)
            user = self.account(mail)
            # Far less than what has to move.
            self.fill(room=400_000)
            self.assertRegex(self.delete(user, 1, 7), rb"^\+OK ")
            self.assert_mailbox(user, mbox([*mail[1:6], *mail[7:]]))
            self.assert_nothing_left(user)


class OtherFileSystems(StorageCase):
    def test_xfs(self):
        with self.file_system("xfs", "400M", SPOOL, STATE):
            self._delete_and_deliver()

    def test_btrfs(self):
        with self.file_system("btrfs", "400M", SPOOL, STATE):
            self._delete_and_deliver()

    def _delete_and_deliver(self):
        mail, late = messages(20, BODY), message(99)
        user = self.account(mail)
        self.assertRegex(self.delete(user, *range(1, 21, 2)), rb"^\+OK ")
        self.assert_mailbox(user, mbox(mail[1::2]))
        self.host.deliver(user, late.stored)
        self.assertRegex(self.delete(user, 10), rb"^\+OK ")
        self.assert_mailbox(user, mbox([*mail[1:-1:2], late]))
        self.assert_nothing_left(user)


class Quota(StorageCase):
    """That of btrfs, which needs no tools beside its own; there, overwriting costs room as well."""

    @contextlib.contextmanager
    def quota(self, directory, room):
        """The DIRECTORY may grow by so many octets of ROOM and no more."""
        own = f"/small/{directory.replace('/', '_')}"
        self.host.shell(f"sync; btrfs quota enable /small; btrfs quota rescan -w /small >/dev/null\n"
                        f"used=$(btrfs qgroup show --raw -f {own} | tail -1 | tr -s ' ' | cut -d' ' -f2)\n"
                        f"btrfs qgroup limit $((used + {room})) {own}")
        try:
            yield
        finally:
            self.host.shell(f"btrfs qgroup limit none {own}")

    def test_update_without_quota_for_its_record_leaves_the_mailbox_and_works_later(self):
        with self.file_system("btrfs", "400M", SPOOL, STATE):
            mail = messages(20, BODY)
            user = self.account(mail)
            with self.quota(STATE, room=100_000):
                self.assertRegex(self.delete(user, 1, 7), rb"^-ERR \[SYS/TEMP\] ")
                self.assert_failed_for_quota(user)
                self.assert_mailbox(user, mbox(mail))
                self.assert_nothing_left(user)
            self.assertRegex(self.delete(user, 1, 7), rb"^\+OK ")
            self.assert_mailbox(user, mbox([*mail[1:6], *mail[7:]]))
            self.assert_nothing_left(user)

    def test_update_that_runs_out_of_quota_half_way_is_finished_when_there_is_more(self):
        for directory in (SPOOL, STATE):
            with self.subTest(directory=directory), self.file_system("btrfs", "400M", SPOOL, STATE):
                mail, late = messages(20, BODY), message(99)
                user = self.account(mail)
                with self.quota(directory, room=300_000):
                    self.assertRegex(self.delete(user, 1, 7), rb"^-ERR \[SYS/TEMP\] ")
                    self.assert_failed_for_quota(user)
                    self.assertTrue(self.host.path(f"{STATE}/redo/{user}").exists(), "it had not begun")
                    # Half a mailbox is not served.
                    self.refused(user, b"SYS/TEMP")
                self.host.deliver(user, late.stored)
                session = self.login(user)
                self.assertRegex(session.ok("STAT"), rb"^\+OK 19 ")
                session.quit()
                self.assert_mailbox(user, mbox([*mail[1:6], *mail[7:], late]))
                self.assert_nothing_left(user)

    def assert_failed_for_quota(self, user):
        failures = [line for line in self.messages(POPA3D_USER=user) if line.startswith("Failed to update")]
        self.assertIn("Disk quota exceeded", failures[0])


class GoneClient(StorageCase):
    def test_client_whose_link_went_down_keeps_its_user_out_for_two_minutes_at_most(self):
        idle, loading = self.account(messages(2)), self.account([message(1, BODY * 200)])
        mailboxes = {user: self.host.mailbox(user).read_bytes() for user in (idle, loading)}
        # The time-outs are the defaults; only the clients are simpler without TLS.
        self.settings('plaintext-login = "always"\n')
        with self.host.network("near1", "10.99.1"), self.host.network("near2", "10.99.2"):
            half_way = self.login(loading, namespace="near2", source="10.99.2.2", target="10.99.2.1")
            half_way.ok("RETR 1")
            with self._stopped(self._worker()):
                self._take_all(half_way, "10.99.2.2")
                silent = self.login(idle, namespace="near1", source="10.99.1.2", target="10.99.1.1")
                silent.ok("DELE 1")
                self.until(lambda: not self._on_its_way("10.99.1.2"), "silence")
                self.host.run("ip", "-n", "near1", "link", "set", "far", "down")
                self.host.run("ip", "-n", "near2", "link", "set", "far", "down")
            self.until(lambda: self._on_its_way("10.99.2.2"), "data that nobody acknowledges")
            self.assertEqual(self._on_its_way("10.99.1.2"), 0)
            with concurrent.futures.ThreadPoolExecutor() as pool:
                for refusals in pool.map(self._come_in, (idle, loading)):
                    self.assertGreater(refusals, 0, "nothing kept the user out")
        self.until_idle()
        for user, mailbox in mailboxes.items():
            self.assert_mailbox(user, mailbox)
            self.assert_nothing_left(user)
            self.assertTrue(self.messages(POPA3D_USER=user, POPA3D_EVENT="session-ended"))

    def _worker(self):
        """The worker of the only session."""
        uid = self.host.run("id", "-u", "popa3d").output.strip()
        of_worker = f"\nUid:\t{uid}\t"
        (worker,) = [process for process in self.processes()
                     if of_worker in pathlib.Path(f"/proc/{process}/status").read_text(encoding="utf-8")]
        return worker

    @contextlib.contextmanager
    def _stopped(self, process):
        os.kill(process, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(process, signal.SIGCONT)

    def _take_all(self, session, client):
        """Takes what a stopped worker has sent, so that the way is free for more."""
        session.connection.settimeout(0.2)

        def is_taken():
            with contextlib.suppress(TimeoutError):
                while session.connection.recv(1 << 20):
                    pass
            return not self._on_its_way(client)

        self.until(is_taken, "the end of what was sent")
        session.connection.settimeout(CONNECTION_TIMEOUT)

    def _on_its_way(self, client):
        """Octets that were sent to this address and not acknowledged."""
        for line in self.host.run("ss", "-Htn", "state", "established").output.splitlines():
            _, queued, _, peer = line.split()
            if f"{client}]:" in peer or f"{client}:" in peer:
                return int(queued)
        return 0

    def _come_in(self, user):
        """Logs in as soon as that is possible; returns how often it was not."""
        began = time.monotonic()
        for refusals in range(LONGEST_ABSENCE):
            session = self.connect()
            session.ok(f"USER {user}")
            reply = session.command(f"PASS {PASSWORD}")
            if reply.startswith(b"+OK"):
                session.quit()
                return refusals
            session.close()
            self.assertRegex(reply, rb"^-ERR \[IN-USE\] ")
            self.assertLess(time.monotonic() - began, LONGEST_ABSENCE, f"{user} is still kept out")
        return self.fail("refused at once, without a wait for the other session")
