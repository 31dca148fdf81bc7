"""Facts as bytes: the narrow blob of a task's cells, and the payloads that stand apart from it.

Blob: MessagePack `[[attempt, instance no or 0, {slot number: [at, said_at, body]}], ...]`, bodies without PAYLOADS.
Payload: one row per (task, slot) that has any, JSON, read only when somebody looks or when a fact arrives twice.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Container, Iterable, Mapping
from typing import Any

import msgspec

from looseends_daemon.core.facts import SLOTS, Cell, Cells, Fact

PAYLOADS = ("args", "result", "error", "stack")
_NUMBER = {slot: n for n, slot in enumerate(SLOTS)}
_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(list[tuple[int, int, dict[int, tuple[int, int, dict[str, Any]]]]])
_json = msgspec.json.Encoder(order="deterministic")


class InstanceIds:
    """Instance number <-> id, looked up once per unit of work."""

    def __init__(self, conn: sqlite3.Connection | None = None) -> None:
        self._conn = conn
        self._ids: dict[int, str] = {0: ""}
        self._nos: dict[str, int] = {"": 0}

    def learn(self, no: int, instance: str) -> None:
        """Remember a pair that is already at hand."""
        self._ids[no], self._nos[instance] = instance, no

    def known(self) -> list[str]:
        """The ids that were looked up or learnt."""
        return list(self._nos)

    def id(self, no: int) -> str:
        """The id of an instance by its number."""
        if no not in self._ids:
            row = self._conn.execute("SELECT id FROM instance WHERE no = ?", (no,)).fetchone() if self._conn else None
            self.learn(no, row[0] if row else f"instance-{no}")
        return self._ids[no]

    def no(self, instance: str) -> int:
        """The number of an instance that has a row."""
        if instance not in self._nos and self._conn is not None:
            row = self._conn.execute("SELECT no FROM instance WHERE id = ?", (instance,)).fetchone()
            self.learn(row[0], instance)
        return self._nos[instance]


def pack(cells: Cells, ids: InstanceIds) -> bytes:
    """Cells as the blob of the task row."""
    return _encoder.encode(
        [
            (attempt, ids.no(who), {_NUMBER[slot]: (f.at, f.said_at, _narrow(f.body)) for slot, f in cell.items()})
            for (attempt, who), cell in cells.items()
        ]
    )


def decode(blob: bytes) -> list[tuple[int, int, dict[int, tuple[int, int, dict[str, Any]]]]]:
    """The blob of a task row as it lies there: (attempt, instance no or 0, slot number -> (at, said_at, body))."""
    return _decoder.decode(blob)


def _narrow(body: Mapping[str, Any]) -> dict[str, Any]:
    return {field: value for field, value in body.items() if field not in PAYLOADS}


def numbers(blob: bytes) -> set[int]:
    """The instance numbers that a blob speaks of, for a reader that fetches them in one go."""
    return {no for _, no, _ in _decoder.decode(blob)} - {0}


def unpack(blob: bytes, ids: InstanceIds) -> Cells:
    """The blob of a task row as cells, without payloads."""
    cells: Cells = {}
    for attempt, no, slots in _decoder.decode(blob):
        cell: Cell = {SLOTS[n]: Fact(at=at, said_at=said, body=body) for n, (at, said, body) in slots.items()}
        cells[attempt, ids.id(no)] = cell
    return cells


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


assert len(SLOTS) < 128, "slots are small integers in the blob"
