"""What is measured, each in turns: no server has the quiet minutes of the machine for itself.

Each measure returns rows for the table; every figure behind them goes into the record.
"""

import contextlib
import dataclasses
import pathlib
import statistics
import time

from . import mail, servers

OURS, ORACLE, NODELAY, GREET = "popa3d", "1.0.3", "1.0.3 NoDelay", "greet"
DOVECOT, FAST = "Dovecot", "Dovecot fast"


@dataclasses.dataclass(frozen=True)
class Goal:
    """The ratio of our figure to that of OTHER, and what it must be."""

    other: str
    at_least: float = None
    at_most: float = None

    def ratio(self, values):
        """Ours by the other's."""
        return values[OURS] / values[self.other]

    def is_reached(self, values):
        """Whether the figures are good enough."""
        ratio = self.ratio(values)
        return (self.at_least is None or ratio >= self.at_least) and (self.at_most is None or ratio <= self.at_most)

    def __str__(self):
        bound = f">= {self.at_least:g}" if self.at_least is not None else f"<= {self.at_most:g}"
        return f"{bound} x {self.other}"


@dataclasses.dataclass(frozen=True)
class Beside:
    """Our figure is at most that of OTHER and what ALLOWANCE has in the same row."""

    other: str
    allowance: str

    def is_reached(self, values):
        """Whether the figure is good enough."""
        return values[OURS] <= values[self.other] + values[self.allowance]

    def __str__(self):
        return f"<= {self.other} + {self.allowance}"


@dataclasses.dataclass(frozen=True)
class Limit:
    """A bound on our own figure."""

    at_most: float

    def is_reached(self, values):
        """Whether the figure is good enough."""
        return values[OURS] <= self.at_most

    def __str__(self):
        return f"<= {self.at_most:g}"


@dataclasses.dataclass(frozen=True)
class Row:
    """One line of the table: a figure for each server, and goals."""

    title: str
    values: dict
    goals: tuple = ()


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

    def take(self, measure):
        """Runs one of MEASURES."""
        return MEASURES[measure](self)

    def turns(self, names, rounds=None):
        """Each round begins with another server."""
        for turn in range(rounds or self.sizes.rounds):
            first = turn % len(names)
            for name in (*names[first:], *names[:first]):
                self.servers[name].wait_until_idle()
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
        """Seconds of processor time that the host used, systemd and journal included."""
        for line in self.host.read("/sys/fs/cgroup/cpu.stat").decode().splitlines():
            if line.startswith("usage_usec "):
                return int(line.split()[1]) / 1e6
        raise RuntimeError("no usage in cpu.stat")


def sessions(bench):
    """Complete sessions from a socket."""
    rows = []
    for concurrency in (1, 8, 64):
        measure = f"sessions at concurrency {concurrency}"
        for name in bench.turns((OURS, ORACLE, NODELAY, GREET, DOVECOT, FAST)):
            used = bench.cpu()
            result = bench.load.run("sessions", bench.servers[name], concurrency=concurrency,
                                    seconds=bench.sizes.seconds, users=bench.sizes.users,
                                    dialogue="greeting" if name == GREET else "full")
            bench.servers[name].wait_until_idle()
            result["cpu"] = (bench.cpu() - used) * 1e3 / max(1, result["session"]["n"])
            bench.note(measure, name, result)
        rows += [
            Row(f"sessions/s, {concurrency} at once",
                bench.medians(measure, lambda r: r["session"]["n"] / r["seconds"]),
                (Goal(ORACLE, at_least=1.1), Goal(GREET, at_least=0.75))),
            Row("  p50 ms", bench.medians(measure, lambda r: r["session"]["p50"])),
            Row("  p99 ms", bench.medians(measure, lambda r: r["session"]["p99"])),
            Row("  processor ms, all of the host", bench.medians(measure, lambda r: r["cpu"])),
            Row("  failed", {name: sum(r["failures"] for r in results)
                             for name, results in bench.record[measure].items()}, (Limit(0),)),
        ]
    return rows


def login(bench):
    """PASS on the big mailbox."""
    for name in bench.turns((OURS, ORACLE, DOVECOT), rounds=bench.sizes.rounds + 2):
        result = bench.load.run("login", bench.servers[name], user=bench.big(name))
        if result["messages"] != bench.sizes.messages:
            raise RuntimeError(f"{name} found {result['messages']} messages")
        bench.note("login", name, result)
    # Dovecot's first time makes its index; it is told in a row of its own.
    first = {name: results[0]["pass_to_uidl"]["p50"] for name, results in bench.record["login"].items()}
    return [
        Row("PASS, big mailbox, ms", bench.medians("login", lambda r: r["pass"]["p50"]), (Goal(ORACLE, at_most=0.7),)),
        Row("  PASS to end of UIDL, ms", bench.medians("login", lambda r: r["pass_to_uidl"]["p50"])),
        Row("  the first time (Dovecot: no index)", first),
    ]


def download(bench):
    """Every message of the big mailbox."""
    rows = []
    for title, ahead, goal in (("one RETR at a time", 1, Goal(DOVECOT, at_least=5)),
                               ("pipelined", 64, Goal(ORACLE, at_least=2))):
        measure = f"download, {title}"
        names = (OURS, ORACLE, NODELAY, DOVECOT)
        for name in bench.turns(names, rounds=max(1, bench.sizes.rounds - 2)):
            # Waiting for Nagle's algorithm takes no longer the more often it is done.
            seconds = bench.sizes.download_seconds / (4 if name == ORACLE else 1)
            bench.note(measure, name, bench.load.run("download", bench.servers[name], user=bench.big(name),
                                                     pipeline=ahead, seconds=seconds))
        rows.append(Row(f"{measure}, MB/s",
                        bench.medians(measure, lambda r: r["octets"] / r["seconds"] / 1e6), (goal,)))
    return rows


def commands(bench):
    """Single commands in a small mailbox: whether a reply waits for Nagle's algorithm."""
    for name in bench.turns((OURS, ORACLE, NODELAY, DOVECOT)):
        times = 20 if name == ORACLE else 200
        bench.note("commands", name, bench.load.run("commands", bench.servers[name], user="user000", times=times))
    rows = []
    for command in bench.record["commands"][OURS][0]:
        # Delayed acknowledgements take 40 ms; without them nothing takes a tenth of that.
        rows.append(Row(f"{command}, p50 ms", bench.medians("commands", lambda r, c=command: r[c]["p50"]), (Limit(4),)))
    return rows


def memory(bench):
    """What a session on the big mailbox needs at most."""
    for name in bench.turns((OURS, ORACLE), rounds=1):
        with bench.load.held(bench.servers[name], user=bench.big(name), each="busy"):
            peaks = [_status(process) for process in bench.servers[name].processes()]
        bench.note("memory", name, peaks)
    base = bench.sizes.messages * 100 / 2**20

    def largest(results):
        return max(results, key=lambda p: p["VmHWM"])["VmHWM"] / 1024

    return [Row("session on the big mailbox, peak RSS of its largest process, MiB", bench.medians("memory", largest),
                (Limit(round(base + 8, 2)),))]


def idle(bench):
    """Many sessions that are logged in and do nothing."""
    for name in bench.turns((OURS, ORACLE, DOVECOT), rounds=1):
        server = bench.servers[name]
        before = _pss(server)
        with bench.load.held(server, users=bench.sizes.idle):
            time.sleep(2)  # what a login leaves behind for a moment is no part of an idle session
            after = _pss(server)
            count = len(server.processes())
        bench.note("idle", name, {"pss": after - before, "processes": count})
    return [Row(f"{bench.sizes.idle} idle sessions, PSS MiB", bench.medians("idle", lambda r: r["pss"] / 1024),
                (Goal(ORACLE, at_most=1.3),)),
            Row("  processes", bench.medians("idle", lambda r: r["processes"]))]


def update(bench):
    """QUIT when messages of the big mailbox are marked as deleted."""
    rows = []
    for which in ("every-other", "first"):
        measure = f"QUIT, {which} deleted"
        for name in bench.turns((OURS, ORACLE, DOVECOT), rounds=max(1, bench.sizes.rounds - 2)):
            bench.fill(mail.DOOMED)
            # No index of a mailbox that is no more.
            bench.host.shell(f"rm -rf /home/{mail.DOOMED}/mail; sync")
            result = bench.load.run("update", bench.servers[name], user=mail.DOOMED, delete=which)
            if result["messages"] != bench.sizes.messages:
                raise RuntimeError(f"{name} found {result['messages']} messages")
            bench.note(measure, name, result)
        rows.append(Row(f"QUIT, big mailbox, {which} deleted, ms", bench.medians(measure, lambda r: r["quit"]["p50"]),
                        (Goal(ORACLE, at_most=1.5),)))
    return rows


def tls(bench):
    """Sessions and downloads by TLS 1.3 on a port for it, beside the same without TLS."""
    rows = []
    for kind, concurrency, works in (
        ("ECDSA P-256", 1, ("full", "resumed", "plain", "handshake", "resumed handshake", "plain greeting")),
        ("ECDSA P-256", 8, ("full", "resumed", "plain")),
        ("RSA-2048", 1, ("full",)),
    ):
        servers.use_certificate(bench.host, bench.servers, kind)
        rows += _tls_sessions(bench, f", {kind}, {concurrency} at once", concurrency, works)
    servers.use_certificate(bench.host, bench.servers, "ECDSA P-256")
    for title, ahead in (("one RETR at a time", 1), ("pipelined", 64)):
        names = (f"{OURS} TLS", f"{DOVECOT} TLS", OURS, DOVECOT)
        for name in bench.turns(names, rounds=max(1, bench.sizes.rounds - 2)):
            server = bench.servers[name]
            result = bench.load.run("download", server, user=bench.big(name), pipeline=ahead,
                                    seconds=bench.sizes.download_seconds, tls="full" if server.tls else "none")
            bench.note(f"download {'by' if server.tls else 'without'} TLS, {title}", server.name, result)

        def speed(result):
            return result["octets"] / result["seconds"] / 1e6

        rows += [Row(f"download by TLS, {title}, MB/s", bench.medians(f"download by TLS, {title}", speed),
                     (Goal(DOVECOT, at_least=1),)),
                 Row("  without TLS", bench.medians(f"download without TLS, {title}", speed))]
    agreed = {result["tls"] for measure in bench.record.values() for results in measure.values()
              for result in results if isinstance(result, dict) and result.get("tls")}
    if len(agreed) != 1:
        raise RuntimeError(f"servers did not do the same: {agreed}")
    return rows


# What a client of a server with TLS, and of one without, does in sessions: TLS or tickets, and what it says.
TLS_WORKS = {"full": ("full", "short"), "resumed": ("resumed", "short"),
             "handshake": ("full", "handshake"), "resumed handshake": ("resumed", "handshake")}
PLAIN_WORKS = {"plain": ("none", "short"), "plain greeting": ("none", "handshake")}


def _tls_sessions(bench, title, concurrency, works):
    """Sessions of USER, PASS, STAT, QUIT, and of QUIT alone: those of WORKS."""
    in_turns = [f"{name} TLS" for name in (OURS, DOVECOT, FAST)] + [GREET]
    if "plain" in works:
        in_turns += [OURS, DOVECOT, FAST]
    for name in bench.turns(in_turns, rounds=max(1, bench.sizes.rounds - 2)):
        server = bench.servers[name]
        of_server = TLS_WORKS if server.tls else PLAIN_WORKS
        for work in ("greeting",) if name == GREET else [work for work in works if work in of_server]:
            tickets, dialogue = of_server.get(work, ("none", "greeting"))
            used = bench.cpu()
            result = bench.load.run("sessions", server, concurrency=concurrency, seconds=bench.sizes.seconds,
                                    users=bench.sizes.users, tls=tickets, dialogue=dialogue)
            server.wait_until_idle()
            result["cpu"] = (bench.cpu() - used) * 1e3 / max(1, result["session"]["n"])
            bench.note(work + title, server.name, result)

    def of(work, figure):
        return bench.medians(work + title, figure)

    def p50(result):
        return result["session"]["p50"]

    # What the spawn itself takes: a program that only greets, started by a unit equal to ours.
    spawn = of("greeting", p50)
    goals = (Beside(DOVECOT, GREET),)
    rows = []
    for work, name in (("full", "by TLS"), ("resumed", "resumed"), ("plain", "without TLS")):
        if work in works:
            rows += [Row(f"sessions/s {name}{title}", of(work, lambda r: r["session"]["n"] / r["seconds"])),
                     Row("  p50 ms (greet: the spawn alone)", of(work, p50) | spawn, () if work == "plain" else goals),
                     Row("  processor ms, all of the host", of(work, lambda r: r["cpu"]))]
        if work == "resumed" and work in works:
            rows.append(Row("  resumed, %", of(work, lambda r: 100 * r["resumed"] / max(1, r["session"]["n"]))))
    for work, name in (("handshake", "by TLS"), ("resumed handshake", "resumed"), ("plain greeting", "without TLS")):
        if work in works:
            rows.append(Row(f"greeting and QUIT alone {name}, p50 ms", of(work, p50)))
    rows.append(Row("  failed", {name: sum(r["failures"] for work in works for r in bench.record[work + title][name])
                                 for name in (OURS, DOVECOT, FAST)}, (Limit(0),)))
    return rows


MEASURES = {1: sessions, 2: login, 3: download, 4: commands, 5: memory, 6: idle, 7: update, 8: tls}


def _status(process):
    """VmHWM and its like of a process, in KiB."""
    figures = {}
    with contextlib.suppress(OSError):
        for line in pathlib.Path(f"/proc/{process}/status").read_text(encoding="ascii").splitlines():
            name, _, value = line.partition(":")
            if value.endswith(" kB"):
                figures[name] = int(value.split()[0])
    return figures


def _pss(server):
    """The proportional set size of all processes of a server, in KiB."""
    total = 0
    for process in server.processes():
        # Dovecot's helpers come and go.
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            for line in pathlib.Path(f"/proc/{process}/smaps_rollup").read_text(encoding="ascii").splitlines():
                if line.startswith("Pss:"):
                    total += int(line.split()[1])
    return total
