"""popa3d --sessions: who is there, out with one, and why it went."""

import contextlib
import fcntl
import os
import re

from .mail import messages
from .standalone import Standalone
from .test_proxy import ProxyCase, line
from .tls import NAME, issue

HEADINGS = ["PID", "AGE", "IDLE", "STATE", "USER", "CLIENT", "TLS", "MESSAGES", "SESSION"]
FILES = "/run/popa3d/.sessions"


class Sessions:
    """In either mode."""

    def setUp(self):
        self.serve(issue(NAME), more='proxies = ["127.9.1.0/24"]\n')
        self.until_idle()

    def list(self):
        """The lines under the headings, as dictionaries."""
        output = self.host.run("popa3d", "--sessions").output
        if output == "no sessions\n":
            return []
        headings, *rows = output.splitlines()
        self.assertEqual(headings.split(), HEADINGS)
        # Columns begin where their headings do.
        starts = [headings.index(name) for name in HEADINGS]
        ends = [*starts[1:], None]
        return [{name: row[start:end].strip() for name, start, end in zip(HEADINGS, starts, ends)} for row in rows]

    def listed(self, count, condition=lambda rows: True):
        """So many rows, as soon as CONDITION holds of them."""
        def rows():
            found = self.list()
            return len(found) == count and condition(found) and (found,)
        return self.until(rows, f"{count} sessions in {self.list()}")[0]

    @contextlib.contextmanager
    def busy(self, user):
        """Another program has the mailbox locked."""
        with open(self.host.mailbox(user), "rb+") as mailbox:
            fcntl.lockf(mailbox, fcntl.LOCK_EX)
            yield

    def test_nobody_is_there(self):
        self.assertEqual(self.host.run("popa3d", "--sessions").output, "no sessions\n")

    def test_three_sessions_that_do_different_things(self):
        user = self.account(messages(3))
        address = self.proxy()
        self.connect(source="127.0.0.1")
        self.listed(1)
        alice = self.connect_tls(source="127.7.7.7")
        self.log_in(alice, user)
        self.listed(2, lambda rows: rows[1]["STATE"] == "TRANSACTION")
        self.through(line("192.0.2.7"), proxy=address)
        rows = self.listed(3)
        wanted = ["STATE", "USER", "CLIENT", "TLS", "MESSAGES"]
        self.assertEqual([[row[name] for name in wanted] for row in rows], [
            ["AUTHORIZATION", "-", "127.0.0.1", "-", "-"],
            ["TRANSACTION", user, "127.7.7.7", "TLSv1.3", "3"],
            ["AUTHORIZATION", "-", f"192.0.2.7 via {address}", "-", "-"],
        ])
        for row in rows:
            self.assertRegex(row["AGE"], r"^\d+s$|^\d+m\d\ds$")
            self.assertRegex(row["IDLE"], r"^\d+s$|^\d+m\d\ds$")
            self.assertEqual(self.host.read(f"/proc/{row['PID']}/comm"), b"popa3d\n")
            self.assertTrue(self.journal(POPA3D_SESSION=row["SESSION"], POPA3D_EVENT="session-started"))

    def test_tls_that_begins_later_shows_and_so_does_that_of_a_proxy(self):
        session = self.connect()
        self.listed(1, lambda rows: rows[0]["TLS"] == "-")
        session.ok("STLS")
        self.start_tls(session)
        self.listed(1, lambda rows: rows[0]["TLS"] == "TLSv1.3")

    def test_idle_begins_anew_with_each_command(self):
        session = self.connect()
        self.listed(1, lambda rows: rows[0]["IDLE"] not in ("0s", "1s"))
        session.ok("CAPA")
        session.lines()
        (row,) = self.listed(1)
        seconds = lambda text: int(text.removesuffix("s"))
        self.assertLess(seconds(row["IDLE"]), seconds(row["AGE"]))

    def test_update_shows_while_it_waits_for_the_mailbox(self):
        user = self.account(messages(2))
        session = self.login(user)
        session.ok("DELE 1")
        with self.busy(user):
            session.send(b"QUIT\r\n")
            (row,) = self.listed(1, lambda rows: rows[0]["STATE"] == "UPDATE")
            self.assertEqual((row["USER"], row["MESSAGES"]), (user, "2"))
        self.assertRegex(session.line(), rb"^\+OK")
        session.close()
        self.listed(0)

    def test_kill_with_the_number_ends_that_session_and_the_journal_says_so(self):
        one, other = self.account(messages(2)), self.account(messages(1))
        session, bystander = self.login(one), self.login(other)
        session.ok("DELE 1")
        rows = self.listed(2, lambda rows: {row["USER"] for row in rows} == {one, other})
        (row,) = [row for row in rows if row["USER"] == one]
        self.host.run("kill", row["PID"])
        self.assertRegex(session.rest(), rb"^-ERR \[SYS/TEMP\] the server ends this session")
        session.close()
        self.listed(1)
        lines = self.messages(POPA3D_SESSION=row["SESSION"])
        self.assertTrue(lines[-1].startswith("Session ended by a signal; "), lines)
        bystander.ok("NOOP")
        # What was marked is still there.
        again = self.login(one)
        self.assertRegex(again.ok("STAT"), rb"^\+OK 2 ")

    def test_a_monitor_that_was_killed_is_no_ghost(self):
        self.connect()
        session = self.connect()
        rows = self.listed(2)
        files = set(os.listdir(self.host.path(FILES)))
        self.host.run("kill", "-9", rows[1]["PID"])
        session.rest()
        self.assertEqual(self.listed(1), self.list())
        self.assertEqual(set(os.listdir(self.host.path(FILES))), files - {rows[1]["PID"]})

    def test_nobody_but_root_sees_it(self):
        self.connect()
        self.listed(1)
        user = self.account()
        refused = self.host.run("popa3d", "--sessions", user=user, check=False)
        self.assertEqual((refused.code, refused.errors), (1, "popa3d: only root can see the sessions\n"))
        listing = self.host.run("ls", FILES, user=user, check=False)
        self.assertNotEqual(listing.code, 0)
        self.assertEqual(os.stat(self.host.path(FILES)).st_mode & 0o777, 0o700)


class Started(Sessions, ProxyCase):
    """By systemd, one unit each."""

    def test_stopping_the_unit_ends_a_session_as_well(self):
        session = self.connect()
        (row,) = self.listed(1)
        (unit,) = re.findall(r"popa3d@\S+\.service", self.host.read(f"/proc/{row['PID']}/cgroup").decode())
        self.host.run("systemctl", "stop", unit)
        session.rest()
        self.assertEqual(self.list(), [])


class Alone(Sessions, Standalone, ProxyCase):
    """By the listener."""

    def test_a_reload_leaves_them_in_the_list(self):
        self.connect()
        before = self.listed(1)
        self.reload()
        self.assertEqual([row["PID"] for row in self.list()], [row["PID"] for row in before])
