"""Behind a proxy: headers of the PROXY protocol, written by hand."""

import contextlib
import socket
import struct
import time

from .case import PASSWORD, Session
from .mail import messages
from .tls import NAME, ByHand, TlsCase, issue, rest_of

SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
LOCAL, PROXY = 0x20, 0x21
UNSPEC, TCP4, UDP4, TCP6, UNIX = 0x00, 0x11, 0x12, 0x21, 0x31
CRC32C, NOOP, SSL, SSL_VERSION, SSL_CN, SSL_CIPHER = 0x03, 0x04, 0x20, 0x21, 0x22, 0x23

NETWORK = "127.9.1"  # the addresses that are listed as proxies


def line(client="192.0.2.7", port=51822, family="TCP4", server="198.51.100.1"):
    """A header of version 1."""
    return f"PROXY {family} {client} {server} {port} 110\r\n".encode()


def binary(command, family, rest=b""):
    """A header of version 2."""
    return SIGNATURE + struct.pack(">BBH", command, family, len(rest)) + rest


def value(kind, octets):
    return struct.pack(">BH", kind, len(octets)) + octets


def named(client="192.0.2.7", port=51822, values=b""):
    """A header of version 2 that names a client."""
    family, form, server = ((socket.AF_INET6, TCP6, "2001:db8::1") if ":" in client
                            else (socket.AF_INET, TCP4, "198.51.100.1"))
    ends = socket.inet_pton(family, client) + socket.inet_pton(family, server)
    return binary(PROXY, form, ends + struct.pack(">HH", port, 110) + values)


def by_tls(version=b"TLSv1.3", cipher=b"TLS_AES_256_GCM_SHA384", flags=1):
    """What a proxy says of TLS that it ended."""
    return value(SSL, struct.pack(">BI", flags, 1) + value(SSL_VERSION, version) + value(SSL_CIPHER, cipher))


def said(session):
    """All that comes until the server closes the connection; then the client does, too."""
    with session.connection:
        return rest_of(session.connection)


class ProxyCase(TlsCase):
    def setUp(self):
        self.listed()

    def listed(self, more=""):
        self.settings(f'proxies = ["{NETWORK}.0/24"]\n{more}')

    def proxy(self):
        """The address of a proxy that no other test uses."""
        return f"{NETWORK}.{self.address().rpartition('.')[2]}"

    def open(self, first, port=110, **options):
        """A connection whose first octets are these."""
        session = Session(self, self.dial(port, **options))
        session.send(first)
        return session

    def through(self, header, proxy=None, **options):
        """A session behind a proxy, whose greeting has been read."""
        session = self.open(header, source=proxy or self.proxy(), **options)
        session.greeting = session.line()
        self.assertRegex(session.greeting, rb"^\+OK")
        return session

    def entries(self, address, field="POPA3D_PROXY"):
        """All of the journal about the sessions through this proxy, once they are over."""
        self.until_idle()
        return self.journal(**{field: address})

    def refusal(self, address, field="POPA3D_PROXY"):
        """Why the header of the only connection was refused; and nothing else came of it."""
        entries = self.entries(address, field)
        self.assertEqual([entry["POPA3D_EVENT"] for entry in entries if entry["POPA3D_EVENT"] != "session-started"],
                         ["proxy-refused", "session-ended"])
        (entry,) = [entry for entry in entries if entry["POPA3D_EVENT"] == "proxy-refused"]
        self.assertEqual(entry["PRIORITY"], "5")
        self.assertTrue(entry["MESSAGE"].startswith(f"PROXY header of {address} refused: "), entry["MESSAGE"])
        return entry["MESSAGE"]


class Clients(ProxyCase):
    def test_the_client_is_the_one_that_the_header_names(self):
        self.listed('plaintext-login = "always"\n')
        user = self.account(messages(2))
        for header, client, port in (
            (line(), "192.0.2.7", "51822"),
            (line("2001:db8::7", 1, "TCP6", "2001:db8::1"), "2001:db8::7", "1"),
            (named(port=65535), "192.0.2.7", "65535"),
            (named("2001:db8::7"), "2001:db8::7", "51822"),
            (named("::ffff:192.0.2.7"), "192.0.2.7", "51822"),
            (named(values=value(NOOP, b"....") + value(0xea, b"cloud")), "192.0.2.7", "51822"),
        ):
            with self.subTest(header=header):
                proxy = self.proxy()
                session = self.through(header, proxy)
                self.log_in(session, user)
                session.multi("RETR 2")
                session.quit()
                entries = self.entries(proxy)
                self.assertEqual([entry["POPA3D_EVENT"] for entry in entries],
                                 ["session-started", "login-passed", "maildrop-loaded", "session-ended"])
                for entry in entries:
                    self.assertEqual((entry["POPA3D_CLIENT"], entry["POPA3D_CLIENT_PORT"]), (client, port))
                self.assertEqual(entries[0]["MESSAGE"], f"Session from {client} through {proxy}")
                self.assertEqual(self.journal(POPA3D_CLIENT=proxy), [])

    def test_pam_modules_see_the_client(self):
        self.listed('plaintext-login = "always"\n')
        hook = "/usr/local/sbin/mail-hook"
        self.configure(hook, "#!/bin/sh\necho \"$PAM_TYPE $PAM_USER $PAM_RHOST\" >>/var/log/mail-hook\n")
        self.host.path(hook).chmod(0o755)
        self.configure("/var/log/mail-hook", "")
        self.pam(self.host.read("/etc/pam.d/popa3d").decode()
                 + f"auth optional pam_exec.so {hook}\nsession required pam_exec.so {hook}\n")
        user = self.account(messages(1))
        session = self.through(named())
        session.ok(f"USER {user}")
        session.err("PASS wrong", b"AUTH")
        self.log_in(session, user)
        session.quit()
        self.until_idle()
        seen = self.host.read("/var/log/mail-hook").decode().splitlines()
        self.assertEqual({row.rpartition(" ")[2] for row in seen}, {"192.0.2.7"}, seen)
        self.assertIn(f"open_session {user} 192.0.2.7", seen)
        self.assertIn(f"close_session {user} 192.0.2.7", seen)

    def test_failed_login_is_the_clients(self):
        self.listed('plaintext-login = "always"\n')
        user, proxy = self.account([]), self.proxy()
        session = self.through(named("192.0.2.99"), proxy)
        session.ok(f"USER {user}")
        session.err("PASS wrong", b"AUTH")
        session.quit()
        (failed,) = [entry for entry in self.entries(proxy) if entry["POPA3D_EVENT"] == "login-failed"]
        self.assertIn("from 192.0.2.99: ", failed["MESSAGE"])

    def test_status_shows_the_client(self):
        session = self.through(named("192.0.2.98"))
        self.until(lambda: "192.0.2.98: AUTHORIZATION" in
                   self.host.run("systemctl", "show", "popa3d@*", "-p", "StatusText").output, "the client's address")
        session.quit()

    def test_plaintext_is_a_matter_of_the_clients_address(self):
        user = self.account(messages(1))
        session = self.through(named("192.0.2.7"))
        self.assertNotIn(b"USER", session.multi("CAPA"))
        session.err(f"USER {user}")
        session.quit()
        session = self.through(named("127.0.0.1"))
        self.log_in(session, user)
        session.quit()
        self.until_idle()
        self.assertTrue(self.messages(POPA3D_CLIENT="192.0.2.7", POPA3D_EVENT="plaintext-refused"))

    def test_connection_of_the_proxy_itself_is_a_session_from_there(self):
        for header in (binary(LOCAL, UNSPEC), binary(LOCAL, TCP4, b"x" * 5), binary(LOCAL, 0xff, b"\xff" * 300),
                       binary(PROXY, UNSPEC), b"PROXY UNKNOWN\r\n", b"PROXY UNKNOWN 1.2.3.4 what else\r\n"):
            with self.subTest(header=header):
                proxy = self.proxy()
                user = self.account(messages(1))
                session = self.through(header, proxy)
                self.log_in(session, user)  # it is on this host, as any client
                session.quit()
                entries = self.entries(proxy)
                self.assertEqual({entry["POPA3D_CLIENT"] for entry in entries}, {proxy})
                self.assertEqual(entries[0]["MESSAGE"], f"Session from {proxy}")

    def test_proxy_by_ipv6(self):
        self.settings('proxies = ["::1"]\nplaintext-login = "always"\n')
        session = self.open(named("192.0.2.97"), target="::1")
        self.assertRegex(session.line(), rb"^\+OK")
        session.quit()
        self.until_idle()
        self.assertEqual({entry["POPA3D_PROXY"] for entry in self.journal(POPA3D_CLIENT="192.0.2.97")}, {"::1"})

    def test_ipv4_proxy_by_its_mapped_address(self):
        proxy = self.proxy()
        self.settings(f'proxies = ["::ffff:{proxy}"]\n')
        self.through(named(), proxy).quit()


class Encrypted(ProxyCase):
    def test_tls_up_to_the_proxy_counts(self):
        self.listed('plaintext-login = "never"\n')
        user, proxy = self.account(messages(1)), self.proxy()
        session = self.through(named(values=by_tls()), proxy)
        capabilities = session.multi("CAPA")
        self.assertIn(b"USER", capabilities)
        self.assertNotIn(b"STLS", capabilities)
        session.err("STLS")
        session.ok("AUTH")
        self.assertNotIn(b"EXTERNAL", session.lines())
        self.log_in(session, user)
        session.quit()
        entries = self.entries(proxy)
        for entry in entries:
            self.assertEqual(entry["POPA3D_TLS"], "TLSv1.3")
            self.assertEqual(entry["POPA3D_TLS_SUITE"], "TLS_AES_256_GCM_SHA384")
            self.assertNotIn("plaintext", entry["MESSAGE"])
        self.assertEqual(entries[0]["MESSAGE"], f"Session from 192.0.2.7 through {proxy}, by TLS up to there")

    def test_without_the_flag_it_does_not_count(self):
        self.listed('plaintext-login = "never"\n')
        for values in (b"", by_tls(flags=0), by_tls(flags=6), value(SSL_VERSION, b"TLSv1.3")):
            with self.subTest(values=values):
                proxy = self.proxy()
                session = self.through(named(values=values), proxy)
                self.assertIn(b"STLS", session.multi("CAPA"))
                session.err("USER alice")
                session.quit()
                self.assertFalse([entry for entry in self.entries(proxy) if "POPA3D_TLS" in entry])

    def test_stls_behind_a_proxy_that_passes_it_on(self):
        self.serve(issue(NAME), more=f'proxies = ["{NETWORK}.0/24"]\n')
        user, proxy = self.account(messages(1)), self.proxy()
        session = self.through(line(), proxy)
        session.ok("STLS")
        self.start_tls(session)
        self.log_in(session, user)
        session.quit()
        (started,) = [entry for entry in self.entries(proxy) if entry["POPA3D_EVENT"] == "tls-started"]
        self.assertEqual(started["POPA3D_CLIENT"], "192.0.2.7")
        self.assertIn("POPA3D_TLS_RESUMED", started)

    def test_client_hello_directly_behind_the_header(self):
        self.serve(issue(NAME), more=f'proxies = ["{NETWORK}.0/24"]\n')
        user = self.account(messages(1))
        for header in (line(), named(), named(values=by_tls())):
            with self.subTest(header=header):
                proxy = self.proxy()
                client = ByHand(self.context(), self.dial(995, source=proxy))
                with contextlib.suppress(Exception):
                    client.tls.do_handshake()
                client.connection.sendall(header + client.outgoing.read())
                client.incoming.write(client.connection.recv(1 << 16))
                client.exchange(client.tls.do_handshake)
                self.assertRegex(client.exchange(lambda: client.tls.read(1000)), rb"^\+OK")
                for command in (f"USER {user}", f"PASS {PASSWORD}", "QUIT"):
                    client.tls.write(f"{command}\r\n".encode())
                    self.assertRegex(client.exchange(lambda: client.tls.read(1000)), rb"^\+OK")
                client.connection.close()
                entries = self.entries(proxy)
                self.assertIn("login-passed", [entry["POPA3D_EVENT"] for entry in entries])
                self.assertEqual({entry["POPA3D_CLIENT"] for entry in entries}, {"192.0.2.7"})

    def test_commands_directly_behind_the_header(self):
        user = self.account(messages(1))
        for header in (line("127.0.0.1"), named("127.0.0.1")):
            session = self.open(header + f"USER {user}\r\nPASS {PASSWORD}\r\nSTAT\r\nQUIT\r\n".encode(),
                                source=self.proxy())
            for expected in (rb"^\+OK", rb"^\+OK", rb"^\+OK", rb"^\+OK 1 ", rb"^\+OK"):
                self.assertRegex(session.line(), expected)
            session.ended()
            session.close()
            self.until_idle()


class Pieces(ProxyCase):
    def test_header_may_come_in_pieces(self):
        for header in (line(), named(values=by_tls())):
            session = self.open(b"", source=self.proxy())
            for at in range(0, len(header), 7):
                session.send(header[at:at + 7])
                time.sleep(0.02)
            self.assertRegex(session.line(), rb"^\+OK")
            session.quit()

    def test_header_that_does_not_come_to_its_end_in_time(self):
        self.listed('handshake-timeout = "1s"\n')
        for port in (110, 995):
            for part in (b"", b"PROXY TCP4 192", named()[:20]):
                with self.subTest(port=port, part=part):
                    proxy = self.proxy()
                    session = self.open(part, port, source=proxy)
                    self.assertEqual(said(session), b"-ERR PROXY header refused\r\n" if port == 110 else b"")
                    self.assertIn("handshake-timeout", self.refusal(proxy))

    def test_header_that_breaks_off(self):
        for part in (b"P", line()[:-1], named()[:-1], SIGNATURE):
            with self.subTest(part=part):
                proxy = self.proxy()
                session = self.open(part, source=proxy)
                session.connection.shutdown(socket.SHUT_WR)
                self.assertEqual(said(session), b"-ERR PROXY header refused\r\n")
                self.assertIn("ended in the middle", self.refusal(proxy))

    def test_proxy_that_goes_as_it_came_is_worth_an_info_line_at_most(self):
        for port in (110, 995):
            for reset in (False, True):
                for pause in (0, 0.5):
                    with self.subTest(port=port, reset=reset, pause=pause):
                        proxy = self.proxy()
                        connection = self.dial(port, source=proxy)
                        time.sleep(pause)
                        if reset:
                            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                        connection.close()
                        entries = self.entries(proxy)
                        self.assertLessEqual(len(entries), 1, entries)
                        for entry in entries:
                            self.assertEqual((entry["POPA3D_EVENT"], entry["PRIORITY"]), ("session-ended", "6"))
                            self.assertNotIn("POPA3D_CLIENT", entry)
                        self.assertEqual(self.journal(POPA3D_CLIENT=proxy), [])
        # A connection that is broken already has no address any more; its client is none of this host.
        self.assertNotIn("Session from this host", self.messages())


class Refused(ProxyCase):
    MALFORMED = (
        (b"USER alice\r\n", "begins without one"),
        (b"\x16\x03\x01\x02\0\x01\0", "begins without one"),
        (b"PROXY\r\n", "begins without one"),
        (b"PROXY TCP4 192.0.2.7 198.51.100.1 51822 110\n", "CRLF"),
        (b"PROXY TCP4 192.0.2.7 198.51.100.1 051822 110\r\n", "port"),
        (b"PROXY TCP4 192.0.2.7 198.51.100.1 65536 110\r\n", "port"),
        (b"PROXY TCP4 192.0.2.300 198.51.100.1 51822 110\r\n", "address"),
        (b"PROXY TCP4 2001:db8::7 2001:db8::1 51822 110\r\n", "address"),
        (b"PROXY TCP6 192.0.2.7 198.51.100.1 51822 110\r\n", "address"),
        (b"PROXY TCP4 192.0.2.7 198.51.100.1 51822\r\n", "two ports"),
        (b"PROXY UDP4 192.0.2.7 198.51.100.1 51822 110\r\n", "another protocol"),
        (b"PROXY UNKNOWN" + b"x" * 200, "107 octets"),
        (binary(0x31, TCP4, b"\0" * 12), "another version"),
        (binary(0x22, TCP4, b"\0" * 12), "command"),
        (binary(PROXY, UDP4, b"\0" * 12), "another protocol"),
        (binary(PROXY, UNIX, b"\0" * 216), "another protocol"),
        (binary(PROXY, TCP4, b"\0" * 11), "too short"),
        (binary(PROXY, TCP6, b"\0" * 12), "too short"),
        (SIGNATURE + b"\x21\x11\xff\xff" + b"\0" * 5000, "4096 octets"),
        (named(values=b"\x04\0"), "beyond its end"),
        (named(values=b"\x04\0\x05xxxx"), "beyond its end"),
        (named(values=value(CRC32C, b"\0" * 4)), "checksum"),
        (named(values=by_tls() + by_tls()), "twice"),
        (named(values=by_tls(version=b"TLS\n")), "no short text"),
        (named(values=value(SSL, b"\1\0\0\0")), "too short"),
    )

    def test_anything_malformed_from_a_proxy(self):
        for port, reply in ((110, b"-ERR PROXY header refused\r\n"), (995, b"")):
            for header, reason in self.MALFORMED:
                with self.subTest(port=port, header=header[:60]):
                    proxy = self.proxy()
                    session = self.open(header + b"QUIT\r\n", port, source=proxy)
                    self.assertEqual(said(session), reply)
                    self.assertRegex(self.refusal(proxy), reason)
                    self.assertEqual(self.journal(POPA3D_CLIENT=proxy), [], "nothing says that the proxy is the client")

    def test_header_from_elsewhere(self):
        user = self.account(messages(1))
        for header in (line(), named(), binary(LOCAL, UNSPEC), b"PROXY UNKNOWN\r\n", b"PROXY x\r\n"):
            with self.subTest(header=header):
                source = self.address()
                session = self.connect(source=source)
                session.send(header + f"USER {user}\r\nPASS {PASSWORD}\r\n".encode())
                self.assertEqual(said(session), b"-ERR PROXY header refused\r\n")
                self.assertIn("none is expected from this address", self.refusal(source, "POPA3D_CLIENT"))

    def test_header_from_elsewhere_on_port_995(self):
        for header in (line(), named()):
            source = self.address()
            session = self.open(header, 995, source=source)
            self.assertEqual(said(session), b"")
            self.assertIn("none is expected from this address", self.refusal(source, "POPA3D_CLIENT"))
            (end,) = self.journal(POPA3D_CLIENT=source, POPA3D_EVENT="session-ended")
            self.assertEqual(end["POPA3D_ENDING"], "proxy-refused")
            self.assertEqual(self.messages(POPA3D_CLIENT=source, POPA3D_EVENT="tls-failed"), [])

    def test_header_of_a_client_behind_the_one_of_its_proxy(self):
        proxy = self.proxy()
        session = self.open(named() + line("203.0.113.1"), source=proxy)
        self.assertRegex(session.line(), rb"^\+OK")
        self.assertEqual(session.line(), b"-ERR PROXY header refused")
        self.assertEqual(said(session), b"")
        entries = self.entries(proxy)
        self.assertEqual({entry["POPA3D_CLIENT"] for entry in entries}, {"192.0.2.7"})
        self.assertIn("PROXY header of 192.0.2.7 refused: a second one came", " ".join(entry["MESSAGE"] for entry in entries))

    def test_as_a_later_command_it_is_unknown(self):
        session = self.connect()
        session.err("NOOP")
        self.assertRegex(session.command(line().rstrip()), rb"^-ERR unknown command")
        session.quit()

    def test_what_a_header_says_forges_no_line(self):
        proxy = self.proxy()
        version = bytes(range(32, 96))
        self.through(named(values=by_tls(version=version, cipher=b"\\x0a~")), proxy).quit()
        for entry in self.entries(proxy):
            self.assertEqual(entry["POPA3D_TLS_SUITE"], "\\\\x0a~")
            self.assertEqual(entry["POPA3D_TLS"], version.decode().replace("\\", "\\\\"))


class Setting(ProxyCase):
    def test_mistakes_are_named(self):
        for content, number, reason in (('\nproxies = ["192.0.2.10/24"]\n', 2, "behind its prefix"),
                                        ('proxies = ["mail.example.org"]\n', 1, "mail.example.org"),
                                        ('proxies = "192.0.2.10"\n', 1, "sequence")):
            with self.subTest(content=content):
                self.host.write("/tmp/wrong.toml", content)
                checked = self.host.run("popa3d", "--check-config", "--config", "/tmp/wrong.toml", check=False)
                self.assertEqual(checked.code, 2)
                self.assertRegex(checked.output, f"error: /tmp/wrong.toml:{number}: .*{reason}")

    def test_everybody_is_worth_a_warning(self):
        self.host.write("/tmp/wide.toml", 'proxies = ["::/0"]\n')
        checked = self.host.run("popa3d", "--check-config", "--config", "/tmp/wide.toml")
        self.assertRegex(checked.output, "warning: proxies: ::/0 is everybody")
