"""Floods of connections with popa3d -D."""

import re

from .flood import PER_SOURCE, SOURCES, FloodCase
from .standalone import Standalone


class StandaloneFlood(FloodCase, Standalone):
    # What a source did in one test is not to count in the next one.
    SETTINGS = FloodCase.SETTINGS + 'session-slot = "0s"\n'

    def setUp(self):
        super().setUp()
        self.refusals_before = len(self._refusals())

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
        self.assertLess(len(self._refusals()), self.refusals_before + 10)

    def test_whoever_logged_in_before_is_served_while_many_sources_take_all_places_and_come_again(self):
        user = self.account(self.mail)
        self.fetch(user)
        # A reload forgets nobody.
        self.settings(self.SETTINGS + "max-unauthenticated = 20\n")
        # Each source has but one connection, so that none of them is the one that has to make room.
        with self.attack(sources=SOURCES, connections=len(SOURCES), insists=0.1):
            self.until(lambda: self._sessions() >= 20, "the flood")
            for _ in range(20):
                self.fetch(user)
        self.until(lambda: self._sessions() == 0, "the end of all sessions")
        self.assert_nothing_failed()

    def _sessions(self):
        return len(self.processes()) // 2  # monitors and workers

    def _refusals(self):
        return self.messages(POPA3D_EVENT="connection-refused")

    def _refused(self):
        """How many refusals the journal has told of since the test began."""
        count = 0
        for text in self._refusals()[self.refusals_before:]:
            unlogged = re.search(r"\b(\d+) (?:more )?refusals\b", text)
            count += int(unlogged[1]) if unlogged else 0
            count += ": " in text  # the one that the line is about
        return count
