"""Keeps the write-ahead log short without the writer: another thread, with a connection of its own, copies it into the file.

Rules:

1. The writer never checkpoints by itself (`wal_autocheckpoint = 0`): measured, a commit that has to do it costs 13 ms at p99
   instead of 0.9 ms. The thread does a PASSIVE one every EVERY_S seconds; that disturbs nobody.
2. PASSIVE alone never lets a busy log begin anew. Over WAL_BYTES_MAX the writer makes one short stop (`relieve`): it copies what
   is left and cuts the log. A reader that is in the way is waited for STOP_MS, and the next try comes after RETRY_S.
3. A reader that stays in the way makes the log grow with all that comes in. Over LOG_BYTES_MAX, or when the disk has only its
   reserve left, `stuck` says so and new facts are refused until the reader is gone: a log has no other bound.
4. What happens is counted, and the counts are shown: `Counts` in `GET /api/v1/storage` and `looseends doctor`.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import threading
import time

from looseends_daemon.core.resources import Value
from looseends_daemon.core.retention import reserve_of, size_text
from looseends_daemon.store.files import connect

EVERY_S = 0.5
WAL_BYTES_MAX = 64 << 20
LOG_BYTES_MAX = 1 << 30
STOP_MS = 100
RETRY_S = 1.0
TICK_NS = 20_000_000


class Counts(Value, frozen=True):
    """Since the start: `passive` by the thread, `stops` of the writer, stops that were `blocked` by a reader, `failed` ones."""

    passive: int = 0
    stops: int = 0
    blocked: int = 0
    failed: int = 0
    last_error: str | None = None


def wal_bytes(path: str) -> int:
    """The size of the write-ahead log now; 0 where there is none."""
    try:
        return os.stat(path + "-wal").st_size
    except OSError:
        return 0


class Checkpointer:
    """The thread, and the writer's part. `close()` ends it; it is safe to call twice."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._stop = threading.Event()
        self._busy = threading.Lock()
        self._seen = 0
        self._not_before = 0.0
        self._conn: sqlite3.Connection | None = None
        self.stuck: str | None = None
        """Why nothing may be added to the log now, with the way out; None: it may."""
        self._passive = self._stops = self._blocked = self._failed = 0
        self._last_error: str | None = None
        self._thread = threading.Thread(target=self._run, name="looseends-checkpointer", daemon=True)
        self._thread.start()

    @property
    def counts(self) -> Counts:
        """What was done so far."""
        return Counts(
            passive=self._passive,
            stops=self._stops,
            blocked=self._blocked,
            failed=self._failed,
            last_error=self._last_error,
        )

    def close(self) -> None:
        """End the thread; what it is doing is finished first."""
        self._stop.set()
        self._thread.join()

    def relieve(self, conn: sqlite3.Connection) -> None:
        """The writer's part, after a commit and outside of any transaction: cut the log if it is over its bound."""
        size = wal_bytes(self._path)
        if size > WAL_BYTES_MAX and time.monotonic() >= self._not_before:
            self._cut(conn)
            size = wal_bytes(self._path)
        self.stuck = _stuck(self._path, size)

    def _cut(self, conn: sqlite3.Connection) -> None:
        if not self._busy.acquire(timeout=STOP_MS / 1000):
            self._put_off()
            return
        try:
            conn.execute(f"PRAGMA busy_timeout = {STOP_MS}")
            busy = conn.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]
            if busy:
                self._put_off()
            else:
                self._stops += 1
        except sqlite3.Error as error:
            self._note(error)
        finally:
            conn.execute("PRAGMA busy_timeout = 5000")
            self._busy.release()

    def _put_off(self) -> None:
        self._blocked += 1
        self._not_before = time.monotonic() + RETRY_S

    def _note(self, error: sqlite3.Error) -> None:
        self._failed += 1
        self._last_error = str(error)
        self._not_before = time.monotonic() + RETRY_S

    # --- the thread ---

    def _run(self) -> None:
        while not self._stop.wait(EVERY_S):
            size = _version(self._path)
            if size == self._seen:
                continue
            with self._busy:
                self._copy(size)
        self._let_go()

    def _copy(self, size: int) -> None:
        try:
            if self._conn is None:
                self._conn = connect(self._path)
                self._conn.execute("PRAGMA busy_timeout = 0")
            _, frames, copied = self._conn.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
            self._passive += 1
            # What is written within the same tick of the file system's clock has the same time: looked at once more.
            self._seen = size if frames == copied and time.time_ns() - size > TICK_NS else 0
        except sqlite3.Error as error:
            self._note(error)
            self._let_go()  # a connection that failed is not trusted; the next look opens another

    def _let_go(self) -> None:
        if self._conn is not None:
            with contextlib.suppress(sqlite3.Error):
                self._conn.close()
            self._conn = None


def _stuck(path: str, size: int) -> str | None:
    """Whether a log of this size (bytes) may not grow any more, in words."""
    if size <= WAL_BYTES_MAX:
        return None
    try:
        disk = os.statvfs(path)
    except OSError:  # the next commit meets it, and says so
        return None
    free = disk.f_bavail * disk.f_frsize
    if size <= LOG_BYTES_MAX and free > reserve_of(disk.f_blocks * disk.f_frsize):
        return None
    return (
        f"the log has {size_text(size)} ({size_text(free)} of disk left) and cannot be cut: something has been reading the"
        " database all along, a backup, or a sqlite3 shell left open; end it"
    )


def _version(path: str) -> int:
    """Changes whenever the log was written to: its size alone stays the same where it begins anew."""
    try:
        return os.stat(path + "-wal").st_mtime_ns
    except OSError:
        return 0
