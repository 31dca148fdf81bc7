"""The ledger's cells, moved by differences in the transaction that changes a task. No term is ever a remainder.

Rules: `ledger` is by minute, environment and type. `ledger_all` (by minute and environment) and `ledger_hour` (by hour,
environment and type) are its sums, moved by the same differences in the same transaction, so that a week is added up from
thousands of rows and not from a million. A row in which nothing is counted stays until retention sweeps it.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Iterable

from looseends_daemon.core.stats import Place

COLUMNS = ("succeeded", "failed", "cancelled", "in_time", "gap", "settled_failed", "settled_gap", "loose")
HOUR_MINUTES = 60
Key = tuple[int, ...]
_KEYS = {
    "ledger": ("minute", "environment", "type"),
    "ledger_all": ("minute", "environment"),
    "ledger_hour": ("hour", "environment", "type"),
}
_NOTHING = " AND ".join(f"{column} = 0" for column in COLUMNS)


def _upsert(table: str, keys: tuple[str, ...]) -> str:
    columns = ", ".join((*keys, *COLUMNS))
    added = ", ".join(f"{column} = {column} + excluded.{column}" for column in COLUMNS)
    marks = ", ".join("?" * (len(keys) + len(COLUMNS)))
    return f"INSERT INTO {table} ({columns}) VALUES ({marks}) ON CONFLICT ({', '.join(keys)}) DO UPDATE SET {added}"


_UPSERTS = {table: _upsert(table, keys) for table, keys in _KEYS.items()}


def _summed(key: Key) -> dict[str, Key]:
    """Where a cell of the ledger is counted, by table."""
    minute, environment, type_ = key
    return {
        "ledger": key,
        "ledger_all": (minute, environment),
        "ledger_hour": (minute // HOUR_MINUTES, environment, type_),
    }


def window(first: int, last: int, where: str = "1") -> tuple[str, list[int]]:
    """(SQL of a table, parameters): the cells of the minutes [first, last), whole hours of it as one cell each.

    Columns: minute (of an hour, its first), environment, type, COLUMNS. `where`: what must hold of environment and type; it
    is put in three times, so its values must stand in it.
    """
    hour, end = -(-first // HOUR_MINUTES), last // HOUR_MINUTES
    if hour >= end:
        return f"(SELECT * FROM ledger WHERE minute >= ? AND minute < ? AND {where})", [first, last]
    cells = f"environment, type, {', '.join(COLUMNS)}"
    edge = f"SELECT minute, {cells} FROM ledger WHERE minute >= ? AND minute < ? AND {where}"
    hours = f"SELECT hour * {HOUR_MINUTES} AS minute, {cells} FROM ledger_hour WHERE hour >= ? AND hour < ? AND {where}"
    bounds = [first, hour * HOUR_MINUTES, hour, end, end * HOUR_MINUTES, last]
    return f"({edge} UNION ALL {hours} UNION ALL {edge})", bounds


class Moves:
    """Differences gathered over one unit of work, written once."""

    def __init__(self) -> None:
        self._cells: dict[Key, dict[str, int]] = {}

    def add(self, place: Place, environment: int, type_: int, sign: int = 1) -> None:
        """Count a task in (sign 1) or out (sign -1) of its place."""
        key = (place.minute, environment, type_)
        cell = self._cells.get(key)
        if cell is None:
            cell = self._cells[key] = dict.fromkeys(COLUMNS, 0)
        for column, count in place.marks().items():
            cell[column] += sign * count

    def write(self, conn: sqlite3.Connection) -> None:
        """Apply what is not zero."""
        moved = {key: list(cell.values()) for key, cell in self._cells.items() if any(cell.values())}
        self._cells = {}
        if moved:
            for table, rows in _by_table(moved).items():
                conn.executemany(_UPSERTS[table], ((*key, *counts) for key, counts in rows.items() if any(counts)))


def _by_table(cells: dict[Key, list[int]]) -> dict[str, dict[Key, list[int]]]:
    """The same differences as each table counts them."""
    found: dict[str, dict[Key, list[int]]] = {table: {} for table in _KEYS}
    for key, counts in cells.items():
        for table, place in _summed(key).items():
            known = found[table].get(place)
            found[table][place] = counts if known is None else [a + b for a, b in zip(known, counts, strict=True)]
    return found


def sweep(conn: sqlite3.Connection, cells: Collection[Key]) -> None:
    """Take out the rows of these cells (minute, environment, type) in which nothing is counted any more."""
    for table, keys in _KEYS.items():
        places = {_summed(key)[table] for key in cells}
        conn.executemany(f"DELETE FROM {table} WHERE {' AND '.join(f'{key} = ?' for key in keys)} AND {_NOTHING}", places)


def differences(conn: sqlite3.Connection, counted: dict[Key, dict[str, int]]) -> list[str]:
    """Where the three tables differ from what was counted over the tasks, in words; an empty list is how it must be."""
    wanted = _by_table({key: [cell[column] for column in COLUMNS] for key, cell in counted.items()})
    return [line for table, keys in _KEYS.items() for line in _wrong(conn, table, keys, wanted[table])]


def _wrong(conn: sqlite3.Connection, table: str, keys: Iterable[str], wanted: dict[Key, list[int]]) -> Iterable[str]:
    rows = conn.execute(f"SELECT * FROM {table}").fetchall()
    written = {tuple(row[key] for key in keys): [row[column] for column in COLUMNS] for row in rows}
    for key in sorted({*wanted, *written}):
        tasks, there = wanted.get(key, [0] * len(COLUMNS)), written.get(key, [0] * len(COLUMNS))
        if tasks != there:
            at = ", ".join(f"{name} {value}" for name, value in zip(keys, key, strict=True))
            yield f"{table}, {at}: {_words(tasks)} in tasks, {_words(there)} in the ledger"


def _words(counts: list[int]) -> str:
    return " ".join(f"{column} {n}" for column, n in zip(COLUMNS, counts, strict=True) if n) or "nothing"
