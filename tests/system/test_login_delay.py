"""Failed logins delay the next ones of their source, whichever connection those come over."""

import os
import pathlib
import stat
import time

from .case import PASSWORD, HostCase
from .mail import messages

FILE = "/run/popa3d/.login-delays"
SIZE = 131_136
KEY = slice(32, 64)  # where the file has its key; behind it is what it remembers

QUICK = """auth required pam_unix.so nodelay
@include common-account
@include common-session-noninteractive
"""
# So that those which come at once are all under way before the first of them has failed.
SLOW = "auth optional pam_exec.so /bin/sleep 2\n" + QUICK

HOST, FAR, FARTHER = "10.77.1.1", "10.77.1.2", "10.77.1.3"


class DelayCase(HostCase):
    """Clients elsewhere, at two addresses; and no delay but the one that is looked at."""

    def setUp(self):
        network = self.host.network("guessers", "10.77.1", (2, 3))
        network.__enter__()
        self.addCleanup(network.__exit__, None, None, None)
        self.addCleanup(self.host.shell, f"rm -rf {FILE}")
        self.allow("1s")
        self.pam(QUICK)
        self._forget()
        self.until_idle()
        self.began = time.time()  # what was logged before that is not the test's

    def _forget(self):
        """Makes a file that remembers nothing, with a key that shows all passwords of a test to be
        different."""
        self.attempt("nobody-of-that-name", "x")
        file = bytearray(self.host.read(FILE))
        file[KEY] = b"k" * 32
        file[KEY.stop:] = bytes(len(file) - KEY.stop)
        self.host.path(FILE).write_bytes(file)

    def allow(self, longest):
        """Sets the longest delay."""
        self.settings(f'plaintext-login = "always"\nfailure-delay = "0s"\nlogin-delay-max = "{longest}"\n')

    def far(self, source=FAR):
        return self.connect(namespace="guessers", source=source, target=HOST)

    def attempt(self, user, password=PASSWORD, source=FAR):
        """The reply to PASS on a connection of its own, which ends with it."""
        session = self.connect(source=source) if source.startswith("127.") else self.far(source)
        session.ok(f"USER {user}")
        reply = session.command(f"PASS {password}")
        if reply.startswith(b"+OK"):
            session.quit()
        session.close()
        return reply

    def at_once(self, *attempts):
        """The replies to these (user, password), which come from one address, each over a connection of
        its own."""
        sessions = [self.far() for _ in attempts]
        for session, (user, _) in zip(sessions, attempts, strict=True):
            session.ok(f"USER {user}")
        for session, (_, password) in zip(sessions, attempts, strict=True):
            session.send(f"PASS {password}\r\n".encode())
        replies = [session.line() for session in sessions]
        for session in sessions:
            session.close()
        return replies

    def many_failures(self, count):
        """So many at once, which is quick: nobody waits as long as nobody has failed."""
        self.pam(SLOW)
        user = self.account()
        replies = self.at_once(*((user, f"wrong {number}") for number in range(count)))
        self.pam(QUICK)
        self.assertEqual({reply[:11] for reply in replies}, {b"-ERR [AUTH]"})
        self.assertEqual(sorted(self.failures(), key=int), [str(number + 1) for number in range(count)])

    def logged(self, event, **fields):
        """What was logged of an EVENT since the test began."""
        self.until_idle()
        return self.journal(POPA3D_EVENT=event, **fields)

    def failures(self, **fields):
        """How many failures counted, as each failed login says."""
        return [entry["POPA3D_LOGIN_FAILURES"] for entry in self.logged("login-failed", **fields)]


class Counting(DelayCase):
    def test_failures_grow_over_connections_and_users(self):
        for user, password in (("root", "1"), (self.account(), "2"), ("nobody-of-that-name", "3"), (self.account(), "")):
            self.assertRegex(self.attempt(user, password), rb"^-ERR \[AUTH\] ")
        self.assertEqual(self.failures(), ["1", "2", "3", "4"])

    def test_same_wrong_password_again_does_not_count(self):
        user, other = self.account(), self.account()
        for name, password in ((user, "old"), (user, "old"), (user, "new"), (user, "old"), (other, "old")):
            self.attempt(name, password)
        self.assertEqual(self.failures(), ["1", "1", "2", "2", "3"])

    def test_success_takes_one_failure_away(self):
        user = self.account(messages(1))
        self.attempt(user, "1")
        self.attempt(user, "2")
        self.assertRegex(self.attempt(user), rb"^\+OK")
        self.attempt(user, "3")
        self.assertEqual(self.failures(), ["1", "2", "2"])

    def test_login_that_cannot_be_decided_does_not_count(self):
        user = self.account()
        self.attempt(user, "1")
        self.pam("auth required pam_does_not_exist.so\n")
        self.assertRegex(self.attempt(user, "2"), rb"^-ERR \[SYS/TEMP\] ")
        self.pam(QUICK)
        self.attempt(user, "3")
        self.assertEqual(self.failures(), ["1", "2"])

    def test_on_this_host_each_user_counts_for_himself(self):
        user, other = self.account(), self.account()
        for name, source in ((user, "127.0.0.1"), (other, "127.0.0.1"), (user, "127.0.0.41"), (user, "127.0.0.42")):
            self.attempt(name, f"wrong at {source}", source)
        self.assertEqual(self.failures(), ["1", "1", "2", "3"])
        self.attempt(user, "wrong", FAR)
        self.assertEqual(self.failures(POPA3D_CLIENT=FAR), ["1"])


class Delay(DelayCase):
    def test_login_waits_and_says_so_and_nobody_else_does(self):
        self.allow("15s")
        self.many_failures(6)
        user = self.account(messages(1))
        self.assertRegex(self.attempt(user, source=FARTHER), rb"^\+OK")
        self.assertRegex(self.attempt(user, source="127.0.0.1"), rb"^\+OK")
        self.assertRegex(self.attempt(user), rb"^\+OK")
        for source in (FARTHER, "127.0.0.1"):
            (passed,) = self.logged("login-passed", POPA3D_CLIENT=source)
            self.assertNotIn("POPA3D_LOGIN_DELAY", passed)
        (passed,) = self.logged("login-passed", POPA3D_CLIENT=FAR)
        self.assertIn(int(passed["POPA3D_LOGIN_DELAY"]), range(1, 16))
        self.assertIn(f"had to wait {passed['POPA3D_LOGIN_DELAY']} s", passed["MESSAGE"])
        (loaded,) = self.logged("maildrop-loaded", POPA3D_CLIENT=FAR)
        self.assertNotIn("POPA3D_LOGIN_DELAY", loaded)

    def test_guessing_over_many_connections_gains_nothing(self):
        # Each attempt that PAM judges leaves a line.
        judged = "/var/log/judged"
        self.configure(judged, "")
        self.configure("/usr/local/sbin/note", f"#!/bin/sh\necho >>{judged}\n")
        self.host.path("/usr/local/sbin/note").chmod(0o755)
        self.pam("auth optional pam_exec.so /usr/local/sbin/note\n" + QUICK)
        user = self.account()
        self.attempt(user, "first")
        replies = self.at_once(*((user, f"guess {number}") for number in range(20)))
        delayed = [reply for reply in replies if reply.startswith(b"-ERR [LOGIN-DELAY] ")]
        self.assertTrue(delayed, replies)
        self.assertEqual(len([reply for reply in replies if reply.startswith(b"-ERR [AUTH] ")]) + len(delayed), 20)
        self.assertEqual(len(self.host.read(judged).splitlines()), 1 + 20 - len(delayed))
        entries = self.logged("login-delayed")
        self.assertEqual(len(entries), len(delayed))
        for entry in entries:
            self.assertEqual(entry["POPA3D_CLIENT"], FAR)
            self.assertEqual(entry["POPA3D_METHOD"], "USER")
            self.assertEqual(entry["PRIORITY"], "5")
            self.assertEqual(entry["POPA3D_LOGIN_DELAY"], "2")
            # Nobody has looked whether there is such a user.
            self.assertNotIn("POPA3D_USER", entry)
            self.assertNotIn(user, entry["MESSAGE"])

    def test_attempt_that_is_sent_away_is_an_attempt(self):
        self.allow("15s")
        self.many_failures(6)
        waiting, session = self.far(), self.far()
        for other in (waiting, session):
            other.ok("USER nobody-of-that-name")
        waiting.send(b"PASS x\r\n")
        unit = self.until(self.someone_waits, "an attempt that waits")
        session.err("PASS 1", b"LOGIN-DELAY")
        # Another form of it, and the last that there is.
        session.err("AUTH PLAIN AHgAMg==", b"LOGIN-DELAY")
        session.ok("USER x")
        session.err("PASS 3", b"LOGIN-DELAY")
        session.ended()
        session.close()
        waiting.close()
        self.host.run("systemctl", "stop", unit)

    def test_session_that_waits_is_stopped_at_once(self):
        # Longer than systemd waits before it kills.
        self.allow("10m")
        self.many_failures(8)
        session = self.far()
        session.ok("USER nobody-of-that-name")
        session.send(b"PASS x\r\n")
        unit = self.until(self.someone_waits, "an attempt that waits")
        self.host.run("systemctl", "stop", unit)
        self.until_idle()
        # The worker ends with its monitor; it has a word for its client if it sees that first.
        self.assertRegex(session.rest(), rb"^(-ERR \[SYS/TEMP\] [^\r\n]*\r\n)?$")
        session.close()
        said = "\n".join(entry["MESSAGE"] for entry in self.host.journal("-u", unit))
        self.assertNotIn("timed out", said)

    def test_monitor_does_not_wait_for_a_worker_that_is_gone(self):
        self.allow("10m")
        self.many_failures(8)
        session = self.far()
        session.ok("USER nobody-of-that-name")
        session.send(b"PASS x\r\n")
        self.until(self.someone_waits, "an attempt that waits")
        workers = [process for process in self.processes() if self._uid(process) != 0]
        self.assertEqual(len(workers), 1)
        os.kill(workers[0], 9)
        self.until_idle()
        self.assertEqual(len(self.logged("worker-failed")), 1)
        self.assertEqual(len(self.failures()), 8)
        session.close()

    def test_turned_off_there_is_neither_delay_nor_file(self):
        self.host.path(FILE).unlink()
        self.allow("0s")
        user = self.account(messages(1))
        for number in range(5):
            self.assertRegex(self.attempt(user, f"wrong {number}"), rb"^-ERR \[AUTH\] ")
        self.assertRegex(self.attempt(user), rb"^\+OK")
        for entry in self.logged("login-failed") + self.logged("login-passed"):
            self.assertFalse({"POPA3D_LOGIN_DELAY", "POPA3D_LOGIN_FAILURES"} & set(entry), entry)
        self.assertFalse(self.host.path(FILE).exists())

    def someone_waits(self):
        """The unit of a session that says it waits."""
        listed = self.host.run("systemctl", "show", "popa3d@*", "-p", "Id,StatusText").output
        for unit in listed.split("\n\n"):
            fields = dict(line.split("=", 1) for line in unit.splitlines())
            if "after failed logins" in fields.get("StatusText", ""):
                return fields["Id"]
        return None

    def _uid(self, process):
        return pathlib.Path(f"/proc/{process}").stat().st_uid


class State(DelayCase):
    def test_file_is_for_root_alone_and_of_one_size_whatever_comes(self):
        for number in range(10):
            session = self.connect()
            for attempt in range(3):
                session.ok(f"USER nobody-{number}-{attempt}")
                session.err("PASS x", b"AUTH")
            session.close()
        self.assertEqual(self.failures(), ["1"] * 30)
        status = self.host.path(FILE).stat()
        self.assertEqual((status.st_size, stat.S_IMODE(status.st_mode), status.st_uid), (SIZE, 0o600, 0))
        self.assertEqual([path.name for path in self.host.path("/run/popa3d").glob(".login*")], [pathlib.Path(FILE).name])
        self.assertNotIn(b"nobody", self.host.read(FILE))

    def test_file_that_is_damaged_is_made_anew_and_keeps_nobody_out(self):
        user = self.account(messages(1))
        self.attempt(user, "before")
        for content in (b"", b"nonsense", os.urandom(SIZE), self.host.read(FILE)[:-1], bytes(SIZE)):
            self.host.path(FILE).write_bytes(content)
            self.assertRegex(self.attempt(user), rb"^\+OK")
            self.attempt(user, "after")
            self.assertEqual(self.host.path(FILE).stat().st_size, SIZE)
        self.assertEqual(self.failures(), ["1"] * 6)
        self.assertEqual(self.logged("server-failure"), [])

    def test_file_with_nonsense_behind_its_header_delays_nobody_for_long(self):
        user = self.account(messages(1))
        self.host.path(FILE).write_bytes(self.host.read(FILE)[:KEY.stop] + os.urandom(SIZE - KEY.stop))
        self.assertRegex(self.attempt(user), rb"^\+OK")
        self.attempt(user, "wrong")
        self.assertEqual(self.failures(), ["1"])

    def test_state_that_cannot_be_had_keeps_nobody_out_and_is_reported_once_a_session(self):
        self.host.shell(f"rm {FILE}; mkdir {FILE}")
        user = self.account(messages(1))
        session = self.far()
        for number in range(2):
            session.ok(f"USER {user}")
            session.err(f"PASS wrong {number}", b"AUTH")
        session.ok(f"USER {user}")
        session.ok(f"PASS {PASSWORD}")
        session.quit()
        (reported,) = self.logged("server-failure")
        self.assertIn(FILE, reported["MESSAGE"])
        for entry in self.logged("login-failed"):
            self.assertNotIn("POPA3D_LOGIN_FAILURES", entry)
