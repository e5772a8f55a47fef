"""Servers that accept by themselves, side by side."""

from .memory import idle_sessions
from .rows import COURIER, FAST, ORACLE, BestOf, Goal, Limit, Row
from .server import processor_time

SERVERS = ("popa3d -D", "1.0.3 -D", "Courier", "Dovecot fast", "greet -D")
IDLE_SERVERS = ("popa3d -D", "1.0.3 -D", "Courier", "Dovecot")

# 1.0.3 takes 50 sessions from one address, and all have the same clients.
SOURCES = 250


def standalone(bench):
    """Complete sessions of servers that accept by themselves."""
    rows = []
    for concurrency in (1, 8, 64):
        measure = f"standalone at concurrency {concurrency}"
        for name in bench.turns(SERVERS):
            bench.note(measure, bench.servers[name].name, _sessions(bench, bench.servers[name], concurrency))

        def of(figure, measure=measure):
            return bench.medians(measure, figure)

        every = bench.record[measure].items()
        rows += [
            Row(f"standalone sessions/s, {concurrency} at once", of(lambda r: r["rate"]),
                (BestOf((ORACLE, COURIER, FAST), at_least=3),) if concurrency == 8 else ()),
            Row("  p50 ms", of(lambda r: r["session"]["p50"])),
            Row("  p99 ms", of(lambda r: r["session"]["p99"]), (Limit(150),) if concurrency == 64 else ()),
            # A client that has waited in vain for a minute goes.
            Row("  the longest of all, ms", {name: max(r["longest"] for r in results) for name, results in every}),
            Row("  failed", {name: sum(r["failures"] for r in results) for name, results in every}, (Limit(0),)),
            Row("  processor ms, the server's", of(lambda r: r["processor"]["server"]), (Limit(1.5),)),
            Row("  the journal's", of(lambda r: r["processor"]["journal"])),
            Row("  all of the host's (clients apart)", of(lambda r: r["processor"]["host"])),
            Row("  the clients'", of(lambda r: r["processor"]["clients"])),
        ]
    return rows


def standalone_idle(bench):
    """Many sessions that are logged in and do nothing, with servers that accept by themselves."""
    return idle_sessions(bench, "standalone idle", IDLE_SERVERS, Goal(ORACLE, at_most=1), sources=SOURCES)


def _sessions(bench, server, concurrency):
    """What the load generator says, and the processor time of a session in milliseconds."""
    before = _processor_times(bench, server)
    result = bench.load.run("sessions", server, concurrency=concurrency, seconds=bench.sizes.seconds,
                            most=server.most, users=bench.sizes.users, sources=SOURCES,
                            dialogue="greeting" if server.name == "greet" else "full")
    server.wait_until_idle()
    used = {whose: time - before[whose] for whose, time in _processor_times(bench, server).items()}
    used["clients"] = result["client"]
    result["processor"] = {whose: time * 1e3 / max(1, result["session"]["n"]) for whose, time in used.items()}
    return result


def _processor_times(bench, server):
    journal = bench.host.path("/sys/fs/cgroup/system.slice/systemd-journald.service")
    return {"server": server.processor_time(), "journal": processor_time(journal), "host": bench.cpu()}
