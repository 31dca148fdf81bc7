"""A spool full of rubbish must not hold up those who ask the daemon something."""

from __future__ import annotations

import asyncio
import threading
import time
import uuid
from pathlib import Path
from typing import Any

import pytest

from looseends import journal
from looseends_daemon.core.policy import Policy
from looseends_daemon.services.adopter import REFUSED_NAMED_MAX, YOUNG_NS, Adopter
from looseends_daemon.services.adopter import log as adopter_log
from looseends_daemon.store.connection import Database


async def test_a_spool_is_looked_through_beside_the_event_loop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    database = await Database.open(str(tmp_path / "x.db"))
    seen: list[threading.Thread] = []

    def folders(spool: str) -> list[str]:
        seen.append(threading.current_thread())
        return []

    monkeypatch.setattr(journal, "folders", folders)
    adopter: Any = Adopter(database, [str(tmp_path)], Policy())
    try:
        await adopter.run_once(1)
        await asyncio.sleep(0)
    finally:
        adopter.close()
        await database.close()
    assert seen and threading.main_thread() not in seen


async def test_a_spool_full_of_rubbish_does_not_fill_the_log(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    spool = tmp_path / "spool"
    for _ in range(60):
        (spool / str(uuid.uuid4())).mkdir(parents=True)
    database = await Database.open(str(tmp_path / "x.db"))
    adopter = Adopter(database, [str(spool)], Policy())
    try:
        await adopter.run_once(time.time_ns() + YOUNG_NS)
    finally:
        adopter.close()
        await database.close()
    said = [record for record in caplog.records if record.name == adopter_log.name]
    assert len(said) == REFUSED_NAMED_MAX + 1
