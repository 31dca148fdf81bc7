"""The journal a process writes: a task's start is on the page cache before its body runs, so `kill -9` cannot lose it.

Rules:

1. The hot path takes no lock and makes no system call: a slot is reserved by `next(count)`, filled by one slice
   assignment, committed by one byte.
2. A thread that does nothing else makes the next segment before this one is full (`keep_ready`): the sender's may be waiting for
   a daemon. A task makes it itself only where that thread was too late, and never logs, sends or waits for anything else.
3. No room, no permission, no disk: counted in `dropped`, never raised; said by the sender's thread, told by its heartbeat,
   and kept in the segment's head for whoever adopts the journal.
4. A folder that was deleted while we live is made anew by the sender's thread, with all that was in it (`restore`).

The reading side (`folders`, `read_instance`, `is_held`, `adopt`) is in `orphans.py` and offered here.
"""

from __future__ import annotations

import _thread
import itertools
import os
import threading
import time
from collections.abc import Callable
from typing import Any
from zlib import crc32

from . import slots, trouble
from .folder import Folder, SpoolFull
from .forks import canary
from .orphans import Orphan, adopt, folder_bytes, folders, is_held, is_taken, obstacle, read_instance
from .segment import LATE_WRITER_S, Segment, Side
from .slots import HEADER_BYTES, INLINE_BYTES_MAX, SIDE_UNIT, SLOT_BYTES, Name, Stamp
from .wire import SPOOL_BYTES_MAX

__all__ = [
    "Journal", "Orphan", "Segment", "Side", "SpoolFull",
    "adopt", "folder_bytes", "folders", "is_held", "is_taken", "obstacle", "read_instance",
]  # fmt: skip

PROCESS_BYTES_MAX = SPOOL_BYTES_MAX // 4
RETRY_NS = 1_000_000_000
CLOSE_S = 1.0
ANCHOR_NS_MIN = 1_000_000
_PACK = slots.SLOT.pack
_FIXED = slots.FIXED.pack
_WORD = slots.WORD.pack
_PACKERS = slots.PACKERS
_NO_ID = slots.NO_ID
_NO_IDS = _NO_ID + _NO_ID
_BODY_LOST = b'{"not_replayable_because":"the spool had no room for its arguments"}'


def anchor_now() -> int:
    """Wall clock minus monotonic clock in ns."""
    return time.time_ns() - time.monotonic_ns()


class Journal:
    """All records of one process, in `<spool>/<instance id>/`.

    `begin` gives (segment, offset) or None where the record could not be kept; the offset is for `start`, `end`.
    """

    def __init__(self, spool: str, instance: dict[str, Any]) -> None:
        """Make the folder, take its lock, say who we are. Raises OSError, SpoolFull."""
        self._folder = Folder(spool, instance)
        self.spool, self.folder, self.names = spool, self._folder.path, self._folder.names
        self.dropped = 0
        self.others_bytes = 0
        self.ask: Callable[[], None] = _nobody  # called where a spare is wanted: the sender's wake
        self.anchor = anchor_now()
        self.alive = canary()
        self.segments: list[Segment] = []
        self.current: Segment | None = None
        self._made = itertools.count(1)
        self._spare: Segment | None = None
        self._lock = threading.RLock()
        self._preparing = threading.Lock()
        self._retry_at = self._base = self._refused = 0
        self._grown = 1
        self._told = (0, 0)
        self._closed = False
        self._why = ""
        try:
            first = self._make(0)
        except OSError:
            self.remove()
            raise
        self._base = first.head.slots
        self.segments.append(first)
        self.current = first

    # --- segments ---

    def _make(self, base: int, size: int = slots.SEGMENT_BYTES[0]) -> Segment:
        return Segment(f"{self.folder}/{next(self._made):08d}.seg", size, base, self.anchor, self.dropped)

    def bytes_used(self) -> int:
        """Disk this process's journal takes, side files included."""
        return sum(s.size + s.side.used * SIDE_UNIT for s in self.segments)

    def _has_room(self) -> bool:
        used = self.bytes_used() + slots.SEGMENT_BYTES_MAX
        if used <= PROCESS_BYTES_MAX and used + self.others_bytes <= SPOOL_BYTES_MAX:
            return True
        self._why = f"at its bound of {PROCESS_BYTES_MAX >> 20} MiB a process, {SPOOL_BYTES_MAX >> 20} MiB a spool"
        return False

    def prepare(self) -> None:
        """Have the next segment ready, and say what could not be kept. For threads of ours alone."""
        if not self._preparing.acquire(blocking=False):
            return
        try:
            current = self.current
            if current is None:
                self._rotate(None)
            elif self._spare is None and current.count == current.head.slots and time.monotonic_ns() >= self._retry_at:
                self._make_spare(current)
        finally:
            self._preparing.release()
        self._say()

    def keep_ready(self) -> None:
        """Start the thread that makes segments. It sleeps until a task asks for one, and ends with the journal."""
        wanted = _thread.allocate_lock()
        wanted.acquire()

        def ask() -> None:  # raw locks: safe in signal handlers and finalisers
            try:
                wanted.release()
            except RuntimeError:  # it was asked already
                return

        def run() -> None:
            while not self._closed:
                try:
                    self.prepare()
                except Exception as error:  # noqa: BLE001 - a thread of ours outlives what it meets, and says so
                    trouble.note("a segment could not be made", error)
                wanted.acquire()

        try:
            _thread.start_new_thread(run, ())  # no threading.Thread: nobody's capture sees it, no exit waits for it
        except RuntimeError as error:
            trouble.note("no thread can be started; tasks make the segments of their journal", error)
        else:
            self.ask = ask

    def _make_spare(self, current: Segment) -> None:
        spare = self._try_make(self._base)
        if spare is None:
            self._retry_at = time.monotonic_ns() + RETRY_NS
            return
        spare.touch(lambda: not self._closed)
        with self._lock:
            if self.current is current and self._spare is None and not self._closed:
                self._spare = spare
                return
        spare.unlink()

    def _say(self) -> None:
        """What was left out since the last time, with the reason."""
        dropped, left_out = self.dropped, self.left_out()
        why = self._why or "no room"
        if dropped > self._told[0]:
            trouble.note("tasks could not be recorded", f"{dropped} of this process: {why}")
        if left_out > self._told[1]:
            trouble.note("arguments, errors or progress found no room in the spool", f"{left_out} of this process: {why}")
        self._told = dropped, left_out

    def left_out(self) -> int:
        """How many arguments, errors and words of progress were left out of records that are kept."""
        return self._refused + sum(segment.side.refused for segment in list(self.segments))

    def retire(self, segment: Segment) -> None:
        """Forget a segment whose records were all taken, and remove it."""
        self._refused += segment.side.refused
        self.segments.remove(segment)
        segment.unlink()

    def _rotate(self, full: Segment | None) -> Segment | None:
        """The segment after `full`; None where there is no room. May be entered again by a signal handler."""
        with self._lock:
            if self.current is not full:
                return self.current
            if self._closed or (full is None and time.monotonic_ns() < self._retry_at):
                return None
            made, self._spare = self._spare, None
            if made is None:
                made = self._try_make(self._base)
            if self.current is not full:  # a signal handler was here in the meantime
                if made is not None:
                    made.unlink()
                return self.current
            # Nothing is called between that look and the next three lines: a handler only comes where something is.
            if made is not None:
                self._base = made.head.base + made.head.slots
            self.current = made
            if made is not None:
                self.segments.append(made)
            else:
                self._retry_at = time.monotonic_ns() + RETRY_NS
            if full is not None:
                full.retired_at = time.monotonic()
            return self.current

    def _try_make(self, base: int) -> Segment | None:
        """A segment four times as large as the one before, up to the largest; smaller where the disk has no more."""
        if not self._has_room():
            return None
        for size in reversed(slots.SEGMENT_BYTES[: self._grown + 1]):
            try:
                made = self._make(base, size)
            except OSError as error:
                self._why = str(error)
            else:
                self._grown = slots.SEGMENT_BYTES.index(size) + 1
                return made
        return None

    def place(self, segment: Segment | None, index: int) -> tuple[Segment, int] | None:
        """Where a record goes whose reservation (`index` in `segment`) met a limit; None: there is no room left."""
        while segment is not None or (segment := self._rotate(None)) is not None:
            if index < 0:
                index = segment.next()
            if index < segment.head.slots:
                if index >= segment.count:  # the mark: from here on only the end counts, and a spare is wanted
                    segment.count = segment.head.slots
                    self.ask()
                return segment, index
            segment, index = self._rotate(segment), -1
            if segment is None:
                return None
        return None

    def reserve(self) -> tuple[Segment, int] | None:
        """A slot nobody else has: (segment, index), or None where there is no room left."""
        return self.place(self.current, -1)

    def drop(self, count: int = 1) -> None:
        """Count records that were not kept, where it outlives us: in the head of the newest segment."""
        self.dropped += count
        segments = self.segments
        try:
            if segments:
                segments[-1].set_dropped(self.dropped)
        except (ValueError, IndexError):  # unlinked by the sender's thread at this moment: it tells the count itself
            return

    # --- what others may do to the folder, and time ---

    def refresh(self) -> None:
        """Show that we live, and what our clock means now; mend the folder if somebody deleted it. For the sender's thread."""
        self.steady_anchor()
        try:
            if self._is_there():
                self._folder.touch()
            else:
                self.restore()
        except OSError as error:
            trouble.note("the spool folder cannot be kept up; a kill now may lose records", error)

    def _is_there(self) -> bool:
        """Whether the files we write to still have their names."""
        return self._folder.is_whole() and all(os.path.exists(segment.path) for segment in list(self.segments))

    def restore(self) -> None:
        """The folder, or something in it, was deleted: make it anew with all that was in it. Raises OSError."""
        with self._lock:
            if self._closed:
                return
            self._folder.restore()
            finish = [segment.restore() for segment in (*self.segments, self._spare) if segment is not None]
        time.sleep(LATE_WRITER_S)
        for copy_late in finish:
            copy_late()
        trouble.note("the spool folder was deleted under this process; it was made anew with all that was in it", self.folder)

    def steady_anchor(self) -> int:
        """Wall minus monotonic clock, held still while it moves by under a millisecond: no end before its own start."""
        now = anchor_now()
        if abs(now - self.anchor) > ANCHOR_NS_MIN:
            self.anchor = now
            for segment in list(self.segments):
                segment.set_anchor(now)
        return self.anchor

    # --- records ---

    def name(self, name: Name) -> int:
        """The number of this name in the table, written there before any record can point at it. Raises OSError: no room."""
        return self._folder.name(name)

    def begin(
        self,
        number: int,
        args: bytes,
        extra: bytes,
        scheduled: int,
        started: int,
        parent: bytes = slots.NO_ID,
        task: bytes = slots.NO_ID,
        attempt: int = 1,
    ) -> tuple[Segment, int] | None:
        """Commit a record: `args` and `extra` are JSON; times monotonic ns, 0 for "not yet". None: counted as dropped."""
        if number not in self.names:
            self.drop()
            return None
        segment = self.current
        if segment is None or (index := segment.next()) >= segment.count:
            place = self.place(segment, -1 if segment is None else index)
            if place is None:
                self.drop()
                return None
            segment, index = place
        flags = 0 if task is _NO_ID else slots.OWN_ID
        body = args + extra if extra else args
        if len(body) > INLINE_BYTES_MAX:
            flags |= slots.SPILLED
            ref = segment.side.put(body)
            if not ref:
                args, extra, flags = b"", _BODY_LOST, flags & ~slots.SPILLED
                body = extra
            else:
                body = _WORD(ref)
        at = HEADER_BYTES + index * SLOT_BYTES
        alen, xlen = len(args), len(extra)
        rest = (_NO_IDS if parent is _NO_ID and task is _NO_ID else task + parent) + body
        crc = crc32(body, crc32(_FIXED(flags, attempt, number, alen, xlen) + task + parent) ^ segment.seal + index)  # slots.seal
        packed = _PACK(0, flags, attempt, number, crc, alen, xlen, scheduled, started, 0, 0, 0) + rest
        data = segment.map
        data[at : at + len(packed)] = packed
        data[at] = 1
        return segment, at

    def begin_plain(self, stamp: Stamp, args: bytes, started: int, parent: bytes | None) -> tuple[Segment, int] | None:
        """`begin` as nearly every call needs it, in two thirds of the time: a first attempt, started, nothing beside `args`."""
        size = len(args)
        if size > INLINE_BYTES_MAX:
            return self.begin(stamp.number, args, b"", 0, started, parent or slots.NO_ID)
        segment = self.current
        if segment is None or (index := segment.next()) >= segment.count:
            place = self.place(segment, -1 if segment is None else index)
            if place is None:
                self.drop()
                return None
            segment, index = place
        seed = (parent is None and stamp.seeds.get(size)) or stamp.seed(size, parent)
        at = HEADER_BYTES + index * SLOT_BYTES
        data = segment.map
        crc = crc32(args, seed ^ segment.seal + index)
        _PACKERS[size](data, at, stamp.head, crc, size, 0, 0, started, parent or slots.NO_ID, args)
        data[at] = 1
        return segment, at

    @staticmethod
    def start(segment: Segment, at: int, started: int) -> None:
        """A scheduled record began."""
        segment.map[at + slots.STARTED_AT : at + slots.STARTED_AT + 8] = _WORD(started)

    @staticmethod
    def end(segment: Segment, at: int, ended: int, status: int, detail: bytes = b"") -> None:
        """A record ended; `detail` is JSON (error, reason) and stands before the end does."""
        if detail:
            ref = segment.side.put(detail)
            segment.map[at + slots.DETAIL_AT : at + slots.DETAIL_AT + 8] = _WORD(ref)
        segment.map[at + slots.ENDED_AT : at + slots.ENDED_AT + 8] = _WORD(ended & ~7 | status)

    # --- the end ---

    def close(self) -> None:
        """Free mappings, descriptors and the lock; the files stay for whoever adopts them."""
        self._closed = True
        self.ask()
        if self._preparing.acquire(timeout=CLOSE_S):  # else a file could be made in a folder that was just emptied
            self._preparing.release()
        self._let_go()

    def _let_go(self) -> None:
        self._closed, self.current = True, None
        for segment in (*self.segments, self._spare):
            if segment is not None:
                segment.close()
        self.segments, self._spare = [], None
        self._folder.close()

    def abandon(self) -> None:
        """In a forked child: let go of the parent's journal without touching a byte of it, or waiting for a thread it lacks."""
        self._let_go()

    def remove(self) -> None:
        """Close and unlink everything: all of it was acknowledged."""
        self.close()
        self._folder.remove()


def _nobody() -> None:
    """There is no sender to ask."""
