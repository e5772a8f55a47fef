"""Installed, upgraded, removed and purged in every order, the host is as it was but for mail."""

import re
import shutil
import subprocess
import tempfile

from host import Host, cached_root, throwaway_copy
from host.roots import run_in

from . import case
from .case import PASSWORD
from .mail import mbox, messages
from .test_standalone_package import another_version
from .upgrading import LINE, UpgradeCase

# The log of what happened, what apt downloads, caches; and databases whose content is compared below.
PASSED_OVER = ("/dev", "/proc", "/sys", "/tmp", "/var/log", "/var/cache/apt", "/var/cache/ldconfig", "/var/cache/debconf",
               "/var/lib/apt", "/var/lib/dpkg", "/var/lib/systemd/catalog", "/etc/ld.so.cache")
# The user stays.
ACCOUNTS = r"/etc/(passwd|group|shadow|gshadow|\.pwd\.lock)-?"
# These two listen nowhere: one does nothing unless keep-deleted is set, the other unless an update was interrupted,
# whoever serves mail.
ALWAYS = {"timers.target.wants/popa3d-expire.timer", "multi-user.target.wants/popa3d-recover.service"}
NONINTERACTIVE = ("DEBIAN_FRONTEND=noninteractive",)


class Cycles(UpgradeCase):
    def test_purge_undoes_an_installation(self):
        with Host(case.RELEASE) as host:
            before = self._everything(host)
            host.install(case.DEB)
            self.assertNotEqual(self._everything(host), before)
            self._apt(host, "purge")
            self.assertEqual(self._difference(before, self._everything(host)), [])

    def test_remove_keeps_settings_and_what_was_enabled_and_purge_leaves_mail_alone(self):
        with Host(case.RELEASE) as host, tempfile.TemporaryDirectory() as directory:
            host.user("alice", PASSWORD)
            mail = messages(2)
            host.deliver("alice", mbox([*mail, mail[0]]))
            before = self._everything(host)
            host.install(case.DEB)
            host.run("systemctl", "enable", "--now", "popa3d.socket")
            unique_ids = self.unique_ids(host)
            host.write("/etc/popa3d.toml", "max-messages = 5\n")

            with self.subTest("removed and installed again"):
                self._apt(host, "remove")
                self.assertFalse(self.listens(host))
                host.install(case.DEB)
                self.assertEqual((self.enabled(host), self.active(host)), (["popa3d.socket"], ["popa3d.socket"]))
                self.assertEqual(host.read("/etc/popa3d.toml"), b"max-messages = 5\n")
                self.assertEqual(self.unique_ids(host), unique_ids)

            with self.subTest("upgraded"):
                host.install(another_version(case.DEB, directory))
                self.assertEqual((self.enabled(host), self.active(host)), (["popa3d.socket"], ["popa3d.socket"]))
                self.assertEqual(self.unique_ids(host), unique_ids)

            with self.subTest("what somebody stopped stays stopped in an upgrade"):
                host.run("systemctl", "stop", "popa3d.socket")
                self._reinstall(host)
                self.assertEqual((self.enabled(host), self.active(host)), (["popa3d.socket"], []))

            with self.subTest("purged"):
                self._apt(host, "purge")
                self.assertEqual(self._difference(before, self._everything(host)), [])
                self.assertEqual(host.mailbox("alice").read_bytes(), mbox([*mail, mail[0]]))

    def test_mail_in_redo_records_and_what_is_kept_survive_a_purge(self):
        with Host(case.RELEASE) as host:
            host.install(case.DEB)
            host.user("alice", PASSWORD)
            mail = messages(2)
            host.deliver("alice", mbox(mail))
            host.write("/etc/popa3d.toml", 'keep-deleted = "7d"\n')
            host.run("systemctl", "start", "popa3d.socket")
            session = self.session(host, "alice")
            session.ok("DELE 1")
            session.quit()
            host.shell("cd /var/lib/popa3d; mkdir -p redo-aside unique-ids; echo mail >redo-aside/alice; echo ids >unique-ids/alice")
            purged = self._apt(host, "purge")
            self.assertIn("mail of users is left in /var/lib/popa3d", purged.output + purged.errors)
            left = host.shell("find /var/lib/popa3d -type f -printf '%P\n' | sort").output
            self.assertRegex(left, r"^deleted/alice/[0-9.-]+\nredo-aside/alice\n$")
            host.install(case.DEB)
            self.assertEqual(host.read("/var/lib/popa3d/redo-aside/alice"), b"mail\n")
            host.run("popa3d", "--undelete", "alice", "--all")
            self.assertEqual(host.mailbox("alice").read_bytes(), mbox(mail[::-1]))

    def test_from_1_and_removed_and_installed_again_and_purged(self):
        with self.standalone_host() as host:
            before = self._everything(host)
            host.install(case.DEB)
            self._apt(host, "remove")
            self.assertFalse(self.listens(host))
            host.install(case.DEB)
            self.assert_taken_over(host, "popa3d.service")
            self._apt(host, "purge")
            # What is gone was 1.0.3's.
            changed = self._difference(before, self._everything(host))
            self.assertEqual([line for line in changed if not (line.startswith("- ") and "popa3d" in line)], [])

    def _apt(self, host, action):
        finished = host.run("apt-get", action, "-y", "-q", "popa3d", environment=NONINTERACTIVE)
        self.assertEqual(host.run("dpkg", "--audit").output, "")
        return finished

    def _reinstall(self, host):
        (deb,) = [name.name for name in host.path("/tmp").glob("popa3d_*test.deb")]
        host.run("apt-get", "install", "-y", "-q", "--reinstall", f"/tmp/{deb}", environment=NONINTERACTIVE)

    def _everything(self, host):
        """Every file with its mode, owner and target, those of /etc with their content, and what dpkg and debconf know."""
        passed_over = " -o ".join(f"-path {path}" for path in PASSED_OVER)
        found = host.shell(f"find / -xdev \\( {passed_over} \\) -prune -o -printf '%p %M %u %g %l\\n'; "
                           "ls -d /run/popa3d* || true; "
                           "find /etc -type f -exec md5sum {} +; dpkg-query -W -f '${Package} ${Version} ${Status}\\n'; "
                           # One line for each question.
                           "awk 'BEGIN { RS = \"\" } { gsub(\"\\n\", \" \"); print }' "
                           "/var/cache/debconf/config.dat /var/cache/debconf/templates.dat").output
        return {line for line in found.splitlines() if not re.search(rf"(^| ){ACCOUNTS}( |$)", line)}

    def _difference(self, before, after):
        return sorted([f"- {line}" for line in before - after] + [f"+ {line}" for line in after - before])


class NotBooted(UpgradeCase):
    """A root that an image is made of: nothing runs in it, and the network is not there."""

    def test_the_upgrade_enables_what_will_serve_once_it_is_booted(self):
        for layers, prepare, unit in (
            (("popa3d-1.0.3",), "true", "multi-user.target.wants/popa3d.service"),
            (("popa3d-1.0.3", "openbsd-inetd"),
             "sed -i s/=yes/=no/ /etc/default/popa3d; dpkg-reconfigure -f noninteractive popa3d",
             "sockets.target.wants/popa3d.socket"),
            (("popa3d-1.0.3",), "update-rc.d popa3d disable", None),
            ((), "true", None),
        ):
            with self.subTest(layers=layers, prepare=prepare), \
                    throwaway_copy(cached_root(case.RELEASE, *layers), "not-booted") as root:
                shutil.copy(case.DEB, root / "popa3d.deb")
                self._run(root, f"{prepare}; apt-get install -y -q /popa3d.deb; dpkg --audit >/audit")
                self.assertEqual((root / "audit").read_text(encoding="utf-8"), "")
                self.assertEqual(self._enabled(root), ALWAYS | ({unit} if unit else set()))
                self._run(root, "apt-get purge -y -q popa3d")
                left = self._run(root, "find /etc /usr /var /run -name '*popa3d*'").stdout
                self.assertEqual([line for line in left.splitlines() if "popa3d" in line], [])

    def test_where_another_init_runs_inetd_goes_on_and_of_the_daemon_it_is_said_that_nothing_starts_it(self):
        # What the name of the first process is, is what the scripts go by.
        as_init = "printf init >/proc/1/comm"
        with throwaway_copy(cached_root(case.RELEASE, "popa3d-1.0.3", "openbsd-inetd"), "not-booted") as root:
            shutil.copy(case.DEB, root / "popa3d.deb")
            self._run(root, f"{as_init}; sed -i s/=yes/=no/ /etc/default/popa3d; "
                      "dpkg-reconfigure -f noninteractive popa3d; apt-get install -y -q /popa3d.deb")
            self.assertEqual(self._enabled(root), ALWAYS)
            lines = (root / "etc/inetd.conf").read_text(encoding="utf-8").splitlines()
            self.assertEqual([line.split() for line in lines if "popa3d" in line], [LINE.split()])
        with throwaway_copy(cached_root(case.RELEASE, "popa3d-1.0.3"), "not-booted") as root:
            shutil.copy(case.DEB, root / "popa3d.deb")
            said = self._run(root, f"{as_init}; apt-get install -y -q /popa3d.deb").stdout
            self.assertIn("another init has to start popa3d -D by itself", said)

    def _enabled(self, root):
        units = root / "etc/systemd/system"
        return {str(path.relative_to(units)) for path in units.glob("*/popa3d*")}

    def _run(self, root, script):
        finished = run_in(root, ["sh", "-euc", script], environment=NONINTERACTIVE, network=False,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        self.assertEqual(finished.returncode, 0, finished.stdout)
        return finished
