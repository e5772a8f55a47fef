"""SIGHUP: the listener becomes the program and the settings that are on disk, and nobody notices."""

import os
import pathlib
import re
import signal
import time

from .case import PASSWORD
from .mail import mbox, messages
from .standalone import UNIT, Standalone
from .tls import NAME, TlsCase, issue


class Reload(Standalone):
    def test_settings_are_for_new_sessions_and_those_that_go_on_keep_theirs(self):
        user = self.account(messages(2))
        before, logged_in = self.connect(), self.login(user)
        logged_in.ok("DELE 1")
        self.settings('plaintext-login = "never"\n')
        self.connect().err(f"USER {user}")
        before.ok(f"USER {user}")
        before.quit()
        self.assertEqual(logged_in.multi("RETR 2"), messages(2)[1].lines)
        logged_in.quit()
        self.assertEqual(self.host.mailbox(user).read_bytes(), mbox(messages(2)[1:]))

    def test_it_stays_the_same_process_and_leaves_nothing_open(self):
        process = self.listener()
        # Started afresh, it has what its first start opened.
        opened = self._opened_after_a_reload()
        for _ in range(4):
            self.reload()
        self.assertEqual(self._opened_after_a_reload(), opened)
        self.assertEqual(self.listener(), process)

    def test_counts_and_limits_go_on(self):
        user = self.account(messages(1))
        self.settings('max-sessions-per-source = 3\nsession-slot = "1h"\n')
        self.connect(source="127.0.3.1").quit()
        one, two = self.connect(source="127.0.3.1"), self.login(user, source="127.0.3.1")
        self.turned_away(b"LOGIN-DELAY", source="127.0.3.1")
        before = self.status(2, 1)
        self.reload()
        # The same number of sessions and refusals, of which one ended long ago and two go on.
        self.assertEqual(self.status(2, 1), before)
        self.turned_away(b"LOGIN-DELAY", source="127.0.3.1")
        two.quit()
        self.status(1, 1)
        one.ok(f"USER {user}")
        one.ok(f"PASS {PASSWORD}")
        self.status(1, 0)
        one.quit()
        self.status(0, 0)

    def test_refusals_that_were_not_logged_are_told_before(self):
        self.settings("max-sessions-per-source = 1\n")
        session = self.connect(source="127.0.3.2")
        before = len(self.messages(POPA3D_EVENT="connection-refused"))
        for _ in range(3):
            self.turned_away(b"SYS/TEMP", source="127.0.3.2")
        self.reload()
        self.turned_away(b"SYS/TEMP", source="127.0.3.2")
        self.assertEqual(self.messages(POPA3D_EVENT="connection-refused")[before:],
                         ["127.0.3.2: per source limit reached", "2 more refusals were not logged",
                          "127.0.3.2: per source limit reached"])
        session.quit()

    def test_stop_after_a_reload_ends_the_sessions_from_before(self):
        self.addCleanup(self.host.run, "systemctl", "start", UNIT)
        session = self.connect()
        self.reload()
        self.host.run("systemctl", "stop", UNIT)
        self.assertRegex(session.line(), rb"^-ERR \[SYS/TEMP\] ")
        self.assertEqual(self.show("Result"), "success")

    def test_a_session_that_has_closed_its_channel_is_not_forgotten(self):
        session = self.connect()
        (monitor,) = self.monitors()
        # Frozen, it has neither ended nor anything to say.
        os.kill(monitor, signal.SIGSTOP)
        self.reload()
        self.status(1, 1)
        os.kill(monitor, signal.SIGKILL)
        self.status(0, 0)
        session.close()

    def _opened_after_a_reload(self):
        """What the listener has open when it is idle again: kinds, and how many of each."""
        self.reload()
        self.connect().quit()
        self.until_idle()
        self.status(0, 0)
        links = [os.readlink(entry) for entry in pathlib.Path(f"/proc/{self.listener()}/fd").iterdir()]
        return sorted(re.sub(r"\d+", "", link) for link in links)


class Refused(Standalone):
    """What cannot be is refused, and all stays as it is."""

    def setUp(self):
        self.settings('max-sessions-per-source = 1\nsession-slot = "0s"\n')
        self.session = self.connect(source="127.0.3.3")

    def test_a_bad_file_by_systemctl(self):
        self.configure("/etc/popa3d.toml", "# fine\nmax-sessions-per-source = 0\n")
        reloaded = self.host.run("systemctl", "reload", UNIT, check=False)
        self.assertNotEqual(reloaded.code, 0)
        self.assertIn("Job for popa3d.service failed", reloaded.errors)
        self.host.run("journalctl", "--sync")
        self.assertIn("/etc/popa3d.toml:2: ", self.host.run("systemctl", "status", UNIT).output)
        self._assert_as_before()

    def test_a_bad_file_by_a_signal(self):
        self.configure("/etc/popa3d.toml", "# fine\nmax-sessions-per-source = 0\n")
        before = len(self.messages(POPA3D_EVENT="settings-refused"))
        self.host.run("systemctl", "kill", "--kill-who=main", "--signal=HUP", UNIT)
        said = self.until(lambda: self.messages(POPA3D_EVENT="settings-refused")[before:], "the journal line")
        self.assertRegex(said[0], r"^Settings refused: /etc/popa3d\.toml:2: ")
        self._assert_as_before()

    def test_an_address_that_this_host_does_not_have(self):
        self._assert_kept('listen = ["127.0.0.1:110", "192.0.2.77:110"]\nmax-sessions-per-source = 9\n',
                          "reload: listening on 192.0.2.77:110: ")

    def test_a_port_of_another_program(self):
        self.host.run("systemd-run", "--quiet", "--collect", "--unit=other", "systemd-socket-activate", "-l", "127.0.0.1:2111", "cat")
        self.addCleanup(self.host.run, "systemctl", "stop", "other.service", check=False)
        self.until(lambda: ":083F 00000000" in self.host.run("cat", "/proc/net/tcp").output, "the port")
        self._assert_kept('listen = ["127.0.0.1:2111"]\nmax-sessions-per-source = 9\n', "reload: listening on 127.0.0.1:2111: ")

    def test_a_program_that_does_not_run(self):
        self.host.shell("cp -a /usr/sbin/popa3d /usr/sbin/popa3d.kept")
        self.addCleanup(self.host.shell, "mv /usr/sbin/popa3d.kept /usr/sbin/popa3d")
        # A new file, as dpkg makes one: the old program stays what it is.
        self.host.shell("printf '#!/bin/sh\\necho not this one >&2; exit 7\\n' >/usr/sbin/popa3d.new; "
                        "chmod 755 /usr/sbin/popa3d.new; mv /usr/sbin/popa3d.new /usr/sbin/popa3d")
        self._assert_kept("max-sessions-per-source = 9\n", "reload: /usr/sbin/popa3d --check-config: exit status: 7, not this one")

    def _assert_kept(self, settings, reason):
        self.configure("/etc/popa3d.toml", settings)
        before = len(self.messages(POPA3D_EVENT="server-failure"))
        self.host.run("systemctl", "kill", "--kill-who=main", "--signal=HUP", UNIT)
        said = self.until(lambda: self.messages(POPA3D_EVENT="server-failure")[before:], "the journal line")
        self.assertTrue(said[0].startswith(f"Server failure: {reason}"), said)
        self._assert_as_before()

    def _assert_as_before(self):
        for target, source in (("127.0.0.1", "127.0.3.4"), ("::1", None)):
            self.connect(target=target, source=source).quit()
        self.turned_away(b"SYS/TEMP", source="127.0.3.3")
        self.session.quit()


class Addresses(Standalone):
    def test_others_are_listened_to_and_those_from_before_are_not(self):
        session = self.connect()
        self.settings('listen = ["127.0.0.1:2110"]\nlisten-tls = ["127.0.0.1:2995"]\n')
        for port in (2110, 2995):
            self.host.connect(port).close()
        for port in (110, 995):
            self.assert_refused(port)
        session.quit()

    def test_one_address_takes_the_place_of_all(self):
        self.settings('listen = ["127.0.0.1:110"]\n')
        self.connect().quit()
        self.assert_refused(110, target="::1")
        # And a restart does not bring the others back.
        self.host.run("systemctl", "restart", UNIT)
        self.connect().quit()
        self.assert_refused(110, target="::1")

    def test_a_restart_finds_other_addresses_as_well(self):
        self.configure("/etc/popa3d.toml", 'listen = ["127.0.0.1:110", "127.0.0.2:2110"]\nlisten-tls = []\n')
        self.addCleanup(self.host.run, "systemctl", "restart", UNIT)
        self.host.run("systemctl", "restart", UNIT)
        self.connect().quit()
        self.arrive(2110, target="127.0.0.2")
        self.assert_refused(110, target="::1")
        self.assert_refused(995)


    def test_a_port_for_tls_of_another_program_costs_no_other_and_is_had_when_that_is_gone(self):
        self.host.run("systemctl", "stop", UNIT)
        self.addCleanup(self.host.run, "systemctl", "start", UNIT)
        self.assert_refused(995)
        self.host.run("systemd-run", "--quiet", "--collect", "--unit=other", "systemd-socket-activate", "-l", "995", "cat")
        self.addCleanup(self.host.run, "systemctl", "stop", "other.service", check=False)
        self.until(lambda: re.search(":03E3 0{32}:", self.host.run("cat", "/proc/net/tcp6").output), "the port")
        self.host.run("systemctl", "start", UNIT)
        for _ in range(2):
            self.connect().quit()
            self.assertEqual(len(self.messages(POPA3D_EVENT="listening")), 1)
            self.assert_said("Not listening on [::]:995, another program has it: ", POPA3D_EVENT="not-listening")
            self.began = time.time()
            self.reload()
        doctor = self.host.run("popa3d", "--check-config", check=False).output
        self.assertRegex(doctor, r"(?m)^warning: popa3d\.service runs without port 995; port 995 is held by systemd-socket- "
                                 r"\(process \d+, other\.service\); to leave the port to it, have /etc/popa3d\.toml say ")
        self.host.run("systemctl", "stop", "other.service")
        self.reload()
        self.host.run("curl", "-sSk", "-u", f"{self.account()}:{PASSWORD}", "pop3s://localhost/")
        self.assertNotIn("without port 995", self.host.run("popa3d", "--check-config", check=False).output)


class Certificates(Standalone, TlsCase):
    def test_those_by_path_are_read_for_each_session(self):
        pair, new = issue(NAME), issue(NAME)
        self.serve(pair)
        self._assert_shown(pair)
        self.host.shell(f"cp {new.chain} {pair.chain}; cp {new.key} {pair.key}")
        self._assert_shown(new)

    def test_those_of_the_unit_are_read_when_it_starts(self):
        pair, new = issue(NAME), issue(NAME)
        der = pair.der
        self.drop_in(f"LoadCredential=popa3d.crt:{pair.chain}\nLoadCredential=popa3d.key:{pair.key}")
        self._assert_shown(pair)
        self.host.shell(f"cp {new.chain} {pair.chain}; cp {new.key} {pair.key}")
        session = self.connect_tls()
        self.assertEqual(session.connection.getpeercert(binary_form=True), der)
        session.quit()
        self.host.run("systemctl", "restart", UNIT)
        self._assert_shown(new)

    def test_check_config_looks_at_those_of_the_unit_that_is_in_use(self):
        pair = issue(NAME)
        self.drop_in(f"LoadCredential=popa3d.crt:{pair.chain}\nLoadCredential=popa3d.key:{pair.key}")
        self.assertIn(f"{pair.chain}: certificate usable", self.host.run("popa3d", "--check-config").output)
        self.host.run("systemctl", "stop", UNIT)
        self.assertIn("ssl-cert-snakeoil.pem: certificate usable", self.host.run("popa3d", "--check-config", check=False).output)

    def test_one_that_cannot_be_used_does_not_stop_a_reload(self):
        self.settings('certificates = [{ chain = "/nonexistent.crt", key = "/nonexistent.key" }]\nmax-sessions-per-source = 1\n')
        session = self.connect(source="127.0.3.5")
        self.turned_away(b"SYS/TEMP", source="127.0.3.5")
        session.quit()

    def _assert_shown(self, pair):
        session = self.connect_tls()
        self.assertEqual(session.connection.getpeercert(binary_form=True), pair.der)
        session.quit()
