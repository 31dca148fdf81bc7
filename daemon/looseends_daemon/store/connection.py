"""One writer thread that commits whole groups, and a few read-only connections beside it.

Rules:

1. `write(fn)` returns after the commit that holds its change is on disk (WAL, synchronous=FULL). The commit in progress is
   the batching window: whatever waits meanwhile goes into the next one. Measured: FULL costs 4.5 times at one row a commit
   and nothing at a hundred, so grouping is what makes the durable answer affordable.
2. Each `fn` runs in a savepoint of its own: one that raises is undone alone, its neighbours are stored.
3. The queue is bounded in bytes; over it `StoreBusy` says so at once and nothing is taken.
4. One daemon per file, held by a lock on `<path>.lock`. A file that is not ours is never touched.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import aiosqlite

from looseends_daemon.store.schema import APPLICATION_ID, StoreError, migrate

T = TypeVar("T")
QUEUE_BYTES_MAX = 32 << 20
GROUP_JOBS_MAX = 512
GROUP_BYTES_MAX = 8 << 20
READERS = 2
READ_S_MAX = 5.0
JOB_BYTES_MIN = 512
CACHE_KIB = 16_384


class StoreBusy(StoreError):
    """More is waiting to be written than the queue may hold; try again in a moment."""


class StoreClosed(StoreError):
    """The database has been closed."""


class _Job:
    """One function for the writer, and where its outcome goes."""

    __slots__ = ("error", "fn", "future", "loop", "size", "value")

    def __init__(self, fn: Callable[[sqlite3.Connection], Any], size: int, loop: asyncio.AbstractEventLoop) -> None:
        self.fn, self.size, self.loop = fn, max(size, JOB_BYTES_MIN), loop
        self.future: asyncio.Future[Any] = loop.create_future()
        self.value: Any = None
        self.error: BaseException | None = None

    def settle(self) -> None:
        if self.future.done():
            return
        if self.error is not None:
            self.future.set_exception(self.error)
        else:
            self.future.set_result(self.value)


class Database:
    """An open looseends database. `close()` drains what waits, is safe to call twice; afterwards writes raise StoreClosed."""

    def __init__(self, path: str, conn: sqlite3.Connection, lock: int) -> None:
        self.path = path
        self._conn = conn
        self._lock_fd = lock
        self._jobs: deque[_Job] = deque()
        self._bytes = 0
        self._wakeup = threading.Condition()
        self._closing = False
        self._readers: asyncio.Queue[aiosqlite.Connection] = asyncio.Queue()
        self.commits = 0
        self._thread = threading.Thread(target=self._run, name="looseends-writer", daemon=True)

    @classmethod
    async def open(cls, path: str) -> Database:
        """Open (and make or migrate) the file. Raises StoreError with a hint: foreign, unwritable, newer, or in use."""
        loop = asyncio.get_running_loop()
        conn, lock = await loop.run_in_executor(None, _open_file, path)
        database = cls(path, conn, lock)
        for _ in range(READERS):
            database._readers.put_nowait(await _reader(path))
        database._thread.start()
        return database

    @property
    def queued_bytes(self) -> int:
        """Bytes that wait to be written; at most QUEUE_BYTES_MAX."""
        return self._bytes

    async def write(self, fn: Callable[[sqlite3.Connection], T], *, size: int = 0) -> T:
        """Run `fn(conn)` in the next group commit and return its value once that is on disk.

        Raises StoreBusy (queue full), StoreClosed, StoreError (the commit failed: nothing of it is kept), or what fn raised.
        """
        job = _Job(fn, size, asyncio.get_running_loop())
        with self._wakeup:
            if self._closing:
                raise StoreClosed(f"{self.path} is closed")
            if self._bytes + job.size > QUEUE_BYTES_MAX:
                raise StoreBusy("too much is waiting to be written", hint="send it again in a second")
            self._bytes += job.size
            self._jobs.append(job)
            self._wakeup.notify()
        value: T = await job.future
        return value

    async def read(self, fn: Callable[[aiosqlite.Connection], Awaitable[T]]) -> T:
        """Run `await fn(conn)` on a read-only connection, as one consistent read of at most READ_S_MAX seconds."""
        if self._closing:
            raise StoreClosed(f"{self.path} is closed")
        conn = await self._readers.get()
        try:
            deadline = time.monotonic() + READ_S_MAX
            await conn.set_progress_handler(lambda: int(time.monotonic() > deadline), 10_000)
            await conn.execute("BEGIN")
            try:
                return await fn(conn)
            except sqlite3.OperationalError as error:
                if "interrupted" in str(error):
                    raise StoreError(f"the question took longer than {READ_S_MAX:g} s", hint="narrow the window") from None
                raise
            finally:
                await conn.execute("ROLLBACK")
        finally:
            self._readers.put_nowait(conn)

    async def close(self) -> None:
        """Write what waits, then let go of the file. Idempotent."""
        with self._wakeup:
            already, self._closing = self._closing, True
            self._wakeup.notify()
        if already:
            return
        await asyncio.get_running_loop().run_in_executor(None, self._thread.join)
        for _ in range(READERS):
            await (await self._readers.get()).close()
        self._conn.close()
        os.close(self._lock_fd)

    # --- the writer thread ----------------------------------------------------------------------------------------

    def _run(self) -> None:
        while group := self._next_group():
            self._commit(group)
            by_loop: dict[asyncio.AbstractEventLoop, list[_Job]] = {}
            for job in group:
                by_loop.setdefault(job.loop, []).append(job)
            for loop, jobs in by_loop.items():
                with contextlib.suppress(RuntimeError):  # the loop of a cancelled caller may be gone; its change is kept
                    loop.call_soon_threadsafe(_settle, jobs)

    def _next_group(self) -> list[_Job]:
        """Everything that waits, up to the bounds of a group; empty means: closed and drained."""
        with self._wakeup:
            while not self._jobs and not self._closing:
                self._wakeup.wait()
            group: list[_Job] = []
            size = 0
            while self._jobs and len(group) < GROUP_JOBS_MAX and size < GROUP_BYTES_MAX:
                job = self._jobs.popleft()
                size += job.size
                group.append(job)
            self._bytes -= size
            return group

    def _commit(self, group: list[_Job]) -> None:
        conn = self._conn
        try:
            conn.execute("BEGIN IMMEDIATE")
            for job in group:
                _run_job(conn, job)
            conn.execute("COMMIT")
            self.commits += 1
        except sqlite3.Error as error:
            if conn.in_transaction:
                with contextlib.suppress(sqlite3.Error):  # the first error is the one to tell
                    conn.execute("ROLLBACK")
            failed = StoreError(f"{self.path} could not be written: {error}", hint="is the disk full or read-only?")
            for job in group:
                job.error = failed


def _settle(jobs: list[_Job]) -> None:
    for job in jobs:
        job.settle()


def _run_job(conn: sqlite3.Connection, job: _Job) -> None:
    """One function in its own savepoint. What it raises is its caller's; the group goes on."""
    conn.execute("SAVEPOINT job")
    try:
        job.value = job.fn(conn)
    except Exception as error:  # noqa: BLE001 - handed to the caller of write(), which raises it
        job.error = error
        conn.execute("ROLLBACK TO job")
    conn.execute("RELEASE job")


# --- opening ------------------------------------------------------------------------------------------------------


def _open_file(path: str) -> tuple[sqlite3.Connection, int]:
    folder = os.path.dirname(os.path.abspath(path))
    try:
        os.makedirs(folder, mode=0o700, exist_ok=True)
        lock = os.open(path + ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise StoreError(f"{path} cannot be opened: {error.strerror}", hint="name another file with --db") from None
    try:
        _take_lock(path, lock)
        _refuse_foreign(path)
        if not os.path.exists(path):
            _make(path)
        conn = connect(path)
        migrate(conn, path=path, now=time.time_ns())
    except sqlite3.DatabaseError as error:
        os.close(lock)
        raise StoreError(f"{path} cannot be used: {error}", hint="is it writable, and a whole database?") from None
    except BaseException:
        os.close(lock)
        raise
    return conn, lock


def _take_lock(path: str, lock: int) -> None:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        owner = os.pread(lock, 32, 0).decode("ascii", "replace").strip() or "unknown"
        raise StoreError(
            f"{path} is already served by another looseends (pid {owner})",
            hint="stop that one, or name another file with --db",
        ) from None
    os.ftruncate(lock, 0)
    os.pwrite(lock, f"{os.getpid()}\n".encode(), 0)


def _refuse_foreign(path: str) -> None:
    """A file that is not a looseends database is never written to, not even an empty one: it may be somebody's loss."""
    if os.path.isdir(path):
        raise StoreError(f"{path} is a folder", hint="name a file inside it with --db")
    if not os.path.exists(path):
        return
    try:
        with open(path, "rb") as file:
            head = file.read(100)
    except OSError as error:
        raise StoreError(f"{path} cannot be read: {error.strerror}", hint="name another file with --db") from None
    if not os.access(path, os.W_OK):
        raise StoreError(f"{path} is not writable", hint="mend its permissions or name another file with --db")
    if not head:
        raise StoreError(f"{path} is empty, and looseends never writes over a file it did not make", hint="remove it first")
    ours = head[:16] == b"SQLite format 3\0" and int.from_bytes(head[68:72], "big") == APPLICATION_ID
    if not ours:
        raise StoreError(f"{path} is not a looseends database", hint="name another file with --db")


def _make(path: str) -> None:
    """Build the database under another name and rename it: a kill in between leaves no half-made file at `path`."""
    fresh = f"{path}.new"
    for leftover in (fresh, fresh + "-journal"):
        with contextlib.suppress(FileNotFoundError):
            os.unlink(leftover)
    os.close(os.open(fresh, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
    conn = sqlite3.connect(fresh, isolation_level=None)
    try:
        migrate(conn, path=path, now=time.time_ns())
    finally:
        conn.close()
    os.rename(fresh, path)


def connect(path: str) -> sqlite3.Connection:
    """A writing connection with our pragmas. Only the writer thread (and offline commands) use one."""
    conn = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=5.0)
    conn.row_factory = sqlite3.Row
    conn.execute("PRAGMA journal_mode = WAL")
    conn.execute("PRAGMA synchronous = FULL")
    conn.execute(f"PRAGMA cache_size = -{CACHE_KIB}")
    conn.execute("PRAGMA foreign_keys = OFF")
    return conn


async def _reader(path: str) -> aiosqlite.Connection:
    conn = await aiosqlite.connect(path, isolation_level=None)
    conn.row_factory = sqlite3.Row
    await conn.execute("PRAGMA query_only = 1")
    await conn.execute("PRAGMA cache_size = -4096")
    return conn
