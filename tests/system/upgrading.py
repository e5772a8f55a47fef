"""Hosts on which Debian's popa3d 1.0.3 serves mail, to be upgraded."""

import contextlib
import pathlib
import shutil
import subprocess
import threading
import time

from host import Host, cached_root

from . import case
from .case import PASSWORD, HostCase, Session
from .mail import mbox, messages

UNITS = ("popa3d.service", "popa3d.socket", "popa3ds.socket")
OLD_GREETING = b"+OK"  # and nothing else
LINE = "pop3 stream tcp nowait root /usr/sbin/tcpd /usr/sbin/popa3d"
LINE_WITHOUT_TCPD = "pop3 stream tcp nowait root /usr/sbin/popa3d popa3d"
XINETD_SERVICE = """\
service pop3
{
    socket_type = stream
    protocol = tcp
    wait = no
    user = root
    server = /usr/sbin/popa3d
}
"""


class UpgradeCase(HostCase):
    """A test that upgrades a host of its own."""

    @contextlib.contextmanager
    def standalone_host(self):
        """1.0.3 stands alone, which is its default."""
        with Host(case.RELEASE, layers=("popa3d-1.0.3",)) as host:
            self.assertEqual(self.greeting(host), OLD_GREETING)
            self.alice(host)
            yield host

    @contextlib.contextmanager
    def inetd_host(self, super_server="openbsd-inetd"):
        """1.0.3 is run by this super-server."""
        with Host(case.RELEASE, layers=("popa3d-1.0.3", super_server)) as host:
            # What its own reconfiguration leaves running has to be stopped by hand.
            host.run("systemctl", "stop", "popa3d.service")
            host.run("sed", "-i", "s/^RUN_STANDALONE=.*/RUN_STANDALONE=no/", "/etc/default/popa3d")
            host.run("dpkg-reconfigure", "-f", "noninteractive", "popa3d")
            if super_server == "xinetd":  # which has files of its own, and no tcpd
                host.write("/etc/xinetd.d/pop3", XINETD_SERVICE)
            self.restart(host, super_server)
            self.assertEqual(self.greeting(host), OLD_GREETING)
            self.alice(host)
            yield host

    def restart(self, host, super_server):
        """Starts a super-server anew. One that begins while another ends finds that one and gives up."""
        host.run("systemctl", "stop", super_server)
        self.until(lambda: not host.run("pidof", "inetd", "inetutils-inetd", "xinetd", check=False).output,
                   f"the end of {super_server}")
        host.run("systemctl", "start", super_server)
        # An upgrade of 1.0.3 starts xinetd several times; those before are not to count.
        host.run("systemctl", "reset-failed", super_server)
        self.until(lambda: self.listens(host), f"{super_server} to listen")

    def alice(self, host):
        """A user with mail, some of it twice, and a note of its unique-ids as 1.0.3 gives them."""
        host.user("alice", PASSWORD)
        mail = messages(4)
        host.deliver("alice", mbox([*mail, mail[0]]))
        self.unique_ids_of_1 = self.unique_ids(host)
        self.assertEqual(len(self.unique_ids_of_1), 5)

    def session(self, host, user=None):
        """A session of a user, if one is given."""
        session = Session(self, host.connect(110, timeout=60))
        self.addCleanup(session.close)
        session.greeting = session.line()
        if user:
            session.ok(f"USER {user}")
            session.ok(f"PASS {PASSWORD}")
        return session

    def greeting(self, host):
        session = self.session(host)
        session.close()
        return session.greeting

    def unique_ids(self, host):
        session = self.session(host, "alice")
        found = session.multi("UIDL")
        session.quit()
        return found

    def enabled(self, host):
        """The units that start at boot."""
        states = host.run("systemctl", "is-enabled", *UNITS, check=False).output.split()
        return [unit for unit, state in zip(UNITS, states, strict=True) if state == "enabled"]

    def active(self, host):
        states = host.run("systemctl", "is-active", *UNITS, check=False).output.split()
        return [unit for unit, state in zip(UNITS, states, strict=True) if state == "active"]

    def assert_taken_over(self, host, unit):
        """This unit and no other serves, now and after a boot, the same mail under the same unique-ids."""
        self.assertEqual((self.enabled(host), self.active(host)), ([unit], [unit]))
        self.assertNotEqual(self.greeting(host), OLD_GREETING)
        unique_ids = self.unique_ids(host)
        # The second of two that are alike had the same, which no client can do anything with.
        self.assertEqual(unique_ids[:4], self.unique_ids_of_1[:4])
        self.assertTrue(unique_ids[4].startswith(self.unique_ids_of_1[4]))
        self.assertEqual(host.run("systemctl", "--failed", "--no-legend").output.strip(), "")

    def assert_nothing_left(self, host):
        """What 1.0.3 had outside of what both have is gone, and dpkg is content."""
        self.assertEqual(host.run("dpkg", "--audit").output, "")
        self.assertRegex(host.run("dpkg-query", "-W", "-f", "${Status}", "popa3d").output, "^install ok installed$")
        left = host.shell("ls -d /etc/init.d/popa3d* /etc/default/popa3d /etc/rc?.d/*popa3d /run/popa3d.pid "
                          "/var/lib/popa3d/serves-next 2>/dev/null", check=False).output
        self.assertEqual(left, "")
        self.assertEqual(host.run("debconf-show", "popa3d").output, "")
        self.assertEqual(host.run("grep", "-l", "popa3d", "/var/cache/debconf/config.dat", "/var/cache/debconf/templates.dat",
                                  check=False).output, "")
        self.assertFalse(self._has_line(host))

    def _has_line(self, host):
        return "popa3d" in host.shell("cat /etc/inetd.conf 2>/dev/null", check=False).output

    def listens(self, host):
        with contextlib.suppress(OSError):
            host.connect(110).close()
            return True
        return False


@contextlib.contextmanager
def watched(host):
    """Says how long nobody answered on port 110 meanwhile: that is printed, not judged."""
    ended = threading.Event()
    answers = []

    def watch():
        number = 0
        while not ended.wait(0.1):
            number += 1
            began = time.monotonic()
            with contextlib.suppress(OSError):
                # One address would soon have too many connections.
                with host.connect(110, source=f"127.0.1.{number % 250 + 1}", timeout=30) as connection:
                    if connection.recv(1000).startswith(b"+OK"):
                        answers.append((began, time.monotonic()))

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield
    finally:
        time.sleep(0.3)  # until it was asked again
        ended.set()
        watcher.join()
    longest = max(after - before for (before, _), (_, after) in zip(answers, answers[1:], strict=False))
    print(f"[nobody answered for {longest:.1f} s] ", end="", flush=True)


def package_of_1(directory):
    """Debian's package of 1.0.3, made of what it has installed: hosts have no network to fetch it from."""
    root = cached_root(case.RELEASE, "popa3d-1.0.3")
    information, tree = root / "var/lib/dpkg/info", pathlib.Path(directory, "tree")
    control = tree / "DEBIAN"
    control.mkdir(parents=True)
    for path in information.glob("popa3d.*"):
        if path.suffix not in (".list", ".md5sums"):
            shutil.copy(path, control / path.suffix[1:])
    status = subprocess.run(["dpkg-query", f"--admindir={root}/var/lib/dpkg", "-s", "popa3d"], check=True,
                            capture_output=True, text=True).stdout
    fields = [line for line in status.splitlines() if not line.startswith(("Status:", "Conffiles:", " /etc/"))]
    (control / "control").write_text("\n".join(fields) + "\n", encoding="utf-8")
    for name in (information / "popa3d.list").read_text(encoding="utf-8").split("\n"):
        source, target = root / name.lstrip("/"), tree / name.lstrip("/")
        if source.is_dir():
            target.mkdir(exist_ok=True)
        else:
            shutil.copy2(source, target, follow_symlinks=False)
    made = pathlib.Path(directory, "popa3d_1.0.3.deb")
    subprocess.run(["dpkg-deb", "--root-owner-group", "-b", str(tree), str(made)], check=True, stdout=subprocess.DEVNULL)
    return made
