"""Records as the journal's own bytes: what the sender posts to a daemon that takes them so. Pure; written and read here.

Rules (docs/journal.md draws the layout):

1. A parcel is one line of JSON that says what follows, then names, side entries and slots, just as they lie in the journal, as
   long as that line says and no byte more. Who reads it learns what the same records say as JSON, and checks it the same way.
2. To write one costs a service next to nothing for each record: slots are copied in runs, looked at in columns.
3. Whoever wrote a parcel may be hostile: every number has a bound, nothing is given out twice, and what is no record is named
   as one problem. `read` raises Refused and TooMuch, nothing else.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from . import slots, telling
from .slots import SLOT_BYTES, Header, Name
from .wire import EVENTS_MAX, INT_MAX, Problem, Refused

CONTENT_TYPE = "application/x-looseends-journal"
TAKES = "Looseends-Takes"
"""The header by which a daemon says, in every answer to a batch, that it takes the next one so; its value is TAKEN."""
TAKEN = "journal"
EVERYTHING = 15
SLOTS_MAX = EVENTS_MAX
HEAD_BYTES_MAX = 512 << 10
NAMES_WEIGHT_MAX = 8 << 20
"""Of names, each as often as a record here points at it: every event repeats what its name says."""
_HEAD_MEMBERS = {"instance", "sent_at", "backlog", "anchor", "names", "side", "segments", "runs"}


class TooMuch(Exception):
    """It may all be true, but it is more than is taken at a time."""


class Run(NamedTuple):
    """Slots that lie side by side, and what of each is wanted: a mask of HAS_*."""

    head: Header
    first: int
    want: int
    data: bytes

    def slot(self, index: int) -> bytes:
        """The bytes of one, counted from 0."""
        return self.data[index * SLOT_BYTES : (index + 1) * SLOT_BYTES]

    def __len__(self) -> int:
        return len(self.data) // SLOT_BYTES


Entry = tuple[int, bytes]
"""Of a side file: the offset, and what stands there, length and CRC with it."""


def pack(envelope: str, anchor: int, runs: Sequence[Run], sides: Sequence[Sequence[Entry]], names: Iterable[bytes]) -> bytes:
    """A parcel. `envelope`: the members instance, sent_at and backlog as JSON; `sides`: for each run what its slots point at."""
    segments: dict[Header, int] = {}
    places = [(segments.setdefault(run.head, len(segments)), run.first, len(run), run.want) for run in runs]
    entries = [(places[number][0], *entry) for number, side in enumerate(sides) for entry in side]
    table = b"".join(names)
    head = {
        "anchor": anchor,
        "names": len(table),
        "side": [(segment, offset, len(data)) for segment, offset, data in entries],
        "segments": [head[:4] for head in segments],
        "runs": places,
    }
    line = f"{{{envelope},{json.dumps(head, separators=(',', ':'))[1:]}\n".encode()
    return b"".join([line, table, *(data for _, _, data in entries), *(run.data for run in runs)])


class Parcel(NamedTuple):
    """What was read: the document that check_batch takes, and what was no record."""

    document: dict[str, Any]
    damaged: list[Problem]


def read(body: bytes) -> Parcel:
    """A parcel as the document its events would be as JSON. Raises Refused (it is none), TooMuch (send less at a time)."""
    head, at = _head(body)
    runs, sides, names, weights = _cut(head, body, at)
    document = {"instance": head.get("instance"), "sent_at": head.get("sent_at"), "backlog": head.get("backlog")}
    document["events"] = events = []
    damaged: list[Problem] = []
    weight = place = 0
    for segment, run in runs:
        side = _Entries(sides[segment])
        for index in range(len(run)):
            found = slots.read_one(run.slot(index), run.first + index, run.head, names, side.read)
            told = telling.events_of(found, head["anchor"], side.read, run.want) if found is not None else []
            if found is None or (not told and run.want == EVERYTHING):
                damaged.append(Problem(-1, f"/slots/{place}", "is no record, or one whose name is not in this body"))
            else:
                weight += weights[id(found.name)] * len(told)
            place += 1
            events += told
            if len(events) > EVENTS_MAX or weight > NAMES_WEIGHT_MAX:
                raise TooMuch(f"over {EVENTS_MAX} events, or {NAMES_WEIGHT_MAX >> 20} MiB of what their names say")
    return Parcel(document, damaged)


def _head(body: bytes) -> tuple[dict[str, Any], int]:
    """The first line, and where it ends."""
    end = body.find(b"\n", 0, HEAD_BYTES_MAX)
    head = slots.loads(body[:end]) if end >= 0 else None
    if not isinstance(head, dict) or not isinstance(head.get("instance"), dict):
        raise Refused(f"must begin with a line of JSON: an object with {', '.join(sorted(_HEAD_MEMBERS))}")
    if not _is_count(head.get("anchor"), -INT_MAX):
        raise Refused("must be a whole number: what to add to a record's times, in ns", "/anchor")
    return head, end + 1


def _cut(
    head: dict[str, Any], body: bytes, at: int
) -> tuple[list[tuple[int, Run]], list[dict[int, bytes]], dict[int, Name], dict[int, int]]:
    """Runs with the numbers of their segments, side entries by segment and offset, names, and how heavy each name is."""
    headers = [_header(numbers, f"/segments/{n}") for n, numbers in enumerate(_rows(head, "segments", 4))]
    size: Any = head.get("names")
    if not _is_count(size) or size > slots.NAMES_BYTES_MAX:
        raise Refused("must be the bytes of the names that follow", "/names")
    lines = body[at : at + size].split(b"\n")
    names = slots.read_names(body[at : at + size])
    at += size
    sides: list[dict[int, bytes]] = [{} for _ in headers]
    for n, (segment, offset, length) in enumerate(_rows(head, "side", 3)):
        if segment >= len(headers):
            raise Refused("must be a segment's number, an offset and a length", f"/side/{n}")
        sides[segment][offset] = body[at : at + length]
        at += length
    runs = []
    for n, (segment, first, count, want) in enumerate(_rows(head, "runs", 4)):
        if segment >= len(headers) or first + count > headers[segment].slots or want > EVERYTHING:
            raise Refused("must be a segment's number, a first slot in it, how many, and what is wanted", f"/runs/{n}")
        runs.append((segment, Run(headers[segment], first, want, body[at : at + count * SLOT_BYTES])))
        at += count * SLOT_BYTES
    if at != len(body):
        raise Refused(f"is {len(body)} bytes long, and its first line speaks of {at}")
    if sum(len(run) for _, run in runs) > SLOTS_MAX:
        raise TooMuch(f"over {SLOTS_MAX} records")
    return runs, sides, names, _weights(names, lines)


def _rows(head: dict[str, Any], member: str, width: int) -> list[list[int]]:
    """A member that is a list of lists of `width` numbers from 0."""
    rows: Any = head.get(member)
    if not isinstance(rows, list) or len(rows) > 4 * SLOTS_MAX:
        raise Refused(f"must be a list of at most {4 * SLOTS_MAX}", f"/{member}")
    if all(isinstance(row, list) and len(row) == width and all(map(_is_count, row)) for row in rows):
        return rows
    raise Refused(f"must be lists of {width} whole numbers from 0", f"/{member}")


def _is_count(value: object, least: int = 0) -> bool:
    return type(value) is int and least <= value <= INT_MAX


def _header(numbers: list[int], pointer: str) -> Header:
    count, time_ms, nonce, base = numbers
    if count not in slots.SLOTS or time_ms >= 1 << 48 or nonce >= 1 << 58 or base >= 1 << 40:
        raise Refused("must be slots, time in ms, nonce and base of a segment of version 1", pointer)
    return slots.make_header(count, time_ms, nonce, base)


def _weights(names: dict[int, Name], lines: list[bytes]) -> dict[int, int]:
    """By the identity of a name, how many bytes of JSON it brings to each of its events: at most, its own line."""
    longest = max(map(len, lines), default=0)
    if longest * SLOTS_MAX <= NAMES_WEIGHT_MAX:  # nearly always: no need to look at each
        return dict.fromkeys(map(id, names.values()), longest)
    return {id(name): len(slots.pack_name(number, name)) for number, name in names.items()}


class _Entries:
    """The side entries of one run's segment; in all no more is given than they are, however many slots point at one of them."""

    def __init__(self, entries: dict[int, bytes]) -> None:
        self._entries = entries
        self._left = sum(map(len, entries.values()))

    def read(self, offset: int, length: int) -> bytes:
        found = self._entries.get(offset, b"")
        if len(found) != length or length > self._left:
            return b""
        self._left -= length
        return found
