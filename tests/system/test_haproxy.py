"""Debian's HAProxy in front of two instances, which serve the same mailboxes; on a host of their own."""

import collections
import concurrent.futures
import itertools
import pathlib
import random
import re
import socket
import ssl

from host import Host

from . import case
from .case import PASSWORD, HostCase, Session
from .mail import mbox, messages
from .tls import rest_of

README = pathlib.Path(__file__).resolve().parents[2] / "README.md"

BALANCER = "127.0.2.1"
INSTANCES = {"popa3d": "127.0.1.1", "popa3d-b": "127.0.1.2"}  # by the name of their service

# What the balancer does at each of its ports: lines of its section, and how it talks to its servers.
PORTS = {
    110: ("option tcp-check\ntcp-check expect string +OK", "{}:110 check inter 500ms send-proxy-v2 proxy-v2-options crc32c"),
    995: ("", "{}:995 send-proxy-v2"),
    1110: ("", "{}:110 send-proxy"),
    1995: ("ssl crt /etc/haproxy/test.pem", "{}:110 send-proxy-v2-ssl proxy-v2-options ssl-cipher,authority,crc32c"),
    2110: ("", "{}:110"),
    # Checks that say LOCAL, and checks that say nothing.
    3110: ("", "{}:110 check inter 200ms send-proxy-v2"),
    4110: ("", "{}:110 check inter 200ms"),
}

CONTROL = "/run/haproxy/control"

_clients = itertools.count(1)


def configuration(ports):
    text = (f"global\nmaxconn 1000\nstats socket {CONTROL} mode 600\n\ndefaults\nmode tcp\nbalance roundrobin\ntimeout connect 5s\ntimeout client 11m\n"
            f"timeout server 11m\ndefault-server source {BALANCER}\n")
    for port in ports:
        lines, server = PORTS[port]
        bind, lines = (lines, "") if lines.startswith("ssl") else ("", lines)
        servers = "".join(f"server {name} {server.format(address)}\n" for name, address in INSTANCES.items())
        text += f"\nlisten port{port}\nbind {BALANCER}:{port} {bind}\n{lines}\n{servers}"
    return text


class HaproxyCase(HostCase):
    @classmethod
    def setUpClass(cls):
        cls.own_host = host = cls.enterClassContext(Host(case.RELEASE, layers=("haproxy",), deb=case.DEB))
        own = "/etc/systemd/system"
        # The second instance is a copy of the units.
        for unit, copy in (("popa3d.socket", "popa3d-b.socket"), ("popa3ds.socket", "popa3ds-b.socket"),
                           ("popa3d@1.service", "popa3d-b@.service")):
            host.run("cp", host.run("systemctl", "show", "-P", "FragmentPath", unit).output.strip(), f"{own}/{copy}")
        host.run("ln", "-s", "popa3d-b@.service", f"{own}/popa3ds-b@.service")
        for name, address in INSTANCES.items():
            for unit, port in cls.sockets(name):
                host.run("mkdir", f"{own}/{unit}.d")
                host.write(f"{own}/{unit}.d/address.conf", f"[Socket]\nListenStream=\nListenStream={address}:{port}\n"
                           "MaxConnectionsPerSource=500\n")
        host.run("systemctl", "daemon-reload")
        for name in INSTANCES:
            host.run("systemctl", "start", *(unit for unit, _ in cls.sockets(name)))
        host.shell("cd /etc/ssl; cat certs/ssl-cert-snakeoil.pem private/ssl-cert-snakeoil.key >/etc/haproxy/test.pem")

    @staticmethod
    def sockets(name):
        """The socket units of an instance, and their ports."""
        return (f"{name}.socket", 110), (f"{name.replace('popa3d', 'popa3ds')}.socket", 995)

    @property
    def host(self):
        return self.own_host

    def setUp(self):
        self.balance(110, 995, 1110, 1995, 2110)
        self.listed()

    def listed(self, more=""):
        self.settings(f'proxies = ["{BALANCER}"]\n{more}')

    def balance(self, *ports):
        """Has HAProxy serve these ports for the length of this test."""
        self.host.write("/etc/haproxy/haproxy.cfg", configuration(ports))
        self.host.run("systemctl", "restart", "haproxy.service")
        self.addCleanup(self.host.run, "systemctl", "stop", "haproxy.service")

    def client(self):
        """An address that no other client of this host has."""
        number = next(_clients)
        return f"127.0.3.{number}"

    def through(self, port, client, context=None):
        """A session through the balancer, over TLS if there is a CONTEXT; its greeting has been read."""
        connection = self.host.connect(port, source=client, target=BALANCER, timeout=case.CONNECTION_TIMEOUT)
        if context:
            connection = context.wrap_socket(connection, server_hostname="mail.example.org")
        self.addCleanup(connection.close)
        session = Session(self, connection)
        session.greeting = session.line()
        self.assertRegex(session.greeting, rb"^\+OK")
        return session

    def log_in(self, session, user):
        session.ok(f"USER {user}")
        session.ok(f"PASS {PASSWORD}")

    def entries(self, client):
        """What the journal has of the only session of this client, once it is over."""
        return self.until(lambda: [entries for entries in [self.journal(POPA3D_CLIENT=client)]
                                   if "session-ended" in [entry["POPA3D_EVENT"] for entry in entries]],
                          f"the end of the session of {client}")[0]

    def assert_behind_the_balancer(self, entries):
        for entry in entries:
            self.assertEqual(entry["POPA3D_PROXY"], BALANCER)
        self.assertEqual(entries[0]["POPA3D_EVENT"], "session-started")


def instances(entries):
    """Which instances these entries come from."""
    return {entry["_SYSTEMD_UNIT"].partition("@")[0] for entry in entries}


def careless():
    """TLS with whatever certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


class Clients(HaproxyCase):
    def test_each_client_is_known_by_its_address_at_both_instances(self):
        mail = messages(2)
        user = self.account(mail)
        for port in (110, 1110):  # version 2, and version 1
            served = set()
            for _ in range(4):
                client = self.client()
                session = self.through(port, client)
                own_port = session.connection.getsockname()[1]
                self.log_in(session, user)
                self.assertEqual(session.multi("RETR 2"), mail[1].lines)
                session.quit()
                entries = self.entries(client)
                self.assert_behind_the_balancer(entries)
                self.assertEqual({entry["POPA3D_CLIENT_PORT"] for entry in entries}, {str(own_port)})
                served |= instances(entries)
            self.assertEqual(served, set(INSTANCES))

    def test_tls_of_popa3d_goes_through(self):
        user = self.account(messages(1))
        for port in (110, 995):
            client = self.client()
            if port == 995:
                session = self.through(995, client, careless())
            else:
                session = self.through(110, client)
                session.ok("STLS")
                session.connection = careless().wrap_socket(session.connection, server_hostname="mail.example.org")
            self.log_in(session, user)
            session.quit()
            entries = self.entries(client)
            self.assert_behind_the_balancer(entries)
            (started,) = [entry for entry in entries if entry["POPA3D_EVENT"] == "tls-started"]
            self.assertEqual((started["POPA3D_TLS"], started["POPA3D_TLS_SERVER_NAME"]), ("TLSv1.3", "mail.example.org"))

    def test_tls_that_ends_at_the_balancer_counts_and_is_told(self):
        self.listed('plaintext-login = "never"\n')
        user = self.account(messages(1))
        for version, name in ((ssl.TLSVersion.TLSv1_3, "TLSv1.3"), (ssl.TLSVersion.TLSv1_2, "TLSv1.2")):
            context = careless()
            context.minimum_version = context.maximum_version = version
            client = self.client()
            session = self.through(1995, client, context)
            self.assertNotIn(b"STLS", session.multi("CAPA"))
            self.log_in(session, user)
            suite = session.connection.cipher()[0]
            session.quit()
            entries = self.entries(client)
            self.assert_behind_the_balancer(entries)
            for entry in entries:
                self.assertEqual((entry["POPA3D_TLS"], entry["POPA3D_TLS_SUITE"]), (name, suite))
        # Without TLS the same balancer gets nobody in.
        session = self.through(110, self.client())
        session.err(f"USER {user}")
        session.quit()

    def test_balancer_that_sends_no_header_is_told_so(self):
        connection = self.host.connect(2110, source=self.client(), target=BALANCER, timeout=case.CONNECTION_TIMEOUT)
        self.addCleanup(connection.close)
        connection.sendall(b"USER alice\r\n")
        self.assertEqual(Session(self, connection).line(), b"-ERR PROXY header refused")
        self.assertTrue([line for line in self.messages(POPA3D_PROXY=BALANCER, POPA3D_EVENT="proxy-refused")
                         if "begins without one" in line])


class Mailboxes(HaproxyCase):
    def test_user_has_one_session_at_both_instances_together(self):
        self.listed('session-wait = "1s"\n')
        user = self.account(messages(2))
        first_client = self.client()
        first = self.through(110, first_client)
        self.log_in(first, user)
        refused = {}
        for _ in range(2):
            client = self.client()
            session = self.through(110, client)
            session.ok(f"USER {user}")
            session.err(f"PASS {PASSWORD}", b"IN-USE")
            session.quit()
            refused |= dict.fromkeys(instances(self.entries(client)), client)
        self.assertEqual(set(refused), set(INSTANCES))
        first.ok("DELE 1")
        first.quit()
        session = self.through(110, self.client())
        self.log_in(session, user)
        self.assertRegex(session.ok("STAT"), rb"^\+OK 1 ")
        session.quit()

    def test_every_message_is_fetched_and_deleted_once_however_sessions_are_spread(self):
        users = {self.account(mail, method="SHA512"): mail for mail in [messages(90, b"x" * 500 + b"\n")] * 3}
        clients = {user: [self.client() for _ in range(2)] for user in users}
        work = [(user, client) for user in users for client in clients[user]]
        fetched = collections.defaultdict(list)
        with concurrent.futures.ThreadPoolExecutor(len(work)) as pool:
            for (user, _), numbers in zip(work, pool.map(lambda each: self._fetch(*each), work)):
                fetched[user] += numbers
        self.until_idle_but_for_checks()
        served = set()
        for user, mail in users.items():
            counts = collections.Counter(fetched[user])
            self.assertEqual([number for number in counts if counts[number] != 1], [], "deleted twice")
            self.assertGreater(len(counts), 40)
            left = mbox(item for number, item in enumerate(mail, 1) if number not in counts)
            self.assertEqual(self.host.mailbox(user).read_bytes(), left)
            entries = self.journal(POPA3D_USER=user)
            self.assertEqual({entry["POPA3D_CLIENT"] for entry in entries}, set(clients[user]))
            served |= instances(entries)
        self.assertEqual(served, set(INSTANCES))

    def _fetch(self, user, client):
        """Sessions of one client that fetch and delete, each some messages; the numbers that are gone then."""
        chosen, deleted = random.Random(client), []
        for _ in range(6):
            session = self.through(chosen.choice((110, 1110)), client)
            self.log_in(session, user)  # waits for the other client's session, be it where it may
            places = range(1, len(session.multi("LIST")) + 1)
            numbers = []
            for place in chosen.sample(places, min(6, len(places))):
                text = b"\n".join(session.multi(f"RETR {place}"))
                numbers.append(int(re.search(rb"(?m)^Subject: message (\d+)$", text)[1]))
                session.ok(f"DELE {place}")
            session.quit()
            deleted += numbers
        return deleted

    def until_idle_but_for_checks(self):
        self.until(lambda: not [line for line in self.host.run("systemctl", "show", "popa3d*@*", "-P", "StatusText")
                                .output.splitlines() if "TRANSACTION" in line], "the end of sessions")


class Availability(HaproxyCase):
    def test_instance_that_is_down_is_passed_over(self):
        self.addCleanup(self.host.run, "systemctl", "start", "popa3d-b.socket")
        self.host.run("systemctl", "stop", "popa3d-b.socket")
        self.until(lambda: not self.is_up("popa3d-b"), "a health check that fails")
        self.assertTrue(self.is_up("popa3d"))
        user = self.account(messages(1))
        for _ in range(4):
            client = self.client()
            session = self.through(110, client)
            self.log_in(session, user)
            session.quit()
            self.assertEqual(instances(self.entries(client)), {"popa3d"})

    def test_health_checks_of_any_kind_are_worth_no_more_than_info(self):
        before = {entry["__CURSOR"] for entry in self.journal()}
        checked = self._accepted() + 60
        self.balance(110, 3110, 4110)
        self.until(lambda: self._accepted() > checked, "health checks")
        found = [entry for entry in self.journal() if entry["__CURSOR"] not in before]
        self.assertIn(f"Session from {BALANCER}", [entry["MESSAGE"] for entry in found])
        for entry in found:
            self.assertEqual(entry["PRIORITY"], "6", entry["MESSAGE"])
            self.assertIn(entry["POPA3D_EVENT"], ("session-started", "session-ended"))
            self.assertEqual(entry["POPA3D_PROXY"], BALANCER)
        self.assertEqual(self.host.run("systemctl", "--failed", "--no-legend").output.strip(), "")


    def is_up(self, name):
        """Whether the balancer takes this instance for healthy."""
        with socket.socket(socket.AF_UNIX) as control:
            control.connect(str(self.host.path(CONTROL)))
            control.sendall(b"show stat\n")
            listed = rest_of(control).decode()
        names, *rows = (row.split(",") for row in listed.removeprefix("# ").splitlines() if row)
        (status,) = [row[names.index("status")] for row in rows if row[:2] == ["port110", name]]
        return not status.startswith("DOWN")

    def _accepted(self):
        """How many connections both instances had on port 110."""
        shown = self.host.run("systemctl", "show", "-P", "NAccepted", *(f"{name}.socket" for name in INSTANCES)).output
        return sum(map(int, shown.split()))


class Readme(HaproxyCase):
    def test_haproxy_takes_the_examples(self):
        self.host.run("cp", "/etc/haproxy/test.pem", "/etc/haproxy/mail.example.org.pem")
        passed_on, ended = [block for block in README.read_text(encoding="utf-8").split("```")[1::2]
                            if "server a " in block]
        defaults = passed_on.partition("\nlisten ")[0]
        for example in (passed_on, defaults + ended):
            self.host.write("/tmp/example.cfg", example)
            checked = self.host.run("haproxy", "-c", "-f", "/tmp/example.cfg")
            self.assertNotRegex(checked.output + checked.errors, "(?i)warning|alert")
