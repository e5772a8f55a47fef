"""Whole sessions, many of them."""

from .rows import DOVECOT, FAST, GREET, NODELAY, ORACLE, OURS, Goal, Limit, Row


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
