"""How long tasks took, by type and hour: moved by differences in the transaction that changes a task, as the ledger is."""

from __future__ import annotations

import sqlite3
from collections import defaultdict

from looseends_daemon.core.durations import bin_of
from looseends_daemon.core.resources import STATES
from looseends_daemon.core.stats import MINUTE_NS

HOUR_NS = 60 * MINUTE_NS
_SUCCEEDED = STATES.index("succeeded")
_UPSERT = (
    "INSERT INTO duration (hour, environment, type, bin, n) VALUES (?, ?, ?, ?, ?)"
    " ON CONFLICT (type, hour, environment, bin) DO UPDATE SET n = n + excluded.n"
)
_EMPTY = "DELETE FROM duration WHERE hour = ? AND environment = ? AND type = ? AND bin = ? AND n = 0"
Key = tuple[int, int, int, int]


class Durations:
    """Differences gathered over one unit of work, written once."""

    def __init__(self) -> None:
        self._bins: defaultdict[Key, int] = defaultdict(int)

    def add(self, row: sqlite3.Row, sign: int = 1) -> None:
        """Count a stored task in (sign 1) or out (sign -1). The row holds state, type, environment and its three times."""
        if row["state"] == _SUCCEEDED:
            self.count(row["began_at"], row["started_at"], row["ended_at"], row["environment"], row["type"], sign)

    def count(
        self, began_at: int, started_at: int | None, ended_at: int | None, environment: int, type_: int, sign: int = 1
    ) -> None:
        """The same for one that succeeded, by its times (ns); one whose start or end nobody told has no duration."""
        if started_at is not None and ended_at is not None:
            self._bins[began_at // HOUR_NS, environment, type_, bin_of(ended_at - started_at)] += sign

    def write(self, conn: sqlite3.Connection) -> None:
        """Apply what is not zero."""
        rows = [(*key, n) for key, n in self._bins.items() if n]
        if rows:
            conn.executemany(_UPSERT, rows)
            conn.executemany(_EMPTY, [row[:4] for row in rows if row[4] < 0])
        self._bins.clear()


def recount(conn: sqlite3.Connection) -> list[str]:
    """Where the bins and the tasks differ, in words; an empty list is how it must be."""
    counted = Durations()
    for row in conn.execute("SELECT began_at, started_at, ended_at, state, environment, type FROM task"):
        counted.add(row)
    stored = {
        (row["hour"], row["environment"], row["type"], row["bin"]): row["n"] for row in conn.execute("SELECT * FROM duration")
    }
    wanted = {key: n for key, n in counted._bins.items() if n}
    keys = sorted({*stored, *wanted})
    return [
        f"bin {key}: {stored.get(key, 0)} stored, {wanted.get(key, 0)} tasks"
        for key in keys
        if stored.get(key) != wanted.get(key)
    ]
