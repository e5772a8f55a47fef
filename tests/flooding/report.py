"""What is printed of an attack, and which goals it missed."""

LONGEST = 1.0  # seconds that a login and fetch may take, at the 99th percentile
MORE = 4.0  # MiB that may be in use afterwards: a heap keeps some of what it once had


def report(figures):
    """Some lines of text."""
    outcome, journal = figures["attack"], figures["journal"]
    ends = sorted(outcome["ends"].items(), key=lambda end: -end[1])
    gone = "not within a minute" if figures["gone"] is None else f"{figures['gone']:.1f} s after the attack"
    return "\n".join([
        f"== {title(figures)}: {outcome['tried']} connections, at most {outcome['most greeted']} served at once",
        "  attack      " + ", ".join(f"{count} {end}" for end, count in ends),
        *(f"  {who:11} {times(figures[key])}"
          for who, key in (("calm", "calm"), ("users", "users"), ("strangers", "strangers"))),
        *(f"              {why}" for why in sorted({*figures["users"]["why"], *figures["strangers"]["why"]})[:5]),
        *(f"  {when:11} {burden(figures[key])}"
          for when, key in (("before", "before"), ("at most", "most"), ("afterwards", "after"))),
        f"  sessions gone {gone}; {figures['overflows']} connections found the backlog full",
        f"  journal     {journal['popa3d']} lines of popa3d, {len(journal['refusals'])} of them about refusals, "
        f"{journal['systemd']} of systemd, {journal['suppressed']} suppressed",
        *(f"  MISSED      {goal}" for goal in missed(figures)),
    ])


def title(figures):
    return f"{figures['way']}, {figures['name']}"


def times(summary):
    """How long sessions took."""
    failed = f"{summary['sessions']} sessions, {summary['failures']} failed"
    if summary["p50"] is None:
        return failed
    return failed + "".join(f", {name} {summary[key] * 1e3:.0f} ms"
                            for name, key in (("p50", "p50"), ("p99", "p99"), ("longest", "most")))


def burden(taken):
    """What the host had to bear."""
    return (f"{taken['processes']} processes, {taken['memory']:.1f} MiB; systemd {taken['systemd']:.1f}, "
            f"journald {taken['journald']:.1f}, buffers of sockets {taken['sockets']:.1f}")


def missed(figures):
    """The goals that were not reached, a line each."""
    found = []
    before, after = figures["before"], figures["after"]
    if figures["from one source"]:
        served = ("users", "strangers")
    else:
        # With systemd's limits those come first that came first.
        served = ("users",) if figures["way"] == "-D" else ()
    for who in served:
        summary = figures[who]
        if summary["failures"]:
            found.append(f"{summary['failures']} sessions of {who} failed")
        elif figures["from one source"] and summary["p99"] >= LONGEST:
            found.append(f"the 99th percentile of {who} is not below {LONGEST:g} s")
    if after["processes"] != before["processes"]:
        found.append(f"{after['processes']} processes afterwards, {before['processes']} before")
    for kind in ("memory", "systemd", "journald"):
        if after[kind] > before[kind] + MORE:
            found.append(f"{kind}: {after[kind]:.1f} MiB afterwards, {before[kind]:.1f} before")
    if figures["failed units"]:
        found.append(f"failed units: {figures['failed units']}")
    return found
