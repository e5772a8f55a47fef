"""The summary at the end of each session: how it ended, and what it came to; in both modes."""

import base64
import os
import pathlib
import signal

from .case import PASSWORD, HostCase, Session
from .mail import messages
from .standalone import Standalone, lock, owner

STANDARD = "@include common-auth\n@include common-account\n@include common-session-noninteractive\n"
HANGS = "auth required pam_exec.so /bin/sleep 3600\n"


class Endings:
    """The tests, whoever starts the sessions."""

    source = "127.11.0.0"

    def setUp(self):
        super().setUp()
        # An address for each test, which has all of its sessions and no other ones.
        number = int(Endings.source.rpartition(".")[2]) + 1
        Endings.source = f"127.11.0.{number}"

    def session(self, user=None):
        return self.login(user, source=Endings.source) if user else self.connect(source=Endings.source)

    def summary(self, ending, text):
        """The summary of the only session, which has this ENDING and a TEXT that begins so."""
        self.until_idle()
        entries = self.journal(POPA3D_CLIENT=Endings.source)
        self.assertEqual([entry["POPA3D_EVENT"] for entry in entries].count("session-ended"), 1, entries)
        summary = entries[-1]
        self.assertEqual((summary["POPA3D_EVENT"], summary["PRIORITY"]), ("session-ended", "6"))
        self.assertEqual(summary["POPA3D_ENDING"], ending)
        self.assertTrue(summary["MESSAGE"].startswith(text), summary["MESSAGE"])
        self.assertIn(Endings.source, summary["MESSAGE"])
        duration, processor_time = int(summary["POPA3D_DURATION_USEC"]), int(summary["POPA3D_CPU_USEC"])
        self.assertGreater(duration, 0)
        self.assertGreater(processor_time, 0)
        # Of two processors that are busy for all of the session; systemd's work before it counts, too.
        self.assertLess(processor_time, 2 * duration + 1_000_000)
        return summary

    def events(self):
        return [entry["POPA3D_EVENT"] for entry in self.journal(POPA3D_CLIENT=Endings.source)]

    def assert_counts(self, summary, **expected):
        """Fields by their names without the beginning; None: there is no such field."""
        self.assertEqual({name: summary.get(f"POPA3D_{name}") for name in expected}, expected)

    def monitor(self):
        """The monitor of the only session."""
        (monitor,) = [process for process in self.processes() if owner(process) == 0]
        return monitor

    def worker(self):
        number = int(self.host.run("id", "-u", "popa3d").output)
        (worker,) = [process for process in self.processes() if owner(process) == number]
        return worker

    def test_quit_with_counts_of_what_was_fetched_deleted_and_left(self):
        mail = messages(4)
        user = self.account(mail)
        session = self.session(user)
        for number in (1, 2, 2):
            session.multi(f"RETR {number}")
        session.multi("TOP 3 0")
        session.ok("DELE 4")
        session.quit()
        octets = [message.octets for message in mail]
        summary = self.summary("quit", f"1 ({octets[3]}) deleted, 3 ({sum(octets[:3])}) left; {user} from ")
        self.assert_counts(summary, USER=user, METHOD="USER", MESSAGES="3", OCTETS=str(sum(octets[:3])),
                           DELETED_MESSAGES="1", DELETED_OCTETS=str(octets[3]),
                           RETRIEVED_MESSAGES="3", RETRIEVED_OCTETS=str(octets[0] + 2 * octets[1]),
                           LOCK_WAIT_USEC="0", LOGIN_FAILURES=None)
        self.assertGreater(int(summary["POPA3D_UPDATE_USEC"]), 0)
        self.assertLess(int(summary["POPA3D_UPDATE_USEC"]), int(summary["POPA3D_DURATION_USEC"]))
        self.assertEqual(self.events(), ["session-started", "login-passed", "maildrop-loaded", "expunged", "session-ended"])

    def test_quit_without_deletions(self):
        self.session(self.account(messages(2))).quit()
        self.assert_counts(self.summary("quit", "0 (0) deleted, 2 ("), DELETED_MESSAGES="0", DELETED_OCTETS="0",
                           RETRIEVED_MESSAGES="0", RETRIEVED_OCTETS="0", MESSAGES="2", UPDATE_USEC=None)

    def test_client_that_breaks_the_connection(self):
        session = self.session(self.account(messages(2)))
        session.multi("RETR 1")
        session.ok("DELE 1")
        session.close()
        self.assert_counts(self.summary("disconnected", "Premature disconnect; "), RETRIEVED_MESSAGES="1",
                           DELETED_MESSAGES="0", MESSAGES="2", UPDATE_USEC=None)

    def test_client_that_is_silent(self):
        self.settings('idle-timeout = "1s"\n')
        session = self.session(self.account(messages(1)))
        self.assert_counts(self.summary("timed-out", "Connection timed out; "), MESSAGES="1")
        session.close()

    def test_client_that_never_tries_to_log_in(self):
        self.session().quit()
        self.assert_counts(self.summary("no-login-attempt", "Didn't attempt authentication; "), USER=None, METHOD=None,
                           MESSAGES=None, DELETED_MESSAGES=None, RETRIEVED_MESSAGES=None, UPDATE_USEC=None,
                           LOCK_WAIT_USEC=None)

    def test_client_that_leaves_after_a_failed_login(self):
        user = self.account([])
        session = self.session()
        session.ok(f"USER {user}")
        session.err("PASS wrong", b"AUTH")
        session.quit()
        self.assert_counts(self.summary("quit", "Session ended; "), USER=None, METHOD="USER", MESSAGES=None)

    def test_attempts_that_cannot_be_read_are_failed_logins_and_use_the_session_up(self):
        session = self.session()
        other = base64.b64encode(b"bob\0alice\0secret-of-alice").decode()
        session.err("AUTH PLAIN !")
        session.err(f"AUTH PLAIN {other}", b"AUTH")
        self.assertTrue(session.command("AUTH LOGIN").startswith(b"+ "))
        session.err("x" * 4000)
        session.ended()
        self.assert_counts(self.summary("login-attempts-used-up", "Too many refused logins"), METHOD="LOGIN")
        failed = self.journal(POPA3D_CLIENT=Endings.source, POPA3D_EVENT="login-failed")
        self.assertEqual([entry["POPA3D_METHOD"] for entry in failed], ["PLAIN", "PLAIN", "LOGIN"])
        for entry, why in zip(failed, ("not base64", "nobody logs in as somebody else here", "response too long")):
            self.assertEqual(entry["MESSAGE"].partition(", ")[0],
                             f"Authentication failed for UNKNOWN USER from {Endings.source}: {why}")
            self.assertEqual(entry["PRIORITY"], "5")

    def test_no_tls(self):
        connection = self.host.connect(995, source=Endings.source)
        self.addCleanup(connection.close)
        connection.sendall(b"USER alice\r\n")
        Session(self, connection).rest()
        self.summary("tls-failed", "Session ended without TLS; ")
        self.assertIn("tls-failed", self.events())

    def test_header_of_a_proxy_that_is_none(self):
        self.session().send(b"PROXY TCP4 192.0.2.1 192.0.2.2 1 110\r\n")
        self.summary("proxy-refused", "Client turned away; ")
        self.assertIn("proxy-refused", self.events())

    def test_signal_in_a_session(self):
        session = self.session(self.account(messages(1)))
        session.ok("DELE 1")
        self.until(lambda: "maildrop-loaded" in self.events(), "the monitor to know of it")
        os.kill(self.monitor(), signal.SIGTERM)
        self.assert_counts(self.summary("stopped", "Session ended by a signal; "), MESSAGES="1", DELETED_MESSAGES="0",
                           RETRIEVED_MESSAGES=None)

    def test_signal_while_pam_is_at_work(self):
        self.pam(HANGS)
        session = self.session()
        session.ok(f"USER {self.account([])}")
        session.send(b"PASS wrong\r\n")
        self.until(lambda: self.host.run("pgrep", "-x", "sleep", check=False).output, "PAM to be at work")
        os.kill(self.monitor(), signal.SIGTERM)
        self.assert_counts(self.summary("stopped", "Session ended by a signal; "), MESSAGES=None)

    def test_signal_while_a_failed_login_waits_for_its_answer(self):
        self.settings('failure-delay = "1h"\n')
        session = self.session()
        session.ok(f"USER {self.account([])}")
        session.send(b"PASS wrong\r\n")
        self.until(lambda: "login-failed" in self.events(), "the failure")
        os.kill(self.monitor(), signal.SIGTERM)
        self.summary("stopped", "Session ended by a signal; ")

    def test_signal_while_another_session_of_the_user_is_waited_for(self):
        self.settings('session-wait = "1h"\n')
        user = self.account(messages(1))
        first = self.login(user, source="127.0.3.1")
        session = self.session()
        session.ok(f"USER {user}")
        session.send(f"PASS {PASSWORD}\r\n".encode())
        self.until(lambda: "login-passed" in self.events(), "the login that waits")
        root = [process for process in self.processes() if owner(process) == 0]
        os.kill(max(root), signal.SIGTERM)
        self.assertRegex(session.line(), rb"^-ERR \[SYS/TEMP\]")
        first.quit()
        self.summary("stopped", "Session ended by a signal; ")

    def test_signal_when_pam_hangs_after_a_quit_that_removed_something(self):
        self.pam(STANDARD + "session optional pam_exec.so type=close_session /bin/sleep 3600\n")
        session = self.session(self.account(messages(2)))
        session.ok("DELE 1")
        session.send(b"QUIT\r\n")
        self.until(lambda: self.host.run("pgrep", "-x", "sleep", check=False).output, "PAM to be at work")
        os.kill(self.monitor(), signal.SIGTERM)
        self.assert_counts(self.summary("quit", "1 ("), MESSAGES="1", DELETED_MESSAGES="1", RETRIEVED_MESSAGES="0")

    def test_pam_that_hangs(self):
        self.settings('pam-timeout = "2s"\n')
        self.pam(HANGS)
        session = self.session()
        session.ok(f"USER {self.account([])}")
        session.err("PASS wrong", b"SYS/TEMP")
        self.summary("pam-hangs", "Session ended by a failure; ")
        self.assertEqual(self.events()[-2:], ["pam-hangs", "session-ended"])

    def test_worker_that_is_killed(self):
        session = self.session(self.account(messages(1)))
        os.kill(self.worker(), signal.SIGKILL)
        self.assert_counts(self.summary("worker-failed", "Session ended by a failure; "), MESSAGES="1",
                           DELETED_MESSAGES="0", RETRIEVED_MESSAGES=None)
        self.assertEqual(self.events()[-2:], ["worker-failed", "session-ended"])
        session.close()

    def test_update_whose_helper_is_killed_before_it_has_all_of_its_orders(self):
        user = self.account(messages(2))
        session = self.session(user)
        session.ok("DELE 1")
        worker, number = self.worker(), int(self.host.run("id", "-u", user).output)
        before = self.host.mailbox(user).read_bytes()
        with open(self.host.mailbox(user), "rb+") as mailbox:
            lock(mailbox)
            session.send(b"QUIT\r\n")
            find = lambda: [process for process in self.processes() if owner(process) == number]
            (helper,) = self.until(find, "the helper")
            os.kill(worker, signal.SIGSTOP)
        # With both locks it waits for orders.
        self.until(lambda: self.host.path(f"/var/mail/{user}.lock").exists() and state(helper) == "S", "the locks")
        os.kill(helper, signal.SIGKILL)
        self.until(lambda: state(helper) == "Z", "its end")
        os.kill(worker, signal.SIGCONT)
        self.assertRegex(session.line(), rb"^-ERR \[SYS/TEMP\]")
        session.close()
        self.summary("update-failed", "0 (0) deleted, 2 (")
        (failed,) = self.journal(POPA3D_CLIENT=Endings.source, POPA3D_EVENT="update-failed")
        self.assertTrue(failed["MESSAGE"].startswith(f"Failed to update /var/mail/{user}: as-user helper: "), failed["MESSAGE"])
        self.assertEqual(self.host.mailbox(user).read_bytes(), before)
        # What it left is known for that of a process that is gone.
        self.login(user).quit()

    def test_update_that_cannot_have_the_lock(self):
        self.settings('lock-timeout = "1s"\n')
        user = self.account(messages(2))
        session = self.session(user)
        session.ok("DELE 1")
        with open(self.host.mailbox(user), "rb+") as mailbox:
            lock(mailbox)
            session.err("QUIT", b"IN-USE")
            session.close()
        summary = self.summary("update-failed", "0 (0) deleted, 2 (")
        self.assert_counts(summary, MESSAGES="2", DELETED_MESSAGES="0")
        for name in ("LOCK_WAIT", "UPDATE"):
            self.assertGreaterEqual(int(summary[f"POPA3D_{name}_USEC"]), 1_000_000)

    def test_login_that_waits_for_the_session_before(self):
        user = self.account(messages(1))
        first = self.login(user, source="127.0.3.1")
        session = self.session()
        session.ok(f"USER {user}")
        session.send(f"PASS {PASSWORD}\r\n".encode())
        self.until(lambda: "login-passed" in self.events(), "the login that waits")
        first.quit()
        self.assertTrue(session.line().startswith(b"+OK"))
        session.quit()
        self.assertGreater(int(self.summary("quit", "0 (0) deleted")["POPA3D_LOCK_WAIT_USEC"]), 0)


class StartedBySystemd(Endings, HostCase):
    def test_settings_that_cannot_be_used(self):
        self.settings("no-such-key = 1\n")
        session = Session(self, self.host.connect(110, source=Endings.source))
        self.addCleanup(session.close)
        self.assertRegex(session.line(), rb"^-ERR \[SYS/TEMP\]")
        self.summary("server-failure", "Session ended by a failure; ")
        self.assertEqual(self.events(), ["session-started", "settings-refused", "session-ended"])


class StandingAlone(Endings, Standalone):
    def test_processor_time_is_that_of_the_session_and_not_of_the_listener(self):
        for _ in range(20):
            self.connect(source="127.0.3.2").quit()
        self.until_idle()
        ended = self.journal(POPA3D_EVENT="session-ended", POPA3D_CLIENT="127.0.3.2")
        self.assertEqual(len(ended), 20)
        # Were one time part of the next, they would together be a multiple of what all used together.
        together = sum(int(entry["POPA3D_CPU_USEC"]) for entry in ended)
        self.assertLess(together, int(self.show("CPUUsageNSec")) // 1000)

    def test_client_of_a_proxy_that_has_too_many(self):
        self.settings('proxies = ["127.0.4.0/24"]\nmax-sessions-per-source = 1\n')
        header = f"PROXY TCP4 {Endings.source} 192.0.2.1 1 110\r\n".encode()
        first, second = self.arrive(source="127.0.4.1"), self.arrive(source="127.0.4.1")
        first.send(header)
        first.line()
        second.send(header)
        self.assertRegex(second.line(), rb"^-ERR \[SYS/TEMP\]")
        second.ended()
        second.close()
        (ended,) = self.until(lambda: self.journal(POPA3D_CLIENT=Endings.source, POPA3D_EVENT="session-ended"), "the end")
        self.assertEqual(ended["POPA3D_ENDING"], "not-admitted")
        first.quit()

    def test_connection_that_is_refused_is_no_session(self):
        self.settings("max-sessions-per-source = 1\n")
        session = self.session()
        self.turned_away(b"SYS/TEMP", source=Endings.source)
        session.quit()
        self.summary("no-login-attempt", "Didn't attempt")
        self.assertEqual(sorted(self.events()), ["connection-refused", "session-ended", "session-started"])


def state(process):
    """What it does (proc_pid_stat(5)): S when it waits for something, Z when it has ended."""
    return pathlib.Path(f"/proc/{process}/stat").read_text(encoding="ascii").rpartition(")")[2].split()[0]
