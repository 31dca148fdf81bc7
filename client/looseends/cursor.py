"""What of a journal has been taken by the daemon: one cursor per segment, in memory only.

Rules: a kill forgets it and everything is sent again, which the daemon folds away. A record is done when its end was
taken; a segment whose records are all done is unlinked. Used by the sender's thread alone.
"""

from __future__ import annotations

import json
import time

from . import slots
from .journal import Journal, Segment, anchor_now
from .slots import HAS_END, HAS_PROGRESS, HAS_SCHEDULED, HAS_STARTED, HEADER_BYTES, SLOT_BYTES
from .wire import BODY_BYTES_MAX, EVENTS_MAX

BATCH_BYTES_MAX = BODY_BYTES_MAX // 2
ANCHOR_NS_MIN = 1_000_000
VOID_S = 60.0
"""A slot reserved but not committed for this long after its segment was retired was never written: its thread is gone."""
VOID_MAX = 1_000


class Acked:
    """What the daemon has of one record: a mask of HAS_*, and which progress."""

    __slots__ = ("mask", "progress")

    def __init__(self) -> None:
        self.mask = 0
        self.progress = 0


class Cursor:
    """One segment's records that are not done yet."""

    def __init__(self, segment: Segment) -> None:
        self.segment = segment
        self.open: dict[int, Acked] = {}
        self.holes: set[int] = set()
        self.seen = 0

    def look(self) -> None:
        """Take in the records committed since the last look."""
        column = self.segment.map[HEADER_BYTES::SLOT_BYTES]
        for index in [i for i in self.holes if column[i]]:
            self.holes.discard(index)
            self.open[index] = Acked()
        end = column.rfind(1) + 1
        for index in range(self.seen, end):
            if column[index]:
                self.open[index] = Acked()
            else:
                self.holes.add(index)
        self.seen = max(self.seen, end)

    def drained(self) -> bool:
        """Whether this segment is out of use and everything in it was taken."""
        retired = self.segment.retired_at
        if not retired or self.open:
            return False
        whole = self.seen == self.segment.head.slots and not self.holes
        return whole or time.monotonic() - retired > VOID_S

    def void(self) -> list[int]:
        """Record numbers that were reserved and never written."""
        return [self.segment.head.base + index + 1 for index in sorted(self.holes)]


class Batch:
    """Events cut for one POST, as JSON texts, and what they are when the answer comes."""

    def __init__(self) -> None:
        self.texts: list[str] = []
        self.size = 0
        self.parts: list[tuple[Cursor, int, int, int]] = []  # cursor, index, mask, progress word
        self.backlog = 0

    def is_full(self, events_max: int) -> bool:
        """Whether another record may not fit: one record is at most four events."""
        return len(self.texts) + 4 > max(events_max, 4) or self.size >= BATCH_BYTES_MAX


class Cursors:
    """All of a journal's segments, and the batches cut from them."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._cursors: dict[int, Cursor] = {}
        self._anchor = 0
        self.ended = 0
        self.last_seq = 0
        self._void: list[int] = []

    def steady_anchor(self) -> int:
        """Wall minus monotonic clock, held still while it moves by under a millisecond: no end before its own start."""
        now = anchor_now()
        if abs(now - self._anchor) > ANCHOR_NS_MIN:
            self._anchor = now
        return self._anchor

    def look(self) -> None:
        """Take in new segments and new records."""
        for segment in list(self._journal.segments):
            cursor = self._cursors.get(id(segment))
            if cursor is None:
                cursor = self._cursors[id(segment)] = Cursor(segment)
            if cursor.seen < segment.head.slots or cursor.holes:
                cursor.look()
                if cursor.seen:
                    self.last_seq = max(self.last_seq, segment.head.base + cursor.seen)

    def cut(self, events_max: int = EVENTS_MAX) -> Batch:
        """The next batch: the oldest records with something unsent. `backlog` counts what stays behind it."""
        self.look()
        batch, anchor = Batch(), self.steady_anchor()
        for cursor in list(self._cursors.values()):
            for index, acked in cursor.open.items():
                missing, progress = _missing(cursor, index, acked)
                if not missing:
                    continue
                if batch.is_full(events_max):
                    batch.backlog += 1
                else:
                    self._add(batch, cursor, index, missing, progress, anchor)
        return batch

    def _add(self, batch: Batch, cursor: Cursor, index: int, missing: int, progress: int, anchor: int) -> None:
        segment = cursor.segment
        record = slots.read_slot(segment.map, index, segment.head, self._journal.names, segment.side.read)
        events = slots.events_of(record, anchor, segment.side.read, missing) if record is not None else []
        texts = [json.dumps(event, separators=(",", ":")) for event in events]
        batch.texts += texts
        batch.size += sum(map(len, texts))
        batch.parts.append((cursor, index, missing, progress))

    def taken(self, batch: Batch) -> None:
        """The daemon has these: forget what is done, unlink segments that are drained."""
        for cursor, index, mask, progress in batch.parts:
            acked = cursor.open.get(index)
            if acked is None:
                continue
            acked.mask |= mask & ~HAS_PROGRESS
            acked.progress = progress or acked.progress
            if acked.mask & HAS_END:
                self.ended += 1
                del cursor.open[index]
        self.sweep()

    def sweep(self) -> None:
        """Unlink drained segments."""
        for key, cursor in list(self._cursors.items()):
            if cursor.drained():
                self._void = [*self._void, *cursor.void()][-VOID_MAX:]
                self._journal.segments.remove(cursor.segment)
                del self._cursors[key]
                cursor.segment.unlink()

    def open_count(self) -> int:
        """Records without an end that was taken."""
        return sum(len(cursor.open) for cursor in self._cursors.values())

    def unsent(self) -> int:
        """Records with something the daemon does not have."""
        self.look()
        return sum(
            bool(_missing(cursor, index, acked)[0]) for cursor in self._cursors.values() for index, acked in cursor.open.items()
        )

    def open_ids(self, limit: int) -> list[str]:
        """Ids of records still open, at most `limit`."""
        names = self._journal.names
        found: list[str] = []
        for cursor in self._cursors.values():
            for index in cursor.open:
                record = slots.read_slot(cursor.segment.map, index, cursor.segment.head, names, cursor.segment.side.read)
                if record is not None and len(found) < limit:
                    found.append(slots.id_text(record.task))
        return found

    def void(self) -> list[int]:
        """Record numbers reserved and never written, at most VOID_MAX of segments that were drained."""
        return [*self._void, *(number for cursor in self._cursors.values() for number in cursor.void())]


def _missing(cursor: Cursor, index: int, acked: Acked) -> tuple[int, int]:
    """What of a record the daemon does not have: (mask of HAS_*, the progress word as it stands now)."""
    scheduled, started, ended, _, progress = slots.words_of(cursor.segment.map, index)
    has = (HAS_SCHEDULED if scheduled else 0) | (HAS_STARTED if started else 0) | (HAS_END if ended & 7 else 0)
    missing = has & ~acked.mask
    return (missing | HAS_PROGRESS if progress != acked.progress else missing), progress
