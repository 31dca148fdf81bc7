"""`looseends doctor` finds what is planted, says what to do, and is quiet where nothing is wrong."""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from looseends import journal
from looseends_daemon import config
from looseends_daemon.commands import doctor
from looseends_daemon.config import Settings
from looseends_daemon.store.connection import Database

if TYPE_CHECKING:
    from conftest import Yard


@pytest.fixture
async def settings(tmp_path: Path) -> Settings:
    """The settings of a stopped database with its token."""
    path = str(tmp_path / "state" / "looseends.db")
    await (await Database.open(path)).close()
    with open(f"{path}.token", "w") as file:  # noqa: ASYNC230
        os.fchmod(file.fileno(), 0o600)
    spool = tmp_path / "spool"
    spool.mkdir(mode=0o700)
    env = {"HOME": str(tmp_path), "LOOSEENDS_SPOOL_DIR": str(spool)}
    return config.with_flags(config.load(None, env), path=path)


def troubles(settings: Settings) -> dict[str, str]:
    """What it finds wrong, by check."""
    found = list(doctor.examine(settings))
    assert all(one.hint for one in found if one.state == doctor.TROUBLE and one.check not in ("integrity", "daemon"))
    return {one.check: one.words for one in found if one.state == doctor.TROUBLE}


async def test_a_healthy_database_has_no_trouble(settings: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    assert troubles(settings) == {}
    assert doctor.run(settings, as_json=False) == 0
    assert "nothing is wrong" in capsys.readouterr().out
    assert doctor.run(settings, as_json=True) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["fine"] and {one["check"] for one in document["checks"]} == set(doctor.CHECKS)


def no_file(settings: Settings) -> None:
    os.unlink(settings.storage.path)


def foreign(settings: Settings) -> None:
    Path(settings.storage.path).write_bytes(b"hello")


def open_to_all(settings: Settings) -> None:
    os.chmod(settings.storage.path, 0o644)


def no_index(settings: Settings) -> None:
    with contextlib.closing(sqlite3.connect(settings.storage.path)) as conn:
        conn.execute("DROP INDEX task_loose")


def newer(settings: Settings) -> None:
    with contextlib.closing(sqlite3.connect(settings.storage.path)) as conn:
        conn.execute("PRAGMA user_version = 99")


def damaged(settings: Settings) -> None:
    path = Path(settings.storage.path)
    raw = bytearray(path.read_bytes())
    raw[8_192 : 8_192 + 200] = b"\xff" * 200
    path.write_bytes(raw)


def token_for_all(settings: Settings) -> None:
    os.chmod(f"{settings.storage.path}.token", 0o644)


def spool_for_all(settings: Settings) -> None:
    os.chmod(settings.detect.spools[0], 0o777)


def clock_set_back(settings: Settings) -> None:
    with contextlib.closing(sqlite3.connect(settings.storage.path, isolation_level=None)) as conn:
        conn.execute("INSERT INTO mark VALUES ('last_event_at', ?)", (time.time_ns() + 3_600 * 10**9,))


PLANTED: list[tuple[Callable[[Settings], None], str, str]] = [
    (no_file, "database", "cannot be read"),
    (foreign, "database", "not a looseends database"),
    (open_to_all, "database", "mode 0644"),
    (no_index, "indexes", "open loose ends"),
    (newer, "database", "schema 99"),
    (damaged, "integrity", ""),
    (token_for_all, "tokens", "others may read it"),
    (spool_for_all, "spool", "others may read it"),
    (clock_set_back, "clock", "it was set back"),
]


@pytest.mark.parametrize(("plant", "check", "words"), PLANTED, ids=lambda value: getattr(value, "__name__", None))
async def test_what_is_planted_is_found_and_told_with_the_way_out(
    settings: Settings, plant: Callable[[Settings], None], check: str, words: str
) -> None:
    plant(settings)
    found = troubles(settings)
    assert words in found.get(check, "nothing"), found
    assert doctor.run(settings, as_json=True) == 1


async def test_a_log_that_cannot_be_cut_is_trouble(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "wal_bytes", lambda path: 200 << 20)
    assert "cannot be cut" in troubles(settings)["wal"]


async def test_a_disk_that_is_full_within_the_week_is_trouble(
    yard: Yard, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("looseends_daemon.core.retention.FORECAST_TASKS_MIN", 1)
    with contextlib.closing(sqlite3.connect(settings.storage.path, isolation_level=None)) as conn:
        minute = time.time_ns() // 60_000_000_000
        conn.execute("INSERT INTO ledger (minute, environment, type, succeeded) VALUES (?, 1, 1, 100)", (minute,))
        conn.execute("INSERT INTO ledger_all (minute, environment, succeeded) VALUES (?, 1, 100)", (minute,))
    assert "days left" not in troubles(settings).get("disk", "")
    with contextlib.closing(sqlite3.connect(settings.storage.path, isolation_level=None)) as conn:
        conn.execute("CREATE TABLE ballast AS SELECT zeroblob(14000000) AS a")
    import msgspec

    small = msgspec.structs.replace(settings.storage, max_size=16 << 20)
    assert "days left" in troubles(msgspec.structs.replace(settings, storage=small))["disk"]


async def test_it_lists_what_each_live_instance_runs_and_whose_clock_is_off(yard: Yard, settings: Settings) -> None:
    await yard.instance(release="2026.11.3", client="0.1.0", python="3.11")
    await yard.rows("UPDATE instance SET skew = ?", 3_600 * 10**9)
    path = yard.database.path
    await yard.database.close()
    here = config.with_flags(settings, path=path)
    found = list(doctor.examine(here))
    assert any(
        "shop 2026.11.3: client 0.1.0, Python 3.11, on web-1, pid 7" in one.words for one in found if one.check == "instances"
    )
    assert any("+3600.0 s off" in one.words for one in found if one.check == "clock" and one.state == doctor.NOTE)


async def test_journals_of_the_dead_are_counted(settings: Settings) -> None:
    folder = Path(settings.detect.spools[0]) / "00000000-0000-8000-8000-000000000001"
    folder.mkdir()
    (folder / "lock").touch()
    os.utime(folder, (1, 1))
    assert journal.folders(settings.detect.spools[0]) == [str(folder)]
    [found] = [one for one in doctor.examine(settings) if one.check == "spool"]
    assert found.state == doctor.NOTE and "1 left by dead ones" in found.words
    database = await Database.open(settings.storage.path)
    [found] = [one for one in doctor.examine(settings) if one.check == "spool"]
    assert found.state == doctor.TROUBLE, "a daemon runs and has not adopted it"
    await database.close()
