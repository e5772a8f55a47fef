"""What tests of floods share: attackers in one network, a user in another."""

import contextlib

import flooding

from .case import HostCase
from .mail import messages

FOES, FRIENDS = "10.98.1", "10.98.2"
SOURCES = [f"{FOES}.{number}" for number in range(2, 42)]

PER_SOURCE = 50  # sessions: the default of both ways to run popa3d


class FloodCase(HostCase):
    """popa3d with attackers elsewhere."""

    SETTINGS = 'plaintext-login = "always"\n'

    def setUp(self):
        self.settings(self.SETTINGS)
        networks = contextlib.ExitStack()
        self.addCleanup(networks.close)
        networks.enter_context(self.host.network("foes", FOES, range(2, 42)))
        networks.enter_context(self.host.network("friends", FRIENDS))
        self.mail = messages(3)

    @contextlib.contextmanager
    def attack(self, **plan):
        """An attack that lasts as long as the block; what came of it is in the dictionary that the block gets."""
        outcome = {}
        plan = {"target": f"{FOES}.1", "sources": SOURCES[:1], "seconds": 300, "rate": 0} | plan
        process = flooding.start("attack", self.host, "foes", plan)
        try:
            yield outcome
            process.terminate()
            outcome.update(flooding.result(process))
        finally:
            process.kill()
            process.wait()
            process.stdout.close()

    def fetch(self, user):
        """A whole session from the other network."""
        session = self.login(user, namespace="friends", source=f"{FRIENDS}.2", target=f"{FRIENDS}.1")
        self.assertEqual(session.multi("RETR 2"), self.mail[1].lines)
        session.quit()

    def assert_nothing_failed(self):
        self.assertEqual(self.host.run("systemctl", "--failed", "--no-legend").output.strip(), "")
