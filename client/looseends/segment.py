"""The two files a journal grows by: a mapped segment of slots, and the side file for what does not fit a slot.

Rules:

1. A segment is made under a temporary name, its space reserved by `posix_fallocate` (a full disk is ENOSPC there, not a
   SIGBUS in a task later), gets its header, is renamed: whoever finds the name finds it whole.
2. Space is reserved in steps: a signal interrupts a large reservation, and one that begins anew each time never ends.
3. Slots and units of the side file are handed out by `itertools.count`: one step of the interpreter each, no lock.
"""

from __future__ import annotations

import itertools
import mmap
import os
import sys
import time
from collections.abc import Callable, Iterator
from zlib import crc32

from . import slots
from .slots import HEADER_BYTES, SIDE_BYTES_MAX, SIDE_UNIT, SLOT_BYTES

RESERVE_BYTES = 512 << 10  # each step lets go of the interpreter's lock, and waits for it among busy threads
TOUCH_BYTES, TOUCH_PAUSE_S = 64 << 10, 500e-6
LATE_WRITER_S = 0.05
_MADV_POPULATE_WRITE = 23


class Side:
    """The file beside a segment for what does not fit a slot. Written by `pwrite`, never mapped, made on first need."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.units_max = SIDE_BYTES_MAX // SIDE_UNIT
        self.used = 0
        self.refused = 0
        """How often something was left out because it found no room here."""
        self._fd = -1
        self._next = itertools.count()

    def reserve(self, size: int) -> int:
        """The first of enough units for `size` bytes, or -1 where the side file is full. Atomic, without a lock."""
        run = list(itertools.islice(self._next, (size + SIDE_UNIT - 1) // SIDE_UNIT))
        while run[-1] - run[0] != len(run) - 1:  # an interpreter without a GIL may interleave; take another run
            run = list(itertools.islice(self._next, len(run)))
        if run[-1] >= self.units_max:
            self.refused += 1
            return -1
        self.used = max(self.used, run[-1] + 1)
        return run[0]

    def write(self, unit: int, data: bytes) -> bool:
        """Whether `data` now stands at `unit`. Raises OSError (full disk)."""
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
        """Where `data` was kept, as a word for a slot; 0 where there was no room, which is counted."""
        if not 0 < len(data) <= slots.SIDE_DATA_BYTES_MAX:
            self.refused += bool(data)
            return 0
        unit = self.reserve(slots.SIDE_HEAD.size + len(data))
        if unit < 0:
            return 0
        try:
            if self.write(unit, data):
                return slots.pack_ref(unit, len(data))
        except OSError:  # counted below, said by the sender's thread: a log has no place in a task's way
            pass
        self.refused += 1
        return 0

    def read(self, offset: int, length: int) -> bytes:
        """For the sender, which reads back what tasks wrote."""
        return os.pread(self._fd, length, offset) if self._fd >= 0 else b""

    def restore(self) -> Callable[[], None]:
        """Make the file anew with what the deleted one holds. -> what copies what was written meanwhile. Raises OSError."""
        if self._fd < 0:
            return lambda: None
        fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        old = os.dup(self._fd)
        before = os.pread(old, SIDE_BYTES_MAX, 0)
        os.pwrite(fd, before, 0)
        os.dup2(fd, self._fd, inheritable=False)  # under the number that writers hold: none of them meets a closed one

        def finish() -> None:
            try:
                for at, unit in changed(before, os.pread(old, SIDE_BYTES_MAX, 0), SIDE_UNIT):
                    os.pwrite(fd, unit, at)
            finally:
                os.close(old)
                os.close(fd)

        return finish

    def close(self) -> None:
        """Free the descriptor; the file stays."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)


class Segment:
    """One mapped file of slots, its side file beside it.

    `count` is where reserving stops to think: at first the mark, where a spare is asked for, then the end.
    """

    __slots__ = ("count", "head", "map", "next", "path", "retired_at", "seal", "side", "size", "words")

    def __init__(self, path: str, size: int, base: int, anchor: int, dropped: int = 0) -> None:
        """Make the file. Raises OSError: no room, no permission."""
        self.path, self.size, self.retired_at = path, size, 0.0
        count = (size - HEADER_BYTES) // SLOT_BYTES
        self.count = count // 4  # three quarters of a segment is the time there is to make the next one
        nonce = int.from_bytes(os.urandom(8), "big") >> 6
        self.head = slots.make_header(count, time.time_ns() // 1_000_000, nonce, base)
        self.seal = self.head.seal
        self.map = _make(path, size, slots.pack_header(self.head, anchor, dropped))
        self.words = memoryview(self.map).cast("Q")  # one of them is set in a third of the time that a slice of bytes takes
        self.side = Side(path[: -len("seg")] + "side")
        self.next = itertools.count().__next__

    def touch(self, wanted: Callable[[], bool]) -> None:
        """Have the kernel make the pages now: else each sixteenth record waits for a page fault, a fifth of its cost."""
        try:
            for at in range(0, self.size, TOUCH_BYTES) if sys.platform == "linux" else ():
                if not wanted():
                    return
                self.map.madvise(_MADV_POPULATE_WRITE, at, TOUCH_BYTES)
                # The interpreter's lock is held in each step; whoever waits for it would ask after 5 ms only, and be 5 ms late.
                time.sleep(TOUCH_PAUSE_S)
        except OSError:  # a kernel before 5.14 makes them when they are written to
            return

    def set_anchor(self, anchor: int) -> None:
        """Say anew what this process's monotonic clock means, for whoever adopts the file."""
        self.map[slots.ANCHOR_AT : slots.ANCHOR_AT + 8] = slots.OFFSET.pack(anchor)

    def set_dropped(self, dropped: int) -> None:
        """Say how many records were dropped so far, for whoever adopts the file."""
        self.map[slots.DROPPED_AT : slots.DROPPED_AT + 8] = slots.WORD.pack(dropped)

    def restore(self) -> Callable[[], None]:
        """Make a deleted file anew with all it held, and go on in it; writers need not know. Raises OSError.

        -> what copies, LATE_WRITER_S later, what a writer set in the old mapping that it held.
        """
        old = self.map
        before = bytes(old)
        self.map = new = _make(self.path, self.size, before)
        self.words = memoryview(new).cast("Q")
        finish_side = self.side.restore()

        def finish() -> None:
            for at, slot in changed(before, bytes(old), SLOT_BYTES):
                for word, value in changed(before[at : at + SLOT_BYTES], slot, 8):
                    new[at + word : at + word + 8] = value
            finish_side()

        return finish

    def unlink(self) -> None:
        """Remove both files: everything in them was acknowledged."""
        self.close()
        for path in (self.path, self.side.path):
            if os.path.exists(path):
                os.unlink(path)

    def close(self) -> None:
        """Let go of mapping and descriptor; late writers get a ValueError, which they count."""
        self.side.close()
        self.words.release()
        try:
            self.map.close()
        except BufferError:  # the sender's thread reads a column of it at this moment: it goes with the last who holds it
            return


def changed(before: bytes, after: bytes, size: int) -> Iterator[tuple[int, bytes]]:
    """(where, what) of the pieces of `size` bytes that differ."""
    for at in range(0, len(after), size):
        if after[at : at + size] != before[at : at + size]:
            yield at, after[at : at + size]


def _make(path: str, size: int, data: bytes) -> mmap.mmap:
    """A mapped file of `size` bytes that begins with `data`, whole from the moment it has its name. Raises OSError."""
    temporary = f"{path}.{os.urandom(4).hex()}.tmp"
    fd = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        _allocate(fd, size)
        made = mmap.mmap(fd, size)
        made[: len(data)] = data
        os.rename(temporary, path)
        return made
    except OSError:
        os.unlink(temporary)
        raise
    finally:
        os.close(fd)


def _allocate(fd: int, size: int) -> None:
    if hasattr(os, "posix_fallocate"):
        for at in range(0, size, RESERVE_BYTES):
            os.posix_fallocate(fd, at, min(RESERVE_BYTES, size - at))
        return
    os.write(fd, bytes(size))  # systems without it: real zeros, so that a full disk shows here
