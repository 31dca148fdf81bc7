"""Counters that retention does not touch, raised in the transaction of what they count.

One row of `counter` for each (what, environment, type, label); environment and type are 0 where they say nothing. Verdicts,
settlements and what clients dropped are counted by triggers, since many statements write those columns.
"""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Iterable, Mapping

from looseends_daemon.core.counting import ENDED, OUTCOMES, marks_of
from looseends_daemon.core.facts import Cells

_ADD = """
INSERT INTO counter (what, environment, type, label, n) VALUES (?, ?, ?, ?, ?)
ON CONFLICT (type, environment, what, label) DO UPDATE SET n = n + excluded.n"""


class Counts:
    """What one unit of work counts, gathered and written once."""

    def __init__(self) -> None:
        self._sums: Counter[tuple[str, int, int, str]] = Counter()

    def facts(self, cells: Cells, fresh: Iterable[tuple[int, str, str]], environment: int, type_: int) -> None:
        """Count the facts of a task that are new: (attempt, instance id, slot)."""
        for what, label, n in marks_of(cells, fresh):
            self._sums[what, environment, type_, label] += n

    def write(self, conn: sqlite3.Connection) -> None:
        """Add what was gathered."""
        if self._sums:
            conn.executemany(_ADD, [(*key, n) for key, n in self._sums.items()])
            self._sums.clear()


def loop_ended(conn: sqlite3.Connection, environment: int, type_: int) -> None:
    """Count the end of a loop with its process: the one fact that the daemon adds."""
    conn.execute(_ADD, (ENDED, environment, type_, OUTCOMES["with_process"], 1))


def tally(conn: sqlite3.Connection, what: str, counts: Mapping[str, int]) -> None:
    """Add to counters that belong to no type: label -> how much."""
    conn.executemany(_ADD, [(what, 0, 0, label, n) for label, n in counts.items() if n])


def attempt(conn: sqlite3.Connection, notice: int, delivered: bool) -> None:
    """Count a delivery attempt of a notice's endpoint."""
    row = conn.execute("SELECT endpoint FROM notice WHERE no = ?", (notice,)).fetchone()
    if row is not None:
        tally(conn, "attempt", {f"{'delivered' if delivered else 'failed'} {row[0]}": 1})
