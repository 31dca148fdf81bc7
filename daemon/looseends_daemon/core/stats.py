"""Which of the five terms of the ledger a task stands in, and what else its minute counts. Every term is counted."""

from __future__ import annotations

from looseends_daemon.core.resources import Value

TERMS = ("succeeded", "failed", "cancelled", "in_time", "gap")
MINUTE_NS = 60_000_000_000


class Place(Value, frozen=True):
    """Where a task stands in the ledger: its minute of begin (minutes since 1970), its term, and its marks."""

    minute: int
    term: str
    settled: bool = False
    loose: bool = False

    def marks(self) -> dict[str, int]:
        """The columns of the ledger that this task adds one to."""
        counted = {self.term: 1}
        if self.settled and self.term in ("failed", "gap"):
            counted[f"settled_{self.term}"] = 1
        if self.loose:
            counted["loose"] = 1
        return counted


def term_of(state: str, verdict: str | None) -> str:
    """The one term a task is counted in: its end, else gap while a verdict stands, else in time."""
    if state in ("succeeded", "failed", "cancelled"):
        return state
    return "gap" if verdict is not None else "in_time"


def place_of(began_at: int, state: str, verdict: str | None, *, settled: bool, loose: bool) -> Place:
    """Where a task is counted. `began_at` in ns."""
    return Place(minute=began_at // MINUTE_NS, term=term_of(state, verdict), settled=settled, loose=loose)
