"""TLS on port 995: certificates and keys, names, journal, and clients that do not play by the rules."""

import datetime
import random
import socket
import ssl
import struct

from . import test_processes
from .case import PASSWORD, Session
from .mail import mbox, messages
from .tls import NAME, ByHand, TlsCase, issue, rest_of, root

VERSIONS = {"TLSv1.2": ssl.TLSVersion.TLSv1_2, "TLSv1.3": ssl.TLSVersion.TLSv1_3}

# Kind of key, format of its file, and what makes that of PKCS#8 in PEM.
FORMATS = (
    ("rsa", "PKCS#8", None),
    ("rsa", "PKCS#1", "openssl rsa -traditional"),
    ("p256", "PKCS#8", None),
    ("p256", "SEC1", "openssl ec"),
    ("p256", "SEC1 behind EC PARAMETERS", "openssl ecparam -name prime256v1; openssl ec"),
    ("p384", "PKCS#8", None),
    ("p384", "SEC1 behind EC PARAMETERS", "openssl ecparam -name secp384r1; openssl ec"),
    ("p521", "PKCS#8", None),
    ("ed25519", "PKCS#8", None),
)


class Keys(TlsCase):
    def test_each_kind_of_key_in_each_format_with_both_versions(self):
        for kind, form, command in FORMATS:
            pair = issue(NAME, key=kind)
            if command:
                self.host.shell(f"umask 077; {{ {command} -in {pair.key}; }} >{pair.key}.new; mv {pair.key}.new {pair.key}")
            self.serve(pair)
            for version, number in VERSIONS.items():
                with self.subTest(kind=kind, format=form, version=version):
                    session = self.connect_tls(self.context(number))
                    self.assertEqual(session.connection.version(), version)
                    self.assertEqual(session.connection.getpeercert(binary_form=True), pair.der)
                    session.multi("CAPA")
                    session.quit()

    def test_chain_is_sent_whole_so_that_the_root_is_all_a_client_needs(self):
        pair = issue(NAME)
        self.serve(pair)
        self.connect_tls().quit()
        self.host.shell(f"sed '/END CERTIFICATE/q' {pair.chain} >{pair.chain}.new; mv {pair.chain}.new {pair.chain}")
        with self.assertRaisesRegex(ssl.SSLCertVerificationError, "unable to get local issuer"):
            self.connect_tls()

    def test_one_file_may_hold_both(self):
        pair = issue(NAME)
        self.host.shell(f"cat {pair.key} >>{pair.chain}; cp {pair.chain} {pair.key}")
        self.serve(pair)
        self.connect_tls().quit()

    def test_renewed_certificate_is_served_to_the_next_connection_and_sessions_go_on(self):
        pair, new = issue(NAME, key="rsa"), issue(NAME)
        self.serve(pair)
        before = self.connect_tls()
        self.host.shell(f"cp {new.chain} {pair.chain}; cp {new.key} {pair.key}")
        after = self.connect_tls()
        self.assertEqual(after.connection.getpeercert(binary_form=True), new.der)
        before.quit()
        after.quit()


class Names(TlsCase):
    def test_each_name_gets_its_certificate_and_all_others_the_first(self):
        first = issue("one.example.org", key="rsa")
        second = issue("two.example.org", "*.wild.example.org")
        third = issue("three.example.org", key="ed25519")
        self.serve(first, second, third)
        context = self.careless_context()
        for name, pair in (("one.example.org", first), ("two.example.org", second), ("TWO.Example.ORG", second),
                           ("a.wild.example.org", second), ("three.example.org", third),
                           ("a.b.wild.example.org", first), ("example.net", first), (None, first)):
            with self.subTest(name=name):
                session = self.connect_tls(context, name)
                self.assertEqual(session.connection.getpeercert(binary_form=True), pair.der)
                session.quit()

    def test_client_that_cannot_use_the_first_certificate_gets_one_that_it_can(self):
        first, second = issue(NAME), issue(NAME, key="rsa")
        self.serve(first, second)
        for ciphers, pair in (("ECDHE+aECDSA", first), ("ECDHE+aRSA", second)):
            context = self.context(ssl.TLSVersion.TLSv1_2)
            context.set_ciphers(ciphers)
            session = self.connect_tls(context)
            self.assertEqual(session.connection.getpeercert(binary_form=True), pair.der)
            session.quit()


class Credentials(TlsCase):
    DROP_IN = "/etc/systemd/system/popa3d@.service.d"

    def setUp(self):
        self.settings("")

    def load(self, **paths):
        """The drop-in that passes these files under these names."""
        self.addCleanup(self.host.shell, f"rm -rf {self.DROP_IN}; systemctl daemon-reload")
        self.host.run("mkdir", "-p", self.DROP_IN)
        self.host.write(f"{self.DROP_IN}/tls.conf", "[Service]\n" + "".join(
            f"LoadCredential={name.replace('_', '.')}:{path}\n" for name, path in paths.items()))
        self.host.run("systemctl", "daemon-reload")

    def test_snakeoil_works_at_once(self):
        session = self.connect_tls(self.careless_context())
        pem = self.host.read("/etc/ssl/certs/ssl-cert-snakeoil.pem").decode()
        self.assertEqual(session.connection.getpeercert(binary_form=True), ssl.PEM_cert_to_DER_cert(pem))
        session.quit()
        checked = self.host.run("popa3d", "--check-config")
        self.assertIn("/etc/ssl/certs/ssl-cert-snakeoil.pem: certificate usable", checked.output + checked.errors)

    def test_drop_in_of_three_lines_puts_a_certificate_in_place_on_both_ports(self):
        pair = issue(NAME)
        self.load(popa3d_crt=pair.chain, popa3d_key=pair.key)
        for session in (self.connect_tls(), self.connect_stls()):
            self.assertEqual(session.connection.getpeercert(binary_form=True), pair.der)
            session.quit()
        checked = self.host.run("popa3d", "--check-config")
        self.assertRegex(checked.output + checked.errors, rf"{pair.chain}: certificate usable for (89|90) days")

    def test_more_pairs_have_other_names(self):
        first, other = issue(NAME), issue("other.example.org", key="rsa")
        self.load(popa3d_crt=first.chain, popa3d_key=first.key, zother_crt=other.chain, zother_key=other.key)
        context = self.careless_context()
        for name, pair in ((NAME, first), ("other.example.org", other), ("example.net", first)):
            session = self.connect_tls(context, name)
            self.assertEqual(session.connection.getpeercert(binary_form=True), pair.der, name)
            session.quit()

    def test_settings_come_before_credentials(self):
        one, other = issue(NAME), issue(NAME)
        self.load(popa3d_crt=one.chain, popa3d_key=one.key)
        self.serve(other)
        session = self.connect_tls()
        self.assertEqual(session.connection.getpeercert(binary_form=True), other.der)
        session.quit()


class Unusable(TlsCase):
    def test_journal_and_check_config_say_which_file_and_what(self):
        pair = issue(NAME)
        damages = (
            ("chain", f"rm {pair.chain}", "No such file"),
            ("chain", f"rm {pair.chain}; mkdir {pair.chain}", "directory"),
            ("chain", f": >{pair.chain}", "no certificate in it"),
            ("chain", f"cp {pair.key} {pair.chain}", "no certificate in it"),
            ("chain", f"head -c 300 {pair.chain}.good >{pair.chain}", "PEM|no certificate"),
            ("chain", f"cp /bin/true {pair.chain}", "PEM|no certificate"),
            ("chain", f"cp {issue(NAME, start='20200101000000Z', end='20200201000000Z').chain} {pair.chain}",
             "expired on 2020-02-01"),
            ("chain", f"cp {issue(NAME, start='20480101000000Z', end='20490101000000Z').chain} {pair.chain}",
             "not valid before 2048-01-01"),
            ("key", f"rm {pair.key}", "No such file"),
            ("key", f": >{pair.key}", "private key"),
            ("key", f"cp {pair.chain} {pair.key}", "private key"),
            ("key", f"cp {issue(NAME).key} {pair.key}", f"not the key of {pair.chain}"),
            ("key", f"cp {issue(NAME, key='rsa').key} {pair.key}", f"not the key of {pair.chain}"),
            ("key", f"openssl pkcs8 -topk8 -passout pass:x -in {pair.key}.good -out {pair.key}", "unencrypted private key"),
            ("key", f"openssl ec -aes256 -passout pass:x -in {pair.key}.good -out {pair.key}", "unencrypted private key"),
        )
        self.host.shell(f"cd {pair.chain.rpartition('/')[0]}; for f in {pair.chain} {pair.key}; do cp $f $f.good; done")
        self.serve(pair)
        user = self.account(messages(1))
        for part, damage, reason in damages:
            with self.subTest(damage):
                self.host.shell(f"for f in {pair.chain} {pair.key}; do rm -rf $f; cp $f.good $f; done; {damage}")
                path = getattr(pair, part)
                self._assert_refused(user, path, reason)
        self.host.shell(f"for f in {pair.chain} {pair.key}; do cp $f.good $f; done")
        self.connect_tls().quit()

    def _assert_refused(self, user, path, reason):
        source = self.address()
        session = self.connect(source=source)
        self.assertNotIn(b"STLS", session.multi("CAPA"))
        session.err("STLS")
        self.log_in(session, user)
        session.multi("RETR 1")
        session.quit()
        self.until_idle()
        (line,) = self.messages(POPA3D_CLIENT=source, POPA3D_EVENT="certificate-unusable")
        self.assertIn(f"{path}: ", line)
        self.assertRegex(line, reason)
        checked = self.host.run("popa3d", "--check-config", check=False)
        self.assertEqual(checked.code, 2)
        self.assertRegex(checked.output, rf"(?m)^error: .*{path}: .*({reason})")

        source = self.address()
        connection = self.dial(995, source=source)
        self.assertEqual(connection.recv(100), b"")
        self.until_idle()
        self.assert_said(f"No TLS with {source}: there is no certificate", POPA3D_CLIENT=source)
        self.assert_said(f"Certificate cannot be used: {path}", POPA3D_CLIENT=source)

    def test_one_that_is_unusable_takes_no_other_with_it(self):
        bad, good = issue("bad.example.org", end="20200201000000Z", start="20200101000000Z"), issue(NAME)
        self.serve(bad, good)
        source = self.address()
        session = self.connect_tls(source=source)
        self.assertEqual(session.connection.getpeercert(binary_form=True), good.der)
        session.quit()
        self.assert_said(f"Certificate cannot be used: {bad.chain}: expired", POPA3D_CLIENT=source)

    def test_expiry_within_14_days_is_a_warning_of_check_config(self):
        for days, warned in ((13, True), (16, False)):
            end = datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(days=days, hours=1)
            pair = issue(NAME, end=end.strftime("%Y%m%d%H%M%SZ"))
            self.serve(pair)
            checked = self.host.run("popa3d", "--check-config")
            expected = (rf"warning: {pair.chain}: certificate expires in 13 days" if warned
                        else rf"(?m)^{pair.chain}: certificate usable for 16 days")
            self.assertRegex(checked.output + checked.errors, expected)
            self.connect_tls().quit()

    def test_empty_list_of_certificates_means_no_tls(self):
        self.serve()
        session = self.connect()
        self.assertNotIn(b"STLS", session.multi("CAPA"))
        session.err("STLS")
        session.quit()
        self.assertEqual(self.dial(995).recv(100), b"")


class Journal(TlsCase):
    def setUp(self):
        self.serve(issue(NAME))

    def fields(self, user):
        """What all lines of this user's last session say of TLS and of the login."""
        self.until_idle()
        (passed,) = self.journal(POPA3D_USER=user, POPA3D_EVENT="login-passed")
        found = {name: value for name, value in passed.items()
                 if name.startswith("POPA3D_TLS") or name == "POPA3D_METHOD"}
        for entry in self.journal(POPA3D_USER=user, POPA3D_SESSION=passed["POPA3D_SESSION"]):
            self.assertEqual({name: entry.get(name) for name in found}, found, entry["MESSAGE"])
        return found, passed["MESSAGE"]

    def test_session_says_what_it_was_encrypted_with(self):
        for version, number in VERSIONS.items():
            with self.subTest(version):
                user = self.account(messages(1))
                session = self.connect_tls(self.context(number))
                suite = session.connection.cipher()[0]
                self.log_in(session, user)
                session.quit()
                found, text = self.fields(user)
                expected = {"POPA3D_TLS": version, "POPA3D_TLS_GROUP": "X25519", "POPA3D_TLS_SERVER_NAME": NAME,
                            "POPA3D_TLS_RESUMED": "no", "POPA3D_METHOD": "USER"}
                self.assertEqual({name: found.get(name) for name in expected}, expected)
                self.assertEqual(found["POPA3D_TLS_SUITE"], iana_name(suite))
                self.assertNotIn("plaintext", text)
                # To systemctl they are the same service, whichever port they came to.
                (unit,) = {entry["_SYSTEMD_UNIT"] for entry in self.journal(POPA3D_USER=user)}
                self.assertRegex(unit, r"^popa3d@.*:995-")

    def test_session_without_tls_says_so_at_login(self):
        user = self.account(messages(1))
        self.login(user).quit()
        found, text = self.fields(user)
        self.assertEqual(found, {"POPA3D_METHOD": "USER"})
        self.assertIn("password sent in plaintext", text)
        session = self.connect()
        session.ok(f"USER {user}")
        session.err("PASS wrong", b"AUTH")
        session.quit()
        self.until_idle()
        (line,) = self.messages(POPA3D_USER=user, POPA3D_EVENT="login-failed")
        self.assertIn("password sent in plaintext", line)

    def test_failed_login_over_tls_does_not_say_plaintext(self):
        user = self.account(messages(1))
        session = self.connect_tls()
        session.ok(f"USER {user}")
        session.err("PASS wrong", b"AUTH")
        session.quit()
        self.until_idle()
        (line,) = self.messages(POPA3D_USER=user, POPA3D_EVENT="login-failed")
        self.assertNotIn("plaintext", line)

    def test_groups_are_named(self):
        for option, group in (("P-256", "secp256r1"), ("P-384", "secp384r1"), ("X25519", "X25519")):
            source = self.address()
            self.s_client(source, "-groups", option)
            (started,) = self.journal(POPA3D_CLIENT=source, POPA3D_EVENT="tls-started")
            self.assertEqual(started["POPA3D_TLS_GROUP"], group)
            self.assertIn(group, started["MESSAGE"])

    def test_post_quantum_hybrid_is_used_with_clients_that_have_it(self):
        if "3.5" > self.host.run("openssl", "version").output.split()[1]:
            self.skipTest("this release's openssl has no X25519MLKEM768")
        source = self.address()
        self.s_client(source)
        (started,) = self.journal(POPA3D_CLIENT=source, POPA3D_EVENT="tls-started")
        self.assertEqual(started["POPA3D_TLS_GROUP"], "X25519MLKEM768")

    def test_server_name_forges_no_line_and_has_bounds(self):
        for name in ("a\nb", "\x1b[2Jx", "x\x7f\x9b", "a b", 'quo"te', "\u202eesrever", "n" * 250, "a.b." * 60, "192.0.2.1"):
            with self.subTest(name=name):
                source = self.address()
                self.host.run("openssl", "s_client", "-connect", "localhost:995", "-bind", f"{source}:0",
                              "-servername", name, stdin="QUIT\r\n", check=False)
                self.until_idle()
                entries = self.journal(POPA3D_CLIENT=source)
                self.assertGreaterEqual(len(entries), 2)
                for entry in entries:
                    self.assertNotEqual(entry["POPA3D_EVENT"], "worker-failed", entry["MESSAGE"])
                    for field, value in entry.items():
                        if field.startswith("POPA3D_") or field == "MESSAGE":
                            self.assertIsInstance(value, str, f"{field} is not plain text: {value}")
                            self.assertLess(len(value), 1000)
                            self.assertNotRegex(value, "[\x00-\x1f\x7f-\x9f\u202a-\u202e]")

    def s_client(self, source, *options):
        self.host.run("openssl", "s_client", "-connect", "localhost:995", "-bind", f"{source}:0", *options,
                      stdin="QUIT\r\n")
        self.until_idle()


class Misused(TlsCase):
    """Whoever does not speak TLS as it is meant is dropped, and the journal says so."""

    def setUp(self):
        self.serve(issue(NAME))

    def assert_dropped(self, connection, source, reason):
        """The connection ends after an alert at most, the journal has the reason, and nothing broke."""
        received = rest_of(connection)
        self.assertIn(received[:1], (b"", b"\x15"), received)
        self.until_idle()
        (line,) = self.messages(POPA3D_CLIENT=source, POPA3D_EVENT="tls-failed")
        self.assertRegex(line, reason)
        self.assertEqual(self.messages(POPA3D_CLIENT=source, POPA3D_EVENT="worker-failed"), [])

    def test_plaintext_on_995(self):
        for said in (b"CAPA\r\n", b"USER alice\r\nPASS secret\r\n", b"QUIT\r\n", b"GET / HTTP/1.0\r\n\r\n"):
            with self.subTest(said=said):
                source = self.address()
                connection = self.dial(995, source=source)
                connection.sendall(said)
                self.assert_dropped(connection, source, "does not speak TLS")

    def test_tls_on_110(self):
        source = self.address()
        session = self.connect(source=source)
        with self.assertRaises((ssl.SSLError, ConnectionResetError)):
            self.start_tls(session)
        self.until_idle()
        (line,) = self.messages(POPA3D_CLIENT=source, POPA3D_EVENT="tls-failed")
        self.assertRegex(line, "STLS")

    def test_handshake_that_stalls(self):
        self.serve(issue(NAME), more='handshake-timeout = "1s"\n')
        hello = client_hello()
        for sent in (b"", hello[:1], hello[:5], hello[:100], hello[:-1], hello):
            with self.subTest(octets=len(sent)):
                source = self.address()
                connection = self.dial(995, source=source)
                connection.sendall(sent)
                # Handshake records of the server come before the end, once it knows the client's hello.
                received = rest_of(connection)
                self.assertIn(received[:1], (b"\x16",) if sent == hello else (b"", b"\x15"))
                self.until_idle()
                (line,) = self.messages(POPA3D_CLIENT=source, POPA3D_EVENT="tls-failed")
                self.assertIn("handshake-timeout", line)

    def test_handshake_that_trickles(self):
        self.serve(issue(NAME), more='handshake-timeout = "1s"\n')
        source = self.address()
        connection = self.dial(995, source=source)
        hello = iter(client_hello())

        def trickled():
            try:
                connection.sendall(bytes([next(hello)]))
            except (OSError, StopIteration):
                pass
            return self.messages(POPA3D_CLIENT=source, POPA3D_EVENT="tls-failed")

        (line,) = self.until(trickled, "the end of a handshake that trickles")
        self.assertIn("handshake-timeout", line)

    def test_client_that_leaves_in_the_handshake(self):
        for sent in (b"", client_hello()[:100], client_hello()):
            with self.subTest(octets=len(sent)):
                source = self.address()
                connection = self.dial(995, source=source)
                connection.sendall(sent)
                connection.shutdown(socket.SHUT_WR)
                rest_of(connection)
                self.until_said(f"No TLS with {source}", POPA3D_CLIENT=source)

    def test_garbage(self):
        noise = random.Random(7)
        hello = client_hello()
        for number, sent in enumerate((
            b"\x16\x03\x01\xff\xff" + bytes(70_000),                # a record longer than any may be
            b"\x16\x03\x01\x40\x01" + bytes(16_385),
            b"\x16\x03\x01\x00\x00" * 20_000,                       # empty ones
            b"\x16\x03\x01\x00\x04\x01\xff\xff\xff" * 3,            # a hello of 16 MiB is announced
            b"\x16\x03\x01\x40\x00\x01\xff\xff\xff" + bytes(16_380) + (b"\x16\x03\x01\x40\x00" + bytes(16_384)) * 8,
            b"\x16" + noise.randbytes(5000),
            b"\x16\x03\x01\x02\x00" + noise.randbytes(512),
            b"\x16\x03\x01\x00\x02\x01\x00\x15\x03\x01\x00\x02\x01\x00",
            hello[:20] + noise.randbytes(len(hello) - 20),
            hello + b"\x17\x03\x03\x01\x00" + noise.randbytes(256),
            hello + hello,
        )):
            with self.subTest(number):
                source = self.address()
                connection = self.dial(995, source=source)
                try:
                    connection.sendall(sent)
                    connection.shutdown(socket.SHUT_WR)
                except OSError:
                    pass  # dropped in the middle of it
                rest_of(connection)
                self.until_idle()
                self.assertEqual(len(self.messages(POPA3D_CLIENT=source, POPA3D_EVENT="tls-failed")), 1)
                self.assertEqual(self.messages(POPA3D_CLIENT=source, POPA3D_EVENT="worker-failed"), [])
        self.connect_tls().quit()

    def test_hello_with_any_octet_changed_breaks_nothing(self):
        noise = random.Random(11)
        hello = client_hello()
        for _ in range(60):
            changed = bytearray(hello)
            for _ in range(noise.randint(1, 3)):
                changed[noise.randrange(5, len(changed))] = noise.randrange(256)
            connection = self.dial(995, source="127.7.200.1")
            connection.sendall(changed)
            connection.shutdown(socket.SHUT_WR)
            rest_of(connection)
            connection.close()
        self.until_idle()
        self.assertEqual(self.messages(POPA3D_CLIENT="127.7.200.1", POPA3D_EVENT="worker-failed"), [])
        self.assertEqual(self.messages(POPA3D_CLIENT="127.7.200.1", POPA3D_EVENT="server-failure"), [])

    def test_many_tickets_are_no_more_than_none(self):
        for count, length in ((9, 100), (100, 150), (4, 4000), (1, 60_000)):
            with self.subTest(count=count, length=length):
                source = self.address()
                connection = self.dial(995, source=source)
                connection.sendall(client_hello(tickets=[bytes([number]) * length for number in range(count)]))
                # A full handshake is begun.
                self.assertEqual(connection.recv(1), b"\x16")
                connection.close()
                self.until_idle()
                self.assertEqual(self.messages(POPA3D_CLIENT=source, POPA3D_EVENT="worker-failed"), [])

    def test_clients_of_another_protocol_are_turned_away(self):
        context = self.context()
        context.set_alpn_protocols(["http/1.1"])
        with self.assertRaisesRegex(ssl.SSLError, "(?i)no.application.protocol"):
            self.connect_tls(context)
        context = self.context()
        context.set_alpn_protocols(["pop3"])
        session = self.connect_tls(context)
        self.assertEqual(session.connection.selected_alpn_protocol(), "pop3")
        session.quit()


class Truncation(TlsCase):
    """A connection that somebody cuts deletes nothing."""

    def setUp(self):
        self.serve(issue(NAME))
        self.mail = messages(3)
        self.user = self.account(self.mail)

    def marked(self, version):
        """A session by hand with a message marked: what the client's TLS makes is sent by the test."""
        connection = self.dial(995)
        client = ByHand(self.context(version), connection)
        client.exchange(client.tls.do_handshake)
        for command in (None, f"USER {self.user}", f"PASS {PASSWORD}", "DELE 1"):
            if command:
                client.tls.write(f"{command}\r\n".encode())
                connection.sendall(client.outgoing.read())
            self.assertRegex(client.exchange(lambda: client.tls.read(1000)), rb"^\+OK")
        return client

    def test_whatever_is_cut_off_deletes_nothing(self):
        def nothing(client):
            return b""

        def half_a_line(client):
            client.tls.write(b"QUI")
            return client.outgoing.read()

        def line_without_its_end(client):
            client.tls.write(b"QUIT")
            return client.outgoing.read()

        def record_without_its_end(client):
            client.tls.write(b"QUIT\r\n")
            return client.outgoing.read()[:-1]

        def record_with_a_changed_octet(client):
            client.tls.write(b"QUIT\r\n")
            record = client.outgoing.read()
            return record[:-3] + bytes([record[-3] ^ 1]) + record[-2:]

        def plaintext(client):
            return b"QUIT\r\n"

        def close_notify(client):
            try:
                client.tls.unwrap()
            except ssl.SSLWantReadError:
                pass
            return client.outgoing.read()

        for version in VERSIONS.values():
            for last in (nothing, half_a_line, line_without_its_end, record_without_its_end,
                         record_with_a_changed_octet, plaintext, close_notify):
                for end in ("FIN", "RST"):
                    with self.subTest(last.__name__, version=version, end=end):
                        client = self.marked(version)
                        client.connection.sendall(last(client))
                        if end == "RST":
                            client.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                        client.connection.close()
                        self.until_idle()
                        self.assertEqual(self.host.mailbox(self.user).read_bytes(), mbox(self.mail))
        said = self.messages(POPA3D_USER=self.user, POPA3D_EVENT="session-ended")
        self.assertEqual(len(said), 2 * 7 * 2, said)
        self.assertEqual(self.messages(POPA3D_USER=self.user, POPA3D_EVENT="worker-failed"), [])

    def test_quit_that_arrives_whole_does_and_both_sides_say_close_notify(self):
        for version in VERSIONS.values():
            with self.subTest(version):
                mail = self.host.mailbox(self.user).read_bytes()
                client = self.marked(version)
                client.tls.write(b"QUIT\r\n")
                client.connection.sendall(client.outgoing.read())
                self.assertRegex(client.exchange(lambda: client.tls.read(1000)), rb"^\+OK")
                # unwrap() wants the other side's close_notify, which it got no other way.
                client.exchange(client.tls.unwrap)
                self.assertEqual(client.connection.recv(100), b"")
                self.assertLess(len(self.host.mailbox(self.user).read_bytes()), len(mail))

    def test_close_notify_of_the_client_ends_the_session_at_once(self):
        client = self.marked(ssl.TLSVersion.TLSv1_3)
        # The connection stays open in both directions as far as TCP is concerned.
        client.exchange(client.tls.unwrap)
        self.assertEqual(client.connection.recv(100), b"")
        self.until_idle()
        self.assert_said("Premature disconnect", POPA3D_USER=self.user)


class Resumption(TlsCase):
    KEYS = "/run/popa3d/.ticket-keys"

    def setUp(self):
        self.serve(issue(NAME))
        self.kept = f"/tmp/{self.address()}"

    def s_client(self, version, *options):
        """One session of openssl; what the journal says of its TLS."""
        source = self.address()
        # A client that leaves too early does not see the ticket, which TLS 1.3 sends after the handshake.
        self.host.run("openssl", "s_client", "-connect", "localhost:995", "-bind", f"{source}:0", "-servername", NAME,
                      "-CAfile", root(), "-verify_return_error", "-quiet", "-crlf", f"-{version}", *options,
                      stdin="CAPA\nQUIT\n")
        self.until_idle()
        (started,) = self.journal(POPA3D_CLIENT=source, POPA3D_EVENT="tls-started")
        return started

    def test_sessions_are_resumed_by_processes_that_never_saw_the_first(self):
        for version in ("tls1_2", "tls1_3"):
            with self.subTest(version):
                self.assertEqual(self.s_client(version, "-sess_out", self.kept)["POPA3D_TLS_RESUMED"], "no")
                self.host.shell("systemctl kill --signal=KILL 'popa3d@*.service' || true; "
                                "systemctl restart popa3d.socket popa3ds.socket")
                resumed = self.s_client(version, "-sess_in", self.kept)
                self.assertEqual(resumed["POPA3D_TLS_RESUMED"], "yes")
                self.assertIn("resumed", resumed["MESSAGE"])
                # Forward secrecy: a new key exchange all the same, which TLS 1.2 does not know of.
                self.assertEqual("POPA3D_TLS_GROUP" in resumed, version == "tls1_3")

    def test_session_that_was_resumed_is_one_like_any_other(self):
        mail = messages(2)
        user = self.account(mail)
        for version in VERSIONS.values():
            context = self.context(version)
            first = self.connect_tls(context)
            first.multi("CAPA")
            kept = first.connection.session
            first.quit()
            session = Session(self, context.wrap_socket(self.dial(995), server_hostname=NAME, session=kept,
                                                        suppress_ragged_eofs=False))
            self.assertTrue(session.connection.session_reused)
            session.line()
            self.log_in(session, user)
            self.assertEqual(session.multi("RETR 1"), mail[0].lines)
            session.quit()

    def test_resumed_session_is_not_for_another_name(self):
        other = "other.example.org"
        self.serve(issue(NAME), issue(other))
        context = self.careless_context(ssl.TLSVersion.TLSv1_3)
        first = self.connect_tls(context)
        first.multi("CAPA")
        kept = first.connection.session
        first.quit()
        connection = context.wrap_socket(self.dial(995), server_hostname=other, session=kept)
        self.assertFalse(connection.session_reused)
        connection.close()

    def test_keys_are_roots_alone(self):
        self.s_client("tls1_3")
        self.assertEqual(self.host.run("stat", "-c", "%a %U:%G", self.KEYS).output, "600 root:root\n")

    def test_without_the_keys_there_is_a_full_handshake_and_nothing_worse(self):
        for version in ("tls1_2", "tls1_3"):
            for damage in (f"rm {self.KEYS}", f": >{self.KEYS}", f"echo nonsense >{self.KEYS}",
                           f"head -c 64 /dev/urandom >{self.KEYS}"):
                with self.subTest(damage, version=version):
                    self.s_client(version, "-sess_out", self.kept)
                    self.host.shell(damage)
                    again = self.s_client(version, "-sess_in", self.kept, "-sess_out", self.kept)
                    self.assertEqual(again["POPA3D_TLS_RESUMED"], "no")
                    self.assertEqual(self.s_client(version, "-sess_in", self.kept)["POPA3D_TLS_RESUMED"], "yes")

    def test_keys_that_cannot_be_read_are_said_and_clients_are_served(self):
        self.s_client("tls1_3", "-sess_out", self.kept)
        self.addCleanup(self.host.shell, f"rm -rf {self.KEYS}")
        self.host.shell(f"rm {self.KEYS}; mkdir {self.KEYS}")
        self.assertEqual(self.s_client("tls1_3", "-sess_in", self.kept)["POPA3D_TLS_RESUMED"], "no")
        self.assert_said("Server failure: ticket keys", POPA3D_EVENT="server-failure")


class Hardened(TlsCase):
    def test_certificates_credentials_and_resumption_work_with_the_hardened_drop_in(self):
        directory = "/etc/systemd/system/popa3d@.service.d"
        pair = issue(NAME)
        self.addCleanup(self.host.shell, f"rm -r {directory}; systemctl daemon-reload")
        self.host.shell(f"mkdir -p {directory}; cp /usr/share/doc/popa3d/examples/hardened.conf {directory}; "
                        "rm -f /run/popa3d/.ticket-keys")
        user = self.account(messages(2))
        for drop_in, settings, context in (
            ("", "", self.careless_context()),
            ("", f"certificates = [{pair.setting}]\n", self.context()),
            (f"LoadCredential=popa3d.crt:{pair.chain}\nLoadCredential=popa3d.key:{pair.key}\n", "", self.context()),
        ):
            with self.subTest(drop_in=drop_in, settings=settings):
                self.host.write(f"{directory}/tls.conf", f"[Service]\n{drop_in}")
                self.host.run("systemctl", "daemon-reload")
                self.settings(settings)
                first = self.connect_tls(context)
                self.log_in(first, user)
                first.multi("RETR 2")
                kept = first.connection.session
                first.quit()
                again = context.wrap_socket(self.dial(995), server_hostname=NAME, session=kept)
                self.assertTrue(again.session_reused)
                again.close()
                self.connect_stls(context).quit()
        self.until_idle()
        self.assertEqual(self.messages(POPA3D_USER=user, POPA3D_EVENT="server-failure"), [])


class Worker(TlsCase, test_processes.Worker):
    """What holds for the processes of any session holds for those of one over TLS."""

    # strace would not see the greeting.
    test_landlock_and_the_filter_are_in_force_before_the_greeting = None

    def setUp(self):
        self.serve(issue(NAME))
        super().setUp()

    def connect(self, **options):
        return self.connect_tls(**options)

    log_in = test_processes.Worker.log_in


class Amounts(TlsCase):
    def test_large_messages_arrive_as_they_are_with_both_versions(self):
        self.serve(issue(NAME))
        mail = messages(3, random.Random(3).randbytes(5 << 20).hex(" ", 40).encode() + b"\n")
        user = self.account(mail)
        for version in VERSIONS.values():
            session = self.connect_tls(self.context(version))
            self.log_in(session, user)
            session.send(b"".join(b"RETR %d\r\n" % number for number in (1, 2, 3)))
            for item in mail:
                self.assertRegex(session.line(), rb"^\+OK")
                self.assertEqual(session.lines(), item.lines)
            session.quit()

    def test_client_that_never_reads_is_let_go(self):
        self.serve(issue(NAME), more='idle-timeout = "1s"\n')
        user = self.account(messages(1, (b"w" * 999 + b"\n") * 50_000))
        session = self.connect_tls()
        self.log_in(session, user)
        session.send(b"RETR 1\r\n")
        self.assertTrue(self.processes())
        self.until_idle()

    def test_idle_client_is_let_go_with_a_goodbye(self):
        self.serve(issue(NAME), more='idle-timeout = "1s"\n')
        session = self.connect_tls()
        rest = b""
        while data := session.connection.recv(1000):  # without close_notify this raises
            rest += data
        self.assertRegex(rest, rb"^(-ERR .*\r\n)?$")


def client_hello(tickets=()):
    """What a client of TLS 1.3 begins with (RFC 8446 section 4.1.2), in one record or more."""
    def vector(size, content):
        return len(content).to_bytes(size, "big") + content

    def extension(number, content):
        return struct.pack(">H", number) + vector(2, content)

    extensions = (
        extension(0, vector(2, b"\0" + vector(2, NAME.encode())))              # server_name
        + extension(10, vector(2, b"\x00\x1d"))                                # supported_groups: X25519
        + extension(13, vector(2, b"\x04\x03\x08\x04\x08\x07"))                # signature_algorithms
        + extension(43, vector(1, b"\x03\x04"))                                # supported_versions: 1.3
        + extension(45, vector(1, b"\x01"))                                    # psk_dhe_ke
        + extension(51, vector(2, b"\x00\x1d" + vector(2, b"\x09" + bytes(31))))  # key_share
    )
    if tickets:
        identities = b"".join(vector(2, ticket) + bytes(4) for ticket in tickets)
        binders = b"".join(vector(1, bytes(32)) for _ in tickets)
        extensions += extension(41, vector(2, identities) + vector(2, binders))  # pre_shared_key
    body = (b"\x03\x03" + bytes(range(32)) + vector(1, bytes(32)) + vector(2, b"\x13\x01\x13\x02\x13\x03")
            + vector(1, b"\0") + vector(2, extensions))
    message = b"\x01" + vector(3, body)
    return b"".join(b"\x16\x03\x01" + vector(2, message[start:start + 16_384])
                    for start in range(0, len(message), 16_384))


def iana_name(suite):
    """IANA's name of what openssl calls so."""
    if suite.startswith("TLS_"):
        return suite
    exchange, signature, *cipher = suite.split("-")
    cipher = "_".join(cipher).replace("AES128", "AES_128").replace("AES256", "AES_256")
    cipher += "_SHA256" if cipher == "CHACHA20_POLY1305" else ""
    return f"TLS_{exchange}_{signature}_WITH_{cipher}"
