"""What had happened in time and is told late takes back what was said meanwhile: the verdict, its loose end and its incident."""

from __future__ import annotations

from typing import Any

import pytest

from looseends.wire import NS
from looseends_daemon.core.policy import Policy

BEHIND_S = 15.0
HOUR = 3_600.0


async def judged_without_all_its_records(house: Any, off: float = 0.0) -> tuple[str, int]:
    """A task of 30 s that ended after 20 s, called stuck: its instance kept saying that more was to come. (id, when it ended)"""
    house.policy = Policy(behind_after=BEHIND_S)
    await house.start()
    task = "00000000-0000-8000-8000-00000000000a"
    await house.tell({"type": "started", "task": task, "deadline": 30}, off=off, backlog=1)
    ended_at = house.clocks.wall + int((20 + off) * NS)
    await behind(house, 60)
    assert await house.verdicts() == ["stuck"]
    return task, ended_at


async def behind(house: Any, seconds: int) -> None:
    """So long does its instance speak, and say that more is to come."""
    for _ in range(seconds):
        await house.beat(backlog=1)
        await house.live(1, beats=False)


async def told(house: Any) -> tuple[list[str], list[str | None], Any]:
    """(what was judged, how each incident was resolved, the task's row)"""
    await house.live(3)
    judged = [row["what"] for row in await house.rows("SELECT what FROM judgement ORDER BY at, n")]
    resolved = [row["resolution"] for row in await house.rows("SELECT resolution FROM incident")]
    (row,) = await house.rows("SELECT * FROM task")
    return judged, resolved, row


@pytest.mark.parametrize("off", [0.0, -HOUR, HOUR])
async def test_an_end_in_time_that_is_told_late_takes_the_verdict_back(house: Any, off: float) -> None:
    """Also where the clock of its host is an hour wrong: in time is what its corrected time says."""
    task, ended_at = await judged_without_all_its_records(house, off)
    await house.tell({"type": "finished", "task": task, "at": ended_at, "duration": 20.0}, off=off, backlog=0)
    judged, resolved, row = await told(house)
    assert (judged, resolved) == (["verdict", "withdrawn"], ["withdrawn"])
    assert (row["verdict"], row["loose"], row["settled"]) == (None, 0, None)


@pytest.mark.parametrize(("after_s", "in_time"), [(9.999, True), (10.001, False)])
async def test_in_time_is_until_it_was_due_and_no_longer(house: Any, after_s: float, in_time: bool) -> None:
    task, ended_at = await judged_without_all_its_records(house)
    await house.tell({"type": "finished", "task": task, "at": ended_at + int(after_s * NS)})
    judged, resolved, row = await told(house)
    expected = ["verdict", "withdrawn"] if in_time else ["verdict", "overruled", "settled"]
    assert judged == expected and len(resolved) == 1
    assert (resolved == ["withdrawn"], row["settled"] is None, row["loose"]) == (in_time, in_time, 0)


async def test_where_the_clock_was_set_in_between_an_end_is_in_time_by_the_time_that_passed(house: Any) -> None:
    """The host of both was set forward by an hour while the task ran: 20 s passed, whatever the clock says."""
    house.policy = Policy(behind_after=BEHIND_S)
    await house.start()
    task = "00000000-0000-8000-8000-00000000000a"
    await house.tell({"type": "started", "task": task, "deadline": 30}, backlog=1)
    await behind(house, 10)
    house.clocks.set_by(HOUR)
    await behind(house, 10)
    ended_at = house.clocks.wall
    await behind(house, 50)
    assert await house.verdicts() == ["stuck"]
    await house.tell({"type": "finished", "task": task, "at": ended_at, "duration": 20.0}, backlog=0)
    judged, resolved, _ = await told(house)
    assert (judged, resolved) == (["verdict", "withdrawn"], ["withdrawn"])


async def test_a_failure_in_time_that_is_told_late_is_a_failure_and_was_never_stuck(house: Any) -> None:
    task, ended_at = await judged_without_all_its_records(house)
    await house.tell({"type": "failed", "task": task, "at": ended_at, "error": {"type": "OSError", "message": "no route"}})
    judged, resolved, row = await told(house)
    assert judged == ["verdict", "withdrawn", "loose"] and row["loose"] == 1
    assert resolved == [None], "what was an alarm for a stuck task goes on as one for a failed one"
