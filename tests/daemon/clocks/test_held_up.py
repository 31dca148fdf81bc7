"""A slow disk holds up everybody who speaks to us: what falls due meanwhile is judged once they could tell what happened."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from typing import Any

import pytest

from looseends.wire import NS
from looseends_daemon.core.detect import CATCH_UP_S
from looseends_daemon.core.incidents import AlertRules
from looseends_daemon.services.detector import Detector
from looseends_daemon.store import connection

SLOW_S = 0.4


@pytest.fixture
def heeding(house: Any) -> Iterator[Any]:
    """Detectors of this house as the daemon has them."""

    def make(heeds: bool) -> Detector:
        now = house.clocks.wall
        return Detector(house.database, house.policy, AlertRules, started_at=now, vigil=house.vigil, heeds_writer=heeds)

    yield make


async def slow(house: Any) -> None:
    """One commit that takes long."""
    await house.database.write(lambda conn: time.sleep(SLOW_S))


@pytest.mark.parametrize(("heeds", "verdict"), [(True, None), (False, "stuck")])
async def test_what_falls_due_in_a_slow_commit_waits_for_the_news_behind_it(
    house: Any, heeding: Any, heeds: bool, verdict: str | None
) -> None:
    """A detector that does not heed it is what there was before, and alarms."""
    await house.live(6)
    task = await house.begin(deadline=10)
    await house.live(9)
    house.clocks.pass_by(0.9)
    detector = heeding(heeds)
    held = asyncio.create_task(slow(house))
    await asyncio.sleep(0.05)
    house.clocks.pass_by(0.2)  # it is due now, behind that commit
    again = await detector.run_once(house.clocks.wall)
    await held
    assert await house.verdicts() == [verdict]
    if heeds:
        assert again is not None and again <= house.clocks.wall + int((SLOW_S + CATCH_UP_S + 0.2) * NS)
        await house.tell({"type": "finished", "task": task})
        await detector.run_once(house.clocks.wall + NS)
        assert await house.rows("SELECT * FROM judgement") == []


async def test_what_does_not_end_after_that_is_stuck_a_moment_later(house: Any, heeding: Any) -> None:
    await house.live(6)
    await house.begin(deadline=10)
    await house.live(9)
    detector = heeding(True)
    house.clocks.pass_by(1.1)
    await slow(house)
    again = await detector.run_once(house.clocks.wall)
    assert await house.verdicts() == [None] and again is not None
    await asyncio.sleep(CATCH_UP_S)
    await detector.run_once(house.clocks.wall + int(CATCH_UP_S * NS) + NS // 5)
    assert await house.verdicts() == ["stuck"]


async def test_what_was_due_long_before_waits_for_nothing(house: Any, heeding: Any) -> None:
    await house.live(6)
    await house.begin(deadline=2)
    house.clocks.pass_by(4)
    detector = heeding(True)
    await slow(house)
    await detector.run_once(house.clocks.wall)
    assert await house.verdicts() == ["stuck"]


async def test_a_commit_is_slow_from_a_quarter_of_a_second_on(house: Any) -> None:
    assert connection.SLOW_S == 0.25
    await house.database.write(lambda conn: time.sleep(0.3))
    began, ended = house.database.slow
    assert ended - began >= 0.3
