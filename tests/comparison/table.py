"""The table at the end."""

from .rows import OURS


def table(rows):
    """All ROWS under each other, a column for each server."""
    names = list(dict.fromkeys(name for row in rows for name in row.values))
    lines = [["", *names, "goals"]]
    for row in rows:
        goals = "; ".join(_goal(goal, row.values) for goal in row.goals)
        lines.append([row.title, *(_figure(row.values.get(name)) for name in names), goals])
    widths = [max(len(line[column]) for line in lines) for column in range(len(names) + 1)]
    return "\n".join(
        "  ".join([line[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(line[1:-1], widths[1:])),
                   line[-1]]).rstrip()
        for line in lines)


def _figure(value):
    if value is None:
        return ""
    if value == 0 or value >= 100:
        return f"{value:.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def _goal(goal, values):
    verdict = "yes" if goal.is_reached(values) else "NO"
    ratio = f"{goal.ratio(values):.2f}, " if hasattr(goal, "ratio") else ""
    return f"{ratio}{goal}: {verdict}"


def missed(rows):
    """The rows with a goal that is not reached."""
    return [row for row in rows if OURS in row.values and not all(goal.is_reached(row.values) for goal in row.goals)]
