"""What an admin meets: the package, the units, the command line, other super-servers."""

import re

from host import Host

from . import case, test_pam
from .case import PASSWORD, HostCase
from .mail import mbox, messages

SOCKETS = ("popa3d.socket", "popa3ds.socket")
UNITS = (*SOCKETS, "popa3d@1.service", "popa3ds@1.service", "popa3d.service", "popa3d-recover.service",
         "popa3d-expire.service", "popa3d-expire.timer")


class FreshHost(HostCase):
    """The life of the package on a host of its own, from first to last; the steps are one test, as
    each needs the one before."""

    def test_install_enable_fetch_reinstall_upgrade_remove_purge(self):
        with Host(case.RELEASE, layers=("clients",)) as host:
            with self.subTest("apt install enables nothing and starts nothing"):
                host.install(case.DEB)
                self.assertEqual(host.run("systemctl", "is-enabled", *SOCKETS, check=False).output, "disabled\n" * 2)
                self._assert_nothing_listens(host)
                self.assertEqual(host.run("systemctl", "--failed", "--no-legend").output.strip(), "")

            with self.subTest("what was installed is as it should be"):
                self.assertEqual(host.run("dpkg", "--verify", "popa3d").output, "")
                modes = host.run("stat", "-c", "%a %U:%G %n", "/usr/sbin/popa3d", "/usr/lib/popa3d/empty",
                                 "/var/lib/popa3d", "/run/popa3d").output
                self.assertEqual(modes, "755 root:root /usr/sbin/popa3d\n555 root:root /usr/lib/popa3d/empty\n"
                                 "700 root:root /var/lib/popa3d\n700 root:root /run/popa3d\n")
                self.assertRegex(host.run("getent", "passwd", "popa3d").output,
                                 r"^popa3d:[^:]*:\d{3}:\d{3}:[^:]*:/usr/lib/popa3d/empty:/usr/sbin/nologin$")
                self.assertRegex(host.run("popa3d", "--version").output, r"^popa3d 2\.0\.0\b")
                host.run("popa3d", "--check-config")

            with self.subTest("two commands, and mail comes"):
                host.run("systemctl", "enable", "--now", *SOCKETS)
                host.user("alice", PASSWORD)
                host.deliver("alice", mbox(messages(2)))
                # The certificate is the one of the package ssl-cert.
                for options in (("pop3://localhost/",), ("--ssl-reqd", "pop3://localhost/"), ("pop3s://localhost/",)):
                    listed = host.run("curl", "-sSk", "-u", f"alice:{PASSWORD}", *options).output
                    self.assertEqual(len(listed.splitlines()), 2, options)
                host.run("journalctl", "--sync")
                journal = host.run("journalctl", "-u", "popa3d@*", "--no-pager").output
                self.assertEqual(journal.count("Authentication passed for alice"), 3)
                self.assertEqual(journal.count("TLSv1.3, "), 2)

            with self.subTest("an upgrade lets what listens listen and does not end sessions"):
                session = host.connect(110, timeout=60)
                self.assertTrue(session.recv(1000).startswith(b"+OK"))
                self._reinstall(host)
                session.sendall(b"QUIT\r\n")
                self.assertTrue(session.recv(1000).startswith(b"+OK"))
                session.close()
                for port in (110, 995):
                    host.connect(port).close()
                self.assertEqual(host.run("systemctl", "is-enabled", *SOCKETS).output, "enabled\n" * 2)

            with self.subTest("an upgrade enables and starts no socket that is not wanted"):
                host.run("systemctl", "disable", "--now", "popa3ds.socket")
                self._reinstall(host)
                self.assertEqual(host.run("systemctl", "is-enabled", "popa3ds.socket", check=False).output, "disabled\n")
                with self.assertRaises(ConnectionRefusedError):
                    host.connect(995)
                host.run("systemctl", "enable", "--now", "popa3ds.socket")

            with self.subTest("apt remove stops listening and keeps settings"):
                host.write("/etc/popa3d.toml", "max-messages = 5\n")
                host.run("apt-get", "remove", "-y", "popa3d")
                self._assert_nothing_listens(host)
                self.assertEqual(host.read("/etc/popa3d.toml"), b"max-messages = 5\n")

            with self.subTest("apt purge leaves nothing but the user"):
                host.run("apt-get", "purge", "-y", "popa3d")
                left = host.run("find", "/", "-xdev", "-name", "*popa3d*", "-not", "-path", "/tmp/*").output
                self.assertEqual(left, "")
                self.assertNotIn("abled", host.run("systemctl", "is-enabled", *SOCKETS, check=False).output)
                self.assertEqual(host.mailbox("alice").read_bytes(), mbox(messages(2)))

    def _reinstall(self, host):
        host.run("apt-get", "install", "-y", "--reinstall", f"/tmp/{case.DEB.rsplit('/', 1)[-1]}",
                 environment=("DEBIAN_FRONTEND=noninteractive",))

    def _assert_nothing_listens(self, host):
        # A socket whose unit is gone but was not stopped stays active, and listens or not.
        self.assertEqual(host.run("systemctl", "is-active", *SOCKETS, check=False).output, "inactive\n" * 2)
        for port in (110, 995):
            with self.assertRaises(ConnectionRefusedError):
                host.connect(port)


class Spool(HostCase):
    UNIT = "popa3d.socket"

    def test_one_that_is_not_mounted_yet_is_not_taken_for_one_without_mail(self):
        user = self.account(messages(2))
        unit = "/run/systemd/system/var-mail.mount"
        self.addCleanup(self.host.shell, f"systemctl stop var-mail.mount; rm -rf {unit} /srv/spool; systemctl daemon-reload; "
                        f"systemctl restart {self.UNIT}")
        self.host.shell(f"systemctl stop {self.UNIT}; cp -a /var/mail /srv/spool; rm /var/mail/{user}")
        self.host.write(unit, "[Mount]\nWhat=/srv/spool\nWhere=/var/mail\nType=none\nOptions=bind\n")
        # What starts together with it has mounted the spool, too.
        self.host.shell(f"systemctl daemon-reload; systemctl start {self.UNIT}; systemctl stop var-mail.mount; "
                        f"systemctl --quiet is-active {self.UNIT} || systemctl start {self.UNIT}")
        session = self.login(user)
        self.assertRegex(session.ok("STAT"), rb"^\+OK 2 ")
        session.ok("DELE 1")
        session.quit()
        self.assertEqual(self.host.read(f"/srv/spool/{user}"), mbox(messages(2)[1:]))
        self.until_idle()


class Units(HostCase):
    def test_systemd_analyze_verify_is_silent(self):
        for unit in UNITS:
            self._verify(unit)

    def _verify(self, unit):
        verified = self.host.run("systemd-analyze", "verify", unit)
        said = (verified.output + verified.errors).splitlines()
        if self.host.release == "bookworm":
            # What newer ones have to know, and older ones do not.
            said = [line for line in said if "Unknown key 'PollLimitIntervalSec'" not in line]
        self.assertEqual(said, [])

    def test_the_hardened_drop_in_is_valid_and_a_session_works_with_it(self):
        directory = "/etc/systemd/system/popa3d@.service.d"
        self.addCleanup(self.host.shell, f"rm -r {directory}; systemctl daemon-reload")
        self.host.shell(f"mkdir -p {directory}; cp /usr/share/doc/popa3d/examples/hardened.conf {directory}; "
                        "systemctl daemon-reload")
        for unit in UNITS:
            self._verify(unit)
        mail = messages(3)
        user = self.account(mail)
        self.configure("/etc/security/limits.conf", f"{user} hard nofile 900\n{user} soft nofile 700\n")
        self.pam(test_pam.STANDARD + "session required pam_limits.so\n")
        session = self.connect()
        session.ok(f"USER {user}")
        session.err("PASS wrong", b"AUTH")
        session.ok(f"USER {user}")
        session.ok(f"PASS {PASSWORD}")
        session.multi("RETR 2")
        session.ok("DELE 2")
        session.quit()
        self.until_idle()
        self.assertEqual(self.host.mailbox(user).read_bytes(), mbox([mail[0], mail[2]]))
        self.assertNotIn("audit", " ".join(self.messages(POPA3D_USER=user)).lower())

    def test_status_shows_user_client_and_state(self):
        user = self.account(messages(3))
        session = self.connect(source="127.0.0.9")
        self.until(lambda: "127.0.0.9" in self._status(), "the client's address in the status")
        session.ok(f"USER {user}")
        session.ok(f"PASS {PASSWORD}")
        self.until(lambda: re.search(rf"{user}.*127\.0\.0\.9.*3 message", self._status()), "user and messages in the status")
        session.quit()
        self.until_idle()

    def test_a_session_that_failed_does_not_stay_in_the_list_of_failed_units(self):
        session = self.connect()
        self.host.shell("systemctl kill --signal=KILL 'popa3d@*.service'")
        session.close()
        self.until_idle()
        self.until(lambda: not self.host.run("systemctl", "list-units", "--all", "--no-legend", "popa3d@*").output,
                   "the unit to be collected")
        self.assertEqual(self.host.run("systemctl", "--failed", "--no-legend").output.strip(), "")

    def _status(self):
        return self.host.run("systemctl", "show", "popa3d@*", "-p", "StatusText").output


class CommandLine(HostCase):
    def test_without_a_connection_it_says_in_one_sentence_what_it_is(self):
        started = self.host.run("popa3d", check=False)
        self.assertNotEqual(started.code, 0)
        self.assertEqual(started.output, "")
        self.assertEqual(len(started.errors.splitlines()), 1, started.errors)
        self.assertIn("POP3", started.errors)
        self.assertIn("systemctl enable --now popa3d.socket", started.errors)

    def test_on_a_terminal_it_says_so_as_well(self):
        started = self.host.run("script", "-qec", "popa3d", "/dev/null", check=False)
        self.assertNotEqual(started.code, 0)
        self.assertIn("POP3", started.output)

    def test_help_and_an_unknown_option(self):
        helped = self.host.run("popa3d", "--help")
        for option in ("--check-config", "--config", "--version"):
            self.assertIn(option, helped.output)
        unknown = self.host.run("popa3d", "--frobnicate", check=False)
        self.assertNotEqual(unknown.code, 0)
        self.assertIn("--frobnicate", unknown.errors)

    def test_check_config_names_file_line_and_key(self):
        for content, line, reason in (
            ('# fine\nmailbocks = "/var/mail/{user}"\n', 2, "mailbocks"),
            ("\n\nlogin-attempts = 0\n", 3, "login-attempts|1 to 100"),
            ('idle-timeout = "soon"\n', 1, "idle-timeout|soon"),
            ('mailbox = "/var/mail/{usr}"\n', 1, "{user}"),
            ("dotlock = 3\n", 1, "boolean"),
            ("max-messages = \n", 1, "max-messages|value"),
        ):
            with self.subTest(content=content):
                self.host.write("/tmp/wrong.toml", content)
                checked = self.host.run("popa3d", "--check-config", "--config", "/tmp/wrong.toml", check=False)
                self.assertNotEqual(checked.code, 0)
                self.assertIn(f"error: /tmp/wrong.toml:{line}", checked.output)
                self.assertRegex(checked.output, reason)

    def test_check_config_takes_every_setting_of_the_shipped_file(self):
        shipped = self.host.read("/etc/popa3d.toml").decode()
        self.host.write("/tmp/all.toml", re.sub(r"(?m)^#(?=[a-z-]+ = )", "", shipped))
        self.assertGreaterEqual(len(re.findall(r"(?m)^[a-z-]+ = ", self.host.read("/tmp/all.toml").decode())), 11)
        checked = self.host.run("popa3d", "--check-config", "--config", "/tmp/all.toml", check=False)
        self.assertIn("/tmp/all.toml: usable", checked.output)
        # The certificates of the examples are not there.
        errors = [line for line in checked.output.splitlines() if line.startswith("error: ")]
        self.assertEqual((len(errors), checked.code), (2, 2), checked)

    def test_with_wrong_settings_nobody_is_served_and_the_journal_says_why(self):
        self.settings("# first line\nmailbocks = 1\n")
        connection = self.host.connect(110, timeout=60)
        self.addCleanup(connection.close)
        self.assertFalse(connection.recv(1000).startswith(b"+OK"))
        self.until(lambda: any("/etc/popa3d.toml:2" in line for line in self.messages()), "the journal line")


class OtherSuperServers(HostCase):
    def _serve(self, port, *options):
        self.host.run("systemd-run", "--quiet", f"--unit=other{port}", "-p", "StandardError=journal",
                      "systemd-socket-activate", "-l", f"127.0.0.1:{port}", "-a", *options, "/usr/sbin/popa3d")
        self.addCleanup(self.host.run, "systemctl", "stop", f"other{port}.service", check=False)
        self.until(lambda: f":{port:04X} " in self.host.run("cat", "/proc/net/tcp").output, "the port")

    def _assert_serves(self, port):
        mail = messages(2)
        user = self.account(mail)
        with self.host.connect(port, source="127.0.0.8", timeout=60) as connection:
            session = case.Session(self, connection)
            self.assertRegex(session.line(), rb"^\+OK")
            session.ok(f"USER {user}")
            session.ok(f"PASS {PASSWORD}")
            self.assertEqual(session.multi("RETR 1"), mail[0].lines)
            session.ok("DELE 1")
            session.quit()
        self.assertEqual(self.host.mailbox(user).read_bytes(), mbox(mail[1:]))
        self.assertIn("127.0.0.8", [entry.get("POPA3D_CLIENT") for entry in self.journal(POPA3D_USER=user)])

    def test_inetd_style_standard_input_is_the_connection(self):
        self._serve(1101, "--inetd")
        self._assert_serves(1101)

    def test_descriptor_3_without_our_unit(self):
        self._serve(1102)
        self._assert_serves(1102)
