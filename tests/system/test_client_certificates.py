"""AUTH EXTERNAL: logging in with a certificate (client-certificates in the settings)."""

import base64
import itertools
import ssl

from .case import Session
from .mail import messages
from .tls import NAME, TlsCase, issue

DIRECTORY = "/etc/popa3d-clients"
_numbers = itertools.count(1)


class ClientCertificates(TlsCase):
    def setUp(self):
        self.user = self.account(messages(1))
        self.ca = self.authority("Mail users")
        self.accept("common-name")

    def accept(self, place):
        """Has sessions take certificates of this test's authority, which name the user in this PLACE."""
        clients = f'{{ ca = "{self.ca}.crt", user = "{place}" }}'
        self.serve(issue(NAME), more=f"client-certificates = {clients}\n")

    def authority(self, name):
        stem = f"{DIRECTORY}/{next(_numbers)}"
        self.host.shell(f"""mkdir -p {DIRECTORY}
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 90 -subj '/CN={name}' \
    -keyout {stem}.key -out {stem}.crt""")
        return stem

    def client(self, subject, alternative=None, ca=None, days=30):
        """The context of a client with a certificate of this subject."""
        stem, ca = f"{DIRECTORY}/{next(_numbers)}", ca or self.ca
        extension = f"-addext 'subjectAltName={alternative}'" if alternative else ""
        self.host.shell(f"""openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes \
    -addext extendedKeyUsage=clientAuth -subj '{subject}' {extension} -keyout {stem}.key -out {stem}.csr
openssl x509 -req -in {stem}.csr -CA {ca}.crt -CAkey {ca}.key -CAcreateserial -copy_extensions copy \
    -days {days} -out {stem}.crt""")
        context = self.context()
        context.load_cert_chain(self.host.path(f"{stem}.crt"), self.host.path(f"{stem}.key"))
        return context

    def mechanisms(self, session):
        listed = [line for line in session.multi("CAPA") if line.startswith(b"SASL ")]
        return listed[0].split()[1:] if listed else []

    def test_certificate_logs_its_user_in_and_pam_opens_a_session(self):
        for connect in (self.connect_tls, self.connect_stls):
            with self.subTest(connect=connect.__name__):
                session = connect(self.client(f"/CN={self.user}"))
                self.assertIn(b"EXTERNAL", self.mechanisms(session))
                session.ok("AUTH EXTERNAL =")
                self.assertEqual(self.mechanisms(session)[-1], b"EXTERNAL")
                session.ok("RETR 1")
                session.close()
                self.until_idle()
        passed = self.journal(POPA3D_USER=self.user, POPA3D_EVENT="login-passed")
        self.assertEqual([line["POPA3D_METHOD"] for line in passed], ["EXTERNAL"] * 2)
        self.until(lambda: "session opened for user " + self.user in self.host.shell("journalctl -o cat").output,
                   "pam_unix's line")

    def test_identity_may_be_named_and_may_be_awaited(self):
        context = self.client(f"/CN={self.user}")
        named = base64.b64encode(self.user.encode()).decode()
        for command, response in ((f"AUTH EXTERNAL {named}", None), ("AUTH EXTERNAL", ""), ("AUTH EXTERNAL", named)):
            with self.subTest(command=command, response=response):
                session = self.connect_tls(context)
                if response is None:
                    session.ok(command)
                else:
                    self.assertRegex(session.command(command), rb"^\+ ")
                    session.ok(response)
                session.quit()
                self.until_idle()

    def test_nobody_logs_in_as_somebody_else(self):
        other = self.account(messages(1))
        session = self.connect_tls(self.client(f"/CN={self.user}"))
        wanted = base64.b64encode(other.encode()).decode()
        self.assertRegex(session.command(f"AUTH EXTERNAL {wanted}"), rb"^-ERR \[AUTH\]")
        session.ok("AUTH EXTERNAL =")

    def test_email_names_the_user_before_its_at(self):
        self.accept("email")
        session = self.connect_tls(self.client("/CN=Somebody", f"email:{self.user}@example.org"))
        session.ok("AUTH EXTERNAL =")

    def test_who_may_not_log_in_may_not_with_a_certificate_either(self):
        locked = self.account(messages(1))
        self.host.run("chage", "-E", "1", locked)
        for name in ("root", "nobody-of-this-name", locked):
            with self.subTest(name=name):
                session = self.connect_tls(self.client(f"/CN={name}"))
                self.assertRegex(session.command("AUTH EXTERNAL ="), rb"^-ERR \[AUTH\]")

    def test_certificate_that_names_nobody_still_lets_a_password_in(self):
        for subject in ("/O=Without a name", f"/CN={self.user}/CN=other"):
            with self.subTest(subject=subject):
                session = self.connect_tls(self.client(subject))
                self.assertNotIn(b"EXTERNAL", self.mechanisms(session))
                self.assertRegex(session.command("AUTH EXTERNAL ="), rb"^-ERR ")
                self.log_in(session, self.user)
                session.close()
                self.until_idle()

    def test_certificate_of_another_authority_ends_the_handshake(self):
        address = self.address()
        other = self.authority("Somebody else")
        with self.assertRaises((ssl.SSLError, ConnectionError, AssertionError)):
            session = self.connect_tls(self.client(f"/CN={self.user}", ca=other), source=address)
            session.command("AUTH EXTERNAL =")
        self.until_said("No TLS", POPA3D_CLIENT=address)
        self.assertFalse(self.journal(POPA3D_CLIENT=address, POPA3D_EVENT="login-passed"))

    def test_of_an_expired_certificate_the_journal_says_since_when(self):
        address, stem = self.address(), f"{DIRECTORY}/{next(_numbers)}"
        self.host.shell(f"""mkdir {stem}; cd {stem}; : >index; echo extendedKeyUsage=clientAuth >extensions
printf '%s\n' '[ca]' default_ca=a '[a]' database=index new_certs_dir=. rand_serial=yes default_md=sha256 policy=p \
    '[p]' commonName=supplied >cnf
openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN={self.user} -keyout key -out csr
openssl ca -batch -config cnf -cert {self.ca}.crt -keyfile {self.ca}.key -in csr -extfile extensions -notext \
    -startdate 20200101000000Z -enddate 20200201000000Z -out crt""")
        context = self.context()
        context.load_cert_chain(self.host.path(f"{stem}/crt"), self.host.path(f"{stem}/key"))
        with self.assertRaises((ssl.SSLError, ConnectionError, AssertionError)):
            session = self.connect_tls(context, source=address)
            session.command("AUTH EXTERNAL =")
        self.until_said("No TLS", POPA3D_CLIENT=address)
        (line,) = self.messages(POPA3D_CLIENT=address, POPA3D_EVENT="tls-failed")
        self.assertRegex(line, r"expired: verification time \d+ .*, but certificate is not valid after \d+ .*ago\)$")

    def test_resumed_session_does_not_outlive_the_trust_in_its_certificate(self):
        for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
            with self.subTest(version=version):
                self.accept("common-name")
                context = self.client(f"/CN={self.user}")
                context.minimum_version = context.maximum_version = version
                kept, listed = self.resumed(context, None)
                self.assertIn(b"EXTERNAL", listed)
                kept, listed = self.resumed(context, kept)
                self.assertIn(b"EXTERNAL", listed)
                ours, self.ca = self.ca, self.authority("Those who come after")
                self.accept("common-name")
                _, listed = self.resumed(context, kept)
                self.assertNotIn(b"EXTERNAL", listed)
                self.ca = ours

    def resumed(self, context, kept):
        """Another session of this client; what it may resume next, and the mechanisms of this one."""
        connection = context.wrap_socket(self.dial(995), server_hostname=NAME, session=kept)
        self.assertEqual(connection.session_reused, kept is not None)
        session = Session(self, connection)
        session.line()
        listed = self.mechanisms(session)
        kept = connection.session
        session.quit()
        return kept, listed

    def test_authority_that_cannot_be_read_is_said_and_costs_no_one_tls(self):
        self.host.write(f"{self.ca}.crt", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
        session = self.connect_stls()
        self.assertNotIn(b"EXTERNAL", self.mechanisms(session))
        self.log_in(session, self.user)
        session.quit()
        self.assert_said(f"Certificate cannot be used: {self.ca}.crt: ", POPA3D_EVENT="certificate-unusable")
        checked = self.host.run("popa3d", "--check-config", check=False)
        self.assertIn(f"{self.ca}.crt", checked.output + checked.errors)

    def test_without_the_setting_no_certificate_counts(self):
        self.serve(issue(NAME))
        session = self.connect_tls(self.client(f"/CN={self.user}"))
        self.assertNotIn(b"EXTERNAL", self.mechanisms(session))
        self.assertRegex(session.command("AUTH EXTERNAL ="), rb"^-ERR ")

    def test_without_tls_there_is_no_certificate(self):
        session = self.connect()
        self.assertRegex(session.command("AUTH EXTERNAL ="), rb"^-ERR ")

    def test_session_that_was_resumed_is_still_that_clients(self):
        context = self.client(f"/CN={self.user}")
        first = self.connect_tls(context)
        first.multi("CAPA")
        kept = first.connection.session
        first.quit()
        session = Session(self, context.wrap_socket(self.dial(995), server_hostname=NAME, session=kept))
        self.assertTrue(session.connection.session_reused)
        session.line()
        session.ok("AUTH EXTERNAL =")
        session.quit()
