"""TLS beside Dovecot's."""

from . import servers
from .rows import DOVECOT, FAST, GREET, OURS, Beside, Goal, Limit, Row


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
