"""STLS on port 110 (RFC 2595): nothing of what came before it counts after it."""

import ssl

from .case import PASSWORD
from .mail import mbox, messages
from .tls import NAME, TlsCase, issue, rest_of


class Stls(TlsCase):
    def setUp(self):
        self.serve(issue(NAME))
        self.mail = messages(2)
        self.user = self.account(self.mail)

    def test_capabilities_before_and_after(self):
        session = self.connect()
        before = session.multi("CAPA")
        self.assertIn(b"STLS", before)
        session.ok("STLS")
        self.start_tls(session)
        after = session.multi("CAPA")
        self.assertEqual(sorted(before), sorted([*after, b"STLS"]))
        self.log_in(session, self.user)
        self.assertNotIn(b"STLS", session.multi("CAPA"))
        self.assertEqual(session.multi("RETR 2"), self.mail[1].lines)
        session.ok("DELE 1")
        session.quit()
        self.assertEqual(self.host.mailbox(self.user).read_bytes(), mbox(self.mail[1:]))

    def test_only_once(self):
        session = self.connect_stls()
        session.err("STLS")
        self.log_in(session, self.user)
        session.err("STLS")
        session.quit()

    def test_not_after_login(self):
        session = self.login(self.user)
        session.err("STLS")
        session.ok("NOOP")
        session.quit()

    def test_not_on_port_995(self):
        session = self.connect_tls()
        self.assertNotIn(b"STLS", session.multi("CAPA"))
        session.err("STLS")
        session.quit()

    def test_takes_no_argument(self):
        session = self.connect()
        session.err("STLS now")
        session.quit()

    def test_what_was_injected_behind_stls_is_thrown_away(self):
        for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
            for injected in (b"QUIT\r\n", b"CAPA\r\n", b"nonsense\r\n" * 100, b"X" * 5000, b"USER eve\r\n",
                             f"USER {self.user}\r\nPASS {PASSWORD}\r\nDELE 1\r\nQUIT\r\n".encode(), b"DELE", b"\x16\x03\x01"):
                with self.subTest(version=version, injected=injected[:40]):
                    source = self.address()
                    session = self.connect(source=source)
                    session.send(b"STLS\r\n" + injected)
                    self.assertRegex(session.line(), rb"^\+OK")
                    try:
                        self.start_tls(session, self.context(version))
                    except (ssl.SSLError, ConnectionResetError):
                        # What arrived later than STLS is no TLS: dropped is as good as thrown away.
                        self.until_said(f"No TLS with {source}", POPA3D_CLIENT=source)
                        self.assertGreater(len(injected), 4000, "so little arrives in one packet")
                    else:
                        session.err(f"PASS {PASSWORD}")
                        self.assertRegex(session.command("NOOP"), rb"^-ERR log in first")
                        session.multi("CAPA")
                        session.quit()
                    self.until_idle()
                    self.assertEqual(self.messages(POPA3D_CLIENT=source, POPA3D_EVENT="login-passed"), [])
        self.assertEqual(self.host.mailbox(self.user).read_bytes(), mbox(self.mail))

    def test_what_was_sent_before_stls_is_answered_before_it(self):
        session = self.connect()
        session.send(b"CAPA\r\nNOOP\r\nSTLS\r\nCAPA\r\n")
        self.assertRegex(session.line(), rb"^\+OK")
        session.lines()
        self.assertRegex(session.line(), rb"^-ERR")
        self.assertRegex(session.line(), rb"^\+OK")
        self.start_tls(session)
        self.assertRegex(session.command("NOOP"), rb"^-ERR log in first")
        session.quit()

    def test_plaintext_in_the_middle_of_the_handshake_ends_the_session(self):
        source = self.address()
        session = self.connect(source=source)
        session.ok("STLS")
        session.send(b"CAPA\r\n")
        rest_of(session.connection)
        self.until_said(f"No TLS with {source}: the client does not speak TLS", POPA3D_CLIENT=source)

    def test_user_before_stls_is_forgotten(self):
        session = self.connect()
        session.ok(f"USER {self.user}")
        session.ok("STLS")
        self.start_tls(session)
        session.err(f"PASS {PASSWORD}")
        self.log_in(session, self.user)
        session.quit()

    def test_stls_within_auth_is_a_response_and_no_command(self):
        session = self.connect()
        self.assertEqual(session.command("AUTH PLAIN"), b"+ ")
        session.err("STLS")
        session.ok("STLS")
        self.start_tls(session)
        self.log_in(session, self.user)
        session.quit()

    def test_failed_attempts_count_on(self):
        session = self.connect()
        for _ in range(2):
            session.ok(f"USER {self.user}")
            session.err("PASS wrong", b"AUTH")
        session.ok("STLS")
        self.start_tls(session)
        session.ok(f"USER {self.user}")
        session.err("PASS wrong", b"AUTH")
        session.ended()

    def test_failures_of_auth_count_on_as_well(self):
        session = self.connect()
        for _ in range(2):
            session.err("AUTH PLAIN !")
        session.ok("STLS")
        self.start_tls(session)
        session.err("AUTH PLAIN !")
        session.ended()

    def test_handshake_that_fails_ends_the_session(self):
        source = self.address()
        session = self.connect(source=source)
        session.ok("STLS")
        with self.assertRaises(ssl.SSLCertVerificationError):
            self.start_tls(session, name="other.example.org")
        self.until_said(f"No TLS with {source}", POPA3D_CLIENT=source)
        self.until_idle()

    def test_handshake_that_stalls_ends_the_session(self):
        self.serve(issue(NAME), more='handshake-timeout = "1s"\n')
        source = self.address()
        session = self.connect(source=source)
        session.ok("STLS")
        rest_of(session.connection)
        self.until_idle()
        (line,) = self.messages(POPA3D_CLIENT=source, POPA3D_EVENT="tls-failed")
        self.assertIn("handshake-timeout", line)

    def test_certificate_that_vanishes_between_capa_and_stls(self):
        pair = issue(NAME)
        self.serve(pair)
        session = self.connect()
        self.assertIn(b"STLS", session.multi("CAPA"))
        self.host.run("rm", pair.chain)
        # The session has read it and goes on with it, or says that there is none.
        if session.command("STLS").startswith(b"+OK"):
            self.start_tls(session)
        self.log_in(session, self.user)
        session.quit()
