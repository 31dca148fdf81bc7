"""The ledger's cells, moved by differences in the transaction that changes a task. No term is ever a remainder."""

from __future__ import annotations

import sqlite3

from looseends_daemon.core.stats import Place

COLUMNS = ("succeeded", "failed", "cancelled", "in_time", "gap", "settled_failed", "settled_gap", "loose")
_UPSERT = (
    f"INSERT INTO ledger (minute, environment, type, {', '.join(COLUMNS)}) VALUES (?, ?, ?{', ?' * len(COLUMNS)}) "
    "ON CONFLICT (minute, environment, type) DO UPDATE SET " + ", ".join(f"{c} = {c} + excluded.{c}" for c in COLUMNS)
)
Key = tuple[int, int, int]


class Moves:
    """Differences gathered over one unit of work, written once."""

    def __init__(self) -> None:
        self._cells: dict[Key, dict[str, int]] = {}

    def add(self, place: Place, environment: int, type_: int, sign: int = 1) -> None:
        """Count a task in (sign 1) or out (sign -1) of its place."""
        cell = self._cells.setdefault((place.minute, environment, type_), dict.fromkeys(COLUMNS, 0))
        for column, count in place.marks().items():
            cell[column] += sign * count

    def write(self, conn: sqlite3.Connection) -> None:
        """Apply what is not zero."""
        rows = [(*key, *cell.values()) for key, cell in self._cells.items() if any(cell.values())]
        if rows:
            conn.executemany(_UPSERT, rows)
        self._cells = {}
