"""One writer thread that commits whole groups, and a few read-only connections beside it.

Rules:

1. `write(fn)` returns after the commit that holds its change is on disk (WAL, synchronous=FULL). The commit in progress is
   the batching window: whatever waits meanwhile goes into the next one. Measured: FULL costs 4.5 times at one row a commit
   and nothing at a hundred, so grouping is what makes the durable answer affordable.
2. Each `fn` runs in a savepoint of its own: one that raises is undone alone, its neighbours are stored. What is written by
   `write_together` shares one with those beside it in the group; if that raises, each is done again alone.
3. The queue is bounded in bytes; over it `StoreBusy` says so at once and nothing is taken.
4. A commit that failed for the disk's sake takes its connection with it: before anything is answered again the file is opened
   anew, its log copied and synced, and what was answered before is looked for (store/files.reopen).
5. `full` is set by who watches the size, `checkpoints.stuck` by a log that cannot be cut: then what makes the file grow is
   refused with `StoreFull`, everything else goes on.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import Any, TypeVar

import aiosqlite

from looseends_daemon.store import search
from looseends_daemon.store.checkpoints import Checkpointer
from looseends_daemon.store.files import DISK_TROUBLE, FULL, open_file, primary, reopen
from looseends_daemon.store.files import connect as connect
from looseends_daemon.store.log_end import Cut
from looseends_daemon.store.schema import StoreError

T = TypeVar("T")
Item = TypeVar("Item")
QUEUE_BYTES_MAX = 32 << 20
SLOW_S = 0.25
GROUP_JOBS_MAX = 512
GROUP_BYTES_MAX = 512 << 10
"""Who waits behind a group, the detector above all, waits for all of it."""
READERS = 2
READ_S_MAX = 5.0
JOB_BYTES_MIN = 512
FULL_RETRY_S = 5
_NEWEST = "SELECT value FROM mark WHERE name = 'last_event_at'"


class StoreBusy(StoreError):
    """More is waiting to be written than the queue may hold; try again in a moment."""


class StoreFull(StoreBusy):
    """There is no room for more facts; what is there already is safe. Try again in FULL_RETRY_S seconds."""


class StoreClosed(StoreError):
    """The database has been closed."""


class _Job:
    """One function for the writer, and where its outcome goes. `item`: the function takes it, with others of its kind."""

    __slots__ = ("error", "fn", "future", "item", "loop", "size", "value")

    def __init__(self, fn: Callable[..., Any], size: int, loop: asyncio.AbstractEventLoop, item: Any = None) -> None:
        self.fn, self.size, self.loop, self.item = fn, max(size, JOB_BYTES_MIN), loop, item
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
        self.refused = 0
        """How often the queue was full since the start, and somebody was told to come again."""
        self.queued_most = 0
        """The most bytes that ever waited in it."""
        self.slow: tuple[float, float] | None = None
        """From when to when the latest commit took SLOW_S or longer (monotonic s): whoever spoke to us waited as long."""
        self.reopened = 0
        self.full: str | None = None
        self.trouble: str | None = None
        """Why the last commit failed, in words; None: it did not."""
        self.missing: str | None = None
        """Set once and for all when something that had been answered was not found, in a damaged log or after a reopening."""
        self.cut: Cut | None = None
        """What the log that was found at the start had lost."""
        self._broken = False
        self._answered = 0
        self.checkpoints = Checkpointer(path)
        self._thread = threading.Thread(target=self._run, name="looseends-writer", daemon=True)

    @classmethod
    async def open(cls, path: str) -> Database:
        """Open (and make or migrate) the file. Raises StoreError with a hint: foreign, unwritable, newer, or in use."""
        loop = asyncio.get_running_loop()
        conn, lock, cut = await loop.run_in_executor(None, open_file, path)
        conn.execute("PRAGMA wal_autocheckpoint = 0")
        database = cls(path, conn, lock)
        database.cut, database.missing = cut, None if cut is None else cut.words
        for _ in range(READERS):
            database._readers.put_nowait(await _reader(path))
        database._thread.start()
        return database

    @property
    def queued_bytes(self) -> int:
        """Bytes that wait to be written; at most QUEUE_BYTES_MAX."""
        return self._bytes

    async def write(self, fn: Callable[[sqlite3.Connection], T], *, size: int = 0, grows: bool = False) -> T:
        """Run `fn(conn)` in the next group commit and return its value once that is on disk. `grows`: it brings new facts.

        Raises StoreBusy (queue full), StoreFull (`grows`, and there is no room), StoreClosed, StoreError (the commit failed:
        nothing of it is kept), or what fn raised.
        """
        job = _Job(fn, size, asyncio.get_running_loop())
        self._queue(job, grows)
        value: T = await job.future
        return value

    async def write_together(
        self, fn: Callable[[sqlite3.Connection, Sequence[Item]], Sequence[T]], item: Item, *, size: int = 0, grows: bool = False
    ) -> T:
        """As `write`, for many small writes of one kind: `fn(conn, items)` gets those that wait side by side, and gives a value
        for each. They must come out as if each were written alone, in this order. `fn` is told apart by its identity.
        """
        job = _Job(fn, size, asyncio.get_running_loop(), item)
        self._queue(job, grows)
        value: T = await job.future
        return value

    def _queue(self, job: _Job, grows: bool) -> None:
        no_room = self.full or self.checkpoints.stuck
        if grows and no_room is not None:
            raise StoreFull(no_room, hint=no_room)
        with self._wakeup:
            if self._closing:
                raise StoreClosed(f"{self.path} is closed")
            if self._bytes + job.size > QUEUE_BYTES_MAX:
                self.refused += 1
                raise StoreBusy("too much is waiting to be written", hint="send it again in a second")
            self._bytes += job.size
            self.queued_most = max(self.queued_most, self._bytes)
            self._jobs.append(job)
            self._wakeup.notify()

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
            except sqlite3.DatabaseError as error:
                if primary(error) == sqlite3.SQLITE_INTERRUPT:
                    raise StoreError(f"the question took longer than {READ_S_MAX:g} s", hint="narrow the window") from None
                if primary(error) in DISK_TROUBLE and primary(error) != sqlite3.SQLITE_READONLY:
                    raise StoreError(f"{self.path} could not be read: {error}", hint="looseends doctor says more") from None
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
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(None, self._thread.join)
        await loop.run_in_executor(None, self.checkpoints.close)
        for _ in range(READERS):
            await (await self._readers.get()).close()
        await loop.run_in_executor(None, self._let_go)

    def _let_go(self) -> None:
        """The last one out copies the log into the file, so that what lies on the disk is one whole file."""
        with contextlib.suppress(sqlite3.Error):
            self._conn.execute("PRAGMA wal_checkpoint(TRUNCATE)")
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
            if not self._broken:  # nobody waits for an answer now
                self.checkpoints.relieve(self._conn)

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
        began = time.monotonic()
        try:
            self._mend()
            conn = self._conn
            conn.execute("BEGIN IMMEDIATE")
            for jobs in _of_a_kind(group):
                _run_jobs(conn, jobs)
            conn.execute("COMMIT")
            self.commits += 1
            self.trouble = None
            self._answered = self._newest()
        except (sqlite3.Error, StoreError) as error:
            self._failed(group, error)
        ended = time.monotonic()
        if ended - began >= SLOW_S:
            self.slow = (began, ended)

    def _failed(self, group: list[_Job], error: sqlite3.Error | StoreError) -> None:
        """Nothing of this group is kept. Unless it was only busy or full, the connection is not used again."""
        with contextlib.suppress(sqlite3.Error):  # the first error is the one to tell
            if self._conn.in_transaction:
                self._conn.execute("ROLLBACK")
        hint = "is the disk full or read-only?"
        if isinstance(error, StoreError):
            hint = error.hint or hint
        elif primary(error) not in (*FULL, sqlite3.SQLITE_BUSY):
            self._broken = True
        self.trouble = f"{self.path} could not be written: {error}"
        for job in group:
            job.error = StoreError(self.trouble, hint=hint)

    def _mend(self) -> None:
        """Open the file anew if the last commit failed for the disk's sake. Raises StoreError, sqlite3.Error: not yet."""
        if not self._broken:
            return
        with contextlib.suppress(sqlite3.Error):
            self._conn.close()
        self._conn = reopen(self.path)
        self._conn.execute("PRAGMA wal_autocheckpoint = 0")
        if self._newest() < self._answered:
            self.missing = f"{self.path}: after an I/O error, facts that had been stored are no longer there"
        self._broken = False
        self.reopened += 1

    def _newest(self) -> int:
        """When the newest event arrived that this file knows of (ns): what a reopened file must still know."""
        row = self._conn.execute(_NEWEST).fetchone()
        return int(row[0]) if row is not None else 0


def _settle(jobs: list[_Job]) -> None:
    for job in jobs:
        job.settle()


def _of_a_kind(group: list[_Job]) -> Iterator[list[_Job]]:
    """The jobs in their order; those side by side that one function takes together as one list."""
    kind: list[_Job] = []
    for job in group:
        if kind and (job.item is None or kind[0].item is None or job.fn is not kind[0].fn):
            yield kind
            kind = []
        kind.append(job)
    if kind:
        yield kind


def _run_jobs(conn: sqlite3.Connection, jobs: list[_Job]) -> None:
    """One function, or several of a kind, in a savepoint. What it raises is its caller's; the group goes on, unless the disk
    failed."""
    conn.execute("SAVEPOINT job")
    whose = None
    try:
        if jobs[0].item is None:
            jobs[0].value = jobs[0].fn(conn)
        else:
            for job, value in zip(jobs, jobs[0].fn(conn, [job.item for job in jobs]), strict=True):
                job.value = value
    except Exception as error:
        if isinstance(error, sqlite3.Error) and primary(error) in (*FULL, *DISK_TROUBLE):
            raise
        conn.execute("ROLLBACK TO job")
        whose = error
    conn.execute("RELEASE job")
    if whose is not None and len(jobs) == 1:
        jobs[0].error = whose
    elif whose is not None:  # nobody knows whose fault it was: each alone
        for job in jobs:
            _run_jobs(conn, [job])


async def _reader(path: str) -> aiosqlite.Connection:
    conn = await aiosqlite.connect(path, isolation_level=None)
    conn.row_factory = sqlite3.Row
    await conn.execute("PRAGMA query_only = 1")
    await search.register(conn)
    await conn.execute("PRAGMA cache_size = -4096")
    return conn
