"""The two servers: each in a Debian root that is not booted, started for one connection as by inetd."""

import contextlib
import dataclasses
import os
import pathlib
import shutil
import socket
import subprocess
import threading

from host import cached_root, throwaway_copy
from host.roots import run_in

USER = "alice"
UID = 1000

# A login costs nothing and always succeeds: what is compared comes behind it.
PAM = "".join(f"{kind} required pam_permit.so\n" for kind in ("auth", "account", "password", "session"))

# 1.0.3 waits a second for a mailbox that changed just now, so that none of these ever did.
LONG_AGO = 1_000_000_000

TIMEOUT = 60

# How many lines of each body TOP is asked for.
LINES = (0, 1, 4, 100_000)


@dataclasses.dataclass
class Maildrop:
    """All that a client gets to know of a mailbox, and what is left of that behind it."""

    stat: bytes
    sizes: list
    ids: list
    messages: list
    tops: dict
    stat_when_deleted: bytes
    left: bytes


class Refused:
    """The login failed, though not for the password."""

    def __repr__(self):
        return "the mailbox is refused"

    def __eq__(self, other):
        return isinstance(other, Refused)


REFUSED = Refused()


class Server:
    """A popa3d in ROOT, whose users, PAM service and mail it changes at will."""

    def __init__(self, root):
        self.root = pathlib.Path(root)
        if f"\n{USER}:" not in (self.root / "etc/passwd").read_text(encoding="utf-8"):
            self._chroot("useradd", "--uid", str(UID), "--create-home", USER)
        (self.root / "etc/pam.d/popa3d").write_text(PAM, encoding="ascii")
        self.mailbox = self.root / "var/mail" / USER
        self.remembered = self.root / "var/lib/popa3d/unique-ids" / USER
        self.errors = self.root / "root/popa3d-errors"

    def serve(self, mailbox, deleted=(), *, keep_ids=False):
        """What a client gets of MAILBOX (bytes, or None for no file), who deletes some of it."""
        self.mailbox.unlink(missing_ok=True)
        if not keep_ids:
            self.remembered.unlink(missing_ok=True)
        if mailbox is not None:
            self.mailbox.write_bytes(mailbox)
            self.mailbox.chmod(0o600)
            os.chown(self.mailbox, UID, UID)
            os.utime(self.mailbox, (LONG_AGO, LONG_AGO))
        with self._connection() as connection:
            maildrop = _ask(connection, deleted)
        if isinstance(maildrop, Maildrop) and mailbox is not None:
            maildrop.left = self.mailbox.read_bytes()
        return maildrop

    @contextlib.contextmanager
    def _connection(self):
        with socket.create_server(("127.0.0.1", 0)) as listener:
            client = socket.create_connection(listener.getsockname(), timeout=TIMEOUT)
            served, _ = listener.accept()
        # 1.0.3 writes replies in pieces, and would wait 40 ms for each.
        served.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with client, open(self.errors, "wb") as errors:
            with served:
                process = subprocess.Popen(["chroot", self.root, "/usr/sbin/popa3d"],
                                           stdin=served, stdout=served, stderr=errors)
            try:
                yield client
                client.close()
                process.wait(TIMEOUT)
            finally:
                process.kill()
                process.wait()

    def _chroot(self, *command):
        subprocess.run(["chroot", self.root, *command], check=True, stdin=subprocess.DEVNULL)


def _ask(connection, deleted):
    with connection.makefile("rb") as replies:
        def line(command=None):
            if command:
                connection.sendall(command + b"\r\n")
            return replies.readline()

        def lines():
            status = replies.readline()
            if not status.startswith(b"+OK"):
                return status[:4]
            found = []
            while (each := replies.readline()) != b".\r\n":
                if not each:
                    raise AssertionError("the connection was closed within a reply")
                found.append(each)
            return found

        assert line().startswith(b"+OK"), "no greeting"
        assert line(b"USER " + USER.encode()).startswith(b"+OK"), "USER was refused"
        logged_in = line(b"PASS any")
        if not logged_in.startswith(b"+OK"):
            assert logged_in.startswith(b"-ERR"), f"PASS was answered with {logged_in}"
            return REFUSED
        stat = line(b"STAT")
        count = int(stat.split()[1])
        numbers = range(1, count + 2)  # one more than there are
        tops = [(n, k) for n in numbers for k in LINES if n < 30 or n > count - 3]
        commands = [b"LIST", b"UIDL", *(b"RETR %d" % n for n in numbers),
                    *(b"TOP %d %d" % top for top in tops),
                    *(b"DELE %d" % n for n in deleted), b"STAT", b"QUIT"]
        writer = threading.Thread(target=connection.sendall, args=(b"".join(c + b"\r\n" for c in commands),))
        writer.start()
        sizes, ids = lines(), lines()
        messages = [_joined(lines()) for _ in numbers]
        tops = {top: _joined(lines()) for top in tops}
        for number in deleted:
            assert line().startswith(b"+OK"), f"DELE {number} was refused"
        stat_when_deleted, quit_reply = line(), line()
        writer.join()
        assert quit_reply.startswith(b"+OK"), f"QUIT was answered with {quit_reply}"
        assert not replies.read(), "something was sent behind the reply to QUIT"
        return Maildrop(_numbers(stat), _values(sizes), _values(ids), messages, tops,
                        _numbers(stat_when_deleted), b"")


def _joined(lines):
    return lines if isinstance(lines, bytes) else b"".join(lines)


def _numbers(stat):
    """STAT's reply as far as the RFC fixes it."""
    return b" ".join(stat.split()[:3])


def _values(listing):
    """What LIST and UIDL say of each message; their numbers have to be 1, 2, 3…"""
    pairs = [line.removesuffix(b"\r\n").split(b" ") for line in listing]
    assert [pair[0] for pair in pairs] == [b"%d" % (n + 1) for n in range(len(pairs))], "numbers are wrong"
    return [value for _, value in pairs]


@contextlib.contextmanager
def debians():
    """Debian's popa3d 1.0.3."""
    with throwaway_copy(cached_root("bookworm", "popa3d-1.0.3"), "differential") as root:
        yield Server(root)


@contextlib.contextmanager
def ours(deb):
    """The package DEB, installed in a root of its own."""
    with throwaway_copy(cached_root("bookworm"), "differential") as root:
        shutil.copy(deb, root / "root")
        installed = run_in(root, ["dpkg", "-i", f"/root/{pathlib.Path(deb).name}"], network=False,
                           stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        if installed.returncode:
            raise SystemExit(installed.stdout.decode(errors="replace"))
        yield Server(root)
