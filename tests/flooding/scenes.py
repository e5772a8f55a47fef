"""The host with its two networks, the two ways to run popa3d, and what is done to it."""

import contextlib
import itertools
import statistics
import time

from . import attack, result, start
from .burden import Journal, Watch, overflows, settled, taken

PASSWORD = "correct horse battery"

# The host's own address in the networks of those who attack and of those who want their mail.
NETWORKS = {"foes": "10.99.1", "friends": "10.99.2"}
FOE = "10.99.1.2"
FRIENDS = {"friend1": "10.99.2.2", "friend2": "10.99.2.3", "friend3": "10.99.2.4"}
# Has another address each time, so that nobody has ever logged in from it.
STRANGER = "stranger"
# All addresses of these networks are the foes' and the stranger's as well.
BOTNET, EVERYWHERE = "10.98", "10.97"

ATTACKERS = 60  # accounts that attack, more than one source may have sessions
BIG = 4 * 2**20  # octets of the message that slow readers want
LINE = b"one of many lines of about the usual length of a line in a message\n"

# The ways to run popa3d, and the units of each.
WAYS = {"-D": ("popa3d.service",), "Accept=yes": ("popa3d.socket", "popa3ds.socket")}


def addresses(network, numbers):
    """Addresses of BOTNET or EVERYWHERE."""
    return [f"{network}.{number // 250}.{number % 250 + 1}" for number in numbers]


def from_one(manner, **more):
    """An attack from one source."""
    return {"manner": manner, "sources": [FOE], "user": "foe", "users": ATTACKERS, "password": PASSWORD} | more


def from_many(manner="silent", **more):
    """An attack from many, with one connection each."""
    return {"manner": manner, "sources": addresses(BOTNET, range(500)), "connections": 500, "rate": 0} | more


SCENES = {
    "silent": from_one("silent"),
    "slow writers": from_one("slow writers"),
    "slow readers": from_one("slow readers"),
    "deaf askers": from_one("deaf askers"),
    "insisting": from_one("silent", insists=1),
    "500 sources": from_many(rate=20),
    "500 sources, insisting": from_many(insists=1),
    "500 sources, insisting, port 995": from_many(insists=1, port=995),
    "500 sources, insisting, deaf askers": from_many("deaf askers", insists=1),
    "500 sources, coming and going": from_many("brief", insists=0.5),
}

_never_seen = iter(range(60_000))


@contextlib.contextmanager
def set_up(host):
    """Networks and accounts, for as long as the block lasts."""
    with host.network("foes", NETWORKS["foes"]), host.network("friends", NETWORKS["friends"], (2, 3, 4)):
        for network, name, behind in ((BOTNET, "foes", FOE), (EVERYWHERE, "friends", FRIENDS["friend1"])):
            host.shell(f"ip route add {network}.0.0/16 via {behind}\n"
                       f"ip -n {name} link set lo up; ip -n {name} route add local {network}.0.0/16 dev lo")
        # Handshakes would be the users' own doing: what is measured is how long they wait for others.
        host.write("/etc/popa3d.toml", 'plaintext-login = "always"\n')
        for number in range(ATTACKERS):
            _add_user(host, f"foe{number}", LINE * (BIG // len(LINE)), "SHA512")
        for name in (*FRIENDS, STRANGER):
            _add_user(host, name, LINE * 400, "YESCRYPT")  # Debian's default
        yield


def _add_user(host, name, body, method):
    host.user(name, PASSWORD, method)
    host.deliver(name, b"From sender@example.org Mon Nov  2 09:00:00 2026\n"
                       b"From: sender@example.org\nSubject: flood\n\n" + body + b"\n")


@contextlib.contextmanager
def running(host, way):
    """popa3d in one of WAYS, and not in the other."""
    others = [unit for other, units in WAYS.items() if other != way for unit in units]
    host.run("systemctl", "stop", *others)
    host.run("systemctl", "start", *WAYS[way])
    yield
    host.run("systemctl", "stop", *WAYS[way])


def play(host, name, plan):
    """One attack, with users who want their mail meanwhile; returns all figures."""
    calm = _fetching(host, seconds=5)
    _settle(host)
    before, journal, overflowed = taken(host), Journal(host), overflows(host)
    foes = start("attack", host, "foes", {"target": f"{NETWORKS['foes']}.1"} | plan)
    with Watch(host) as watch:
        meanwhile = _fetching(host, plan.get("seconds", attack.Plan.seconds))
        outcome = result(foes)
    gone = settled(host, before["processes"])
    _settle(host)
    return {
        "name": name, "from one source": len(plan["sources"]) == 1, "attack": outcome,
        "calm": _summary(calm, FRIENDS), "users": _summary(meanwhile, FRIENDS),
        "strangers": _summary(meanwhile, [STRANGER]), "sessions": meanwhile,
        "before": before, "most": watch.most, "after": taken(host), "gone": gone,
        "journal": journal.lines(), "overflows": overflows(host) - overflowed,
        "failed units": host.run("systemctl", "--failed", "--no-legend").output.strip(),
    }


def _settle(host):
    """A session is not gone at once, and counts for its source for ten seconds."""
    settled(host, 1)
    time.sleep(12)


def _fetching(host, seconds):
    users = {name: [address] for name, address in FRIENDS.items()}
    users[STRANGER] = addresses(EVERYWHERE, itertools.islice(_never_seen, int(seconds) * 2))
    plan = {"target": f"{NETWORKS['friends']}.1", "users": users, "password": PASSWORD, "seconds": seconds}
    return result(start("users", host, "friends", plan))


def _summary(sessions, users):
    """How many sessions of USERS, how many of them failed, and how many seconds the others took."""
    sessions = [session for session in sessions if session["user"] in users]
    times = sorted(session["took"] for session in sessions if not session["failure"])
    failures = [session["failure"] for session in sessions if session["failure"]]
    return {
        "sessions": len(sessions), "failures": len(failures), "why": sorted(set(failures)),
        "p50": statistics.median(times) if times else None,
        "p99": times[-(len(times) // 100) - 1] if times else None,
        "most": times[-1] if times else None,
    }
