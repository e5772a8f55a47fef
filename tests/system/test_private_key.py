"""The private key: in the monitor's memory during a handshake, and nowhere else; and what a worker that
was taken over can have it sign."""

import array
import base64
import contextlib
import ctypes
import hashlib
import os
import pathlib
import re
import signal
import socket
import ssl

from .case import PASSWORD
from .mail import messages
from .memory import held
from .test_processes import owned_by
from .tls import NAME, ByHand, TlsCase, issue

PIDFD_GETFD = 438  # the number of the system call
SOURCE = pathlib.Path(__file__).resolve().parents[2] / "src/channel/message.rs"

ECDSA_P256, RSA_PSS, RSA_PKCS1, ED25519 = 0x0403, 0x0804, 0x0401, 0x0807  # SignatureScheme (RFC 8446)


class PrivateKeyCase(TlsCase):
    def setUp(self):
        self.until_idle()
        self.owner = int(self.host.run("id", "-u", "popa3d").output)
        self.user = self.account(messages(2))

    def worker(self):
        (process,) = owned_by(self.owner, self.processes())
        return process

    def monitor(self):
        (process,) = owned_by(0, self.processes())
        return process


class Memory(PrivateKeyCase):
    def test_key_is_in_the_monitor_during_the_handshake_and_nowhere_else(self):
        for kind in ("rsa", "p256", "p384", "ed25519"):
            pair = issue(NAME, key=kind)
            self.serve(pair)
            secrets = self.secrets(pair)
            for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
                with self.subTest(kind=kind, version=version):
                    self._follow(version, secrets)
                    self.until_idle()

    def _follow(self, version, secrets):
        with self.dial(995) as connection:
            self._follow_on(connection, version, secrets)

    def _follow_on(self, connection, version, secrets):
        client = ByHand(self.context(version), connection)
        with contextlib.suppress(ssl.SSLWantReadError):
            client.tls.do_handshake()
        connection.sendall(client.outgoing.read())
        # The server has signed, and waits for the end of the handshake: a key that is used is there.
        client.incoming.write(connection.recv(1 << 16))
        self.assertTrue(held(self.monitor(), secrets), "the search finds nothing where something is")
        self.assertEqual(held(self.worker(), secrets), [])
        client.exchange(client.tls.do_handshake)
        client.exchange(lambda: client.tls.read(1000))  # greeting
        self.assert_nowhere(secrets)
        for command in (f"USER {self.user}", f"PASS {PASSWORD}"):
            client.tls.write(f"{command}\r\n".encode())
            self.assertRegex(client.exchange(lambda: client.tls.read(1000)), rb"^\+OK")
        self.until(lambda: len(self.processes()) == 2, "the helper's end")
        self.assert_nowhere(secrets)

    def test_helper_that_runs_as_the_user_never_had_it(self):
        for kind in ("rsa", "p256"):
            pair = issue(NAME, key=kind)
            self.serve(pair, more='lock-timeout = "60s"\n')
            secrets = self.secrets(pair)
            uid = int(self.host.run("id", "-u", self.user).output)
            for connect in (self.connect_tls, self.connect_stls, self._connect_after_capa):
                with self.subTest(kind=kind, connect=connect.__name__):
                    self._hold_up(connect(), uid, secrets)
                self.until_idle()

    def _hold_up(self, session, uid, secrets):
        """Logs in while somebody else's lock makes the helper wait, and looks into it."""
        lock = f"/var/mail/{self.user}.lock"
        self.host.write(lock, "1")
        try:
            session.ok(f"USER {self.user}")
            session.send(f"PASS {PASSWORD}\r\n".encode())
            (helper,) = self.until(lambda: owned_by(uid, self.processes()), "the helper")
            self.assertEqual(held(helper, secrets), [])
            self.assert_nowhere(secrets)
            self.host.path(lock).unlink()
            self.assertRegex(session.line(), rb"^\+OK")
            self.assert_nowhere(secrets)
            session.quit()
        finally:
            self.host.path(lock).unlink(missing_ok=True)
            session.close()

    def _connect_after_capa(self):
        """Without TLS, but so that the monitor had to look for certificates."""
        session = self.connect()
        self.assertIn(b"STLS", session.multi("CAPA"))
        return session

    def assert_nowhere(self, secrets):
        for process in self.processes():
            self.assertEqual(held(process, secrets), [], f"process {process} of {self.processes()}")

    def secrets(self, pair):
        """What of this key must not be seen, by name: its secret numbers, and the text of its file."""
        text = self.host.read(pair.key).decode()
        body = re.search(r"-----BEGIN [A-Z ]*PRIVATE KEY-----\n(.*?)-----END", text, re.DOTALL)[1]
        kind = self.host.run("openssl", "pkey", "-in", pair.key, "-noout", "-text").output
        numbers = {}
        if "RSA" in kind or "privateExponent" in kind:
            der = self._der("openssl", "rsa", "-traditional", "-in", pair.key)
            numbers = dict(zip(("d", "p", "q", "dp", "dq", "qinv"), integers(der)[3:]))
        elif "ED25519" in kind:
            seed = base64.b64decode(body)[-32:]
            numbers = {"seed": seed, "scalar and prefix": hashlib.sha512(seed).digest()[2:62]}
        else:
            der = self._der("openssl", "ec", "-in", pair.key)
            # SEC1: a SEQUENCE of version, and the scalar in an OCTET STRING.
            start = der.index(b"\x02\x01\x01\x04") + 5
            numbers = {"scalar": der[start:start + der[start - 1]]}
        found = {}
        for name, number in numbers.items():
            self.assertGreaterEqual(len(number), 32)
            # Pieces, since what is left in memory that was used again may not be whole; in the order of the
            # file, and in that of a machine's words.
            for at in range(0, len(number) - 23, 24):
                found[f"{name}[{at}..]"] = number[at:at + 24]
                found[f"{name}[{at}..] reversed"] = number[at:at + 24][::-1]
        # The text without line ends too, as a reader puts it together; only pieces that hold nothing public.
        for text in (body, body.replace("\n", "")):
            for at in range(0, len(text) - 32):
                piece = text[at:at + 32]
                octets = base64.b64decode(piece.replace("\n", "")[:28])
                if at % 4 == 0 and any(octets[:20] in number for number in numbers.values()):
                    found[f"text {piece!r}"] = piece.encode()
        self.assertTrue([name for name in found if name.startswith("text")])
        return found

    def _der(self, *command):
        pem = self.host.run(*command).output
        return base64.b64decode(re.search(r"PRIVATE KEY-----\n(.*?)-----END", pem, re.DOTALL)[1])


class SigningOracle(PrivateKeyCase):
    """A worker that was taken over: it is stopped, and the test speaks to the monitor in its place."""

    def setUp(self):
        super().setUp()
        self.pair = issue(NAME)
        self.rsa = issue(NAME, key="rsa")
        self.serve(self.pair, self.rsa)

    def test_what_tls_signs_is_signed_once(self):
        channel = self.take_over(self.connect())
        self.begin(channel)
        self.host.write("/tmp/signature", self.signature(channel, 0, ECDSA_P256, VERIFY))
        self.host.write("/tmp/signed", VERIFY)
        self.host.shell(f"openssl x509 -in {self.pair.chain} -noout -pubkey >/tmp/public; "
                        "openssl dgst -sha256 -verify /tmp/public -signature /tmp/signature /tmp/signed")
        self.assert_ends(channel, sign(0, ECDSA_P256, VERIFY.replace(b"\7", b"\x08")), "a second signature")

    def test_nothing_else_is_signed(self):
        digest = hashlib.sha256(b"anything").digest()
        for certificate, scheme, content in (
            (0, ECDSA_P256, b""),
            (0, ECDSA_P256, b"please sign this"),
            (0, ECDSA_P256, digest),
            (1, RSA_PSS, digest),
            (1, RSA_PKCS1, bytes(64) + digest),
            (0, ECDSA_P256, VERIFY[:-1]),
            (0, ECDSA_P256, VERIFY + b"x"),
            (0, ECDSA_P256, VERIFY[1:]),
            (0, ECDSA_P256, VERIFY.replace(b"server", b"client")),
            (0, ECDSA_P256, VERIFY.replace(b"1.3", b"1.4")),
            (1, RSA_PKCS1, VERIFY),
            (0, RSA_PSS, VERIFY),
            (0, ED25519, VERIFY),
            (0, 0, VERIFY),
            (2, ECDSA_P256, VERIFY),
            (255, ECDSA_P256, VERIFY),
            (0, ECDSA_P256, KEY_EXCHANGE.replace(b"DOWNGRD\1", b"downgrd\1")),
            (0, ECDSA_P256, KEY_EXCHANGE + b"x"),
            (0, ECDSA_P256, KEY_EXCHANGE.replace(b"\3\0\x1d", b"\3\0\x1e")),
        ):
            with self.subTest(certificate=certificate, scheme=scheme, content=content):
                channel = self.take_over(self.connect())
                self.begin(channel)
                self.assert_ends(channel, sign(certificate, scheme, content), "a signature")

    def test_both_versions_shapes_are_signed(self):
        for certificate, scheme, content in ((0, ECDSA_P256, KEY_EXCHANGE), (1, RSA_PKCS1, KEY_EXCHANGE),
                                             (1, RSA_PSS, KEY_EXCHANGE), (1, RSA_PSS, VERIFY)):
            channel = self.take_over(self.connect())
            self.begin(channel)
            self.assertGreater(len(self.signature(channel, certificate, scheme, content)), 60)
            self.let_go()

    def test_nothing_is_signed_in_the_wrong_phase(self):
        def before_the_handshake():
            return self.connect()

        def after_the_handshake():
            return self.connect_tls()

        def after_stls():
            session = self.connect_stls()
            # Only once it answers, the monitor knows as well.
            session.multi("CAPA")
            return session

        def after_login():
            session = self.connect_tls()
            self.log_in(session, self.user)
            return session

        def after_login_without_tls():
            return self.login(self.user)

        for phase in (before_the_handshake, after_the_handshake, after_stls, after_login, after_login_without_tls):
            for request in (sign(0, ECDSA_P256, VERIFY), number("Request", "SealTicket") + counted(b"state"),
                            number("Request", "OpenTicket") + counted(b"ticket")):
                with self.subTest(phase.__name__, request=request[:1]):
                    session = phase()
                    self.until(lambda: len(self.processes()) == 2, "the helper's end")
                    self.assert_ends(self.take_over(session), request, "not allowed in")

    def test_there_is_no_second_handshake(self):
        for connect in (self.connect_tls, self.connect_stls):
            session = connect()
            session.multi("CAPA")
            self.assert_ends(self.take_over(session), number("Request", "BeginTls"), "a second TLS handshake")
        channel = self.take_over(self.connect())
        self.begin(channel)
        self.assert_ends(channel, number("Request", "BeginTls"), "not allowed in Handshaking")

    def test_after_a_handshake_that_failed_there_is_nothing(self):
        for request in (sign(0, ECDSA_P256, VERIFY), number("Request", "BeginTls"), self.login_request()):
            channel = self.take_over(self.connect())
            self.begin(channel)
            channel.send(number("Request", "HandshakeFailed") + counted(b"because"))
            self.assert_ends(channel, request, "not allowed in Finished")

    def test_nobody_logs_in_during_a_handshake(self):
        channel = self.take_over(self.connect())
        self.begin(channel)
        self.assert_ends(channel, self.login_request(), "not allowed in Handshaking")

    def test_worker_cannot_claim_a_handshake_that_never_began(self):
        self.serve(self.pair, more='plaintext-login = "never"\n')
        claim = number("Request", "Encrypted") + b"\x84\x06\x81\x26\0\0\0"
        self.assert_ends(self.take_over(self.connect()), claim, "not allowed in AwaitingLogin")

    def test_worker_cannot_log_in_without_encryption_where_that_is_forbidden(self):
        self.serve(self.pair, more='plaintext-login = "never"\n')
        self.assert_ends(self.take_over(self.connect()), self.login_request(), "not allow")
        self.assertEqual(self.messages(POPA3D_USER=self.user, POPA3D_EVENT="login-passed"), [])

    def test_worker_cannot_name_a_certificate_where_none_is_asked_for(self):
        claim = number("Request", "LoginByCertificate") + counted(self.user.encode())
        for connect in (self.connect, self.connect_tls):
            self.assert_ends(self.take_over(connect()), claim, "not allow")
        self.assertEqual(self.messages(POPA3D_USER=self.user, POPA3D_EVENT="login-passed"), [])

    def test_tickets_are_few(self):
        for request, count in ((number("Request", "SealTicket") + counted(b"state"), 2),
                               (number("Request", "OpenTicket") + counted(b"x" * 100), 8)):
            channel = self.take_over(self.connect())
            self.begin(channel)
            for _ in range(count):
                channel.send(request)
                self.assertTrue(channel.recv(5000))
            self.assert_ends(channel, request, "ticket")

    def login_request(self):
        return (number("Request", "Login") + counted(self.user.encode()) + counted(PASSWORD.encode())
                + number("Method", "UserPass"))

    def take_over(self, session):
        """Stops the worker of the only session; returns its end of the channel to the monitor."""
        worker = self.worker()
        os.kill(worker, signal.SIGSTOP)
        sockets = list(descriptors_of(worker))
        (channel,) = [taken for taken in sockets if taken.family == socket.AF_UNIX]
        channel.settimeout(60)
        self.taken = [*sockets, session]
        self.addCleanup(self.let_go)
        return channel

    def let_go(self):
        """Ends the worker, and with it the session."""
        for taken in self.taken:
            taken.close()
        self.taken = []
        for process in owned_by(self.owner, self.processes()):
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
        self.until_idle()

    def begin(self, channel):
        """A handshake begins, as far as the monitor knows."""
        channel.send(number("Request", "BeginTls"))
        answer, ancillary, _, _ = channel.recvmsg(5000, socket.CMSG_SPACE(4))
        self.assertEqual(answer, number("Answer", "TlsMaterial"))
        for _, _, data in ancillary:
            for descriptor in array.array("i", data):
                os.close(descriptor)

    def signature(self, channel, certificate, scheme, content):
        channel.send(sign(certificate, scheme, content))
        answer = channel.recv(5000)
        expected = number("Answer", "Signature")
        self.assertEqual(answer[:1], expected, answer)
        signature = answer[2 if answer[1] < 128 else 3:]
        self.assertEqual(answer, expected + counted(signature))
        return signature

    def assert_ends(self, channel, request, reason):
        """The monitor answers this request with nothing and ends the session; the journal says why."""
        before = len(self.messages(POPA3D_EVENT="worker-failed"))
        channel.send(request)
        try:
            self.assertEqual(channel.recv(5000), b"")
        except ConnectionResetError:
            pass
        self.let_go()
        (line,) = self.messages(POPA3D_EVENT="worker-failed")[before:]
        self.assertIn(reason, line)


# What the monitor is to sign in a handshake of TLS 1.3 (RFC 8446 section 4.4.3), and of 1.2.
VERIFY = b" " * 64 + b"TLS 1.3, server CertificateVerify\0" + b"\7" * 32
KEY_EXCHANGE = b"c" * 32 + b"s" * 24 + b"DOWNGRD\1" + b"\3\0\x1d\x20" + b"k" * 32


def number(enumeration, name):
    """How a variant begins on the channel: with its place in the source."""
    body = re.search(rf"pub enum {enumeration} {{\n(.*?)\n}}", SOURCE.read_text(encoding="utf-8"), re.DOTALL)[1]
    return bytes([re.findall(r"(?m)^    ([A-Z]\w*)", body).index(name)])


def varint(value):
    """postcard's integers: seven bits an octet, the low ones first."""
    return bytes([value & 127 | 128]) + varint(value >> 7) if value > 127 else bytes([value])


def counted(octets):
    return varint(len(octets)) + octets


def sign(certificate, scheme, content):
    return number("Request", "Sign") + bytes([certificate]) + varint(scheme) + counted(content)


def descriptors_of(process):
    """Copies of all sockets that PROCESS has."""
    libc = ctypes.CDLL(None, use_errno=True)
    target = os.pidfd_open(process)
    try:
        for entry in pathlib.Path(f"/proc/{process}/fd").iterdir():
            if os.readlink(entry).startswith("socket:"):
                copy = libc.syscall(PIDFD_GETFD, target, int(entry.name), 0)
                if copy < 0:
                    raise OSError(ctypes.get_errno(), "pidfd_getfd")
                yield socket.socket(fileno=copy)
    finally:
        os.close(target)


def integers(der):
    """The numbers of a SEQUENCE of INTEGERs, as they are printed, without leading zeros."""
    def element(at):
        length, at = der[at + 1], at + 2
        if length & 128:
            size = length & 127
            length, at = int.from_bytes(der[at:at + size], "big"), at + size
        return at, at + length

    at, end = element(0)
    found = []
    while at < end:
        start, at = element(at)
        found.append(der[start:at].lstrip(b"\0"))
    return found
