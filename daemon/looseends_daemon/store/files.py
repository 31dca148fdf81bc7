"""The database file itself: who may have it, how it is made, opened, and opened again after the disk failed us.

Rules: one daemon per file, held by a lock on `<path>.lock` that dies with its process. What is not ours is never written to, not
even an empty file. A new file is built under another name and renamed, so that a kill leaves no half-made one at `path`.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import sqlite3
import time
from urllib.parse import quote

from looseends_daemon.store import search
from looseends_daemon.store.log_end import Cut, commits_cut_off, frames_in, keep
from looseends_daemon.store.schema import APPLICATION_ID, StoreError, migrate, migrations

CACHE_KIB = 16_384
VERIFY_BYTES_MAX = 64 << 20
"""Up to this size a file is checked whole (0.1 s) before anything is written to it; a larger one would take too long."""
RESTORE = "keep it as it is, and put a backup in its place: looseends restore BACKUP"
DAMAGED = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
REOPEN_BUSY_MS = 2_000
FULL = (sqlite3.SQLITE_FULL,)
DISK_TROUBLE = (
    *(sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CANTOPEN),
    *(sqlite3.SQLITE_READONLY, sqlite3.SQLITE_NOMEM, sqlite3.SQLITE_PROTOCOL),
)
"""Primary result codes after which a connection is not trusted any more."""


def primary(error: sqlite3.Error) -> int:
    """The primary result code of an error (the low byte of the extended one); 0 where SQLite gave none."""
    code: int = getattr(error, "sqlite_errorcode", 0) or 0
    return code & 0xFF


def open_file(path: str) -> tuple[sqlite3.Connection, int, Cut | None]:
    """(writing connection, descriptor of the lock, what its log has lost) of a database, made or migrated if need be.

    Raises StoreError with a hint: foreign, empty, unwritable, newer, damaged, or in use.
    """
    lock = take_lock(path)
    try:
        refuse_foreign(path)
        if not os.path.exists(path):
            make(path)
        cut = _look_whole(path)
        conn = _connect_ready(path)
    except sqlite3.DatabaseError as error:
        os.close(lock)
        if primary(error) in DAMAGED:
            raise StoreError(f"{path} is damaged: {error}", hint=RESTORE) from None
        raise StoreError(f"{path} cannot be used: {error}", hint="is it writable, and a whole database?") from None
    except OSError as error:
        os.close(lock)
        raise StoreError(f"{path} cannot be made: {error}", hint="name another file with --db") from None
    except BaseException:
        os.close(lock)
        raise
    return conn, lock, cut


def _connect_ready(path: str) -> sqlite3.Connection:
    """A writing connection to a file that is of this version and whose log has a name. Raises StoreError, sqlite3.Error."""
    conn = connect(path)
    try:
        migrate(conn, path=path, now=time.time_ns())
        sync_names(path)
    except BaseException:
        conn.close()
        raise
    return conn


def lock_path(path: str) -> str:
    """Where the lock of a database file lies: beside the file itself, whatever link it was called by."""
    return f"{os.path.realpath(path)}.lock"


def take_lock(path: str) -> int:
    """The lock of a database file as a descriptor; closing it lets go. Raises StoreError that names who has it."""
    folder = os.path.dirname(os.path.realpath(path))
    try:
        os.makedirs(folder, mode=0o700, exist_ok=True)
        lock = os.open(lock_path(path), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise StoreError(f"{path} cannot be opened: {error.strerror}", hint="name another file with --db") from None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        owner = os.pread(lock, 32, 0).decode("ascii", "replace").strip() or "unknown"
        os.close(lock)
        raise StoreError(
            f"{path} is already served by another looseends (pid {owner})",
            hint="stop that one, or name another file with --db",
        ) from None
    try:
        os.ftruncate(lock, 0)
        os.pwrite(lock, f"{os.getpid()}\n".encode(), 0)
    except OSError as error:
        os.close(lock)  # or the next try in this process would find the file taken, by itself
        hint = "is the disk full or read-only?"
        raise StoreError(f"{lock_path(path)} cannot be written: {error.strerror}", hint=hint) from None
    return lock


def holder(path: str) -> int | None:
    """The pid of the daemon that has this file open; None: nobody has. Never takes the lock for longer than the look."""
    try:
        lock = os.open(lock_path(path), os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        owner = os.pread(lock, 32, 0).decode("ascii", "replace").strip()
        return int(owner) if owner.isdigit() else 0
    finally:
        os.close(lock)
    return None


def header(path: str) -> bytes:
    """The first 100 bytes. Raises StoreError: no file, or not readable."""
    try:
        with open(path, "rb") as file:
            return file.read(100)
    except OSError as error:
        hint = "name the database with --db, or start `looseends serve` first"
        raise StoreError(f"{path} cannot be read: {error.strerror}", hint=hint) from None


def is_ours(head: bytes) -> bool:
    """Whether this header is that of a looseends database. The bytes are looked at before SQLite sees the file."""
    return head[:16] == b"SQLite format 3\0" and int.from_bytes(head[68:72], "big") == APPLICATION_ID


def refuse_foreign(path: str) -> None:
    """Raises StoreError for what we would harm: a folder, an empty file (it may be somebody's loss), another program's file."""
    if os.path.isdir(path):
        raise StoreError(f"{path} is a folder", hint="name a file inside it with --db")
    if not os.path.exists(path):
        return
    if not os.path.isfile(path):  # opening a pipe waits for its other end, for ever
        raise StoreError(f"{path} is no regular file", hint="name another file with --db")
    head = header(path)
    if not os.access(path, os.W_OK):
        raise StoreError(f"{path} is not writable", hint="mend its permissions or name another file with --db")
    if not head:
        raise StoreError(f"{path} is empty, and looseends never writes over a file it did not make", hint="remove it first")
    if not is_ours(head):
        raise StoreError(f"{path} is not a looseends database", hint=f"name another file with --db; if it was ours, {RESTORE}")


def _look_whole(path: str) -> Cut | None:
    """What its log has lost, or None. Raises StoreError, sqlite3.DatabaseError: a page is damaged. Nothing is changed.

    A connection that may write copies the log into the file when it is closed, so this one may not. Unless a kill or a power cut
    left a journal of the time before the file had a log (just made, or restored): that has to be rolled back before anybody can
    read, and only a connection that may write does it. Without this such a file was refused for ever (tests/crash/test_sweep.py).
    """
    try:
        return _read_whole(path)
    except sqlite3.OperationalError as error:
        if error.sqlite_errorcode != sqlite3.SQLITE_READONLY_ROLLBACK:
            raise
        with contextlib.closing(sqlite3.connect(path)) as conn:
            _check_pages(conn, path, RESTORE)
        return None  # it had no log yet


def _read_whole(path: str) -> Cut | None:
    conn = sqlite3.connect(f"file:{quote(os.path.abspath(path))}?mode=ro", uri=True)
    with contextlib.ExitStack() as afterwards, contextlib.closing(conn):
        _check_pages(conn, path, RESTORE)
        page = conn.execute("PRAGMA page_size").fetchone()[0]
        conn.execute("SELECT 1 FROM sqlite_schema LIMIT 1").fetchone()  # now the log has been read to its end
        try:
            # Closed after the connection: to close a file drops all locks that its process has on it.
            frames = frames_in(afterwards.enter_context(open(f"{path}-shm", "rb")))
        except FileNotFoundError:
            return None
        commits = 0 if frames is None else commits_cut_off(f"{path}-wal", frames, page)
        if not commits:
            return None
        _check_pages(conn, path, RESTORE, "integrity_check")  # pages from before and after the cut may stand side by side
        return keep(path, commits)


def make(path: str) -> None:
    """A new database at `path`, 0600. Raises StoreError, sqlite3.Error, OSError."""
    fresh = f"{path}.new"
    for leftover in ("", "-journal", "-wal", "-shm"):
        with contextlib.suppress(FileNotFoundError):
            os.unlink(fresh + leftover)
    os.close(os.open(fresh, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
    conn = sqlite3.connect(fresh, isolation_level=None)
    try:
        # Can only be chosen before the first table. Measured: no difference in the cost of ingest, 0.2 % in size.
        conn.execute("PRAGMA auto_vacuum = INCREMENTAL")
        migrate(conn, path=path, now=time.time_ns())
        use_log(conn)  # while it has another name: no journal of that change ever lies beside the file itself
    finally:
        conn.close()
    os.rename(fresh, path)
    try:
        sync_folder(path)
    except OSError:
        os.unlink(path)  # nobody knows whether a later sync would cover this name; there is nothing in the file yet
        raise


def sync_folder(path: str) -> None:
    """Make a rename in the folder of `path` survive a power cut."""
    folder = os.open(os.path.dirname(os.path.abspath(path)), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def sync_names(path: str) -> None:
    """Make the name of the log survive a power cut. Raises StoreError: nothing may be answered yet.

    SQLite does so with its first sync, but takes no notice if it fails; a log without a name is a log that is gone.
    """
    try:
        sync_folder(os.path.realpath(path))
    except OSError as error:
        hint = "is the disk whole? It is tried again with the next write"
        raise StoreError(f"the folder of {path} could not be synced: {error.strerror}", hint=hint) from None


def connect(path: str) -> sqlite3.Connection:
    """A writing connection with our pragmas. Only the writer thread (and offline commands) use one. Raises sqlite3.Error."""
    conn = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=5.0)
    conn.row_factory = sqlite3.Row
    try:
        use_log(conn)
        conn.execute("PRAGMA synchronous = FULL")
        conn.execute(f"PRAGMA cache_size = -{CACHE_KIB}")
        conn.execute("PRAGMA foreign_keys = OFF")
        search.register(conn)
    except BaseException:
        conn.close()
        raise
    return conn


def use_log(conn: sqlite3.Connection) -> None:
    """Have all changes go through the write-ahead log. Raises sqlite3.Error.

    The answer is read to its end, for only then the change of mode is committed: unread, a failed sync goes unheard, and SQLite
    goes on with a journal. By that an answered commit can come undone, since nobody syncs that the journal is gone.
    """
    mode = conn.execute("PRAGMA journal_mode = WAL").fetchall()[0][0]
    if mode != "wal":
        raise sqlite3.OperationalError(f"its write-ahead log cannot be used, it stays in mode {mode}")


def reopen(path: str) -> sqlite3.Connection:
    """A new writing connection after an I/O error, verified. Raises StoreError or sqlite3.Error: not yet usable.

    After a failed sync the kernel may hold pages that it calls clean and that are not on the disk. So everything in the log is
    copied into the file and synced anew before anybody is told that anything is stored.
    """
    if not os.path.exists(path):
        raise StoreError(f"{path} is gone", hint="put it back, or stop the daemon and restore a backup")
    refuse_foreign(path)
    conn = connect(path)
    try:
        conn.execute(f"PRAGMA busy_timeout = {REOPEN_BUSY_MS}")
        if conn.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]:
            raise StoreError(f"{path} is still being read", hint="it is tried again with the next write")
        conn.execute("PRAGMA busy_timeout = 5000")
        _verify(conn, path)
        sync_names(path)
    except OSError as error:
        conn.close()
        raise StoreError(f"{path} could not be looked at: {error.strerror}", hint="is the disk whole?") from None
    except BaseException:
        conn.close()
        raise
    return conn


def _verify(conn: sqlite3.Connection, path: str) -> None:
    version = conn.execute("PRAGMA user_version").fetchone()[0]
    if version != len(migrations()):
        raise StoreError(f"{path} is no longer the database it was", hint="stop the daemon and restore a backup")
    _check_pages(conn, path, f"stop the daemon, {RESTORE}")


def _check_pages(conn: sqlite3.Connection, path: str, hint: str, check: str = "quick_check") -> None:
    """Raises StoreError, sqlite3.DatabaseError for a file of which a page is damaged, as far as that can be looked for."""
    if os.path.getsize(path) <= VERIFY_BYTES_MAX:
        said = conn.execute(f"PRAGMA {check}(1)").fetchone()[0]
        if said != "ok":
            raise StoreError(f"{path} is damaged: {' '.join(said.split())}", hint=hint)
