"""The journal a process writes: a task's start is on the page cache before its body runs, so `kill -9` cannot lose it.

Rules:

1. The hot path takes no lock and makes no system call: a slot is reserved by `next(count)`, filled by one slice
   assignment, committed by one byte. (`list(islice(count, n))` reserves a run in the side file the same way.)
2. A segment is made under a temporary name with `posix_fallocate` (a full disk is ENOSPC there, not SIGBUS later),
   gets its header, is renamed. The sender's thread makes the spare one; nobody waits for a disk in a task's way.
3. No room, no permission, no disk: counted in `dropped`, never raised.
4. The lock file is opened here and by nobody else in this process: closing any other descriptor of it would free it.

The reading side (`folders`, `read_instance`, `is_held`, `adopt`) is in `orphans.py` and offered here.
"""

from __future__ import annotations

import errno
import fcntl
import itertools
import json
import mmap
import os
import sys
import threading
import time
from typing import Any
from zlib import crc32

from . import slots
from .orphans import OWN, Orphan, adopt, folder_bytes, folders, is_held, is_taken, read_instance
from .slots import HEADER_BYTES, INLINE_BYTES_MAX, SIDE_UNIT, SLOT_BYTES, Header, Name
from .wire import SPOOL_BYTES_MAX

__all__ = ["Journal", "Orphan", "Segment", "Side", "adopt", "folder_bytes", "folders", "is_held", "is_taken", "read_instance"]

PROCESS_BYTES_MAX = SPOOL_BYTES_MAX // 4
SIDE_BYTES_MAX = 16 << 20  # per segment; beyond it arguments and tracebacks are left out, starts and ends are not
RETRY_NS = 1_000_000_000
TOUCH_BYTES = 64 << 10
_MADV_POPULATE_WRITE = 23
_PACK = slots.SLOT.pack
_FIXED = slots.FIXED.pack
_WORD = slots.WORD.pack
_BODY_LOST = b'{"not_replayable_because":"the spool had no room for its arguments"}'


class Side:
    """The file beside a segment for what does not fit a slot. Written by `pwrite`, never mapped, made on first need."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.units_max = SIDE_BYTES_MAX // SIDE_UNIT
        self.used = 0
        self._fd = -1
        self._next = itertools.count()

    def reserve(self, size: int) -> int:
        """The first of enough units for `size` bytes, or -1 where the side file is full. Atomic, without a lock."""
        run = list(itertools.islice(self._next, (size + SIDE_UNIT - 1) // SIDE_UNIT))
        while run[-1] - run[0] != len(run) - 1:  # an interpreter without a GIL may interleave; take another run
            run = list(itertools.islice(self._next, len(run)))
        self.used = max(self.used, run[-1] + 1)
        return run[0] if run[-1] < self.units_max else -1

    def write(self, unit: int, data: bytes) -> bool:
        """Whether `data` now stands at `unit`."""
        whole = slots.SIDE_HEAD.pack(len(data), crc32(data)) + data
        if self._fd < 0:
            self._open()
        return os.pwrite(self._fd, whole, unit * SIDE_UNIT) == len(whole)

    def _open(self) -> None:
        fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        if self._fd < 0:
            self._fd = fd
        else:  # another thread was first
            os.close(fd)

    def put(self, data: bytes) -> int:
        """Where `data` was kept, as a word for a slot; 0 where there was no room. Raises OSError (full disk)."""
        if not 0 < len(data) <= slots.SIDE_DATA_BYTES_MAX:
            return 0
        unit = self.reserve(slots.SIDE_HEAD.size + len(data))
        return slots.pack_ref(unit, len(data)) if unit >= 0 and self.write(unit, data) else 0

    def read(self, offset: int, length: int) -> bytes:
        """For the sender, which reads back what tasks wrote."""
        return os.pread(self._fd, length, offset) if self._fd >= 0 else b""

    def close(self) -> None:
        """Free the descriptor; the file stays."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)


class Segment:
    """One mapped file of slots, its side file beside it."""

    __slots__ = ("count", "head", "map", "next", "path", "retired_at", "side", "size")

    def __init__(self, path: str, size: int, base: int) -> None:
        """Make the file. Raises OSError: no room, no permission."""
        self.path, self.size, self.retired_at = path, size, 0.0
        self.count = count = (size - HEADER_BYTES) // SLOT_BYTES
        nonce = int.from_bytes(os.urandom(8), "big") >> 6
        self.head = Header(count, time.time_ns() // 1_000_000, nonce, base)
        temporary = f"{path}.{os.urandom(4).hex()}.tmp"
        fd = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            _allocate(fd, size)
            self.map = mmap.mmap(fd, size)
            head = slots.pack_header(*self.head, anchor_now())
            self.map[: len(head)] = head
            os.rename(temporary, path)
        except OSError:
            os.unlink(temporary)
            raise
        finally:
            os.close(fd)
        self.side = Side(path[: -len("seg")] + "side")
        self.next = itertools.count().__next__

    def touch(self) -> None:
        """Have the kernel make the pages now: else each sixteenth record waits for a page fault, a fifth of its cost."""
        try:
            for at in range(0, self.size, TOUCH_BYTES) if sys.platform == "linux" else ():
                self.map.madvise(_MADV_POPULATE_WRITE, at, TOUCH_BYTES)  # in steps: the interpreter's lock is held
        except OSError:  # a kernel before 5.14 makes them when they are written to
            return

    def set_anchor(self, anchor: int) -> None:
        """Say anew what this process's monotonic clock means, for whoever adopts the file."""
        self.map[slots.ANCHOR_AT : slots.ANCHOR_AT + 8] = slots.OFFSET.pack(anchor)

    def unlink(self) -> None:
        """Remove both files: everything in them was acknowledged."""
        self.close()
        for path in (self.path, self.side.path):
            if os.path.exists(path):
                os.unlink(path)

    def close(self) -> None:
        """Let go of mapping and descriptor; late writers get a ValueError, which they count."""
        self.side.close()
        self.map.close()


def _allocate(fd: int, size: int) -> None:
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(fd, 0, size)
        return
    os.write(fd, bytes(size))  # systems without it: real zeros, so that a full disk shows here


def anchor_now() -> int:
    """Wall clock minus monotonic clock in ns."""
    return time.time_ns() - time.monotonic_ns()


class Journal:
    """All records of one process, in `<spool>/<instance id>/`.

    `begin` gives (segment, offset) or None where the record could not be kept; the offset is for `start`, `end`.
    """

    def __init__(self, spool: str, instance: dict[str, Any]) -> None:
        """Make the folder, take its lock, say who we are. Raises OSError."""
        self.spool, self.folder = spool, f"{spool}/{instance['id']}"
        self.dropped = 0
        self.others_bytes = 0
        self.names: dict[int, Name] = {}
        self.segments: list[Segment] = []
        self._made = itertools.count(1)
        self._named = itertools.count(1)
        self._spare: Segment | None = None
        self._lock = threading.RLock()
        self._retry_at = 0
        self._base = 0
        self.current: Segment | None = None
        os.makedirs(spool, mode=0o700, exist_ok=True)
        owner = os.stat(spool).st_uid
        if owner != os.getuid():  # somebody else's folder: theirs to read and to rename, and no adopter would look at ours
            raise PermissionError(errno.EPERM, f"it belongs to uid {owner}, not to us", spool)
        os.mkdir(self.folder, 0o700)
        OWN.add(self.folder)
        self._lock_fd = self._names_fd = -1
        try:
            self._fill(instance)
        except OSError:
            self.remove()
            raise

    def _fill(self, instance: dict[str, Any]) -> None:
        """Lock, names, instance, first segment: in this order, so that nobody adopts what is still being made."""
        flags = os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        self._lock_fd = os.open(f"{self.folder}/lock", os.O_RDWR | flags, 0o600)
        fcntl.lockf(self._lock_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        self._names_fd = os.open(f"{self.folder}/names", os.O_WRONLY | os.O_APPEND | flags, 0o600)
        self._write_instance(instance)
        first = self._make(0)
        self._base = first.head.slots
        self.segments.append(first)
        self.current = first

    def _write_instance(self, instance: dict[str, Any]) -> None:
        temporary = f"{self.folder}/instance.tmp"
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with open(fd, "w", encoding="utf-8") as file:
            json.dump(instance, file)
        os.rename(temporary, f"{self.folder}/instance.json")

    # --- segments ---

    def _make(self, base: int) -> Segment:
        number = next(self._made)
        size = slots.SEGMENT_BYTES[min(number, len(slots.SEGMENT_BYTES)) - 1]
        return Segment(f"{self.folder}/{number:08d}.seg", size, base)

    def bytes_used(self) -> int:
        """Disk this process's journal takes, side files included."""
        return sum(s.size + s.side.used * SIDE_UNIT for s in self.segments)

    def _has_room(self) -> bool:
        used = self.bytes_used() + slots.SEGMENT_BYTES_MAX
        return used <= PROCESS_BYTES_MAX and used + self.others_bytes <= SPOOL_BYTES_MAX

    def prepare(self) -> None:
        """Have a spare segment ready once the current one is half full. For the sender's thread."""
        current = self.current
        if current is None or self._spare is not None or not self._has_room():
            return
        middle = HEADER_BYTES + current.head.slots // 2 * SLOT_BYTES
        if current.map[middle]:
            spare = self._make(self._base)
            spare.touch()
            with self._lock:
                if self.current is current and self._spare is None:
                    self._spare = spare
                    return
            spare.unlink()

    def _rotate(self, full: Segment | None) -> Segment | None:
        """The segment after `full`; None where there is no room. May be entered again by a signal handler."""
        with self._lock:
            if self.current is not full:
                return self.current
            if full is None and time.monotonic_ns() < self._retry_at:
                return None
            made, self._spare = self._spare, None
            if made is None and self._has_room():
                made = self._try_make(self._base)
            if self.current is not full:  # a signal handler was here in the meantime
                if made is not None:
                    made.unlink()
                return self.current
            if full is not None:
                full.retired_at = time.monotonic()
            if made is None:
                self._retry_at = time.monotonic_ns() + RETRY_NS
            else:
                self._base = made.head.base + made.head.slots
                self.segments.append(made)
            self.current = made
            return made

    def _try_make(self, base: int) -> Segment | None:
        try:
            return self._make(base)
        except OSError:
            return None

    def reserve(self) -> tuple[Segment, int] | None:
        """A slot nobody else has: (segment, index), or None where there is no room left."""
        segment = self.current
        while segment is not None or (segment := self._rotate(None)) is not None:
            index = segment.next()
            if index < segment.count:
                return segment, index
            segment = self._rotate(segment)
        return None

    # --- records ---

    def name(self, name: Name) -> int:
        """The number of this name in the table, written there before any record can point at it. Raises OSError: no room."""
        number, line = next(self._named), b""
        if number <= slots.NAMES_MAX:
            line = slots.pack_name(number, name)
        if not line or os.write(self._names_fd, line) != len(line):
            raise OSError(errno.ENOSPC, f"the names table is full at {number} names")
        self.names[number] = name
        return number

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
        segment = self.current  # what `reserve` does, without a call where there is room
        if segment is None or number not in self.names or (index := segment.next()) >= segment.count:
            place = self.reserve() if number in self.names else None
            if place is None:
                self.dropped += 1
                return None
            segment, index = place
        flags = 0 if task is slots.NO_ID else slots.OWN_ID
        body = args + extra if extra else args
        if len(body) > INLINE_BYTES_MAX:
            flags |= slots.SPILLED
            ref = _spill(segment, body)
            if not ref:
                self.dropped += 1
                args, extra, flags = b"", _BODY_LOST, flags & ~slots.SPILLED
                body = extra
            else:
                body = _WORD(ref)
        at = HEADER_BYTES + index * SLOT_BYTES
        alen, xlen = len(args), len(extra)
        rest = task + parent + body
        crc = crc32(rest, crc32(_FIXED(flags, attempt, number, alen, xlen)))  # slots.seal, without a call
        packed = _PACK(0, flags, attempt, number, crc, alen, xlen, scheduled, started, 0, 0, 0) + rest
        data = segment.map
        data[at : at + len(packed)] = packed
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
            ref = _spill(segment, detail)
            segment.map[at + slots.DETAIL_AT : at + slots.DETAIL_AT + 8] = _WORD(ref)
        segment.map[at + slots.ENDED_AT : at + slots.ENDED_AT + 8] = _WORD(ended & ~7 | status)

    # --- the end ---

    def close(self) -> None:
        """Free mappings, descriptors and the lock; the files stay for whoever adopts them."""
        self.current = None
        for segment in (*self.segments, self._spare):
            if segment is not None:
                segment.close()
        self.segments, self._spare = [], None
        for fd in (self._names_fd, self._lock_fd):
            if fd >= 0:
                os.close(fd)
        self._names_fd = self._lock_fd = -1
        OWN.discard(self.folder)

    def abandon(self) -> None:
        """In a forked child: let go of the parent's journal without touching a byte of it."""
        OWN.discard(self.folder)
        self.close()

    def remove(self) -> None:
        """Close and unlink everything: all of it was acknowledged."""
        self.close()
        for entry in os.listdir(self.folder):
            os.unlink(f"{self.folder}/{entry}")
        os.rmdir(self.folder)


def _spill(segment: Segment, data: bytes) -> int:
    try:
        return segment.side.put(data)
    except OSError:
        return 0
