"""The narrow rows of tasks, written by the statement that touches least: an end leaves nearly all of its row as it was."""

from __future__ import annotations

import sqlite3
from operator import itemgetter
from typing import Any

_COLUMNS = (
    *("id", "type", "environment", "channel", "state", "verdict", "settled", "loose", "flags", "attempt", "instance"),
    *("began_at", "started_at", "ended_at", "due_at", "check_at", "key", "incident", "facts"),
)
_INSERT = f"INSERT INTO task ({', '.join(_COLUMNS)}) VALUES ({', '.join('?' * len(_COLUMNS))})"
_HELD = ("type", "environment", "attempt", "instance", "began_at", "started_at", "key")
"""What nearly all news of a task leaves as it was, an end above all; an index of an untouched column is not touched either."""
_held = itemgetter(*_HELD)
_held_now = itemgetter(*(_COLUMNS.index(name) for name in _HELD))
_MOVING = ("state", "flags", "ended_at", "due_at", "check_at", "facts")
_UPDATES = {
    names: (
        f"UPDATE task SET {', '.join(f'{name} = ?' for name in names)} WHERE id = ?",
        [_COLUMNS.index(n) for n in (*names, "id")],
    )
    for names in (_MOVING, _HELD + _MOVING)
}


class Rows:
    """The rows of one unit of work, by the statement that writes them."""

    def __init__(self) -> None:
        self._rows: dict[str, list[tuple[Any, ...]]] = {}

    def add(self, row: tuple[Any, ...], old: sqlite3.Row | None) -> None:
        """A row in the order of _COLUMNS, and what stands there now."""
        sql = _INSERT
        if old is not None:
            held = _held_now(row) == _held(old)
            sql, places = _UPDATES[_MOVING if held else _HELD + _MOVING]
            row = tuple(row[place] for place in places)
        self._rows.setdefault(sql, []).append(row)

    def write(self, conn: sqlite3.Connection) -> None:
        """Write them."""
        for sql, rows in self._rows.items():
            conn.executemany(sql, rows)
