"""Counters for Prometheus: the example as its comments say to install it, read by Debian's node exporter."""

import re

from host import Host

from . import case
from .case import HostCase
from .mail import messages

EXAMPLES = "/usr/share/doc/popa3d/examples"


class Metrics(HostCase):
    @classmethod
    def setUpClass(cls):
        cls.own_host = host = cls.enterClassContext(Host(case.RELEASE, layers=("watchers",), deb=case.DEB))
        host.run("systemctl", "enable", "--now", "popa3d.socket", "popa3ds.socket")
        for command in re.findall(r"(?m)^#     (.+)$", host.read(f"{EXAMPLES}/popa3d-metrics.service").decode())[1:]:
            host.shell(f"cd {EXAMPLES}; {command}")

    @property
    def host(self):
        return self.own_host

    def counted(self):
        """What the node exporter tells of popa3d, after one more run."""
        self.host.run("journalctl", "--sync")
        self.host.run("systemctl", "start", "popa3d-metrics.service")
        with self.host.connect(9100) as exporter:
            exporter.sendall(b"GET /metrics HTTP/1.0\r\n\r\n")
            answer = b"".join(iter(lambda: exporter.recv(1 << 16), b"")).decode()
        self.assertIn("node_textfile_scrape_error 0\n", answer)
        return {name: float(value) for name, value in re.findall(r"(?m)^(popa3d_\S+) (\S+)$", answer)}

    def test_the_timer_is_on(self):
        self.assertEqual(self.host.run("systemctl", "is-active", "popa3d-metrics.timer").output, "active\n")

    def test_each_session_is_counted_once(self):
        user = self.account(messages(3))
        before = self.counted()
        session = self.login(user)
        octets = sum(len(line) + 2 for line in session.multi("RETR 1"))
        session.ok("DELE 1")
        session.ok("DELE 2")
        session.quit()
        self.connect().close()
        self.refused_password(user)
        self.until_idle()
        after = self.counted()
        changed = {name: value - before.get(name, 0) for name, value in after.items() if value != before.get(name, 0)}
        seconds = {name: changed.pop(name) for name in list(changed) if re.search("_seconds_(total|sum)$", name)}
        buckets = {name: changed.pop(name) for name in list(changed) if "_bucket{" in name}
        self.assertEqual({name: value for name, value in changed.items() if not name.startswith("popa3d_events_total")}, {
            'popa3d_logins_total{result="passed"}': 1, 'popa3d_logins_total{result="failed"}': 1,
            'popa3d_sessions_total{ending="quit"}': 2, 'popa3d_sessions_total{ending="no-login-attempt"}': 1,
            "popa3d_retrieved_messages_total": 1, "popa3d_retrieved_octets_total": octets,
            "popa3d_deleted_messages_total": 2, "popa3d_deleted_octets_total": changed["popa3d_deleted_octets_total"],
            "popa3d_update_seconds_count": 1, "popa3d_lock_wait_seconds_count": 1,
        })
        self.assertEqual(changed['popa3d_events_total{event="expunged"}'], 2)
        self.assertGreater(changed["popa3d_deleted_octets_total"], 0)
        self.assertEqual(buckets['popa3d_update_seconds_bucket{le="+Inf"}'], 1)
        for name in ("popa3d_cpu_seconds_total", "popa3d_session_seconds_total", "popa3d_update_seconds_sum"):
            self.assertGreater(seconds[name], 0, name)
        self.assertEqual(self.counted(), after)

    def test_what_other_users_write_to_the_journal_does_not_count(self):
        user = self.account()
        before = self.counted()
        forged = "MESSAGE=x\nSYSLOG_IDENTIFIER=popa3d\nPOPA3D_EVENT=login-passed\n"
        self.host.run("logger", "--journald", stdin=forged, user=user)
        self.assertEqual(self.counted(), before)

    def refused_password(self, user):
        session = self.connect()
        session.ok(f"USER {user}")
        session.err("PASS wrong")
        session.quit()
