"""What an instance knows is known as of when it said so, not of when it was heard: nothing is due on the strength of old news."""

from __future__ import annotations

from typing import Any

import pytest

from looseends.wire import NS
from looseends_daemon.core.detect import overdue_after
from looseends_daemon.core.policy import Policy
from looseends_daemon.store import instances
from looseends_daemon.store.facts import end_instance

REPLAYABLE = [{"name": "n", "replay": "yes", "signature": None, "code": None, "caution": None, "via": None}]


async def with_functions(house: Any, instance: str = "web-1") -> None:
    """It offers something to run again, so it speaks each second."""

    def put(conn: Any) -> None:
        (row,) = conn.execute("SELECT no FROM instance WHERE id = ?", (instance,)).fetchall()
        instances.put_functions(conn, row["no"], REPLAYABLE)

    await house.database.write(put)


async def instance_row(house: Any, *columns: str) -> tuple[Any, ...]:
    (row,) = await house.rows(f"SELECT {', '.join(columns)} FROM instance")
    return tuple(row)


async def test_what_was_said_during_a_freeze_is_no_word_since_it(house: Any) -> None:
    await house.begin(deadline=20)
    await house.live(10)
    house.clocks.pass_by(60)
    house.vigil.look(house.clocks.wall)
    await house.beat(told_at=house.clocks.wall - 30 * NS)
    await house.tell(off=-30)
    await house.live(10, beats=False)
    assert await house.verdicts() == [None], "its end may stand in what it said after that"
    await house.beat(told_at=house.clocks.wall)
    await house.live(1, beats=False)
    assert await house.verdicts() == ["stuck"]


async def test_what_was_said_just_before_we_thawed_is_no_word_since_then_either(house: Any) -> None:
    await house.begin(deadline=20)
    await house.live(10)
    house.clocks.pass_by(60)
    house.vigil.look(house.clocks.wall)
    await house.beat(told_at=house.clocks.wall - 2 * NS)
    await house.live(10, beats=False)
    assert await house.verdicts() == [None], "it is not overdue yet, and what it said after that waits in a socket"
    await house.beat(told_at=house.clocks.wall)
    await house.live(1, beats=False)
    assert await house.verdicts() == ["stuck"]


async def test_a_first_word_that_waited_for_us_to_thaw_is_not_taken_for_a_wrong_clock(house: Any) -> None:
    await house.live(6)
    house.clocks.pass_by(60)
    house.vigil.look(house.clocks.wall)
    await house.tell({"type": "started", "task": "00000000-0000-8000-8000-00000000000a", "deadline": 20}, off=-40)
    skew, said_at = await instance_row(house, "skew", "said_at")
    assert (skew, said_at) == (0, house.clocks.wall - 40 * NS)
    await house.live(10, beats=False)
    assert await house.verdicts() == [None]


async def test_a_first_word_from_an_hour_ago_cannot_have_waited_for_a_minute(house: Any) -> None:
    await house.live(6)
    house.clocks.pass_by(60)
    house.vigil.look(house.clocks.wall)
    await house.tell({"type": "started", "task": "00000000-0000-8000-8000-00000000000a", "deadline": 20}, off=-3_600)
    assert await instance_row(house, "skew", "said_at") == (3_600 * NS, house.clocks.wall)


async def test_a_word_that_was_held_up_by_the_network_is_as_old_as_it_says(house: Any) -> None:
    await house.begin(deadline=9)
    await with_functions(house)
    await house.live(6)
    said_at = house.clocks.wall
    await house.live(6, beats=False)
    await house.tell({"type": "progress", "task": "00000000-0000-8000-8000-000000000001", "done": 0.5}, off=-6)
    assert await instance_row(house, "skew", "said_at") == (0, said_at), "it was overdue for as long: that is no wrong clock"
    await house.live(2, beats=False)
    assert await house.verdicts() == [None]
    await house.live(2)
    assert await house.verdicts() == ["stuck"]


async def test_a_word_that_was_held_up_when_it_was_sent_again_is_as_old_as_it_says(house: Any) -> None:
    await house.begin(deadline=9)
    await with_functions(house)
    await house.live(6)
    await house.tell(off=-0.1)  # the answer is lost, the same bytes go out again, and the network stalls
    said_at = house.clocks.wall - NS // 10
    await house.live(4, beats=False)
    await house.tell(off=-4.1)
    assert (await instance_row(house, "skew"))[0] == 0
    assert (await instance_row(house, "said_at"))[0] - said_at <= NS // 10
    await house.live(1, beats=False)
    assert await house.verdicts() == [None]


async def test_a_held_up_word_that_is_said_again_is_neither_news_nor_a_wrong_clock(house: Any) -> None:
    """It came late, its answer was lost on the way back, and the same bytes came once more."""
    await house.begin(deadline=9)
    await with_functions(house)
    await house.live(6)
    said_at = house.clocks.wall
    await house.live(4, beats=False)
    await house.tell(off=-4)
    await house.tell(off=-4)
    assert await instance_row(house, "skew", "said_at") == (0, said_at)
    await house.live(1, beats=False)
    assert await house.verdicts() == [None], "its end may stand in what it says next"


async def test_work_that_stood_still_with_its_process_has_a_moment_to_end(house: Any) -> None:
    task = await house.begin(deadline=9)
    await with_functions(house)
    await speak(house, 6)
    await house.live(8, beats=False)
    await speak(house, 4)
    assert await house.verdicts() == [None], "its first word may be faster than the end of what stood still beside it"
    await house.tell({"type": "finished", "task": task})
    await speak(house, 4)
    assert await house.rows("SELECT * FROM judgement") == []


async def test_work_that_still_does_not_end_after_that_moment_is_stuck(house: Any) -> None:
    await house.begin(deadline=9)
    await with_functions(house)
    await speak(house, 6)
    await house.live(8, beats=False)
    await speak(house, 7)
    assert await house.verdicts() == ["stuck"]


async def test_who_stands_still_again_and_again_is_judged_all_the_same(house: Any) -> None:
    house.policy = Policy(behind_after=60)
    await house.start()
    await house.begin(deadline=9)
    await with_functions(house)
    for verdict, times in ((None, 12), ("stuck", 8)):
        for _ in range(times):
            await speak(house, 2)
            await house.live(3, beats=False)
        assert await house.verdicts() == [verdict]


async def speak(house: Any, seconds: int) -> None:
    """A heartbeat each second, which says when it was said."""
    for _ in range(seconds):
        await house.beat(told_at=house.clocks.wall)
        await house.live(1, beats=False)


async def test_a_clock_that_is_set_back_while_its_instance_speaks_is_a_wrong_clock(house: Any) -> None:
    await house.begin()
    await house.live(6)
    await house.tell(off=-6)
    assert await instance_row(house, "skew", "said_at") == (6 * NS, house.clocks.wall)


@pytest.mark.parametrize("off", [-1.9, 1.9])
async def test_a_clock_that_is_two_seconds_off_makes_no_word_old_or_new(house: Any, off: float) -> None:
    await house.tell({"type": "started", "task": "00000000-0000-8000-8000-00000000000a", "deadline": 10}, off=off)
    await with_functions(house)
    for _ in range(15):
        house.clocks.pass_by(1)
        await house.beat(told_at=house.clocks.wall + int(off * NS))
        assert await instance_row(house, "said_at") == (house.clocks.wall,)
        await house.watch.tick(house.clocks.wall)
        await house.detector.run_once(house.clocks.wall)
    assert await house.verdicts() == ["stuck"]
    await house.beat(told_at=house.clocks.wall + int((off - 1) * NS))
    (said_at,) = await instance_row(house, "said_at")
    assert said_at == house.clocks.wall, "an older word takes nothing back"


async def test_an_older_word_does_not_overrule_what_a_newer_one_said_of_its_backlog(house: Any) -> None:
    await house.begin()
    house.clocks.pass_by(3)
    await house.beat(told_at=house.clocks.wall, backlog=5)
    await house.beat(told_at=house.clocks.wall - NS, backlog=0)
    assert await instance_row(house, "backlog") == (5,)
    await house.beat(told_at=house.clocks.wall, backlog=0)
    assert await instance_row(house, "backlog") == (0,)


async def test_who_speaks_each_second_is_overdue_after_two(house: Any) -> None:
    await house.begin(deadline=9)
    await with_functions(house)
    await house.live(6)
    await house.live(8, beats=False)
    assert await house.verdicts() == [None], "it has been silent for 3 s when this is due"
    await house.beat()
    await house.live(2, beats=False)
    assert await house.verdicts() == ["stuck"]


async def test_who_speaks_every_ten_seconds_is_not_overdue_after_eight(house: Any) -> None:
    await house.begin(deadline=9)
    await house.live(6)
    await house.live(8, beats=False)
    assert await house.verdicts() == ["stuck"]


def test_the_rhythm_is_the_instances_own() -> None:
    assert overdue_after(False, 10.0) == 15_500_000_000
    assert overdue_after(True, 10.0) == 2 * NS
    assert overdue_after(True, 0.1) == 650_000_000


async def test_what_a_neighbour_sends_of_a_dead_process_does_not_bring_it_back(house: Any) -> None:
    task = await house.begin(deadline=300)
    await house.live(6)

    def end(conn: Any, adopted: bool) -> None:
        end_instance(conn, "web-1", state="gone", reason="its connection ended", now=house.clocks.wall, adopted=adopted)

    await house.database.write(lambda conn: end(conn, False))
    await house.live(1, beats=False)
    assert await house.verdicts() == ["lost"]
    await house.tell({"type": "progress", "task": task, "done": 0.5}, backlog=1)
    await house.live(1, beats=False)
    assert (await instance_row(house, "state"), await house.verdicts()) == (("gone",), ["lost"])
    await house.database.write(lambda conn: end(conn, True))
    await house.live(1, beats=False)
    assert [row["what"] for row in await house.rows("SELECT what FROM judgement")] == ["verdict"]
    await house.beat()
    await house.live(1, beats=False)
    assert (await instance_row(house, "state"), await house.verdicts()) == (("alive",), [None])
