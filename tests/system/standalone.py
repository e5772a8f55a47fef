"""The shared host with the listener, popa3d.service, in the place of the sockets."""

import contextlib
import fcntl
import pathlib
import time

from . import case
from .case import CONNECTION_TIMEOUT, HostCase, Session

UNIT = "popa3d.service"
DROP_INS = f"/run/systemd/system/{UNIT}.d"


class Standalone(HostCase):
    """A test with the listener, which runs for the length of the class."""

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.addClassCleanup(_back_to_sockets)
        # The sockets end by it.
        case.HOST.run("systemctl", "start", UNIT)

    # The listener and its sessions

    def listener(self):
        return main_process(self.host, UNIT)

    def processes(self):
        """Those of sessions."""
        found = super().processes()
        return [process for process in found if parent(process) != self.host.leader]

    def monitors(self):
        listener = self.listener()
        return [process for process in self.processes() if parent(process) == listener]

    def show(self, name):
        """A property of the unit."""
        return self.host.run("systemctl", "show", "-P", name, UNIT).output.strip()

    def status(self, now, waiting):
        """Waits until the status counts so many sessions, and so many without a login."""
        wanted = f"sessions: {now} now, {waiting} of them not logged in, "
        return self.until(lambda: self.show("StatusText").startswith(wanted) and self.show("StatusText"),
                          f"{wanted!r} in {self.show('StatusText')!r}")

    # Settings: a connection that is made after a reload finds them.

    def settings(self, text):
        """popa3d's settings for the length of this test."""
        self.addCleanup(self.reload, "reload-or-restart")
        super().settings(text)
        self.reload()

    def reload(self, how="reload"):
        """Has the listener read its settings, and waits until it uses them or will not."""
        told = time.time()
        self.host.run("systemctl", how, UNIT)
        outcomes = [f"POPA3D_EVENT={event}" for event in ("listening", "settings-refused", "server-failure")]
        self.until(lambda: self.host.journal("-t", "popa3d", f"--since=@{told:.6f}", *outcomes), f"a {how} of {UNIT}")

    def drop_in(self, text):
        """More of the unit, which is started again, for the length of this test."""
        name = f"{DROP_INS}/test.conf"
        self.addCleanup(self.host.shell, f"rm -f {name}; systemctl daemon-reload; systemctl restart {UNIT}")
        self.host.run("mkdir", "-p", DROP_INS)
        self.host.write(name, f"[Service]\n{text}\n")
        self.host.shell(f"systemctl daemon-reload; systemctl restart {UNIT}")

    # Connections

    def arrive(self, port=110, **options):
        """A connection of which nothing has been read."""
        session = Session(self, self.host.connect(port, timeout=CONNECTION_TIMEOUT, **options))
        self.addCleanup(session.close)
        return session

    def turned_away(self, code, **options):
        """A connection that gets one line with this response code, and its end."""
        session = self.arrive(**options)
        self.assertRegex(session.line(), rb"^-ERR \[%s\] " % code)
        session.ended()
        session.close()

    def assert_refused(self, port, **options):
        """Nobody listens there, once the service manager and the listener have done what they were told."""
        def is_refused():
            try:
                self.host.connect(port, **options).close()
            except ConnectionRefusedError:
                return True
            return False

        self.until(is_refused, f"nobody to listen on port {port}")

    # Keeping a session in UPDATE

    @contextlib.contextmanager
    def held(self, user):
        """Another program has the mailbox of USER locked meanwhile."""
        with open(self.host.mailbox(user), "rb+") as mailbox:
            lock(mailbox)
            yield

    def say_quit(self, session, user):
        """QUIT, which waits for the lock of the mailbox."""
        uid = int(self.host.run("id", "-u", user).output)
        session.send(b"QUIT\r\n")
        return self.until(lambda: [process for process in self.processes() if owner(process) == uid],
                          "the as-user helper")[0]


def _back_to_sockets():
    case.HOST.shell(f"rm -rf {DROP_INS}; systemctl daemon-reload; systemctl stop {UNIT}; "
                    "systemctl reset-failed popa3d.socket popa3ds.socket; "
                    "systemctl start popa3d.socket popa3ds.socket")


def main_process(host, unit):
    """The main process of a UNIT of the HOST, as this machine counts them."""
    for _ in range(600):
        main = host.run("systemctl", "show", "-P", "MainPID", unit).output.strip()
        found = [process for process in host.processes() if _fields(process, "NSpid")[-1:] == [main]]
        # It may be about to end, or to be started.
        if len(found) == 1:
            return found[0]
        time.sleep(0.1)
    raise AssertionError(f"{unit} has no main process")


def lock(file):
    """An fcntl lock of the open file, as a delivery agent takes it."""
    fcntl.lockf(file, fcntl.LOCK_EX)


def parent(process):
    """The id of its parent; None when it is gone."""
    return next(map(int, _fields(process, "PPid")), None)


def owner(process):
    """Its real user id; None when it is gone."""
    return next(map(int, _fields(process, "Uid")), None)


def _fields(process, name):
    """A line of /proc/PROCESS/status; nothing when it is gone."""
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        for line in pathlib.Path(f"/proc/{process}/status").read_text(encoding="ascii").splitlines():
            if line.startswith(f"{name}:"):
                return line.split()[1:]
    return []
