"""Single steps of a session: a login, a download, an update of a big mailbox; commands in a small one."""

from . import mail
from .rows import DOVECOT, NODELAY, ORACLE, OURS, Goal, Limit, Row


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
