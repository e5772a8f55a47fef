"""The limits of the listener, and what it does when the host has nothing left to give."""

import contextlib
import pathlib

from .case import PASSWORD, Session
from .mail import messages
from .standalone import UNIT, Standalone
from .tls import rest_of

# Addresses of loopback that the tests give to their clients: two of one /64, and one of another.
NEIGHBOURS = ("2001:db8:1:2::1", "2001:db8:1:2:ffff::7")
STRANGER = "2001:db8:1:3::1"

PROCESSES = pathlib.Path("/sys/fs/cgroup/pids")


class Limits(Standalone):
    def test_each_source_has_so_many_sessions_and_others_have_theirs(self):
        self.settings('max-sessions-per-source = 2\nsession-slot = "0s"\n')
        one, two = self.connect(source="127.0.1.1"), self.connect(source="127.0.1.1")
        self.turned_away(b"SYS/TEMP", source="127.0.1.1")
        self.connect(source="127.0.1.2").quit()
        one.quit()
        self.status(1, 1)
        self.connect(source="127.0.1.1").quit()
        two.quit()

    def test_addresses_of_one_ipv6_network_are_one_source(self):
        for address in (*NEIGHBOURS, STRANGER):
            self.addCleanup(self.host.run, "ip", "address", "del", f"{address}/128", "dev", "lo")
            self.host.run("ip", "address", "add", f"{address}/128", "dev", "lo")
        self.settings("max-sessions-per-source = 1\n")
        target = NEIGHBOURS[0]
        session = self.connect(source=NEIGHBOURS[0], target=target)
        self.turned_away(b"SYS/TEMP", source=NEIGHBOURS[1], target=target)
        self.connect(source=STRANGER, target=target).quit()
        session.quit()

    def test_a_session_counts_for_its_slot_though_it_is_over(self):
        self.settings('max-sessions-per-source = 2\nsession-slot = "1h"\n')
        for _ in range(2):
            self.connect(source="127.0.1.3").quit()
        self.status(0, 0)
        self.turned_away(b"LOGIN-DELAY", source="127.0.1.3")
        self.connect(source="127.0.1.4").quit()

    def test_all_together_have_so_many(self):
        users = [self.account(messages(1)) for _ in range(2)]
        self.settings("max-sessions = 2\n")
        sessions = [self.login(user, source=f"127.0.1.{number}") for number, user in enumerate(users, 10)]
        self.turned_away(b"SYS/TEMP", source="127.0.1.20")
        sessions[0].quit()
        self.status(1, 0)
        self.connect(source="127.0.1.20").quit()
        sessions[1].ok("NOOP")
        sessions[1].quit()

    def test_a_source_with_many_silent_clients_makes_room_for_another_one(self):
        user = self.account(messages(1))
        self.settings("max-unauthenticated = 3\n")
        silent = [self.connect(source="127.0.1.5") for _ in range(3)]
        self.status(3, 3)
        session = self.connect(source="127.0.1.6")
        # The one that came first.
        self.assertRegex(silent[0].line(), rb"^-ERR \[SYS/TEMP\] ")
        silent[0].ended()
        session.ok(f"USER {user}")
        session.ok(f"PASS {PASSWORD}")
        for other in silent[1:]:
            other.quit()
        session.quit()

    def test_those_who_logged_in_take_nothing_of_the_share_of_those_who_did_not(self):
        users = [self.account(messages(1)) for _ in range(3)]
        self.settings("max-unauthenticated = 1\n")
        sessions = []
        for user in users:
            sessions.append(self.login(user))
            self.status(len(sessions), 0)
        waiting = self.connect()
        self.status(4, 1)
        for session in (*sessions, waiting):
            session.quit()

    def test_a_client_that_would_speak_tls_first_is_closed_without_a_word(self):
        self.settings("max-sessions-per-source = 1\n")
        session = self.connect(source="127.0.1.7")
        self.assertEqual(rest_of(self.arrive(995, source="127.0.1.7").connection), b"")
        session.quit()

    def test_one_line_in_a_while_tells_of_refusals_and_how_many_there_were(self):
        self.settings("max-sessions-per-source = 1\n")
        before = len(self._refusals())
        session = self.connect(source="127.0.1.8")
        for _ in range(4):
            self.turned_away(b"SYS/TEMP", source="127.0.1.8")
        first = self.until(lambda: self._refusals()[before:], "the first one")[0]
        self.assertEqual((first["MESSAGE"], first["POPA3D_CLIENT"]), ("127.0.1.8: per source limit reached", "127.0.1.8"))
        # The others are told of as a number, when nobody comes any more.
        self.until(lambda: self._refusals()[before + 1:], "the number of the others")
        self.assertEqual([entry["MESSAGE"] for entry in self._refusals()[before + 1:]], ["3 more refusals were not logged"])
        session.quit()

    def _refusals(self):
        return self.journal(POPA3D_EVENT="connection-refused")


class Exhaustion(Standalone):
    """Descriptors and processes run out. Clients come from many addresses: no limit is to help."""

    def test_without_descriptors_clients_get_an_answer_and_later_ones_are_served(self):
        self.drop_in("LimitNOFILE=40")
        self._assert_answers_and_recovers()
        self.assertTrue([line for line in self.messages(POPA3D_EVENT="server-failure") if "Too many open files" in line])

    def test_without_processes_as_well(self):
        self._allow_processes(30)
        self._assert_answers_and_recovers()
        self.assertTrue([line for line in self.messages(POPA3D_EVENT="server-failure")
                         if "Resource temporarily unavailable" in line])

    def _allow_processes(self, most):
        """So many for the listener and all its sessions, as TasksMax= does."""
        self.drop_in(f"TasksMax={most}")
        if self.show("TasksCurrent").isdigit():
            return
        # This machine counts processes in a hierarchy of its own, which the host does not see.
        group = PROCESSES / f"popa3d-{self.listener()}"
        group.mkdir()
        self.addCleanup(lambda: self.until(lambda: not group.is_dir() or removed(group), "the end of the group"))
        self.addCleanup(self.host.run, "systemctl", "restart", UNIT)
        (group / "pids.max").write_text(str(most), encoding="ascii")
        (group / "cgroup.procs").write_text(str(self.listener()), encoding="ascii")

    def _assert_answers_and_recovers(self):
        listener, user = self.listener(), self.account(messages(1))
        with contextlib.ExitStack() as clients:
            sessions = []
            for number in range(60):
                connection = self.host.connect(110, source=f"127.0.2.{number + 1}", timeout=60)
                sessions.append(Session(self, clients.enter_context(connection)))
            answers = [session.line()[:4] for session in sessions]
            self.assertLessEqual(set(answers), {b"+OK ", b"-ERR"})
            self.assertIn(b"-ERR", answers)
            self.assertIn(b"+OK ", answers)
        self.status(0, 0)
        session = self.login(user)
        session.quit()
        self.assertEqual(self.listener(), listener)


def removed(group):
    """Removes a control group; whether nobody is in it any more."""
    try:
        group.rmdir()
    except OSError:
        return False
    return True
