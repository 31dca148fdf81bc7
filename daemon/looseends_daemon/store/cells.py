"""The payloads of a task's cells, which stand apart from the blob of its narrow row (store/packed.py).

Payload: one row per (task, slot) that has any, JSON, read only when somebody looks or when a fact arrives twice.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Container, Iterable

import msgspec

from looseends_daemon.core.facts import SLOTS, Cells, Fact
from looseends_daemon.store.packed import PAYLOADS
from looseends_daemon.store.packed import InstanceIds as InstanceIds
from looseends_daemon.store.packed import numbers as numbers
from looseends_daemon.store.packed import pack as pack
from looseends_daemon.store.packed import unpack as unpack

_json = msgspec.json.Encoder(order="deterministic")


def slot_key(attempt: int, no: int, slot: str) -> str:
    """The key of a payload row within its task: '<attempt>/<instance no or ->/<event type>'."""
    return f"{attempt}/{no or '-'}/{slot}"


def with_payloads(cells: Cells, ids: InstanceIds, rows: Iterable[tuple[str, bytes]]) -> Cells:
    """Cells with the payload rows of their task put back."""
    found = {key: msgspec.json.decode(data) for key, data in rows}
    if not found:
        return cells
    return {
        (attempt, who): {
            slot: Fact(at=f.at, said_at=f.said_at, body={**f.body, **found.get(slot_key(attempt, ids.no(who), slot), {})})
            for slot, f in cell.items()
        }
        for (attempt, who), cell in cells.items()
    }


def payload_rows(conn: sqlite3.Connection, task: bytes) -> list[tuple[str, bytes]]:
    """The payload rows of one task."""
    return [(row[0], row[1]) for row in conn.execute("SELECT slot, data FROM payload WHERE task = ?", (task,))]


def payloads_of_cell(conn: sqlite3.Connection, task: bytes, attempt: int, no: int) -> list[tuple[str, bytes]]:
    """The payload rows of one cell: a task with thousands of attempts may have gigabytes of others."""
    keys = [slot_key(attempt, no, slot) for slot in SLOTS]
    marks = ", ".join("?" * len(keys))
    rows = conn.execute(f"SELECT slot, data FROM payload WHERE task = ? AND slot IN ({marks})", (task, *keys))
    return [(row[0], row[1]) for row in rows]


class PayloadWrites:
    """The payloads of slots that changed, gathered over one unit of work and written once."""

    def __init__(self) -> None:
        self._rows: list[tuple[bytes, str, bytes]] = []
        self._over: list[tuple[bytes, str]] = []

    def keep(
        self,
        task: bytes,
        cells: Cells,
        ids: InstanceIds,
        touched: Iterable[tuple[int, str, str]],
        told_before: Container[tuple[int, str]] = (),
    ) -> None:
        """Keep the payloads of the slots that just changed: (attempt, instance id, slot).

        `told_before`: cells in which a fact was told once more. A body without payload that won there takes the old payload
        along.
        """
        for attempt, who, slot in touched:
            body = cells[attempt, who][slot].body
            payload = {name: body[name] for name in PAYLOADS if name in body}
            if payload:
                self._rows.append((task, slot_key(attempt, ids.no(who), slot), _json.encode(payload)))
            elif (attempt, who) in told_before:
                self._over.append((task, slot_key(attempt, ids.no(who), slot)))

    def write(self, conn: sqlite3.Connection) -> None:
        """Write what was kept."""
        if self._rows:
            conn.executemany("INSERT OR REPLACE INTO payload (task, slot, data) VALUES (?, ?, ?)", self._rows)
        if self._over:
            conn.executemany("DELETE FROM payload WHERE task = ? AND slot = ?", self._over)
        self._rows, self._over = [], []
