"""TLS as clients that people use speak it, and as scanners see it."""

import json
import poplib
import re
import xml.etree.ElementTree

from . import test_clients
from .case import CONNECTION_TIMEOUT
from .mail import mbox
from .test_clients import SIMPLE_PASSWORD
from .tls import TlsCase, issue, root

LOCALHOST = "localhost"


class Clients(TlsCase, test_clients.Clients):
    """What is verified: the name, up to a root that the client is told of. What is fetched and what is
    deleted is judged as without TLS."""

    def setUp(self):
        super().setUp()
        # Nobody may have logged in without TLS by the end of a test.
        self.serve(issue(LOCALHOST, key="rsa"), more='plaintext-login = "never"\n')
        self.root = root()

    def assert_refused(self, *command, **options):
        """A command that must fail because of the certificate, and keep all mail."""
        refused = self.host.run(*command, check=False, **options)
        self.assertNotEqual(refused.code, 0)
        self.assertRegex(refused.output + refused.errors, "(?i)certificate|verif")
        self.assert_kept(1, 2, 3, 4)


class Curl(Clients):
    WAYS = (("pop3s://localhost/",), ("pop3://localhost/", "--ssl-reqd"))

    def curl(self, way, message="", *options):
        url, *more = way
        return self.host.run("curl", "-sS", "-u", f"{self.user}:{SIMPLE_PASSWORD}", "--cacert", self.root,
                             url + message, *more, *options).output

    def test_lists_fetches_and_deletes(self):
        for way, deleted, left in zip(self.WAYS, (2, 1), ((1, 3, 4), (3, 4))):
            with self.subTest(way):
                self.assertIn(f"1 {self.mail[0].octets}\r\n", self.curl(way))
                self.assertEqual(self.curl(way, "1").encode(), self.mail[0].text.replace(b"\n", b"\r\n"))
                self.curl(way, str(deleted), "-X", "DELE", "--head")
                self.assert_kept(*left)

    def test_each_version_of_tls(self):
        for way in self.WAYS:
            for version, name in (("1.2", "TLSv1.2"), ("1.3", "TLSv1.3")):
                with self.subTest(way, version=version):
                    self.curl(way, "", f"--tlsv{version}", "--tls-max", version)
                    self.until_idle()
                    self.assertEqual(self.journal(POPA3D_USER=self.user)[-1]["POPA3D_TLS"], name)

    def test_mechanisms(self):
        for options, method in ((("--login-options", "AUTH=PLAIN"), "PLAIN"),
                                (("--login-options", "AUTH=PLAIN", "--sasl-ir"), "PLAIN"),
                                (("--login-options", "AUTH=LOGIN"), "LOGIN")):
            with self.subTest(options):
                self.curl(self.WAYS[0], "", *options)
                self.until_idle()
                self.assertEqual(self.journal(POPA3D_USER=self.user)[-1]["POPA3D_METHOD"], method)

    def test_believes_no_certificate_that_it_cannot_verify(self):
        for url, *more in self.WAYS:
            self.assert_refused("curl", "-sS", "-u", f"{self.user}:{SIMPLE_PASSWORD}", url, *more)


class Poplib(Clients):
    def inside(self, base):
        host = self.host

        class Inside(base):
            """Connects within the host's network."""

            def _create_socket(self, timeout):
                connection = host.connect(self.port, timeout=CONNECTION_TIMEOUT)
                if base is poplib.POP3_SSL:
                    connection = self.context.wrap_socket(connection, server_hostname=self.host)
                return connection

        return Inside

    def fetch_all(self, connection):
        connection.user(self.user)
        connection.pass_(SIMPLE_PASSWORD)
        self.assertEqual(connection.stat(), (4, sum(item.octets for item in self.mail)))
        for number, item in enumerate(self.mail, 1):
            self.assertEqual(connection.retr(number)[1], item.lines)
        connection.dele(2)
        connection.quit()
        self.assert_kept(1, 3, 4)

    def test_pop3_ssl(self):
        self.fetch_all(self.inside(poplib.POP3_SSL)(LOCALHOST, 995, context=self.context()))

    def test_stls(self):
        connection = self.inside(poplib.POP3)(LOCALHOST, 110)
        self.assertNotIn("USER", connection.capa())
        connection.stls(self.context())
        self.assertIn("USER", connection.capa())
        self.fetch_all(connection)


class Fetchmail(Clients):
    WAYS = ("ssl", "")

    def fetchmail(self, way, *options, certificates=None):
        self.write(".fetchmailrc", f'poll localhost protocol pop3 username "{self.user}" password "{SIMPLE_PASSWORD}" '
                   f'{way} sslproto "TLS1.2+" sslcertck sslcertfile "{certificates or self.root}" '
                   f'mda "cat >>{self.home("fetched")}"\n')
        return ("fetchmail", "--nosyslog", *options)

    def test_checks_fetches_and_deletes(self):
        for way in self.WAYS:
            with self.subTest(way or "STLS"):
                self.host.mailbox(self.user).write_bytes(mbox(self.mail))
                self.write("fetched", "")
                checked = self.host.run(*self.fetchmail(way, "--check"), user=self.owner)
                self.assertIn("4 messages", checked.output)
                self.host.run(*self.fetchmail(way, "--keep"), user=self.owner)
                self.assert_fetched(self.host.read(self.home("fetched")), 1, 2, 3, 4)
                self.assert_kept(1, 2, 3, 4)
                self.host.run(*self.fetchmail(way, "--fetchall"), user=self.owner)
                self.assertEqual(self.host.read(self.home("fetched")).count(b"Subject: message "), 8)
                self.assert_kept()

    def test_believes_no_certificate_that_it_cannot_verify(self):
        for way in self.WAYS:
            self.assert_refused(*self.fetchmail(way, certificates="/etc/ssl/certs/ssl-cert-snakeoil.pem"), user=self.owner)


class Mpop(Clients):
    WAYS = (("--port=995", "--tls-starttls=off"), ("--port=110", "--tls-starttls=on"))

    def mpop(self, *options, certificates=None):
        return ("mpop", "--host=localhost", f"--user={self.user}", "--tls=on",
                f"--tls-trust-file={certificates or self.root}", f"--passwordeval=echo {SIMPLE_PASSWORD}",
                "--received-header=off", f"--delivery=mbox,{self.home('fetched')}", *options)

    def test_fetches_keeps_and_deletes(self):
        for way in self.WAYS:
            with self.subTest(way):
                self.host.mailbox(self.user).write_bytes(mbox(self.mail))
                self.host.run("rm", "-rf", self.home("fetched"), self.home(".mpop_uidls"), self.home(".local"))
                self.host.run(*self.mpop(*way, "--auth=user", "--keep=on"), user=self.owner)
                self.assert_fetched(self.host.read(self.home("fetched")).replace(b">>From", b">From"), 1, 2, 3, 4)
                self.assert_kept(1, 2, 3, 4)
                self.host.run(*self.mpop(*way, "--auth=user", "--keep=off"), user=self.owner)
                self.assert_kept()

    def test_mechanisms(self):
        for way in self.WAYS:
            for name, method in (("plain", "PLAIN"), ("login", "LOGIN"), ("user", "USER")):
                with self.subTest(way, method=method):
                    self.host.run(*self.mpop(*way, f"--auth={name}", "--keep=on"), user=self.owner)
                    self.until_idle()
                    self.assertEqual(self.journal(POPA3D_USER=self.user)[-1]["POPA3D_METHOD"], method)

    def test_shows_what_the_server_can_over_tls(self):
        for way in self.WAYS:
            shown = self.host.run(*self.mpop(*way, "--serverinfo"), user=self.owner).output
            for what in ("TLS", "PIPELINING", "PLAIN", "LOGIN", "USER"):
                self.assertIn(what, shown)

    def test_believes_no_certificate_that_it_cannot_verify(self):
        for way in self.WAYS:
            self.assert_refused(*self.mpop(*way, certificates="/etc/ssl/certs/ssl-cert-snakeoil.pem"), user=self.owner)


class ByHand(Clients):
    """Commands typed into the TLS tools."""

    def dialogue(self, *command):
        """What comes of a session with one message deleted, from the first reply on."""
        self.host.mailbox(self.user).write_bytes(mbox(self.mail))
        said = self.host.run(*command, stdin=f"USER {self.user}\r\nPASS {SIMPLE_PASSWORD}\r\nLIST\r\nRETR 2\r\nDELE 2\r\nQUIT\r\n")
        shown = said.output.replace("\r\n", "\n")
        self.assertIn("\n4 %d\n.\n" % self.mail[3].octets, shown)
        self.assertIn("Subject: message 2\n", shown)
        self.assertRegex(shown, r"\+OK goodbye, 1 messages? deleted\n")
        self.assert_kept(1, 3, 4)
        return shown

    def test_openssl(self):
        for version in ("-tls1_2", "-tls1_3"):
            for way in (("-connect", "localhost:995"), ("-connect", "localhost:110", "-starttls", "pop3")):
                with self.subTest(way, version=version):
                    self.dialogue("openssl", "s_client", "-quiet", version, *way, "-CAfile", self.root,
                                  "-verify_return_error", "-verify_hostname", LOCALHOST)
                    self.assertEqual(self.journal(POPA3D_USER=self.user)[-1]["POPA3D_TLS"],
                                     "TLSv1." + version[-1])

    def test_gnutls(self):
        for way in (("--port=995",), ("--port=110", "--starttls-proto=pop3")):
            for priority in ("NORMAL:-VERS-ALL:+VERS-TLS1.2", "NORMAL:-VERS-ALL:+VERS-TLS1.3"):
                with self.subTest(way, priority=priority):
                    shown = self.dialogue("gnutls-cli", f"--x509cafile={self.root}", f"--priority={priority}", *way, LOCALHOST)
                    self.assertIn("The certificate is trusted", shown)

    def test_old_versions_are_refused(self):
        for version in ("-tls1", "-tls1_1"):
            refused = self.host.run("openssl", "s_client", version, "-cipher", "ALL:@SECLEVEL=0", "-connect",
                                    "localhost:995", stdin="QUIT\r\n", check=False)
            self.assertIn("Cipher is (NONE)", refused.output)
            self.assertRegex(refused.output + refused.errors, "alert (protocol version|handshake failure)")

    def test_renegotiation_is_refused(self):
        said = self.host.shell("{ sleep 1; echo R; sleep 3; } | openssl s_client -tls1_2 -legacy_server_connect "
                               "-connect localhost:995 2>&1 || true").output
        self.assertIn("RENEGOTIATING", said)
        self.assertRegex(said, "no renegotiation|handshake failure|unexpected message|:error:")


class Scanners(Clients):
    SUITES = {"TLSv1.3": {"TLS_AES_128_GCM_SHA256", "TLS_AES_256_GCM_SHA384", "TLS_CHACHA20_POLY1305_SHA256"},
              "TLSv1.2": {"ECDHE-RSA-AES128-GCM-SHA256", "ECDHE-RSA-AES256-GCM-SHA384", "ECDHE-RSA-CHACHA20-POLY1305"}}

    def test_sslscan(self):
        for target in (("localhost:995",), ("--starttls-pop3", "localhost:110")):
            with self.subTest(target):
                scanned = self.host.run("sslscan", "--xml=-", *target).output
                test = xml.etree.ElementTree.fromstring(scanned[scanned.index("<?xml"):]).find("ssltest")
                enabled = {f"{item.get('type')} {item.get('version')}" for item in test.iter("protocol")
                           if item.get("enabled") == "1"}
                self.assertEqual(enabled, {"tls 1.2", "tls 1.3"})
                suites = {version: {item.get("cipher") for item in test.iter("cipher") if item.get("sslversion") == version}
                          for version in {item.get("sslversion") for item in test.iter("cipher")}}
                self.assertEqual(suites, self.SUITES)
                self.assertEqual(test.find("renegotiation").get("supported"), "0")
                for item in test.iter("compression"):
                    self.assertEqual(item.get("supported"), "0")
                for item in test.iter("heartbleed"):
                    self.assertEqual(item.get("vulnerable"), "0")
                groups = {item.get("name") for item in test.iter("group")}
                self.assertTrue(groups)
                self.assertFalse([group for group in groups if not re.search(r"25519|256|384|MLKEM768", group, re.I)], groups)

    def test_testssl(self):
        # It finds nothing wrong, and what it must have looked at for that.
        found = {"SSLv2": "not offered", "SSLv3": "not offered", "TLS1": "not offered", "TLS1_1": "not offered",
                 "TLS1_2": "offered", "TLS1_3": "offered", "heartbleed": "not vulnerable", "CCS": "not vulnerable",
                 "ROBOT": "not vulnerable", "secure_client_renego": "not vulnerable", "CRIME_TLS": "not vulnerable",
                 "SWEET32": "not vulnerable", "LUCKY13": "not vulnerable", "RC4": "not vulnerable"}
        for target in (("127.0.0.1:995",), ("--starttls", "pop3", "127.0.0.1:110")):
            with self.subTest(target):
                self.host.run("rm", "-f", "/tmp/findings.json")
                scan = self.host.run("testssl", "--quiet", "--warnings", "off", "--color", "0", "--jsonfile",
                                     "/tmp/findings.json", "-p", "-s", "-f", "-U", *target, check=False)
                findings = json.loads(self.host.read("/tmp/findings.json") or b"[]")
                said = {item["id"]: item["finding"] for item in findings}
                for name, text in found.items():
                    self.assertIn(text, said.get(name, f"nothing was said of {name}: {scan}"), name)
                wrong = [item for item in findings if item["severity"] in ("LOW", "MEDIUM", "HIGH", "CRITICAL", "FATAL")]
                self.assertEqual(wrong, [])
