"""The log is copied into the file by somebody else than the writer, has a bound, and nobody waits for it."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from pathlib import Path

import pytest

import harness
from looseends_daemon.store import checkpoints
from looseends_daemon.store.checkpoints import wal_bytes
from looseends_daemon.store.connection import Database
from looseends_daemon.store.retention import sizes_of


async def write(database: Database, count: int) -> None:
    """So many commits of about 8 KB."""
    for _ in range(count):
        await database.write(lambda conn: conn.execute("INSERT INTO environment (name) VALUES (hex(randomblob(4000)))").rowcount)


def file_rows(path: str) -> int:
    """What is in the file itself, without its log; -1: it was being written while it was copied."""
    copy = f"{path}.copy"
    Path(copy).write_bytes(Path(path).read_bytes())
    with contextlib.closing(sqlite3.connect(copy)) as conn:
        try:
            return int(conn.execute("SELECT count(*) FROM environment").fetchone()[0])
        except sqlite3.DatabaseError:
            return -1


async def test_the_writer_never_checkpoints_by_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoints, "EVERY_S", 3_600.0)
    path = str(tmp_path / "a.db")
    database = await Database.open(path)
    try:
        await write(database, 600)
        assert wal_bytes(path) > 1_000 * 4_096, "SQLite itself would have begun at 1,000 pages"
        assert file_rows(path) == 0
    finally:
        database.checkpoints._stop.set()
        await database.close()


async def test_the_thread_copies_the_log_while_nobody_waits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoints, "EVERY_S", 0.05)
    path = str(tmp_path / "a.db")
    database = await Database.open(path)
    await write(database, 50)
    await asyncio.to_thread(harness.wait_until, lambda: file_rows(path) == 50, "the thread to copy the log")
    counts = database.checkpoints.counts
    assert counts.passive > 0 and counts.stops == counts.failed == 0
    await database.close()


async def test_a_log_over_its_bound_is_cut_by_one_stop_of_the_writer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoints, "EVERY_S", 3_600.0)
    monkeypatch.setattr(checkpoints, "WAL_BYTES_MAX", 200_000)
    path = str(tmp_path / "a.db")
    database = await Database.open(path)
    largest = 0
    for _ in range(100):
        await write(database, 1)
        largest = max(largest, wal_bytes(path))
    assert database.checkpoints.counts.stops > 1
    assert largest < 2 * 200_000
    await database.close()


async def test_a_reader_in_the_way_puts_the_stop_off_and_nobody_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoints, "WAL_BYTES_MAX", 200_000)
    monkeypatch.setattr(checkpoints, "RETRY_S", 0.01)
    path = str(tmp_path / "a.db")
    database = await Database.open(path)
    await write(database, 5)
    reader = sqlite3.connect(path, isolation_level=None)
    reader.execute("BEGIN")
    reader.execute("SELECT count(*) FROM environment").fetchone()
    await write(database, 60)
    assert database.checkpoints.counts.blocked > 0
    assert wal_bytes(path) > 200_000
    reader.execute("ROLLBACK")
    reader.close()
    await asyncio.sleep(0.05)
    await write(database, 2)
    assert wal_bytes(path) < 200_000
    await database.close()


async def test_closing_leaves_one_whole_file(tmp_path: Path) -> None:
    path = str(tmp_path / "a.db")
    database = await Database.open(path)
    await write(database, 20)
    await database.close()
    assert wal_bytes(path) == 0
    assert file_rows(path) == 20


async def test_the_log_counts_as_space_that_is_taken(tmp_path: Path) -> None:
    path = str(tmp_path / "a.db")
    database = await Database.open(path)
    await write(database, 20)
    assert sizes_of(path, 4_096, 10, 4).file == 10 * 4_096 + wal_bytes(path) > 10 * 4_096
    await database.close()
