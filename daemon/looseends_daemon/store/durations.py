"""How long tasks took, by type and hour, and by day: moved by differences in the transaction that changes a task."""

from __future__ import annotations

import sqlite3
from collections import defaultdict
from collections.abc import Mapping

from looseends_daemon.core.durations import bin_of
from looseends_daemon.core.resources import STATES
from looseends_daemon.core.stats import MINUTE_NS

HOUR_NS = 60 * MINUTE_NS
DAY_NS = 24 * HOUR_NS
BY_DAY_NS_MIN = 2 * DAY_NS
"""Windows longer than this are read by whole days."""
_SUCCEEDED = STATES.index("succeeded")
_UPSERT = (
    "INSERT INTO {table} ({time}, environment, type, bin, n) VALUES (?, ?, ?, ?, ?)"
    " ON CONFLICT (type, {time}, environment, bin) DO UPDATE SET n = n + excluded.n"
)
_EMPTY = "DELETE FROM {table} WHERE {time} = ? AND environment = ? AND type = ? AND bin = ? AND n = 0"
_TABLES = {"duration": ("hour", 1), "duration_day": ("day", 24)}
"""What the time of a table is called, and how many hours it spans."""
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
        for table, (time, hours) in _TABLES.items():
            rows = [(*key, n) for key, n in _spanned(self._bins, hours).items() if n]
            if rows:
                conn.executemany(_UPSERT.format(table=table, time=time), rows)
                conn.executemany(_EMPTY.format(table=table, time=time), [row[:4] for row in rows if row[4] < 0])
        self._bins.clear()


def _spanned(bins: Mapping[Key, int], hours: int) -> Mapping[Key, int]:
    """The same differences by spans of so many hours."""
    if hours == 1:
        return bins
    found: defaultdict[Key, int] = defaultdict(int)
    for (hour, environment, type_, bin_), n in bins.items():
        found[hour // hours, environment, type_, bin_] += n
    return found


def recount(conn: sqlite3.Connection) -> list[str]:
    """Where the bins and the tasks differ, in words; an empty list is how it must be."""
    counted = Durations()
    for row in conn.execute("SELECT began_at, started_at, ended_at, state, environment, type FROM task"):
        counted.add(row)
    found = []
    for table, (time, hours) in _TABLES.items():
        rows = conn.execute(f"SELECT {time}, environment, type, bin, n FROM {table}").fetchall()
        stored = {tuple(row[:4]): row[4] for row in rows}
        wanted = {key: n for key, n in _spanned(counted._bins, hours).items() if n}
        keys = [key for key in sorted({*stored, *wanted}) if stored.get(key) != wanted.get(key)]
        found += [f"{table} {key}: {stored.get(key, 0)} stored, {wanted.get(key, 0)} tasks" for key in keys]
    return found
