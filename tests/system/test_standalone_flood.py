"""Floods of connections with popa3d -D."""

import re

from .flood import PER_SOURCE, SOURCES, FloodCase


class StandaloneFlood(FloodCase):
    # What a source did in one test is not to count in the next one.
    SETTINGS = FloodCase.SETTINGS + 'session-slot = "0s"\nmax-unauthenticated = 60\n'

    def setUp(self):
        super().setUp()
        self.host.run("systemctl", "stop", "popa3d.socket", "popa3ds.socket")
        self.addCleanup(self.host.run, "systemctl", "start", "popa3d.socket", "popa3ds.socket")
        self.until_idle()
        self.host.run("systemctl", "start", "popa3d.service")
        self.addCleanup(self.host.run, "systemctl", "stop", "popa3d.service")
        # What was refused in an earlier test is told by then.
        self.refusals_before = self._refusals()

    def test_a_flood_from_one_source_is_refused_and_a_user_from_another_is_served(self):
        user = self.account(self.mail)
        for manner in ("silent", "slow writers", "deaf askers"):
            with self.subTest(manner):
                with self.attack(manner=manner, connections=300, rate=20) as outcome:
                    self.until(lambda: self._sessions() == PER_SOURCE, "the flood")
                    for _ in range(5):
                        self.fetch(user)
                ends = outcome["ends"]
                self.assertEqual((ends["greeted to the end"], outcome["most greeted"]), (PER_SOURCE, PER_SOURCE))
                self.assertGreaterEqual(ends["refused with a reply"], 300 - PER_SOURCE)
                self.until(lambda: self._sessions() == 0, "the end of all sessions")
                self.assert_nothing_failed()

    def test_the_journal_counts_refusals_in_a_few_lines(self):
        with self.attack(connections=300):
            self.until(lambda: self._refused() == 300 - PER_SOURCE, "the count of refusals")
        self.assertLess(len(self._refusals()) - len(self.refusals_before), 10)

    def test_whoever_logged_in_before_is_served_while_many_sources_take_all_places_and_come_again(self):
        user = self.account(self.mail)
        self.fetch(user)
        with self.attack(sources=SOURCES, connections=120, insists=0.1):
            self.until(lambda: self._sessions() >= 60, "the flood")
            for _ in range(20):
                self.fetch(user)
        self.until(lambda: self._sessions() == 0, "the end of all sessions")
        self.assert_nothing_failed()

    def _sessions(self):
        """Each is two processes; one more is the listener."""
        return (len(self.processes()) - 1) // 2

    def _refusals(self):
        return self.messages(POPA3D_EVENT="connection-refused")

    def _refused(self):
        """How many refusals the journal has told of since the test began."""
        count = 0
        for text in self._refusals()[len(self.refusals_before):]:
            unlogged = re.search(r"\b(\d+) (?:more )?refusals\b", text)
            count += int(unlogged[1]) if unlogged else 0
            count += ": " in text  # the one that the line is about
        return count
