"""apt install over Debian's popa3d 1.0.3, however it ran."""

import os
import random
import shutil
import tempfile
import time

from . import case
from .case import PASSWORD
from .mail import mbox, messages
from .test_crash import BODY, COUNT, RECORDS
from .upgrading import LINE, LINE_WITHOUT_TCPD, OLD_GREETING, UpgradeCase, package_of_1, watched


class StandingAlone(UpgradeCase):
    def test_popa3d_service_takes_over_and_sessions_of_the_old_daemon_go_on(self):
        with self.standalone_host() as host:
            mail = messages(3)
            host.user("bob", PASSWORD)
            host.deliver("bob", mbox(mail))
            before = self.session(host, "bob")
            before.ok("DELE 2")
            with watched(host):
                installed = host.install(case.DEB)
            self.assert_taken_over(host, "popa3d.service")
            self.assert_nothing_left(host)
            before.quit()
            self.assertEqual(host.mailbox("bob").read_bytes(), mbox([mail[0], mail[2]]))

            with self.subTest("apt and the journal say what it means for clients"):
                for said in (installed.errors + installed.output, " ".join(self._said(host))):
                    self.assertIn("popa3d.service stands in for its daemon", said)
                    self.assertIn("plaintext-login", said)

            with self.subTest("what was taken over goes when the package goes"):
                host.run("apt-get", "purge", "-y", "popa3d")
                left = host.run("find", "/etc", "/var", "/usr", "/run", "-xdev", "-name", "*popa3d*").output
                self.assertEqual(left, "")

    def test_what_did_not_start_at_boot_does_not(self):
        with self.standalone_host() as host:
            host.shell("systemctl stop popa3d.service; update-rc.d popa3d disable")
            host.install(case.DEB)
            self.assertEqual((self.enabled(host), self.active(host)), ([], []))
            self.assert_nothing_left(host)

    def test_a_daemon_that_was_stopped_comes_with_the_next_boot_and_not_before(self):
        with self.standalone_host() as host:
            host.run("systemctl", "stop", "popa3d.service")
            host.install(case.DEB)
            self.assertEqual((self.enabled(host), self.active(host)), (["popa3d.service"], []))
            self.assert_nothing_left(host)

    def test_what_2_0_left_enabled_before_somebody_went_back_does_not_count(self):
        with self.standalone_host() as host:
            # As its postinst notes it: the socket was enabled, and the service not, on purpose.
            host.shell("""cd /var/lib/systemd/deb-systemd-helper-enabled
                for unit in multi-user.target.wants/popa3d.service sockets.target.wants/popa3d.socket; do
                    mkdir -p ${unit%/*} /etc/systemd/system/${unit%/*}
                    touch $unit
                    echo /etc/systemd/system/$unit >${unit#*/}.dsh-also
                done
                ln -s /lib/systemd/system/popa3d.socket /etc/systemd/system/sockets.target.wants/""")
            host.install(case.DEB)
            self.assert_taken_over(host, "popa3d.service")
            self.assert_nothing_left(host)

    def test_policy_rc_d_has_the_last_word(self):
        with self.standalone_host() as host:
            host.write("/usr/sbin/policy-rc.d", "#!/bin/sh\nexit 101\n", 0o755)
            host.install(case.DEB)
            self.assertEqual(self.greeting(host), OLD_GREETING)
            self.assertEqual(self.enabled(host), ["popa3d.service"])
            self.assert_nothing_left(host)

    def test_a_unit_that_cannot_start_does_not_stop_apt(self):
        with self.standalone_host() as host:
            host.run("mkdir", "/etc/systemd/system/popa3d.service.d")
            host.write("/etc/systemd/system/popa3d.service.d/certificate.conf",
                       "[Service]\nLoadCredential=popa3d.crt:/etc/ssl/missing.crt\n")
            installed = host.install(case.DEB)
            self.assertIn("popa3d.service did not start: see journalctl -u popa3d.service", installed.errors + installed.output)
            self.assert_nothing_left(host)
            self.assertIn("Failed to set up credentials", host.run("journalctl", "-u", "popa3d.service").output)
            host.shell("rm -r /etc/systemd/system/popa3d.service.d; systemctl daemon-reload; systemctl restart popa3d.service")
            self.assert_taken_over(host, "popa3d.service")

    def test_an_upgrade_that_fails_leaves_the_old_daemon_at_work(self):
        with self.standalone_host() as host:
            in_the_way(host, "/usr/share/man/man5/popa3d.toml.5.gz")
            with self.assertRaises(AssertionError):
                host.install(case.DEB)
            self.assertRegex(host.run("dpkg-query", "-W", "-f", "${Status} ${Version}", "popa3d").output, "^install ok installed 1.0.3")
            self.assertEqual(self.greeting(host), OLD_GREETING)
            host.run("dpkg", "-P", "other")
            host.install(case.DEB)
            self.assert_taken_over(host, "popa3d.service")
            self.assert_nothing_left(host)

    def test_an_upgrade_that_was_interrupted_is_finished_by_the_next(self):
        with self.standalone_host() as host:
            shutil.copy(case.DEB, host.path("/tmp/popa3d.deb"))
            host.run("dpkg", "--unpack", "/tmp/popa3d.deb")
            host.install(case.DEB)
            self.assert_taken_over(host, "popa3d.service")
            self.assert_nothing_left(host)

    def test_a_note_of_what_served_that_was_cut_off_does_not_stop_apt(self):
        with self.standalone_host() as host:
            shutil.copy(case.DEB, host.path("/tmp/popa3d.deb"))
            host.run("dpkg", "--unpack", "/tmp/popa3d.deb")
            host.write("/var/lib/popa3d/serves-next", "")
            host.run("dpkg", "--configure", "popa3d", environment=("DEBIAN_FRONTEND=noninteractive",))
            self.assertEqual((self.enabled(host), self.active(host)), ([], []))
            self.assert_nothing_left(host)

    def _said(self, host):
        return [case.text(entry["MESSAGE"]) for entry in host.journal("-t", "popa3d", "-p", "warning")]


def in_the_way(host, file):
    """Another package has this FILE."""
    host.shell(f"""mkdir -p /tmp/other/DEBIAN /tmp/other{os.path.dirname(file)}
        printf 'Package: other\\nVersion: 1\\nArchitecture: all\\nMaintainer: nobody\\nDescription: other\\n' >/tmp/other/DEBIAN/control
        touch /tmp/other{file}; dpkg-deb -b /tmp/other /tmp/other.deb; dpkg -i /tmp/other.deb""")


class EditedPam(UpgradeCase):
    """An /etc/pam.d/popa3d that an admin has changed."""

    EDITED = b"# ours\n@include common-auth\n@include common-account\n"

    def test_it_stays_and_serves_as_it_is(self):
        with self.standalone_host() as host:
            host.write("/etc/pam.d/popa3d", self.EDITED)
            self._install(host, "--force-confold")
            self.assertEqual(host.read("/etc/pam.d/popa3d"), self.EDITED)
            self.assert_taken_over(host, "popa3d.service")
            self.assert_nothing_left(host)

    def test_without_an_answer_apt_stops_while_the_old_daemon_serves_and_goes_on_with_one(self):
        with self.standalone_host() as host:
            host.write("/etc/pam.d/popa3d", self.EDITED)
            installed = self._install(host, check=False)
            self.assertIn("/etc/pam.d/popa3d", installed.output + installed.errors)
            self.assertNotEqual(installed.code, 0)
            self.assertEqual(self.greeting(host), OLD_GREETING)
            self.assertEqual(self.unique_ids(host), self.unique_ids_of_1)
            host.run("dpkg", "--force-confold", "--configure", "-a", environment=("DEBIAN_FRONTEND=noninteractive",))
            self.assertEqual(host.read("/etc/pam.d/popa3d"), self.EDITED)
            self.assert_taken_over(host, "popa3d.service")
            self.assert_nothing_left(host)

    def _install(self, host, *options, check=True):
        host.write("/tmp/popa3d.deb", open(case.DEB, "rb").read())
        return host.run("apt-get", "install", "-y", "-q", *(f"-oDpkg::Options::={option}" for option in options),
                        "/tmp/popa3d.deb", environment=("DEBIAN_FRONTEND=noninteractive",), check=check)


class Inetd(UpgradeCase):
    def test_popa3d_socket_takes_over_from_each_inetd(self):
        for super_server in ("openbsd-inetd", "inetutils-inetd"):
            with self.subTest(super_server), self.inetd_host(super_server) as host:
                before = self.session(host, "alice")
                with watched(host):
                    host.install(case.DEB)
                before.ok("NOOP")
                before.close()
                self.assert_taken_over(host, "popa3d.socket")
                self.assert_nothing_left(host)

    def test_popa3d_socket_takes_over_from_an_xinetd_that_reads_the_line(self):
        if case.RELEASE == "trixie":
            self.skipTest("xinetd of Debian 13 does not read inetd.conf")
        with self.inetd_host("xinetd") as host:
            host.run("rm", "/etc/xinetd.d/pop3")
            host.write("/etc/inetd.conf", f"{LINE_WITHOUT_TCPD}\n")
            self.restart(host, "xinetd")
            with watched(host):
                host.install(case.DEB)
            self.assert_taken_over(host, "popa3d.socket")
            self.assert_nothing_left(host)

    def test_a_daemon_that_runs_on_beside_inetd_makes_room(self):
        with self.inetd_host() as host:
            # As its own reconfiguration leaves it until the next boot.
            host.shell("update-inetd --disable pop3; popa3d -D >/dev/null 2>&1; "
                       "update-inetd --enable pop3")
            host.install(case.DEB)
            self.assert_taken_over(host, "popa3d.socket")
            self.assert_nothing_left(host)

    def test_a_service_of_xinetds_own_runs_the_new_program(self):
        with self.inetd_host("xinetd") as host:
            installed = host.install(case.DEB)
            self._assert_inetd_runs_it(host)
            self.assertIn("(xinetd, a unit of your own) runs the new program", installed.errors + installed.output)

    def test_a_line_that_was_off_is_followed_by_nothing(self):
        for how, after in (
            ("update-inetd --disable pop3", ""),
            ("sed -i 's/^pop3/#&/' /etc/inetd.conf; systemctl reload-or-restart inetd", "#pop3"),
        ):
            with self.subTest(how), self.inetd_host() as host:
                host.shell(how)
                host.install(case.DEB)
                self.assertEqual((self.enabled(host), self.active(host)), ([], []))
                self.assertEqual([line.split()[0] for line in self._lines(host)], after.split())

    def test_without_an_inetd_nothing_was_served_and_nothing_is(self):
        with self.inetd_host() as host:
            host.shell("systemctl disable --now inetd.service")
            host.install(case.DEB)
            self.assertEqual((self.enabled(host), self.active(host)), ([], []))
            self.assert_nothing_left(host)

    def test_a_line_that_says_more_stays_and_inetd_runs_the_new_program(self):
        with self.inetd_host() as host:
            host.shell("sed -i 's/nowait/nowait.200/' /etc/inetd.conf; systemctl reload-or-restart inetd")
            (line,) = self._lines(host)
            with watched(host):
                host.install(case.DEB)
            self.assertEqual(self._lines(host), [line])
            self._assert_inetd_runs_it(host)

    def test_rules_of_tcpd_hold_on(self):
        with self.inetd_host() as host:
            host.write("/etc/hosts.deny", "popa3d: ALL EXCEPT 127.0.0.1\n")
            host.install(case.DEB)
            self.assertEqual([line.split() for line in self._lines(host)], [LINE.split()])
            self._assert_inetd_runs_it(host)
            self._assert_refused_by_tcpd(host)

            with self.subTest("and the line goes off with the package, and goes"):
                host.run("apt-get", "remove", "-y", "popa3d")
                self.assertTrue(self._lines(host)[0].startswith("#<off>#"))
                self.until(lambda: not self.listens(host), "the end of listening")
                host.run("apt-get", "purge", "-y", "popa3d")
                self.assertEqual(self._lines(host), [])

    def test_rules_of_tcpd_are_known_by_whatever_names_popa3d_there(self):
        for rule in ("all: all EXCEPT 127.0.0.1", "POP*: ALL EXCEPT 127.0.0.1"):
            with self.subTest(rule), self.inetd_host() as host:
                host.write("/etc/hosts.deny", f"{rule}\n")
                host.install(case.DEB)
                self._assert_inetd_runs_it(host)
                self._assert_refused_by_tcpd(host)

    def test_a_mask_of_the_daemon_does_not_keep_what_inetd_served_from_going_on(self):
        with self.inetd_host() as host:
            host.run("systemctl", "mask", "--now", "popa3d.service")
            host.install(case.DEB)
            self.assert_taken_over(host, "popa3d.socket")
            self.assert_nothing_left(host)

    def _assert_refused_by_tcpd(self, host):
        with host.connect(110, source="127.0.0.9", timeout=60) as refused:
            try:
                self.assertEqual(refused.recv(1000), b"")
            except ConnectionResetError:
                pass

    def _assert_inetd_runs_it(self, host):
        self.assertEqual((self.enabled(host), self.active(host)), ([], []))
        self.until(lambda: self.listens(host), "inetd to listen")
        self.assertNotEqual(self.greeting(host), OLD_GREETING)
        self.assertEqual(self.unique_ids(host)[:4], self.unique_ids_of_1[:4])

    def _lines(self, host):
        return [line for line in host.read("/etc/inetd.conf").decode().splitlines() if "popa3d" in line]


class NotServing(UpgradeCase):
    def test_what_was_removed_and_not_purged_is_cleared_away_and_nothing_enabled(self):
        with self.standalone_host() as host:
            host.run("apt-get", "remove", "-y", "popa3d")
            host.install(case.DEB)
            self.assertEqual((self.enabled(host), self.active(host)), ([], []))
            self.assert_nothing_left(host)
            host.run("systemctl", "enable", "--now", "popa3d.socket")
            self.assert_taken_over(host, "popa3d.socket")

    def test_a_unit_of_the_admins_own_is_left_to_him(self):
        with self.standalone_host() as host:
            host.run("systemctl", "mask", "popa3d.service")
            self.assertTrue(os.path.islink(host.path("/etc/systemd/system/popa3d.service")))
            host.install(case.DEB)
            self.assertEqual(self.enabled(host), [])
            self.assertEqual(host.run("systemctl", "is-enabled", "popa3d.service", check=False).output, "masked\n")
            self.assert_nothing_left(host)


class Back(UpgradeCase):
    """Down to 1.0.3, and up again."""

    def test_1_serves_whole_mailboxes_and_nothing_of_2_runs_on(self):
        with self.standalone_host() as host, tempfile.TemporaryDirectory() as directory:
            host.install(case.DEB)
            host.shell("systemctl disable --now popa3d.service; systemctl enable --now popa3d.socket")
            kept = self._interrupted(host, "alice")
            mail = messages(2)
            host.user("bob", PASSWORD)
            host.deliver("bob", mbox(mail))
            session = self.session(host, "bob")
            session.ok("DELE 1")

            # As README says.
            host.run("systemctl", "disable", "--now", "popa3d.service", "popa3d.socket", "popa3ds.socket")
            shutil.copy(package_of_1(directory), host.path("/tmp/1.deb"))
            self._downgrade(host)
            self.assertRegex(host.run("dpkg-query", "-W", "-f", "${Status} ${Version}", "popa3d").output,
                             "^install ok installed 1.0.3")
            self.assertRegex(session.line(), rb"^-ERR \[SYS/TEMP\] ")
            self.assertEqual(host.mailbox("bob").read_bytes(), mbox(mail))
            self.assertEqual(host.mailbox("alice").read_bytes(), mbox(kept))
            self.assertEqual(self.greeting(host), OLD_GREETING)
            self.unique_ids_of_1 = self.unique_ids(host)
            left = host.shell("find /etc/systemd -name '*popa3d*'; systemctl list-units --plain --no-legend --all "
                              "'popa3d-*' 'popa3d@*' '*popa3d*.socket'").output
            self.assertEqual(left, "")
            self.assertEqual(host.run("systemctl", "--failed", "--no-legend").output.strip(), "")

            host.install(case.DEB)
            self.assert_taken_over(host, "popa3d.service")
            self.assert_nothing_left(host)
            self.assertEqual(host.run("systemctl", "is-active", "popa3d-expire.timer").output, "active\n")
            self.assertEqual(host.run("systemctl", "is-enabled", "popa3d-expire.timer", "popa3d-recover.service").output,
                             "enabled\n" * 2)

    def test_where_1_cannot_be_unpacked_2_serves_on(self):
        with self.standalone_host() as host, tempfile.TemporaryDirectory() as directory:
            host.install(case.DEB)
            shutil.copy(package_of_1(directory), host.path("/tmp/1.deb"))
            in_the_way(host, "/etc/init.d/popa3d")
            with self.assertRaises(AssertionError):
                self._downgrade(host)
            self.assert_taken_over(host, "popa3d.service")
            self.assertEqual(host.run("systemctl", "is-active", "popa3d-expire.timer").output, "active\n")
            self.assertEqual(host.run("systemctl", "is-enabled", "popa3d-expire.timer", "popa3d-recover.service").output,
                             "enabled\n" * 2)

    def _downgrade(self, host):
        host.run("apt-get", "install", "-y", "-q", "--no-install-recommends", "--allow-downgrades", "/tmp/1.deb",
                 environment=("DEBIAN_FRONTEND=noninteractive",))

    def _interrupted(self, host, user):
        """The messages that USER has once his UPDATE, which was killed half-way, is finished."""
        mail = messages(COUNT, BODY)
        record = host.path(f"{RECORDS}/{user}")
        moments = random.Random(5)
        for _ in range(50):
            host.mailbox(user).write_bytes(mbox(mail))
            session = self.session(host, user)
            session.ok("DELE 1")
            session.send(b"QUIT\r\n")
            time.sleep(moments.uniform(0.02, 0.2))
            host.run("systemctl", "kill", "--signal=KILL", "popa3d@*", check=False)
            session.close()
            self.until(lambda: not host.run("pidof", "popa3d", check=False).output, "the end of the session")
            if record.exists() and host.mailbox(user).read_bytes() not in (mbox(mail), mbox(mail[1:])):
                return mail[1:]
            host.run("popa3d", "--recover")
        return self.fail("no kill came at the right time")
