"""What is cut from a journal for one post: runs of slots as they were copied, what they point at, and what is left afterwards.

Rules: what was cut counts, not what stands in the journal when the answer comes. An end that may still change (a failure whose
exception somebody may come for) is left out of the copy as if it had not come. Used by the sender's thread alone.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, NamedTuple

from . import slots
from .parcel import Run
from .slots import HAS_END, HAS_PROGRESS, HAS_SCHEDULED, HAS_STARTED, SLOT_BYTES
from .wire import BODY_BYTES_MAX, EVENTS_MAX, NS

if TYPE_CHECKING:
    from .cursor import Cursor

BATCH_BYTES_MAX = BODY_BYTES_MAX // 2
Place = tuple[int, int]
"""Offset and length in a side file."""


class Acked:
    """What the daemon has of one record: a mask of HAS_*, and which progress."""

    __slots__ = ("mask", "progress")

    def __init__(self, mask: int = 0, progress: int = 0) -> None:
        self.mask, self.progress = mask, progress


class Part(NamedTuple):
    """A run cut for a batch: where it was copied from, what its slots point at, and what is left of it once it is taken."""

    cursor: Cursor
    run: Run
    fresh: bool
    names: frozenset[int]
    places: list[Place]
    left: list[tuple[int, Acked]]
    events: int
    size: int

    def split(self, records: int) -> Part:
        """The first `records` of it."""
        return part_of(self.cursor, self.run.first, self.run.want, self.run.data[: records * SLOT_BYTES], self.fresh)


class Batch:
    """What was cut for one POST, and how many records with something unsent stay behind it."""

    def __init__(self, anchor: int, events_max: int = EVENTS_MAX) -> None:
        self.parts: list[Part] = []
        self.anchor = anchor
        self.backlog = self.records = self.events = self.size = 0
        self._events_max = max(events_max, 4)

    def add(self, part: Part) -> bool:
        """Take in what there is room for; whether that was all of it. One record is always taken."""
        asked = count = len(part.run)
        while not self._fits(part) and (self.parts or count > 1):
            count //= 2
            if not count:
                return False
            part = part.split(count)
        self.parts.append(part)
        self.records += count
        self.events += part.events
        self.size += part.size
        return count == asked

    def _fits(self, part: Part) -> bool:
        return self.events + part.events <= self._events_max and self.size + part.size <= BATCH_BYTES_MAX


def part_of(cursor: Cursor, first: int, want: int, data: bytes, fresh: bool) -> Part:
    """A run of slots as it was just copied, looked at: `fresh` is a run of which nothing was told so far."""
    columns = slots.columns(data)
    if want & HAS_END and any(ended & 7 == slots.UNSURE for ended in columns.ended):
        data = _without_unsure(data, columns)
        columns = slots.columns(data)
    left = [] if want & HAS_END and all(columns.ended) else _left(first, want, columns)
    places = _places(columns, want) if any(columns.detail) or any(columns.progress) or any(columns.flags) else []
    # at most: `scheduled` and `progress` are in few, and one that has them counts for all beside it
    events = 1 + (any(columns.scheduled) + any(columns.started) + any(columns.progress) if want & ~HAS_END else 0)
    size = len(data) + sum(length for _, length in places)
    names = frozenset(columns.names)
    run = Run(cursor.segment.head, first, want, data)
    return Part(cursor, run, fresh, names, places, left, events * len(run), size)


def _left(first: int, want: int, columns: slots.Columns) -> list[tuple[int, Acked]]:
    """What of a run will have been taken of the records in it that are not done then."""
    left = []
    rows = zip(columns.scheduled, columns.started, columns.ended, columns.progress, strict=True)
    for index, (scheduled, started, ended, progress) in enumerate(rows, first):
        if not (ended and want & HAS_END):
            mask = (HAS_SCHEDULED if scheduled else 0) | (HAS_STARTED if started else 0)
            left.append((index, Acked(mask & want, progress if want & HAS_PROGRESS else 0)))
    return left


def _places(columns: slots.Columns, want: int) -> list[Place]:
    """Where the side file holds what these slots point at, of what is wanted."""
    refs = [ref for ref in columns.detail if ref] if want & HAS_END else []
    if want & HAS_PROGRESS:
        refs += [ref for ref in columns.progress if ref]
    # what a broker was handed is told with its arguments once more, at its end
    if want & (HAS_SCHEDULED | HAS_STARTED) or any(ended & 7 == slots.HANDED for ended in columns.ended):
        refs += [ref for flags, ref in zip(columns.flags, columns.spilled, strict=True) if flags & slots.SPILLED]
    return [place for place in map(slots.ref_place, refs) if place[1]]


def _without_unsure(data: bytes, columns: slots.Columns) -> bytes:
    """A run without the ends that are held back for now: as if they had not come."""
    copy = bytearray(data)
    now = time.monotonic_ns()
    for index, ended in enumerate(columns.ended):
        if not is_told(ended, now):
            at = index * SLOT_BYTES + slots.ENDED_AT
            copy[at : at + 8] = bytes(8)
    return bytes(copy)


def is_told(ended: int, now: int) -> bool:
    """Whether this end is to be told: there is one, and nobody may still come for its exception."""
    return bool(ended & 7) and (ended & 7 != slots.UNSURE or now - ended >= slots.UNSURE_S * NS)
