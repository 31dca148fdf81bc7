"""A task's cells as the blob of its narrow row: words that the row's type and environment say already are not said again.

Blob: MessagePack `[type no, environment no, base, [attempt, instance no or 0, {slot number: [at, body, said_at]}], ...]`.

Rules:

1. `base` is the earliest time; `at` and `said_at` are its distance in ns, and `said_at` is left out where it equals `at`.
2. A body is a map of field numbers (FIELDS; a field without one keeps its name) without PAYLOADS. Its name, service and
   environment are left out where they are those of the numbers; None says that the fact has none. Numbers of 0: no words.
3. Whole seconds are whole numbers, and a duration that is the time from start to end is `true`.
4. What comes out is what went in, to the type of every number: two reports of one fact are told apart by their canonical JSON.

Measured over 20,000 tasks with a key and a deadline: 225 bytes each as named fields, 43 so. FIELDS only ever grows at its end.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec

from looseends.wire import NS
from looseends_daemon.core.facts import SLOTS, Cell, Cells, Fact
from looseends_daemon.core.resources import Value
from looseends_daemon.store.questions import Question

PAYLOADS = ("args", "result", "error", "stack")
FIELDS = (
    *("name", "service", "environment", "key", "deadline", "duration", "declared", "source", "request", "queue", "parent"),
    *("trace_id", "span_id", "tags", "eta", "start_within", "progress_within", "not_replayable_because", "replay_of", "code"),
    *("done", "note", "handled", "will_retry", "retry_at", "reason", "within", "place"),
)
_WORDS = FIELDS[:3]
_FIELD = {field: n for n, field in enumerate(FIELDS)}
_NARROW = {**_FIELD, **dict.fromkeys(PAYLOADS)}
_SECONDS = frozenset(_FIELD[field] for field in ("deadline", "duration", "start_within", "progress_within", "done", "within"))
_DURATION = _FIELD["duration"]
_NUMBER = {slot: n for n, slot in enumerate(SLOTS)}
_STARTED = _NUMBER["started"]
_Body = dict[int | str, Any]
_Slots = dict[int, list[Any]]
_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(list[Any])


class Home(Value, frozen=True):
    """The words that a task row's numbers stand for; of an expectation, which has no row of its own, none are known (0)."""

    type: int = 0
    environment: int = 0
    words: tuple[str | None, str | None, str | None] = (None, None, None)
    """(name, service, environment)."""


NOWHERE = Home()


class InstanceIds:
    """Numbers and what they stand for, looked up once per unit of work: instances, and the homes of tasks."""

    def __init__(self, conn: sqlite3.Connection | None = None) -> None:
        self._conn = conn
        self._ids: dict[int, str] = {0: ""}
        self._nos: dict[str, int] = {"": 0}
        self._types: dict[int, tuple[str, str]] = {}
        self._environments: dict[int, str] = {}
        self._homes: dict[tuple[int, int], Home] = {(0, 0): NOWHERE}

    def learn(self, no: int, instance: str) -> None:
        """Remember a pair that is already at hand."""
        self._ids[no], self._nos[instance] = instance, no

    def learn_type(self, no: int, service: str, name: str) -> None:
        """Remember a type that is already at hand."""
        self._types[no] = (service, name)

    def learn_environment(self, no: int, name: str) -> None:
        """Remember an environment that is already at hand."""
        self._environments[no] = name

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

    def home(self, type_: int, environment: int) -> Home:
        """The words of a task row's numbers. Raises KeyError for numbers that were not learnt, where there is no connection."""
        found = self._homes.get((type_, environment))
        if found is None:
            if self._conn is not None and type_ not in self._types:
                row = self._conn.execute("SELECT service, name FROM type WHERE id = ?", (type_,)).fetchone()
                self.learn_type(type_, row[0], row[1])
            if self._conn is not None and environment not in self._environments:
                row = self._conn.execute("SELECT name FROM environment WHERE id = ?", (environment,)).fetchone()
                self.learn_environment(environment, row[0])
            service, name = self._types[type_]
            found = Home(type=type_, environment=environment, words=(name, service, self._environments[environment]))
            self._homes[type_, environment] = found
        return found


def learnt(ids: InstanceIds, blobs: Iterable[bytes]) -> Question[InstanceIds]:
    """Fetch the words of these blobs' homes, for a reader that has no connection at hand."""
    homes = {tuple(_decoder.decode(blob)[:2]) for blob in blobs} - {(0, 0)}
    types, environments = sorted({home[0] for home in homes}), sorted({home[1] for home in homes})
    rows = yield (
        f"SELECT id, service, name FROM type WHERE id IN ({', '.join('?' * len(types))})"
        f" UNION ALL SELECT -id, name, '' FROM environment WHERE id IN ({', '.join('?' * len(environments))})",
        [*types, *environments],
    )
    for row in rows:
        if row["id"] < 0:
            ids.learn_environment(-row["id"], row["service"])
        else:
            ids.learn_type(row["id"], row["service"], row["name"])
    return ids


def pack(cells: Cells, ids: InstanceIds, home: Home = NOWHERE) -> bytes:
    """Cells as the blob of the row with these numbers."""
    base = min(fact.at for cell in cells.values() for fact in cell.values())
    words = home.words
    packed: list[Any] = [home.type, home.environment, base]
    for (attempt, who), cell in cells.items():
        started = cell.get("started")
        begun = None if started is None else started.at
        packed.append((attempt, ids.no(who), {_NUMBER[slot]: _fact(fact, base, begun, words) for slot, fact in cell.items()}))
    return _encoder.encode(packed)


def _fact(fact: Fact, base: int, begun: int | None, words: Sequence[str | None]) -> list[Any]:
    body: _Body = {}
    for field, value in fact.body.items():
        number = _NARROW.get(field, field)
        if number is None:
            continue
        if value.__class__ is float and value.is_integer() and number in _SECONDS:
            value = int(value)
        body[number] = value
    if begun is not None and _DURATION in body and fact.body["duration"] == (fact.at - begun) / NS:
        body[_DURATION] = True
    for number, word in enumerate(words):
        if body.get(number) == word:
            body.pop(number, None)
        else:
            body.setdefault(number, None)
    at = fact.at - base
    if fact.said_at != fact.at:
        return [at, body, fact.said_at - base]
    return [at, body] if body else [at]


def unpack(blob: bytes, ids: InstanceIds) -> Cells:
    """The blob of a row as cells, without payloads."""
    type_, environment, base, *packed = _decoder.decode(blob)
    words = {field: word for field, word in zip(_WORDS, ids.home(type_, environment).words, strict=True) if word is not None}
    cells: Cells = {}
    for attempt, no, slots in packed:
        started = slots.get(_STARTED)
        begun = None if started is None else base + started[0]
        cell: Cell = {SLOTS[n]: _unpacked(fact, base, begun, words) for n, fact in slots.items()}
        cells[attempt, ids.id(no)] = cell
    return cells


def _unpacked(fact: list[Any], base: int, begun: int | None, words: Mapping[str, str]) -> Fact:
    at = base + fact[0]
    body: dict[str, Any] = dict(words)
    if len(fact) > 1:
        for number, value in fact[1].items():
            if value is None:
                del body[FIELDS[number]]
            elif number.__class__ is str:
                body[number] = value
            elif number in _SECONDS:
                body[FIELDS[number]] = (at - (begun or 0)) / NS if value is True else float(value)
            else:
                body[FIELDS[number]] = value
    return Fact(at=at, said_at=base + fact[2] if len(fact) > 2 else at, body=body)


def numbers(blob: bytes) -> set[int]:
    """The instance numbers that a blob speaks of, for a reader that fetches them in one go."""
    return {cell[1] for cell in _decoder.decode(blob)[3:]} - {0}


def told_in(blob: bytes, field: str, slots: Sequence[str]) -> Iterable[Any]:
    """What the facts of these slots say in a field that no home holds, the latest attempt first."""
    number = _FIELD[field]
    for _, _, cell in sorted(_decoder.decode(blob)[3:], key=lambda cell: -cell[0]):
        for slot in slots:
            fact = cell.get(_NUMBER[slot])
            if fact is not None and len(fact) > 1 and fact[1].get(number) is not None:
                yield fact[1][number]


assert len(SLOTS) < 128, "slots are small integers in the blob"
