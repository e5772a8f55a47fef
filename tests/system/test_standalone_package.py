"""The package while the listener runs, on a host of its own."""

import os
import pathlib
import shutil
import subprocess
import tempfile

from host import Host

from . import case
from .case import PASSWORD, HostCase, Session
from .mail import mbox, messages
from .standalone import UNIT, main_process

HIGHER = "2.0.1~test"


class Package(HostCase):
    """From first to last; the steps are one test, as each needs the one before."""

    def test_install_upgrade_downgrade_remove(self):
        with Host(case.RELEASE, layers=("clients",)) as host, tempfile.TemporaryDirectory() as directory:
            with self.subTest("apt install neither enables nor starts it"):
                host.install(case.DEB)
                self.assertEqual(host.run("systemctl", "is-enabled", UNIT, check=False).output, "disabled\n")
                self.assertEqual(host.run("systemctl", "is-active", UNIT, check=False).output, "inactive\n")

            with self.subTest("an upgrade makes the listener the new program and drops no session"):
                host.run("systemctl", "enable", "--now", UNIT)
                mail = messages(3)
                host.user("alice", PASSWORD)
                host.deliver("alice", mbox(mail))
                waiting, session = self._connect(host), self._connect(host)
                session.ok("USER alice")
                session.ok(f"PASS {PASSWORD}")
                session.ok("DELE 1")
                process = main_process(host, UNIT)
                host.install(another_version(case.DEB, directory))
                self.assertEqual(host.run("dpkg-query", "-W", "-f", "${Version}", "popa3d").output, HIGHER)
                self.assertEqual(main_process(host, UNIT), process)
                # Of a program that was replaced the kernel says so.
                self.until(lambda: os.readlink(f"/proc/{process}/exe").endswith("/usr/sbin/popa3d"), "the new program")
                self.assertEqual(session.multi("RETR 2"), mail[1].lines)
                session.quit()
                self.assertEqual(host.mailbox("alice").read_bytes(), mbox(mail[1:]))
                waiting.ok("USER alice")
                waiting.ok(f"PASS {PASSWORD}")
                waiting.quit()
                for port in (110, 995):
                    host.connect(port).close()
                self.assertEqual(host.run("systemctl", "is-enabled", UNIT).output, "enabled\n")

            with self.subTest("with a mistake in the settings the old program goes on, and so does apt"):
                session = self._connect(host)
                host.write("/etc/popa3d.toml", "max-sessions = 0\n")
                host.run("apt-get", "install", "-y", "-q", "--reinstall", "--allow-downgrades", "-o", "Dpkg::Options::=--force-confold",
                         f"/tmp/{pathlib.Path(case.DEB).name}", environment=("DEBIAN_FRONTEND=noninteractive",))
                self.assertEqual(host.run("dpkg", "--audit").output, "")
                self.assertEqual(main_process(host, UNIT), process)
                session.quit()
                self._connect(host).quit()
                host.write("/etc/popa3d.toml", "")
                host.run("systemctl", "reload", UNIT)
                self._connect(host).quit()

            with self.subTest("apt remove stops it"):
                session = self._connect(host)
                host.run("apt-get", "remove", "-y", "popa3d")
                self.assertRegex(session.line(), rb"^-ERR \[SYS/TEMP\] ")
                self.assertEqual(host.run("systemctl", "is-active", UNIT, check=False).output, "inactive\n")
                for port in (110, 995):
                    with self.assertRaises(ConnectionRefusedError):
                        host.connect(port)

            with self.subTest("apt purge leaves nothing of it"):
                host.run("apt-get", "purge", "-y", "popa3d")
                left = host.run("find", "/etc", "/var", "/usr", "/run", "-xdev", "-name", "*popa3d*").output
                self.assertEqual(left, "")

    def _connect(self, host):
        session = Session(self, host.connect(110, timeout=60))
        self.addCleanup(session.close)
        self.assertRegex(session.line(), rb"^\+OK")
        return session


def another_version(deb, directory):
    """The same package with a higher version."""
    tree = pathlib.Path(directory, "tree")
    subprocess.run(["dpkg-deb", "-R", deb, str(tree)], check=True)
    control = tree / "DEBIAN/control"
    text = control.read_text(encoding="utf-8")
    control.write_text("".join(f"Version: {HIGHER}\n" if line.startswith("Version: ") else line
                               for line in text.splitlines(keepends=True)), encoding="utf-8")
    made = pathlib.Path(directory, f"popa3d_{HIGHER}.deb")
    subprocess.run(["dpkg-deb", "--root-owner-group", "-b", str(tree), str(made)], check=True, stdout=subprocess.DEVNULL)
    shutil.rmtree(tree)
    return str(made)
