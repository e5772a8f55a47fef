"""Lines of the table, and what our figure in them has to be beside the others'."""

import dataclasses

OURS, ORACLE, NODELAY, GREET = "popa3d", "1.0.3", "1.0.3 NoDelay", "greet"
DOVECOT, FAST, COURIER = "Dovecot", "Dovecot fast", "Courier"


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
class BestOf:
    """The ratio of our figure to the largest of all OTHERS, and what it must be."""

    others: tuple
    at_least: float

    def ratio(self, values):
        """Ours by the best one's."""
        return values[OURS] / max(values[other] for other in self.others)

    def is_reached(self, values):
        """Whether the figure is good enough."""
        return self.ratio(values) >= self.at_least

    def __str__(self):
        return f">= {self.at_least:g} x the best of {', '.join(self.others)}"


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
