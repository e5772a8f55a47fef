"""A flood of connections: the socket lives on, whatever it did to those who made it."""

from .case import PASSWORD, HostCase
from .flood import PER_SOURCE, FloodCase
from .mail import messages


class Flood(HostCase):
    def test_1500_connections_in_a_row_leave_the_socket_listening(self):
        for number in range(1500):
            # From many addresses: a limit for each source must not be what saves the day.
            try:
                self.host.connect(110, source=f"127.0.{number // 200 + 1}.{number % 200 + 1}").close()
            except OSError:
                continue  # refused or reset: that is allowed
        # While what was accepted is more than MaxConnections, others are dropped as well.
        self.until(self._another_is_greeted, "a greeting")
        self.until_idle()
        self._assert_alive()

    def test_more_connections_at_once_than_one_source_may_have(self):
        held = []
        try:
            for _ in range(80):
                held.append(self.host.connect(110, source="127.0.0.50"))
            greeted = sum(greeted_on(connection) for connection in held)
        finally:
            for connection in held:
                connection.close()
        self.assertEqual(greeted, 50)
        self._assert_alive()

    def test_a_source_at_its_limit_does_not_keep_others_out(self):
        held = [self.host.connect(110, source="127.0.0.51") for _ in range(60)]
        try:
            self._assert_alive()
        finally:
            for connection in held:
                connection.close()
        self.until_idle()

    def _another_is_greeted(self):
        with self.host.connect(110, source="127.0.0.53") as connection:
            return greeted_on(connection)

    def _assert_alive(self):
        user = self.account(messages(1))
        session = self.connect(source="127.0.0.52")
        session.ok(f"USER {user}")
        session.ok(f"PASS {PASSWORD}")
        session.multi("RETR 1")
        session.quit()
        self.assertEqual(self.host.run("systemctl", "is-active", "popa3d.socket").output, "active\n")
        self.assertEqual(self.host.run("systemctl", "--failed", "--no-legend").output.strip(), "")


class FloodFromElsewhere(FloodCase):
    def test_a_flood_from_one_source_is_dropped_and_a_user_from_another_is_served(self):
        user = self.account(self.mail)
        for manner in ("silent", "slow writers", "deaf askers"):
            with self.subTest(manner):
                with self.attack(manner=manner, connections=300, rate=20) as outcome:
                    self.until(lambda: len(self.processes()) == 2 * PER_SOURCE, "the flood")
                    for _ in range(5):
                        self.fetch(user)
                ends = outcome["ends"]
                self.assertEqual((ends["greeted to the end"], outcome["most greeted"]), (PER_SOURCE, PER_SOURCE))
                self.assertGreaterEqual(ends["dropped without a word"], 300 - PER_SOURCE)
                self.until_idle()
                self.until(lambda: not self.host.run("systemctl", "list-units", "--all", "--no-legend",
                                                     "popa3d@*").output, "the end of all units")
                self.assert_nothing_failed()


def greeted_on(connection):
    """Whether popa3d serves this connection, or it was dropped."""
    try:
        return connection.recv(100).startswith(b"+OK")
    except (ConnectionResetError, TimeoutError):
        return False
