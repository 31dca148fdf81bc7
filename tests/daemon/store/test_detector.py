"""The detector as a loop: after a start, a freeze or a clock set back it waits for what is on its way before it judges."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from looseends.wire import NS, check_batch
from looseends_daemon.core.incidents import AlertRules
from looseends_daemon.core.policy import Policy
from looseends_daemon.core.resources import VERDICTS, Actor
from looseends_daemon.services.detector import Detector
from looseends_daemon.store import facts
from looseends_daemon.store.codes import word
from looseends_daemon.store.connection import Database

START = 1_795_183_200 * NS
ACTOR = Actor(name="uid 0", role="ingest", channel="uds:0", uid=0)
TASK = "00000000-0000-8000-8000-000000000001"


class Watched:
    """A database with its detector. Times in seconds from the start of the daemon."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.detector = Detector(database, Policy(), AlertRules, started_at=START)

    async def tell(self, at: float, *events: dict[str, Any]) -> None:
        now = START + int(at * NS)
        told = {"id": "web-1", "service": "shop"}
        batch = check_batch({"instance": told, "events": [{"task": TASK, "name": "n", **event} for event in events]}, now)
        assert not batch.rejected, batch.rejected
        await self.database.write(lambda conn: facts.apply_batch(conn, batch, actor=ACTOR, now=now, policy=Policy()))

    async def look(self, first: float, last: float) -> None:
        """The shell's calls, one each second."""
        at = first
        while at <= last:
            await self.detector.run_once(START + int(at * NS))
            at += 1

    async def verdict(self) -> str | None:
        row = await self.database.write(lambda conn: conn.execute("SELECT verdict FROM task").fetchone())
        return word(VERDICTS, row["verdict"])


@pytest.fixture
async def watched(tmp_path: Path) -> AsyncIterator[Watched]:
    database = await Database.open(str(tmp_path / "looseends.db"))
    yield Watched(database)
    await database.close()


async def test_a_task_past_its_deadline_is_stuck(watched: Watched) -> None:
    await watched.tell(0, {"type": "started", "deadline": 30})
    await watched.look(1, 29)
    assert await watched.verdict() is None
    await watched.tell(29.5)
    await watched.look(30, 31)
    assert await watched.verdict() == "stuck"


async def test_after_a_freeze_that_ends_before_the_deadline_what_was_sent_meanwhile_is_read_first(watched: Watched) -> None:
    await watched.tell(0, {"type": "started", "deadline": 30})
    await watched.look(1, 5)
    await watched.tell(29.8)
    await watched.look(29.9, 33)
    assert await watched.verdict() is None
    await watched.tell(34, {"type": "finished"})
    await watched.look(34, 40)
    assert await watched.verdict() is None


async def test_after_a_freeze_what_is_stuck_is_found_once_the_grace_is_over(watched: Watched) -> None:
    await watched.tell(0, {"type": "started", "deadline": 30})
    await watched.look(1, 5)
    await watched.look(60, 64)
    assert await watched.verdict() is None
    await watched.tell(64.5)
    await watched.look(65, 66)
    assert await watched.verdict() == "stuck"


async def test_a_clock_that_is_set_back_does_not_stop_the_detector(watched: Watched) -> None:
    hour = 3600.0
    await watched.look(1, 3)
    await watched.tell(3 - hour, {"type": "started", "deadline": 3})
    await watched.look(4 - hour, 6 - hour)
    await watched.tell(7 - hour)
    await watched.look(7 - hour, 12 - hour)
    assert await watched.verdict() == "stuck"
