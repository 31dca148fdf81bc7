"""A wall clock that is set, and a daemon that was away: no storm, nothing missed, and the time is written down."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from looseends.wire import NS
from looseends_daemon.core.clocks import Jump, corrected
from looseends_daemon.services.vigil import Vigil

HOUR = 3_600.0
DAY = 86_400.0


async def test_a_clock_set_forward_by_a_day_makes_nothing_overdue(house: Any) -> None:
    for _ in range(5):
        await house.begin(deadline=30)
    await house.live(10)
    house.clocks.set_by(DAY)
    await house.live(19)
    assert await house.verdicts() == [None] * 5, "they have run for 29 s, whatever the clock says"
    await house.live(4)
    assert await house.verdicts() == ["stuck"] * 5


async def test_a_clock_set_back_by_an_hour_holds_no_verdict_up(house: Any) -> None:
    await house.begin(deadline=30)
    await house.live(10)
    house.clocks.set_by(-HOUR)
    await house.live(19)
    assert await house.verdicts() == [None]
    await house.live(4)
    assert await house.verdicts() == ["stuck"]


async def test_work_that_begins_after_the_jump_is_judged_by_the_new_clock(house: Any) -> None:
    await house.begin(deadline=9_000)
    await house.live(6)
    for seconds in (-HOUR, DAY):
        house.clocks.set_by(seconds)
        await house.live(8)
        await house.begin(deadline=30)
        await house.live(28)
        assert (await house.verdicts())[-1] is None
        await house.live(6)
        assert (await house.verdicts())[-1] == "stuck"
    assert (await house.verdicts())[0] is None


async def test_an_eta_in_the_future_is_not_taken_for_a_time_of_the_old_clock(house: Any) -> None:
    await house.begin(deadline=9_000)
    await house.live(6)
    house.clocks.set_by(-HOUR)
    await house.live(6)
    later = house.clocks.wall + int(HOUR * NS)
    await house.tell({"type": "scheduled", "task": "00000000-0000-8000-8000-00000000000a", "eta": later, "start_within": 60})
    await house.live(300)
    assert await house.verdicts() == [None, None]


async def test_a_jump_while_the_daemon_was_down_is_noticed_at_its_start(house: Any) -> None:
    await house.begin(deadline=60)
    await house.live(5)
    await house.watch.end()
    house.clocks.pass_by(20)
    house.clocks.set_by(DAY)
    await house.start()
    await house.live(32)
    assert await house.verdicts() == [None]
    await house.live(5)
    assert await house.verdicts() == ["stuck"]
    assert [cause for cause, _, _ in await house.windows()] == ["clock", "down"]


async def test_a_restart_is_a_blind_window_of_its_length(house: Any) -> None:
    await house.live(10)
    house.clocks.pass_by(90)
    await house.start()
    ((cause, began, ended),) = await house.windows()
    assert (cause, began, ended) == ("down", 10, 100)
    (window,) = (await house.reader.blind_windows()).items
    assert "was not running" in window.reason and "1 min 30 s" in window.reason


async def test_a_freeze_is_a_blind_window_and_starts_a_grace(house: Any) -> None:
    await house.begin(deadline=40)
    await house.live(10)
    house.clocks.pass_by(60)
    await house.live(4)
    assert await house.verdicts() == [None], "what was sent while we were frozen may still be arriving"
    await house.live(3)
    assert await house.verdicts() == ["stuck"]
    assert await house.windows() == [("frozen", 10, 71)]


async def test_after_a_freeze_nothing_is_judged_until_its_instance_is_heard_again(house: Any) -> None:
    await house.begin(deadline=20)
    await house.live(10)
    house.clocks.pass_by(60)
    await house.live(20, beats=False)
    assert await house.verdicts() == [None]
    await house.beat()
    await house.live(1, beats=False)
    assert await house.verdicts() == ["stuck"], "its first word after the freeze has what waited for it looked at at once"


async def test_a_busy_second_is_no_freeze(house: Any) -> None:
    await house.live(3)
    house.clocks.pass_by(4)
    await house.live(3)
    assert await house.windows() == []


async def test_a_batch_that_waited_for_us_to_thaw_is_not_taken_for_a_wrong_clock(house: Any) -> None:
    await house.begin(deadline=300)
    await house.live(2)
    house.clocks.pass_by(60)
    house.vigil.look(house.clocks.wall)
    await house.tell({"type": "progress", "task": "00000000-0000-8000-8000-000000000001", "done": 0.5}, off=-60)
    (row,) = await house.rows("SELECT skew FROM instance")
    assert row["skew"] == 0


async def test_a_ledger_that_touches_a_blind_window_is_not_complete(house: Any) -> None:
    await house.live(10)
    before = house.clocks.wall
    house.clocks.pass_by(90)
    await house.start()
    await house.live(10)
    ledger = house.reader.ledger
    assert (await ledger(before - 60 * NS, before - 30 * NS)).complete
    assert not (await ledger(before - 60 * NS, before + 60 * NS)).complete
    assert not (await ledger(before + 30 * NS, before + 60 * NS, service="shop")).complete
    assert (await ledger(before + 95 * NS, before + 200 * NS)).complete


@pytest.mark.parametrize("by", [HOUR, -HOUR, DAY])
def test_a_due_time_is_never_corrected_to_come_early(by: float) -> None:
    """Told after the jump, by any clock that may have told it: it is due when it says, or later."""
    now = 1_000_000 * NS
    jump = Jump(at=now, by=int(by * NS))
    for told in (now + NS, now - int(10 * NS), now - int(HOUR * NS), now + int(60 * NS)):
        due = corrected(told + 30 * NS, told, now + 5 * NS, [jump])
        assert due is not None and due >= told + 30 * NS


def test_without_a_boot_clock_a_gap_is_still_a_freeze() -> None:
    vigil = Vigil(started_at=NS, grace_s=5)
    for at in (2, 3, 4):
        vigil.look(at * NS)
    assert vigil.heard_since == NS
    vigil.look(60 * NS)
    assert (vigil.heard_since, vigil.ready_at) == (60 * NS, 65 * NS)


class Timeline:
    """A true clock, and a wall clock that is set now and then: [(true moment, by)] in seconds, in order."""

    def __init__(self, sets: list[tuple[int, int]]) -> None:
        self.sets = sets

    def wall(self, true: int) -> int:
        """What the wall clock shows at a true moment (ns)."""
        return (10_000_000 + true + sum(by for at, by in self.sets if at <= true)) * NS

    def jumps(self, until: int) -> list[Jump]:
        return [Jump(at=self.wall(at), by=by * NS) for at, by in self.sets if at <= until]


@given(
    st.lists(st.tuples(st.integers(1, 900), st.integers(-90_000, 90_000)), max_size=4, unique_by=lambda one: one[0]).map(sorted),
    st.integers(0, 900),
    st.integers(1, 2_000),
)
def test_however_the_clock_is_set_nothing_is_called_overdue_before_it_is(
    sets: list[tuple[int, int]], told: int, limit: int
) -> None:
    clock = Timeline(sets)
    told_at = clock.wall(told)
    for true in range(told, told + limit, 37):
        now = clock.wall(true)
        due = corrected(told_at + limit * NS, told_at, now, clock.jumps(true))
        assert due is not None and due > now, "it has not run for that long"


def test_a_correction_that_only_adds_the_last_jump_is_caught() -> None:
    """The first idea, which a clock set back and then forward by more defeats."""
    clock = Timeline([(100, -3_600), (200, 86_400)])
    last = clock.jumps(300)[-1]
    naive = clock.wall(0) + 9_000 * NS + (last.by if clock.wall(0) <= last.at - last.by else 0)
    assert naive < clock.wall(300), "it calls a task overdue after 300 of 9,000 seconds"
