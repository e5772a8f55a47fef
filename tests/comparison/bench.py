"""The host, its servers and the load; the figures that they come to."""

import dataclasses
import statistics
import time

from . import mail
from .server import processor_time


@dataclasses.dataclass(frozen=True)
class Sizes:
    """How much of everything."""

    rounds: int = 5
    seconds: float = 3
    messages: int = 50_000
    octets: int = 20_000
    download_seconds: float = 20
    idle: int = 200
    users: int = 256


QUICK = Sizes(rounds=1, seconds=1, messages=2000, download_seconds=3, idle=20, users=64)


class Bench:
    """The host, its servers, the load, and the record of all figures."""

    def __init__(self, host, servers, load, sizes):
        self.host, self.servers, self.load, self.sizes = host, servers, load, sizes
        self.record = {}
        self._has_big = False

    def turns(self, names, rounds=None):
        """Each round begins with another server."""
        for turn in range(rounds or self.sizes.rounds):
            first = turn % len(names)
            for name in (*names[first:], *names[:first]):
                self.servers[name].wait_until_idle()
                time.sleep(self.servers[name].rest)
                yield name

    def note(self, measure, name, result):
        """Keeps RESULT in the record, and returns all of that kind so far."""
        results = self.record.setdefault(measure, {}).setdefault(name, [])
        results.append(result)
        return results

    def medians(self, measure, figure):
        """The median of FIGURE over all rounds, for each server."""
        return {name: statistics.median(map(figure, results)) for name, results in self.record[measure].items()}

    def big(self, name):
        """The user with the big mailbox of a server; makes the mailboxes when they are first needed."""
        if not self._has_big:
            for user in (mail.BIG, mail.BIG_FOR_DOVECOT):
                self.fill(user)
            self._has_big = True
        return mail.BIG_FOR_DOVECOT if name.startswith("Dovecot") else mail.BIG

    def fill(self, user):
        """A mailbox of so many messages; what is written is in the page cache as well."""
        mail.write(self.host, user, mail.pieces(self.sizes.messages, self.sizes.octets))

    def cpu(self):
        """Seconds of processor time that the host used, systemd and journal included. The clients are
        not: what is run in the host from outside is in none of its control groups."""
        return processor_time(self.host.path("/sys/fs/cgroup"))
