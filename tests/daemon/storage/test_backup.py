"""Backup and restore as a drill: under load, with a real daemon, and every way in which they must refuse."""

from __future__ import annotations

import asyncio
import sqlite3
import stat
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from looseends_daemon import config
from looseends_daemon.app import running
from looseends_daemon.store import backup, retention
from looseends_daemon.store.connection import Database
from looseends_daemon.store.schema import StoreError

if TYPE_CHECKING:
    from conftest import Yard


def content(path: Path) -> dict[str, list[Any]]:
    """Everything that a person would miss, by table."""
    with backup.reading(str(path)) as conn:
        tables = ("task", "payload", "judgement", "ledger", "instance", "audit", "token")
        return {table: [tuple(row) for row in conn.execute(f"SELECT * FROM {table} ORDER BY 1, 2, 3")] for table in tables}


def names(folder: Path, pattern: str) -> list[str]:
    """What lies there."""
    return sorted(path.name for path in folder.glob(pattern))


def read(path: str) -> bytes:
    """A file."""
    return Path(path).read_bytes()


def copied(path: str, target: Path) -> None:
    """Copy a file as a kill would leave it."""
    target.write_bytes(read(path))


def damage(path: str) -> None:
    """Overwrite the beginning of a page in the middle."""
    raw = bytearray(read(path))
    middle = len(raw) // 2 // 4_096 * 4_096
    raw[middle : middle + 64] = b"\xff" * 64
    Path(path).write_bytes(raw)


async def test_a_drill_backup_under_load_restore_serve_and_everything_is_there(yard: Yard, tmp_path: Path) -> None:
    kept = [await yard.done() for _ in range(50)]
    stop = threading.Event()

    async def load() -> int:
        count = 0
        while not stop.is_set():
            await yard.done()
            count += 1
        return count

    loading = asyncio.ensure_future(load())
    target, steps = tmp_path / "copy.db", []
    made = await asyncio.to_thread(
        backup.backup, yard.database.path, str(target), lambda done, whole: steps.append((done, whole))
    )
    stop.set()
    assert await loading > 0, "there was load"
    assert made.tasks >= 50 and steps[-1][0] == steps[-1][1]
    assert stat.S_IMODE(target.stat().st_mode) == 0o600
    assert names(tmp_path, "copy*") == ["copy.db"], "one file, nothing beside it"
    before = content(target)

    served = tmp_path / "elsewhere" / "looseends.db"
    backup.restore(str(served), str(target), "1")
    assert content(served) == before
    settings = config.with_flags(config.load(None, {"HOME": str(tmp_path)}), listen=("127.0.0.1:0",), path=str(served))
    async with running(settings) as daemon:
        reader = daemon.context().reader
        page = await reader.tasks("", limit=500)
        ids = {task.id for task in page.items}
        assert set(kept) <= ids or len(ids) == 500
        ledger = await reader.ledger(0, yard.now + 10**12)
        assert ledger.tasks == made.tasks
        assert await daemon.database.write(retention.recount) == []


async def test_a_restore_is_refused_below_a_living_daemon(yard: Yard, tmp_path: Path) -> None:
    await yard.done()
    target = str(tmp_path / "copy.db")
    backup.backup(yard.database.path, target)
    with pytest.raises(StoreError, match="already served by another looseends"):
        backup.restore(yard.database.path, target, "1")
    assert await yard.count("task") == 1


async def test_the_old_file_is_kept_with_its_log(yard: Yard, tmp_path: Path) -> None:
    path, target = yard.database.path, str(tmp_path / "copy.db")
    backup.backup(path, target)
    await yard.done()
    await yard.database.close()
    made = backup.restore(path, target, "20261120")
    assert made.aside == f"{path}.before-20261120" and made.tasks == 0
    again = await Database.open(made.aside)
    assert (await again.write(lambda conn: conn.execute("SELECT count(*) FROM task").fetchone()[0])) == 1
    await again.close()


async def test_a_log_that_a_kill_left_behind_goes_aside_with_its_file(make_yard: Any, tmp_path: Path) -> None:
    yard = await make_yard()
    await yard.done()
    target = str(tmp_path / "copy.db")
    backup.backup(yard.database.path, target)
    killed = tmp_path / "killed.db"
    copied(yard.database.path, killed)
    copied(f"{yard.database.path}-wal", tmp_path / "killed.db-wal")
    backup.restore(str(killed), target, "1")
    assert names(tmp_path, "killed*-wal") == ["killed.db.before-1-wal"]
    with backup.reading(str(killed)) as conn:
        assert conn.execute("SELECT count(*) FROM task").fetchone()[0] == 1


async def test_a_backup_never_replaces_anything(yard: Yard, tmp_path: Path) -> None:
    target = tmp_path / "copy.db"
    target.write_text("mine")
    with pytest.raises(StoreError, match="never replaces anything"):
        backup.backup(yard.database.path, str(target))
    assert target.read_text() == "mine"
    (tmp_path / "half.db.part").write_text("")
    with pytest.raises(StoreError, match="another backup is under way"):
        backup.backup(yard.database.path, str(tmp_path / "half.db"))


async def test_a_backup_of_a_damaged_file_is_refused_and_leaves_nothing(yard: Yard, tmp_path: Path) -> None:
    for _ in range(200):
        await yard.done()
    await yard.database.close()
    damage(yard.database.path)
    with pytest.raises(StoreError, match="damaged|malformed"):
        backup.backup(yard.database.path, str(tmp_path / "copy.db"))
    assert names(tmp_path, "copy*") == []


async def test_a_foreign_newer_or_damaged_file_is_not_restored_and_nothing_changes(yard: Yard, tmp_path: Path) -> None:
    good = tmp_path / "good.db"
    backup.backup(yard.database.path, str(good))
    await yard.database.close()
    before = read(yard.database.path)
    newer, foreign, text, empty, cut = (tmp_path / name for name in ("newer", "foreign", "text", "empty", "cut"))
    newer.write_bytes(good.read_bytes())
    conn = sqlite3.connect(newer)
    conn.execute("PRAGMA user_version = 99")
    conn.close()
    conn = sqlite3.connect(foreign)
    conn.execute("CREATE TABLE mine (a)")
    conn.close()
    text.write_text("hello")
    empty.write_bytes(b"")
    cut.write_bytes(good.read_bytes()[: good.stat().st_size // 2])
    for file, words in (
        (newer, "newer looseends"),
        (foreign, "not a looseends"),
        (text, "not a looseends"),
        (empty, "not a looseends"),
    ):
        with pytest.raises(StoreError, match=words):
            backup.restore(yard.database.path, str(file), "1")
    with pytest.raises(StoreError):
        backup.restore(yard.database.path, str(cut), "1")
    with pytest.raises(StoreError, match="cannot be read"):
        backup.restore(yard.database.path, str(tmp_path / "nowhere"), "1")
    assert read(yard.database.path) == before
    assert names(tmp_path, "*.before-*") == []
