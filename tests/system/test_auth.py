"""AUTH (RFC 5034) and where passwords may be sent at all (plaintext-login)."""

import base64

from .case import PASSWORD
from .mail import messages
from .memory import held
from .tls import NAME, TlsCase, issue


def encoded(text):
    return base64.b64encode(text.encode() if isinstance(text, str) else text).decode()


def plain(user, password, wanted=b""):
    """PLAIN's message (RFC 4616), encoded."""
    parts = (part.encode() if isinstance(part, str) else part for part in (wanted, user, password))
    return encoded(b"\0".join(parts))


class Auth(TlsCase):
    """Over TLS, as it should be; what these commands mean is the same without."""

    def setUp(self):
        self.serve(issue(NAME))
        self.mail = messages(1)
        self.user = self.account(self.mail)

    def assert_in(self, session, method):
        self.assertEqual(session.multi("RETR 1"), self.mail[0].lines)
        session.quit()
        self.until_idle()
        passed = self.journal(POPA3D_USER=self.user, POPA3D_EVENT="login-passed")
        self.assertEqual(passed[-1]["POPA3D_METHOD"], method)

    def challenge(self, session, command):
        """Sends a command or response to which the server must answer with a challenge; returns that."""
        reply = session.command(command)
        self.assertRegex(reply, rb"^\+ ")
        return base64.b64decode(reply[2:], validate=True)

    def test_plain_with_and_without_initial_response(self):
        session = self.connect_tls()
        session.ok(f"AUTH PLAIN {plain(self.user, PASSWORD)}")
        self.assert_in(session, "PLAIN")
        session = self.connect_tls()
        self.assertEqual(self.challenge(session, "AUTH PLAIN"), b"")
        session.ok(plain(self.user, PASSWORD))
        self.assert_in(session, "PLAIN")

    def test_login_with_and_without_initial_response(self):
        session = self.connect_tls()
        self.challenge(session, "AUTH LOGIN")
        self.challenge(session, encoded(self.user))
        session.ok(encoded(PASSWORD))
        self.assert_in(session, "LOGIN")
        session = self.connect_tls()
        self.challenge(session, f"AUTH LOGIN {encoded(self.user)}")
        session.ok(encoded(PASSWORD))
        self.assert_in(session, "LOGIN")

    def test_names_in_any_case(self):
        session = self.connect_tls()
        session.ok(f"auth plain {plain(self.user, PASSWORD)}")
        self.assert_in(session, "PLAIN")

    def test_without_tls_where_that_is_allowed(self):
        session = self.connect()
        session.ok(f"AUTH PLAIN {plain(self.user, PASSWORD)}")
        self.assert_in(session, "PLAIN")
        self.assertIn("password sent in plaintext", self.messages(POPA3D_USER=self.user, POPA3D_EVENT="login-passed")[-1])

    def test_capa_names_the_mechanisms_and_bare_auth_lists_them(self):
        session = self.connect_tls()
        (listed,) = [line.split()[1:] for line in session.multi("CAPA") if line.startswith(b"SASL ")]
        self.assertEqual(listed, [b"PLAIN", b"LOGIN"])
        self.assertEqual(session.multi("AUTH"), listed)
        session.quit()

    def test_unknown_mechanism(self):
        session = self.connect_tls()
        for name in ("CRAM-MD5", "EXTERNALS", "PLAI", "PLAINX", "*", "=", "X" * 500):
            session.err(f"AUTH {name}")
        session.ok(f"AUTH PLAIN {plain(self.user, PASSWORD)}")
        self.assert_in(session, "PLAIN")

    def test_cancel_at_each_point(self):
        session = self.connect_tls()
        for _ in range(4):  # more often than login-attempts: it is no attempt
            self.challenge(session, "AUTH PLAIN")
            session.err("*")
            self.challenge(session, "AUTH LOGIN")
            session.err("*")
            self.challenge(session, f"AUTH LOGIN {encoded(self.user)}")
            session.err("*")
        session.ok(f"AUTH PLAIN {plain(self.user, PASSWORD)}")
        self.assert_in(session, "PLAIN")

    def test_authorization_identity_is_equal_or_refused(self):
        other = self.account(messages(1))
        session = self.connect_tls()
        session.err(f"AUTH PLAIN {plain(self.user, PASSWORD, other)}")
        session.err(f"AUTH PLAIN {plain(self.user, PASSWORD, 'root')}")
        session.ok(f"AUTH PLAIN {plain(self.user, PASSWORD, self.user)}")
        self.assert_in(session, "PLAIN")
        self.assertEqual(self.messages(POPA3D_USER=other), [])

    def test_what_is_no_message_of_the_mechanism_counts_as_an_attempt(self):
        for bad in ("!", "AAA", "====", "=", encoded(self.user), encoded(f"\0{self.user}"),
                    encoded(f"\0{self.user}\0{PASSWORD}\0"), encoded(f"\0{self.user}\0{PASSWORD}")[:-1],
                    plain(self.user, "wrong"), plain(self.user, ""), plain("", PASSWORD), plain("x" * 256, PASSWORD)):
            with self.subTest(bad=bad):
                session = self.connect_tls()
                session.err(f"AUTH PLAIN {bad}")
                self.challenge(session, "AUTH PLAIN")
                session.err(bad)
                session.err(f"AUTH PLAIN {bad}")
                session.ended()
        self.until_idle()
        self.assertEqual(self.messages(POPA3D_USER=self.user, POPA3D_EVENT="login-passed"), [])

    def test_wrong_passwords_by_all_ways_count_together(self):
        session = self.connect_tls()
        session.ok(f"USER {self.user}")
        session.err("PASS wrong", b"AUTH")
        session.err(f"AUTH PLAIN {plain(self.user, 'wrong')}", b"AUTH")
        self.challenge(session, f"AUTH LOGIN {encoded(self.user)}")
        session.err(encoded("wrong"), b"AUTH")
        session.ended()
        self.until_idle()
        failed = self.journal(POPA3D_USER=self.user, POPA3D_EVENT="login-failed")
        self.assertEqual([entry["POPA3D_METHOD"] for entry in failed], ["USER", "PLAIN", "LOGIN"])

    def test_overlong_response_is_refused_whole(self):
        for length in (2100, 5000, 200_000):
            session = self.connect_tls()
            self.challenge(session, "AUTH PLAIN")
            session.err("A" * length)
            session.err(f"AUTH PLAIN {'A' * length}")
            session.ok(f"AUTH PLAIN {plain(self.user, PASSWORD)}")
            session.quit()

    def test_all_may_be_sent_at_once(self):
        session = self.connect_tls()
        session.send(f"AUTH LOGIN\r\n{encoded(self.user)}\r\n{encoded(PASSWORD)}\r\nSTAT\r\n".encode())
        self.assertRegex(session.line(), rb"^\+ ")
        self.assertRegex(session.line(), rb"^\+ ")
        self.assertRegex(session.line(), rb"^\+OK")
        self.assertRegex(session.line(), rb"^\+OK 1 ")
        session.quit()

    def test_user_is_forgotten_by_auth(self):
        session = self.connect_tls()
        session.ok(f"USER {self.user}")
        self.challenge(session, "AUTH PLAIN")
        session.err("*")
        session.err(f"PASS {PASSWORD}")
        session.quit()

    def test_not_after_login(self):
        session = self.connect_tls()
        self.log_in(session, self.user)
        session.err(f"AUTH PLAIN {plain(self.user, PASSWORD)}")
        session.ok("NOOP")
        session.quit()

    def test_passwords_of_any_octets(self):
        for password in ("two  blanks ", " at both ends ", "Gr\u00fc\u00dfe \u2603", b"\xff\xfe 8-bit \x80", "tab\tin it",
                         "=*!", "*"):
            with self.subTest(password=password):
                octets = password.encode() if isinstance(password, str) else password
                user = self.account(self.mail)
                self.host.run("chpasswd", stdin=f"{user}:".encode() + octets + b"\n")
                session = self.connect_tls()
                session.ok(f"AUTH PLAIN {plain(user, octets)}")
                session.quit()
                session = self.connect_tls()
                self.challenge(session, f"AUTH LOGIN {encoded(user)}")
                session.ok(encoded(octets))
                session.quit()
                session = self.connect_tls()
                session.ok(f"USER {user}")
                session.ok(b"PASS " + octets)
                session.quit()

    def test_longest_names_are_asked_for_and_longer_ones_refused_without(self):
        # Encoded it is longer than any other line may be; that nobody is called so is for PAM to find.
        name, password = "n" * 255, "p" * 511
        session = self.connect_tls()
        session.err(f"AUTH PLAIN {plain(name, password, name)}", b"AUTH")
        self.assertIn(b"too long", session.err(f"AUTH PLAIN {plain(name + 'n', password)}", b"AUTH"))
        self.challenge(session, f"AUTH LOGIN {encoded(name)}")
        session.err(encoded(password), b"AUTH")
        session.ended()

    def test_password_of_511_octets_is_taken_whole(self):
        password = "p" * 511
        self.host.run("chpasswd", stdin=f"{self.user}:{password}\n")
        session = self.connect_tls()
        session.err(f"AUTH PLAIN {plain(self.user, password[:-1])}", b"AUTH")
        session.ok(f"AUTH PLAIN {plain(self.user, password)}")
        self.assert_in(session, "PLAIN")

    def test_what_was_sent_is_not_in_the_journal(self):
        secret = "Xyzzy-plugh-7"
        for response in (plain(self.user, secret), encoded(secret), plain(secret, "x"), f"!{secret}"):
            session = self.connect_tls()
            session.err(f"AUTH PLAIN {response}")
            session.err(f"AUTH {secret} {response}")
            session.close()
        self.until_idle()
        self.host.run("journalctl", "--sync")
        everything = self.host.run("journalctl", "--all", "-o", "export", "--no-pager").output
        self.assertNotIn(secret, everything)
        self.assertNotIn(encoded(secret), everything)


    def test_no_process_has_the_password_after_login_in_clear_or_encoded(self):
        for commands in ((f"AUTH PLAIN {plain(self.user, PASSWORD)}",), ("AUTH PLAIN", plain(self.user, PASSWORD)),
                         ("AUTH LOGIN", encoded(self.user), encoded(PASSWORD))):
            for connect in (self.connect, self.connect_tls):
                with self.subTest(commands[0][:10], count=len(commands), connect=connect.__name__):
                    session = connect()
                    for command in commands:
                        reply = session.command(command)
                    self.assertRegex(reply, rb"^\+OK")
                    # Whoever asks for the next command has done with the last one.
                    session.ok("NOOP")
                    self.until(lambda: len(self.processes()) == 2, "the helper's end")
                    secrets = {"password": PASSWORD.encode(), "encoded": commands[-1].split()[-1][-20:].encode()}
                    for process in self.processes():
                        self.assertEqual(held(process, secrets), [], f"{process} of {self.processes()}")
                    session.quit()
                self.until_idle()


class PlaintextLogin(TlsCase):
    """From this host itself, and from an address that is not of its loopback network."""

    NEAR, FAR = "127.0.0.1", "192.0.2.7"

    def setUp(self):
        self.user = self.account(messages(1))
        self.pair = issue(NAME)
        # Packets to an own address stay within the host, and yet it is none of 127.0.0.0/8.
        self.host.run("ip", "address", "replace", f"{self.FAR}/32", "dev", "lo")

    def policy(self, value):
        self.serve(self.pair, more=f'plaintext-login = "{value}"\n' if value else "")

    def open(self, source):
        return self.connect(source=source, target=source)

    def assert_taken(self, source):
        session = self.open(source)
        listed = session.multi("CAPA")
        self.assertIn(b"USER", listed)
        self.assertTrue([line for line in listed if line.startswith(b"SASL ")])
        self.log_in(session, self.user)
        session.quit()

    def assert_refused(self, source):
        before = len(self.messages(POPA3D_EVENT="plaintext-refused"))
        session = self.open(source)
        listed = session.multi("CAPA")
        self.assertNotIn(b"USER", listed)
        self.assertEqual([line for line in listed if line.startswith(b"SASL")], [])
        self.assertIn(b"STLS", listed)
        for command in (f"USER {self.user}", f"PASS {PASSWORD}", "AUTH PLAIN", f"AUTH PLAIN {plain(self.user, PASSWORD)}",
                        "AUTH LOGIN"):
            reply = session.err(command)
            self.assertIn(b"STLS", reply)
            self.assertIn(b"995", reply)
        self.assertEqual(session.multi("AUTH"), [])
        # And the session goes on to do it right.
        session.ok("STLS")
        self.start_tls(session)
        listed = session.multi("CAPA")
        self.assertIn(b"USER", listed)
        self.assertTrue([line for line in listed if line.startswith(b"SASL ")])
        self.log_in(session, self.user)
        session.quit()
        self.until_idle()
        (entry,) = self.journal(POPA3D_EVENT="plaintext-refused")[before:]
        self.assertEqual(entry["POPA3D_CLIENT"], source)
        self.assertIn("plaintext-login", entry["MESSAGE"])
        self.assertIn(source, entry["MESSAGE"])
        self.assertNotIn("plaintext", self.messages(POPA3D_USER=self.user, POPA3D_EVENT="login-passed")[-1])

    def test_default_is_from_this_host_alone(self):
        self.policy(None)
        self.assert_taken(self.NEAR)
        self.assert_taken("::1")
        self.assert_refused(self.FAR)

    def test_loopback(self):
        self.policy("loopback")
        self.assert_taken(self.NEAR)
        self.assert_refused(self.FAR)

    def test_never(self):
        self.policy("never")
        self.assert_refused(self.NEAR)
        self.assert_refused("::1")
        self.assert_refused(self.FAR)

    def test_always(self):
        self.policy("always")
        self.assert_taken(self.NEAR)
        self.assert_taken(self.FAR)
        checked = self.host.run("popa3d", "--check-config")
        self.assertRegex(checked.output + checked.errors, "warning: plaintext-login")

    def test_all_are_taken_over_tls(self):
        self.policy("never")
        session = self.connect_tls(source=self.FAR, target=self.FAR)
        self.log_in(session, self.user)
        session.quit()

    def test_without_a_certificate_it_is_refused_all_the_same(self):
        self.settings('certificates = []\nplaintext-login = "never"\n')
        session = self.open(self.NEAR)
        for command in (f"USER {self.user}", f"PASS {PASSWORD}"):
            reply = session.err(command)
            self.assertIn(b"no certificate", reply)
            self.assertNotIn(b"STLS", reply)
        session.err("STLS")
        session.quit()
