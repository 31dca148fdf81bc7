"""Which of the five terms of the ledger a task stands in, and what else its minute counts. Every term is counted."""

from __future__ import annotations

from looseends_daemon.core.resources import Value

TERMS = ("succeeded", "failed", "cancelled", "in_time", "gap")
MINUTE_NS = 60_000_000_000


class Place(Value, frozen=True):
    """Where a task stands in the ledger: its minute of begin (since 1970), its term ("": it is not counted), its marks."""

    minute: int
    term: str
    settled: bool = False
    loose: bool = False

    def marks(self) -> dict[str, int]:
        """The columns of the ledger that this task adds one to."""
        if not self.term:
            return {}
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


def place_of(began_at: int, state: str, verdict: str | None, *, settled: bool, loose: bool, expected: bool = False) -> Place:
    """Where a task is counted. `began_at` in ns. An expectation is a task only while it is missed."""
    term = "" if expected and verdict is None else term_of(state, verdict)
    return Place(minute=began_at // MINUTE_NS, term=term, settled=settled, loose=loose)
