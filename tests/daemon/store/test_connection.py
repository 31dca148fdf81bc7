"""The writer: group commits, savepoints, bounds, and files it must not touch."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import stat
from pathlib import Path

import aiosqlite
import pytest

from looseends_daemon.store import connection
from looseends_daemon.store.connection import Database, StoreBusy, StoreClosed, StoreError
from looseends_daemon.store.schema import migrate, migrations


def add(name: str):
    """A write that interns a word, so that it can be counted."""
    return lambda conn: conn.execute("INSERT INTO environment (name) VALUES (?)", (name,)).lastrowid


def modes_in(folder: Path) -> dict[str, int]:
    return {path.name: stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()}


async def names(database: Database) -> list[str]:
    async def ask(conn: aiosqlite.Connection) -> list[str]:
        return [row[0] for row in await conn.execute_fetchall("SELECT name FROM environment ORDER BY id")]

    return await database.read(ask)


async def test_what_was_written_is_there_after_a_reopen(tmp_path: Path) -> None:
    path = str(tmp_path / "a.db")
    database = await Database.open(path)
    await database.write(add("one"))
    await database.close()
    again = await Database.open(path)
    assert await names(again) == ["one"]
    await again.close()


async def test_writes_that_wait_share_a_commit(tmp_path: Path) -> None:
    database = await Database.open(str(tmp_path / "a.db"))
    await asyncio.gather(*(database.write(add(f"e{n}")) for n in range(200)))
    assert len(await names(database)) == 200
    assert database.commits < 100
    await database.close()


async def test_a_write_that_raises_is_undone_alone(tmp_path: Path) -> None:
    database = await Database.open(str(tmp_path / "a.db"))

    def half(conn: sqlite3.Connection) -> None:
        conn.execute("INSERT INTO environment (name) VALUES ('half')")
        raise ValueError("no further")

    results = await asyncio.gather(
        database.write(add("before")), database.write(half), database.write(add("after")), return_exceptions=True
    )
    assert isinstance(results[1], ValueError)
    assert await names(database) == ["before", "after"]
    await database.close()


async def test_a_full_queue_says_so_and_takes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "QUEUE_BYTES_MAX", 4_000)
    database = await Database.open(str(tmp_path / "a.db"))
    with pytest.raises(StoreBusy):
        await database.write(add("huge"), size=5_000)
    await database.write(add("small"), size=100)
    assert await names(database) == ["small"]
    assert database.queued_bytes == 0
    await database.close()


async def test_closing_writes_what_waits_and_is_safe_twice(tmp_path: Path) -> None:
    path = str(tmp_path / "a.db")
    database = await Database.open(path)
    waiting = asyncio.gather(*(database.write(add(f"e{n}")) for n in range(50)))
    await asyncio.sleep(0)
    await database.close()
    await database.close()
    await waiting
    with pytest.raises(StoreClosed):
        await database.write(add("late"))
    again = await Database.open(path)
    assert len(await names(again)) == 50
    await again.close()


async def test_a_reader_cannot_write(tmp_path: Path) -> None:
    database = await Database.open(str(tmp_path / "a.db"))
    with pytest.raises(sqlite3.OperationalError, match="readonly"):
        await database.read(lambda conn: conn.execute_fetchall("INSERT INTO environment (name) VALUES ('x') RETURNING id"))
    await database.close()


async def test_a_question_that_takes_too_long_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "READ_S_MAX", 0.05)
    database = await Database.open(str(tmp_path / "a.db"))
    endless = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n"
    with pytest.raises(StoreError, match="longer than"):
        await database.read(lambda conn: conn.execute_fetchall(endless))
    assert await names(database) == []
    await database.close()


async def test_files_are_for_their_owner_only(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    before = os.umask(0o022)
    try:
        database = await Database.open(str(path))
        await database.write(add("one"))
        modes = modes_in(tmp_path)
    finally:
        os.umask(before)
    assert set(modes.values()) == {0o600}, modes
    await database.close()


async def test_a_second_daemon_on_the_same_file_is_refused_by_name(tmp_path: Path) -> None:
    path = str(tmp_path / "a.db")
    database = await Database.open(path)
    with pytest.raises(StoreError, match=f"already served by another looseends \\(pid {os.getpid()}\\)"):
        await Database.open(path)
    await database.close()


@pytest.mark.parametrize(
    ("content", "words"),
    [(b"hello", "not a looseends database"), (b"", "is empty"), (None, "is a folder")],
)
async def test_a_file_that_is_not_ours_is_never_touched(tmp_path: Path, content: bytes | None, words: str) -> None:
    path = tmp_path / "theirs.db"
    if content is None:
        path.mkdir()
    else:
        path.write_bytes(content)
    with pytest.raises(StoreError, match=words):
        await Database.open(str(path))
    if content is not None:
        assert path.read_bytes() == content


async def test_somebody_elses_sqlite_file_is_never_touched(tmp_path: Path) -> None:
    path = tmp_path / "theirs.db"
    conn = sqlite3.connect(path)
    conn.execute("CREATE TABLE mine (a)")
    conn.commit()
    conn.close()
    before = path.read_bytes()
    with pytest.raises(StoreError, match="not a looseends database"):
        await Database.open(str(path))
    assert path.read_bytes() == before


async def test_a_file_of_a_newer_looseends_is_refused(tmp_path: Path) -> None:
    path = str(tmp_path / "a.db")
    await (await Database.open(path)).close()
    conn = sqlite3.connect(path)
    conn.execute("PRAGMA user_version = 99")
    conn.close()
    with pytest.raises(StoreError, match="newer looseends"):
        await Database.open(path)


async def test_a_folder_that_cannot_be_made_is_one_clear_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(StoreError, match="cannot be opened"):
        await Database.open(str(tmp_path / "file" / "a.db"))


def test_a_failing_migration_leaves_nothing_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    conn = sqlite3.connect(":memory:", isolation_level=None)
    migrate(conn)
    broken = [*migrations(), ("0099_broken", "CREATE TABLE half (a);\nCREATE TABLE half (a);\n")]
    monkeypatch.setattr("looseends_daemon.store.schema.migrations", lambda: broken)
    with pytest.raises(sqlite3.OperationalError):
        migrate(conn)
    assert conn.execute("SELECT count(*) FROM sqlite_schema WHERE name = 'half'").fetchone()[0] == 0
    assert conn.execute("PRAGMA user_version").fetchone()[0] == len(broken) - 1
