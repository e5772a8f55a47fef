"""What sessions need of the memory."""

import contextlib
import pathlib
import time

from .rows import DOVECOT, ORACLE, OURS, Goal, Limit, Row


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
    return idle_sessions(bench, "idle", (OURS, ORACLE, DOVECOT), Goal(ORACLE, at_most=1.3))


def idle_sessions(bench, measure, names, goal, **options):
    """What sessions need of the memory that are logged in and do nothing; OPTIONS are the load generator's."""
    for name in bench.turns(names, rounds=1):
        server = bench.servers[name]
        before = _pss(server)
        with bench.load.held(server, users=bench.sizes.idle, **options):
            time.sleep(2)  # what a login leaves behind for a moment is no part of an idle session
            after = _pss(server)
            count = len(server.processes())
        bench.note(measure, server.name, {"pss": after - before, "server": before, "processes": count})
    return [Row(f"{bench.sizes.idle} {measure} sessions, PSS MiB", bench.medians(measure, lambda r: r["pss"] / 1024),
                (goal,)),
            Row("  processes", bench.medians(measure, lambda r: r["processes"]))]


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
