"""How long a client may take to log in (login-timeout), and what does not count as its time."""

import contextlib
import time

from .case import PASSWORD, HostCase
from .mail import messages
from .test_pam import STANDARD
from .tls import NAME, TlsCase, issue, rest_of

GOODBYE = b"-ERR login took too long\r\n"


class LoginTimeout(HostCase):
    def test_client_that_says_nothing_is_told_and_dropped(self):
        self.settings('login-timeout = "1s"\n')
        with self.host.connect(110) as connection:
            self.assertRegex(rest_of(connection), rb"^\+OK [^\n]*\n" + GOODBYE + b"$")

    def test_client_that_never_stops_talking_is_dropped_all_the_same(self):
        self.settings('login-timeout = "1s"\n')
        session = self.connect()
        reply = self.until(lambda: self._other_reply(session), "an end of the replies to CAPA")
        self.assertEqual(reply + b"\r\n", GOODBYE)
        session.ended()
        session.close()

    def test_client_that_sends_an_endless_line_is_dropped_all_the_same(self):
        self.settings('login-timeout = "1s"\n')
        session = self.connect()
        self.until(lambda: self._broke(session), "an end of the connection")
        session.close()
        self.until_idle()

    def _other_reply(self, session):
        """The reply to CAPA if it is none."""
        reply = session.command("CAPA")
        if not reply.startswith(b"+OK"):
            return reply
        session.lines()
        return None

    def _broke(self, session):
        """Whether the connection ends when one more octet is sent."""
        try:
            session.send(b"x")
        except ConnectionError:
            return True
        return False

    def test_client_that_takes_no_reply_is_dropped_all_the_same(self):
        self.settings('login-timeout = "2s"\n')
        session = self.connect()
        session.connection.settimeout(1)
        with contextlib.suppress(TimeoutError, ConnectionError):
            for _ in range(100_000):
                session.send(b"CAPA\r\n" * 1000)
        # Nobody has read a reply, nor closed the connection.
        self.until_idle()
        session.close()

    def test_user_who_is_logged_in_may_be_silent_for_longer(self):
        self.settings('login-timeout = "2s"\n')
        session = self.login(self.account(messages(1)))
        time.sleep(3)
        session.ok("NOOP")
        session.quit()

    def test_login_that_pam_decides_late_is_not_cut_off(self):
        self.settings('login-timeout = "2s"\n')
        self.pam("auth required pam_exec.so /bin/sleep 3\n" + STANDARD)
        self.login(self.account(messages(1))).quit()

    def test_refusal_that_comes_late_is_still_told(self):
        self.settings('login-timeout = "2s"\nfailure-delay = "3s"\n')
        session = self.connect()
        session.ok(f"USER {self.account()}")
        session.err("PASS wrong", b"AUTH")
        self.assertEqual(session.line() + b"\r\n", GOODBYE)
        session.ended()
        session.close()

    def test_idle_timeout_that_is_shorter_says_nothing(self):
        self.settings('idle-timeout = "1s"\n')
        with self.host.connect(110) as connection:
            self.assertRegex(rest_of(connection), rb"^\+OK [^\n]*\n$")


class OverTls(TlsCase):
    def test_handshake_is_part_of_the_time(self):
        self.serve(issue(NAME), more='login-timeout = "1s"\n')
        with self.host.connect(995) as connection:
            self.assertEqual(connection.recv(100), b"")
        self.until_idle()
        self.assertIn("login-timeout", self.messages(POPA3D_EVENT="tls-failed")[-1])

    def test_goodbye_is_encrypted(self):
        self.serve(issue(NAME), more='login-timeout = "2s"\n')
        session = self.connect_tls()
        self.assertEqual(session.line() + b"\r\n", GOODBYE)
        session.ended()
        session.close()

    def test_user_gets_in_with_handshake_and_all(self):
        user = self.account(messages(1))
        self.serve(issue(NAME))
        session = self.connect_tls()
        session.ok(f"USER {user}")
        session.ok(f"PASS {PASSWORD}")
        session.quit()
