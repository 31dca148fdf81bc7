"""Backup and restore of the database file: one consistent moment, verified before it counts, never over anything.

Rules:

1. A backup is a plain database in one file (no log beside it), 0600, since it holds order keys in clear. It is written under
   another name, checked whole, synced and renamed; a name that exists is refused.
2. The source is read in one transaction, so that writes meanwhile neither change what is copied nor make it begin anew. The
   price: the daemon's log cannot be cut until the copy is done.
3. A restore takes the daemon's own lock, so it cannot happen below a living one. The old file, with its log, is moved aside.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Callable, Iterator
from urllib.parse import quote

from looseends_daemon.core.resources import Value
from looseends_daemon.store.files import header, is_ours, sync_folder, take_lock
from looseends_daemon.store.schema import StoreError, migrations

PAGES_STEP = 2_000
COPY_BYTES = 1 << 20
Progress = Callable[[int, int], None]
"""Told (done, whole), in pages or bytes, after each step."""


class Copied(Value, frozen=True):
    """A finished backup or restore. `aside`: where the file that was there before lies now; None: there was none."""

    path: str
    size: int
    tasks: int
    aside: str | None = None


def _quiet(done: int, whole: int) -> None:
    """Nobody wants to know."""


@contextlib.contextmanager
def reading(path: str) -> Iterator[sqlite3.Connection]:
    """A read-only connection to a looseends database, daemon or not. Raises StoreError in words."""
    if not is_ours(header(path)):
        raise StoreError(f"{path} is not a looseends database", hint="name another file")
    try:
        with contextlib.closing(sqlite3.connect(f"file:{_uri(path)}?mode=ro", uri=True, isolation_level=None)) as conn:
            conn.row_factory = sqlite3.Row
            yield conn
    except sqlite3.Error as error:
        raise StoreError(f"{path} cannot be read: {error}", hint="looseends doctor says more") from None


def _uri(path: str) -> str:
    return quote(os.path.abspath(path))


def backup(path: str, target: str, progress: Progress = _quiet) -> Copied:
    """Copy the database at `path`, served or not, to the new file `target`. Raises StoreError; then `target` is not there."""
    part = _new_file(target)
    try:
        with reading(path) as source, contextlib.closing(sqlite3.connect(part, isolation_level=None)) as copy:
            source.execute("BEGIN")
            source.execute("SELECT 1 FROM sqlite_schema LIMIT 1").fetchone()  # the moment that is copied
            source.backup(copy, pages=PAGES_STEP, progress=lambda _, left, whole: progress(whole - left, whole))
            source.execute("ROLLBACK")
            # One file, without a log that somebody forgets to copy.
            copy.execute("PRAGMA journal_mode = DELETE").fetchall()  # unread, its failure would go unheard
        tasks = verify(part)
        _sync(part)
        os.link(part, target)  # unlike a rename it never replaces what somebody put there meanwhile
        sync_folder(target)
    except sqlite3.Error as error:
        raise StoreError(f"{target} could not be written: {error}", hint="is there room for it?") from None
    except OSError as error:
        raise StoreError(f"{target} could not be written: {error.strerror}", hint="name another file") from None
    finally:
        _remove(part)
    return Copied(path=target, size=os.path.getsize(target), tasks=tasks)


def _new_file(target: str) -> str:
    """An empty file of ours beside `target`. Raises StoreError when one of the two exists."""
    if os.path.lexists(target):
        raise StoreError(f"{target} exists, and a backup never replaces anything", hint="name a new file")
    part = f"{target}.part"
    try:
        os.close(os.open(part, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, 0o600))
    except FileExistsError:
        raise StoreError(f"{part} exists: another backup is under way, or was cut off", hint="remove it and try again") from None
    except OSError as error:
        raise StoreError(f"{target} cannot be made: {error.strerror}", hint="name a file in a folder of yours") from None
    return part


def verify(path: str) -> int:
    """Check a database file whole; how many tasks it holds. Raises StoreError: foreign, newer, or damaged."""
    with reading(path) as conn:
        version = int(conn.execute("PRAGMA user_version").fetchone()[0])
        if version > len(migrations()):
            raise StoreError(
                f"{path} was written by a newer looseends (schema {version}, this one knows {len(migrations())})",
                hint="upgrade looseends first",
            )
        said = conn.execute("PRAGMA integrity_check(3)").fetchall()
        if said[0][0] != "ok":
            raise StoreError(f"{path} is damaged: {'; '.join(row[0] for row in said)}", hint="take another backup")
        return int(conn.execute("SELECT count(*) FROM task").fetchone()[0])


def restore(path: str, source: str, stamp: str, progress: Progress = _quiet) -> Copied:
    """Put the backup `source` in the place of the database at `path`. `stamp` goes into the name the old file is kept under.

    Raises StoreError: a daemon serves `path`, `source` is foreign, newer or damaged, no room. Then nothing has changed.
    """
    tasks = verify(source)
    lock = take_lock(path)
    fresh = f"{path}.restoring"
    try:
        _remove(fresh)
        _copy(source, fresh, progress)
        verify(fresh)
        aside = _put_aside(path, stamp)
        os.rename(fresh, path)
        sync_folder(path)
    except OSError as error:
        raise StoreError(f"{path} could not be restored: {error.strerror}", hint="is there room for it?") from None
    finally:
        _remove(fresh)
        os.close(lock)
    return Copied(path=path, size=os.path.getsize(path), tasks=tasks, aside=aside)


def _put_aside(path: str, stamp: str) -> str | None:
    """Move the old file away, its log first: a log without its file is nothing, a file with a foreign log is damage."""
    if not os.path.lexists(path):
        for leftover in ("-wal", "-shm"):
            _remove(path + leftover)
        return None
    aside = f"{path}.before-{stamp}"
    if os.path.lexists(aside):
        raise StoreError(f"{aside} exists", hint="try again in a second")
    if os.path.exists(path + "-wal"):
        os.rename(path + "-wal", aside + "-wal")
    os.rename(path, aside)
    _remove(path + "-shm")
    return aside


def _copy(source: str, target: str, progress: Progress) -> None:
    whole, done = os.path.getsize(source), 0
    fd = os.open(target, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600)
    with open(source, "rb") as from_, os.fdopen(fd, "wb") as to:
        while piece := from_.read(COPY_BYTES):
            to.write(piece)
            done += len(piece)
            progress(done, whole)
        to.flush()
        os.fsync(to.fileno())


def _sync(path: str) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _remove(path: str) -> None:
    for name in (path, path + "-journal"):
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name)
