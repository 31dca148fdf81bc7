"""What of a journal has been taken by the daemon: one cursor per segment, in memory only; and batches cut for the next post.

Rules:

1. A kill forgets all of it and everything is sent again, which the daemon folds away. A record is done when its end was
   taken; a segment whose records are all done is unlinked. Used by the sender's thread alone.
2. Records are handled in runs, as bytes: what was committed since the last look is `fresh`, a range; what was told and has not
   ended is `open`, each by itself. This thread takes the interpreter's lock from the service's own work while it runs.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator

from . import slots
from .batch import Acked, Batch, Part, is_told, part_of
from .journal import Journal, Segment
from .parcel import EVERYTHING
from .slots import HAS_END, HAS_PROGRESS, HAS_SCHEDULED, HAS_STARTED, HEADER_BYTES, SLOT_BYTES
from .wire import EVENTS_MAX, NS

STEP_RECORDS = 125
"""Copied and looked at in one go: some 30 us during which nobody else has the interpreter's lock."""
AHEAD_RECORDS = 512
VOID_S = 60.0
"""A slot reserved but not committed for this long after its segment was retired was never written: its thread is gone."""
VOID_MAX = 1_000
FEW = 64
"""So many open records are looked at one by one; of more, those whose words have changed."""
_SLOT_WORDS = SLOT_BYTES // 8
_CHANGING = (slots.STARTED_AT, slots.ENDED_AT, slots.PROGRESS_AT)
_ENDED_AT = HEADER_BYTES + slots.ENDED_AT
_SET = re.compile(rb"[^\0]")
_UNSET = re.compile(rb"\0")


class Cursor:
    """One segment's records that are not done yet."""

    def __init__(self, segment: Segment) -> None:
        self.segment = segment
        self.open: dict[int, Acked] = {}
        self.fresh: list[tuple[int, int]] = []  # ranges of which nothing was taken so far
        self.holes: set[int] = set()
        self.seen = 0
        self._all_at = 0.0
        self._moved: set[int] = set()  # of the open ones, those that may have more to tell
        self._unsure: dict[int, int] = {}  # failures held back, until when (monotonic ns)
        self._before = [b""] * len(_CHANGING)

    # --- looking ---

    def look(self) -> None:
        """Take in what was committed and what has changed since the last look."""
        for index in [i for i in self.holes if self.segment.map[HEADER_BYTES + i * SLOT_BYTES]]:
            self.holes.discard(index)
            self._add(index, index + 1)
        if self.seen < self.segment.head.slots:
            self._look_on()
        if self.open:
            self._look_back()

    def _look_on(self) -> None:
        """A little ahead while there is something; all of the rest once a second, for what lies behind a slot that is not."""
        while self.seen < self.segment.head.slots and self._take_in(AHEAD_RECORDS):
            continue
        now = time.monotonic()
        if now >= self._all_at:
            self._take_in(self.segment.head.slots)
            self._all_at = now + 1.0

    def _take_in(self, ahead: int) -> bool:
        """Whether anything was committed in so many slots ahead."""
        at, end = self.seen, min(self.seen + ahead, self.segment.head.slots)
        column = self.segment.map[HEADER_BYTES + at * SLOT_BYTES : HEADER_BYTES + end * SLOT_BYTES : SLOT_BYTES]
        written = column.rfind(1) + 1
        begin = 0
        for hole in [found.start() for found in _UNSET.finditer(column, 0, written)]:
            self.holes.add(at + hole)
            self._add(at + begin, at + hole)
            begin = hole + 1
        self._add(at + begin, at + written)
        self.seen = at + written
        return written > 0

    def _add(self, first: int, end: int) -> None:
        if self.fresh and self.fresh[-1][1] == first < end:
            self.fresh[-1] = self.fresh[-1][0], end
        elif first < end:
            self.fresh.append((first, end))

    def _look_back(self) -> None:
        if len(self.open) <= FEW or not self._before[0]:
            self._moved.update(self.open)
        if len(self.open) <= FEW:
            self._before = [b""] * len(_CHANGING)
            return
        with memoryview(self.segment.map) as data, data.cast("Q") as words:
            end = HEADER_BYTES // 8 + self.seen * _SLOT_WORDS
            now = [words[(HEADER_BYTES + at) // 8 : end : _SLOT_WORDS].tobytes() for at in _CHANGING]
        for before, column in zip(self._before, now, strict=True):
            if not column.startswith(before):
                self._moved.update(index for index in _differing(before, column) if index in self.open)
        self._before = now
        due = time.monotonic_ns()
        for index in [index for index, until in self._unsure.items() if until <= due]:
            del self._unsure[index]
            if index in self.open:
                self._moved.add(index)

    def more(self) -> list[tuple[int, int]]:
        """Open records with something the daemon does not have: (index, mask of HAS_*)."""
        found = []
        for index in sorted(self._moved):
            missing, _ = _missing(self, index, self.open[index])
            if missing:
                found.append((index, missing))
                continue
            self._moved.discard(index)
            ended = slots.words_of(self.segment.map, index)[2]
            if ended & 7 == slots.UNSURE:
                self._unsure[index] = (ended & ~7) + int(slots.UNSURE_S * NS)
        return found

    def unended(self, first: int = 0) -> list[int]:
        """Records from slot `first` on that have not ended, told or not."""
        at = _ENDED_AT + first * SLOT_BYTES
        column = self.segment.map[at : _ENDED_AT + self.seen * SLOT_BYTES : SLOT_BYTES]  # the outcome is in the lowest byte
        return [first + found.start() for found in _UNSET.finditer(column) if first + found.start() not in self.holes]

    def count(self) -> int:
        """Records whose end was not taken."""
        return len(self.open) + self.fresh_count()

    def fresh_count(self) -> int:
        """Records of which nothing was taken."""
        return sum(end - first for first, end in self.fresh)

    def drained(self) -> bool:
        """Whether this segment is out of use and everything in it was taken."""
        retired = self.segment.retired_at
        if not retired or self.open or self.fresh:
            return False
        whole = self.seen == self.segment.head.slots and not self.holes
        return whole or time.monotonic() - retired > VOID_S

    def void(self) -> list[int]:
        """Record numbers that were reserved and never written."""
        return [self.segment.head.base + index + 1 for index in sorted(self.holes)]

    # --- cutting and taking ---

    def cut(self, more: list[tuple[int, int]]) -> Iterator[Part]:
        """What there is to tell, in runs; the caller stops when it has enough. `more` is what `more()` gave."""
        begin = 0
        for at, (index, want) in enumerate(more, 1):
            if at == len(more) or more[at] != (index + 1, want) or at - begin == STEP_RECORDS:
                yield self._copy(more[begin][0], index + 1, want, False)
                begin = at
        for first, end in self.fresh:
            for step in range(first, end, STEP_RECORDS):
                yield self._copy(step, min(step + STEP_RECORDS, end), EVERYTHING, True)

    def _copy(self, first: int, end: int, want: int, fresh: bool) -> Part:
        at = HEADER_BYTES + first * SLOT_BYTES
        return part_of(self, first, want, self.segment.map[at : at + (end - first) * SLOT_BYTES], fresh)

    def taken(self, part: Part) -> int:
        """The daemon has this part. -> how many ends were in it."""
        first, end = part.run.first, part.run.first + len(part.run)
        if part.fresh:
            self.fresh = [piece for old in self.fresh for piece in _less(old, first, end)]
            for index, acked in part.left:
                self.open[index] = acked
                self._moved.add(index)
            return len(part.run) - len(part.left)
        left = dict(part.left)
        for index in range(first, end):
            told = left.get(index)
            if told is None:
                del self.open[index]
                self._moved.discard(index)
            else:
                acked = self.open[index]
                acked.mask |= told.mask
                acked.progress = told.progress or acked.progress
        return end - first - len(left)


class Cursors:
    """All of a journal's segments, and the batches cut from them."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._cursors: dict[int, Cursor] = {}
        self.ended = 0
        self.last_seq = 0
        self._void: list[int] = []

    def steady_anchor(self) -> int:
        """See Journal.steady_anchor."""
        return self._journal.steady_anchor()

    def look(self) -> None:
        """Take in what was written since the last look."""
        for segment in list(self._journal.segments):
            cursor = self._cursors.get(id(segment))
            if cursor is None:
                cursor = self._cursors[id(segment)] = Cursor(segment)
            cursor.look()
            if cursor.seen:
                self.last_seq = max(self.last_seq, segment.head.base + cursor.seen)

    def all(self) -> list[Cursor]:
        """The cursors of all segments as of the last `look`."""
        return list(self._cursors.values())

    def cut(self, events_max: int = EVENTS_MAX) -> Batch:
        """The next batch: the oldest records with something unsent."""
        self.look()
        batch, full, unsent = Batch(self.steady_anchor(), events_max), False, 0
        for cursor in list(self._cursors.values()):
            more = cursor.more()
            unsent += len(more) + cursor.fresh_count()
            parts = () if full else cursor.cut(more)
            for part in parts:
                full = not batch.add(part)
                if full:
                    break
        batch.backlog = unsent - batch.records
        return batch

    def taken(self, batch: Batch) -> None:
        """The daemon has these: forget what is done, unlink segments that are drained."""
        for part in batch.parts:
            self.ended += part.cursor.taken(part)
        self.sweep()

    def sweep(self) -> None:
        """Unlink drained segments."""
        for key, cursor in list(self._cursors.items()):
            if cursor.drained():
                self._void = [*self._void, *cursor.void()][-VOID_MAX:]
                del self._cursors[key]
                self._journal.retire(cursor.segment)

    def open_count(self) -> int:
        """Records without an end that was taken."""
        return sum(cursor.count() for cursor in self._cursors.values())

    def unsent(self) -> int:
        """Records with something the daemon does not have."""
        self.look()
        return sum(len(cursor.more()) + cursor.fresh_count() for cursor in self._cursors.values())

    def open_ids(self, limit: int) -> list[str]:
        """Ids of records still open, at most `limit`."""
        names = self._journal.names
        found: list[str] = []
        for cursor in self._cursors.values():
            for index in cursor.open:
                if len(found) == limit:
                    return found
                record = slots.read_slot(cursor.segment.map, index, cursor.segment.head, names, cursor.segment.side.read)
                if record is not None:
                    found.append(slots.id_text(record.task))
        return found

    def void(self) -> list[int]:
        """Record numbers reserved and never written, at most VOID_MAX of segments that were drained."""
        return [*self._void, *(number for cursor in self._cursors.values() for number in cursor.void())]


def _differing(before: bytes, after: bytes) -> set[int]:
    """Which words differ between two columns, as far as the shorter one goes."""
    size = len(before)
    changed = int.from_bytes(before, "little") ^ int.from_bytes(after[:size], "little")
    return {found.start() // 8 for found in _SET.finditer(changed.to_bytes(size, "little"))}


def _less(old: tuple[int, int], first: int, end: int) -> list[tuple[int, int]]:
    """What is left of a range without another."""
    if end <= old[0] or first >= old[1]:
        return [old]
    return [piece for piece in ((old[0], first), (end, old[1])) if piece[0] < piece[1]]


def _missing(cursor: Cursor, index: int, acked: Acked) -> tuple[int, int]:
    """What of a record the daemon does not have: (mask of HAS_*, the progress word as it stands now)."""
    scheduled, started, ended, _, progress = slots.words_of(cursor.segment.map, index)
    told = is_told(ended, time.monotonic_ns())
    has = (HAS_SCHEDULED if scheduled else 0) | (HAS_STARTED if started else 0) | (HAS_END if told else 0)
    missing = has & ~acked.mask
    return (missing | HAS_PROGRESS if progress != acked.progress else missing), progress
