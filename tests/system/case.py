"""What the tests share: the host, users of their own, settings that are put back, POP3 by hand."""

import contextlib
import itertools
import pathlib
import time
import unittest

from .mail import mbox

HOST = None  # set by __main__ before any test runs
DEB = None
RELEASE = None

PASSWORD = "correct horse battery"
CONNECTION_TIMEOUT = 60  # no test waits that long for a reply; a server that hangs is found

_numbers = itertools.count(1)


class HostCase(unittest.TestCase):
    """A test on the shared host."""

    maxDiff = 4000

    @property
    def host(self):
        return HOST

    def run(self, result=None):
        self.began = time.time()
        return super().run(result)

    def account(self, mail=None, password=PASSWORD, name=None, method="YESCRYPT"):
        """A new user with this mail (messages or bytes; None: no mailbox); returns its name."""
        name = name or f"user{next(_numbers)}"
        self.host.user(name, password, method)
        if mail is not None:
            self.host.deliver(name, mail if isinstance(mail, bytes) else mbox(mail))
        return name

    def configure(self, path, content):
        """Writes a file of the host for the length of this test."""
        file = self.host.path(path)
        before = (file.read_bytes(), file.stat().st_mode & 0o7777) if file.exists() else None

        def restore():
            if before is None:
                self.host.path(path).unlink(missing_ok=True)
            else:
                self.host.write(path, *before)

        self.addCleanup(restore)
        if content is None:
            file.unlink(missing_ok=True)
        else:
            self.host.write(path, content)

    def settings(self, text):
        """popa3d's settings for the length of this test."""
        self.configure("/etc/popa3d.toml", text)

    def pam(self, text):
        """popa3d's PAM stack for the length of this test."""
        self.configure("/etc/pam.d/popa3d", text)

    def connect(self, **options):
        """A session whose greeting has been read."""
        session = Session(self, self.host.connect(110, timeout=CONNECTION_TIMEOUT, **options))
        self.addCleanup(session.close)
        session.greeting = session.line()
        self.assertRegex(session.greeting, rb"^\+OK")
        return session

    def login(self, user, password=PASSWORD, **options):
        """A session in TRANSACTION state."""
        session = self.connect(**options)
        session.ok(f"USER {user}")
        session.ok(f"PASS {password}")
        return session

    def refused(self, user, code):
        """A login with the right password that is refused with this response code."""
        session = self.connect()
        session.ok(f"USER {user}")
        session.err(f"PASS {PASSWORD}", code)
        session.close()

    def until(self, condition, what):
        """Waits until CONDITION() holds and returns what it returned. How long is not judged, but
        what has not happened after a minute never will."""
        for _ in range(600):
            if result := condition():
                return result
            time.sleep(0.1)
        return self.fail(f"still waiting: {what}")

    def processes(self):
        """The ids of all processes of popa3d on the host, as this machine counts them."""
        found = []
        for process in self.host.processes():
            with contextlib.suppress(OSError):
                if pathlib.Path(f"/proc/{process}/comm").read_text(encoding="ascii").strip() == "popa3d":
                    found.append(process)
        return found

    def until_idle(self):
        """Waits until no session is left."""
        self.until(lambda: not self.processes(), f"the end of {self.processes()}")

    def journal(self, **fields):
        """popa3d's entries with these fields, since the test began: another may have used the same addresses."""
        return self.host.journal("-t", "popa3d", f"--since=@{self.began:.6f}",
                                 *(f"{name}={value}" for name, value in fields.items()))

    def messages(self, **fields):
        """The texts of popa3d's entries with these fields."""
        return [text(entry["MESSAGE"]) for entry in self.journal(**fields)]

    def assert_said(self, beginning, **fields):
        """popa3d logged a line with this BEGINNING and these fields."""
        found = self.messages(**fields)
        self.assertTrue([line for line in found if line.startswith(beginning)], found)


def text(field):
    """A journal field as text: JSON gives those that are not plain text as a list of bytes."""
    return bytes(field).decode(errors="replace") if isinstance(field, list) else field


class Session:
    """A POP3 connection by hand: what is sent and what comes, to the byte."""

    def __init__(self, case, connection):
        self._case = case
        self.connection = connection
        self._received = b""
        self.greeting = None

    def close(self):
        self.connection.close()

    def send(self, data):
        self.connection.sendall(data)

    def line(self):
        """One line without its CRLF."""
        while b"\n" not in self._received:
            data = self.connection.recv(1 << 16)
            if not data:
                self._case.fail(f"the connection was closed; before that came {self._received!r}")
            self._received += data
        line, self._received = self._received.split(b"\n", 1)
        self._case.assertTrue(line.endswith(b"\r"), f"a line without CRLF: {line!r}")
        return line[:-1]

    def lines(self):
        """The lines up to the lone dot, dot-stuffing undone."""
        found = []
        while (line := self.line()) != b".":
            found.append(line[1:] if line.startswith(b".") else line)
        return found

    def command(self, command):
        """Sends a command and returns its reply line."""
        self.send((command if isinstance(command, bytes) else command.encode()) + b"\r\n")
        return self.line()

    def ok(self, command):
        """Sends a command whose reply must be +OK."""
        reply = self.command(command)
        self._case.assertRegex(reply, rb"^\+OK( |$)", f"reply to {command!r}")
        return reply

    def err(self, command, code=None):
        """Sends a command whose reply must be -ERR, with a response code that matches if given."""
        reply = self.command(command)
        self._case.assertRegex(reply, rb"^-ERR( |$)", f"reply to {command!r}")
        if code:
            self._case.assertRegex(reply, rb"^-ERR \[%s\] " % code)
        return reply

    def multi(self, command):
        """Sends a command whose reply must be +OK with lines; returns the lines."""
        self.ok(command)
        return self.lines()

    def quit(self):
        """QUIT, answered, and the end of the connection from both sides."""
        self.ok("QUIT")
        self.ended()
        self.close()

    def rest(self):
        """What comes until the server closes the connection."""
        rest = self._received
        with contextlib.suppress(ConnectionResetError):
            while data := self.connection.recv(1 << 16):
                rest += data
        return rest

    def ended(self):
        """Nothing more comes, and the server has closed the connection."""
        self._case.assertEqual(self.rest(), b"", "after the last reply")
