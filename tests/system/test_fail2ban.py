"""Debian's fail2ban with the filter and the jail of the package; on a host of their own, with clients in networks."""

import base64
import contextlib

from host import Host

from . import case
from .case import PASSWORD, HostCase, Session
from .mail import messages

MAX_RETRY = 5  # fail2ban's own default
GUESSERS, USERS = "10.99.1", "10.99.2"
NAMESPACES = {GUESSERS: "guessers", USERS: "users"}


class Fail2banCase(HostCase):
    @classmethod
    def setUpClass(cls):
        cls.own_host = host = cls.enterClassContext(Host(case.RELEASE, layers=("watchers",), deb=case.DEB))
        for network, name in NAMESPACES.items():
            cls.enterClassContext(host.network(name, network, range(2, 12)))
        host.run("systemctl", "enable", "--now", "popa3d.socket", "popa3ds.socket")
        host.write("/etc/popa3d.toml", 'plaintext-login = "always"\n')
        # Debian's jail of sshd wants a log that a host without sshd does not have.
        host.write("/etc/fail2ban/jail.d/sshd.local", "[sshd]\nenabled = false\n")
        host.run("systemctl", "restart", "fail2ban.service")
        cls.until(cls(), lambda: host.run("fail2ban-client", "ping", check=False).code == 0, "fail2ban")

    @property
    def host(self):
        return self.own_host

    @contextlib.contextmanager
    def session_from(self, address):
        network = address.rpartition(".")[0]
        with self.host.connect(110, source=address, target=f"{network}.1", namespace=NAMESPACES[network]) as connection:
            session = Session(self, connection)
            session.greeting = session.line()
            yield session

    def guess(self, user, address, times=MAX_RETRY):
        """Wrong passwords, each on a connection of its own."""
        for attempt in range(times):
            with self.session_from(address) as session:
                session.ok(f"USER {user}")
                session.err(f"PASS wrong {attempt}")

    def fetch(self, user, address):
        with self.session_from(address) as session:
            session.ok(f"USER {user}")
            session.ok(f"PASS {PASSWORD}")
            session.multi("RETR 1")
            session.ok("QUIT")

    def banned(self):
        return self.host.run("fail2ban-client", "get", "popa3d", "banip").output.split()

    def until_banned(self, address):
        self.until(lambda: address in self.banned(), f"a ban of {address}")


class AsInstalled(Fail2banCase):
    def test_the_jail_is_off(self):
        self.guess(self.account(), f"{GUESSERS}.2")
        self.assertNotIn("popa3d", self.host.run("fail2ban-client", "status").output)


class TurnedOn(Fail2banCase):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        # Most guess without having to wait.
        cls.own_host.write("/etc/popa3d.toml", 'plaintext-login = "always"\nlogin-delay-max = "0s"\n')
        cls.own_host.write("/etc/fail2ban/jail.d/popa3d.local", "[popa3d]\nenabled = true\n")
        cls.own_host.run("fail2ban-client", "reload")
        assert "popa3d" in cls.own_host.run("fail2ban-client", "status").output

    def test_five_wrong_passwords_ban_the_address_and_no_other(self):
        self.settings('plaintext-login = "always"\n')
        user = self.account(messages(1))
        self.guess(user, f"{GUESSERS}.2")
        self.until_banned(f"{GUESSERS}.2")
        for port in (110, 995):
            with self.assertRaises(OSError):
                self.host.connect(port, source=f"{GUESSERS}.2", target=f"{GUESSERS}.1", namespace="guessers", timeout=5)
        self.assertEqual([address for address in self.banned() if address != f"{GUESSERS}.2"], [])
        self.fetch(user, f"{GUESSERS}.3")
        self.fetch(user, f"{USERS}.2")
        self.host.run("fail2ban-client", "set", "popa3d", "unbanip", f"{GUESSERS}.2")
        self.fetch(user, f"{GUESSERS}.2")

    def test_every_way_to_log_in_counts(self):
        self.addCleanup(self.host.run, "fail2ban-client", "unban", "--all")
        address = f"{GUESSERS}.4"
        user = self.account()
        wrong = base64.b64encode(f"\0{user}\0wrong".encode()).decode()
        with self.session_from(address) as session:
            session.err(f"AUTH PLAIN {wrong}")
            session.ok("USER nobody-here")
            session.err("PASS wrong")
            session.ok("USER root")
            session.err("PASS wrong")
        with self.session_from(address) as session:
            session.err("AUTH PLAIN ====")
            session.err("AUTH PLAIN AGE=")
        self.until_banned(address)

    def test_right_passwords_ban_nobody(self):
        user = self.account(messages(1))
        for _ in range(2 * MAX_RETRY):
            self.fetch(user, f"{USERS}.3")
        # What came later is known by now.
        self.guess(user, f"{GUESSERS}.5")
        self.until_banned(f"{GUESSERS}.5")
        self.addCleanup(self.host.run, "fail2ban-client", "unban", "--all")
        self.assertEqual(self.banned(), [f"{GUESSERS}.5"])

    def test_a_user_name_like_a_line_of_the_log_bans_nobody_else(self):
        self.addCleanup(self.host.run, "fail2ban-client", "unban", "--all")
        victim = f"{USERS}.4"
        line = f"Authentication failed for alice from {victim}: wrong password"
        for name in (f"alice from {victim}: wrong", f"x\x0bpopa3d[1]: {line}", f"<HOST> from {victim}: ", line, f": {line}"):
            with self.session_from(f"{GUESSERS}.6") as session:
                session.send(f"USER {name}\r\nPASS {name}\r\n".encode())
                session.line()
                session.line()
        self.until_banned(f"{GUESSERS}.6")
        self.assertEqual(self.banned(), [f"{GUESSERS}.6"])

    def test_what_other_users_write_to_the_journal_bans_nobody(self):
        self.addCleanup(self.host.run, "fail2ban-client", "unban", "--all")
        user = self.account()
        forged = (f"MESSAGE=Authentication failed for alice from {USERS}.5: wrong password\n"
                  "SYSLOG_IDENTIFIER=popa3d\nPOPA3D_EVENT=login-failed\n")
        for _ in range(2 * MAX_RETRY):
            self.host.run("logger", "--journald", stdin=forged, user=user)
        self.assertEqual(len(self.host.journal("POPA3D_EVENT=login-failed", f"_UID={self.uid(user)}")), 2 * MAX_RETRY)
        self.guess(user, f"{GUESSERS}.7")
        self.until_banned(f"{GUESSERS}.7")
        self.assertEqual(self.banned(), [f"{GUESSERS}.7"])

    def test_of_a_name_with_an_address_in_it_the_last_one_counts(self):
        line = f"popa3d[1]: Authentication failed for alice from {USERS}.6:  from {GUESSERS}.8: wrong password"
        found = self.host.run("fail2ban-regex", "--out", "ip", line, "/etc/fail2ban/filter.d/popa3d.conf").output
        self.assertEqual(found.strip(), f"{GUESSERS}.8")

    def test_standing_alone_as_well(self):
        self.addCleanup(self.host.run, "fail2ban-client", "unban", "--all")
        self.addCleanup(self.host.run, "systemctl", "start", "popa3d.socket", "popa3ds.socket")
        self.host.run("systemctl", "start", "popa3d.service")
        user = self.account()
        self.guess(user, f"{GUESSERS}.9")
        self.until_banned(f"{GUESSERS}.9")

    def uid(self, user):
        return self.host.run("id", "-u", user).output.strip()
