"""A service whose clock is wrong: its times are corrected by what its batches say about now, and it is shown."""

from __future__ import annotations

from typing import Any

from looseends.wire import NS

TASK = "00000000-0000-8000-8000-000000000001"


async def times(house: Any) -> list[int]:
    (row,) = await house.rows("SELECT began_at, due_at FROM task")
    return list(row)


async def test_skew_is_measured_at_the_first_batch_and_added_to_every_time(house: Any) -> None:
    now = house.clocks.wall
    await house.tell({"type": "scheduled", "task": TASK, "eta": now - 3_500 * NS, "start_within": 60}, off=-3_600)
    assert await times(house) == [now, now + 160 * NS]
    instance = await house.reader.instance("web-1")
    assert instance.skew == 3_600
    assert instance.notes == ["its clock is 1 h behind ours; its times are corrected by that"]


async def test_two_seconds_are_travel_and_no_wrong_clock(house: Any) -> None:
    await house.tell({"type": "started", "task": TASK}, off=-2)
    assert await times(house) == [house.clocks.wall - 2 * NS, house.clocks.wall + 298 * NS]


async def test_skew_stays_until_it_moves_by_more_than_two_seconds(house: Any) -> None:
    await house.live(6, beats=False)
    await house.tell(off=-60)
    for off, skew in ((-61.9, 60), (-58.5, 60), (-62.5, 62.5), (-10, 10), (0, 0)):
        await house.tell(off=off)
        assert (await house.reader.instance("web-1")).skew == skew


async def test_a_corrected_time_never_lies_after_its_arrival(house: Any) -> None:
    await house.tell(off=-60)
    await house.tell({"type": "started", "task": TASK}, off=-59)
    assert (await times(house))[0] == house.clocks.wall


async def test_the_start_of_an_instance_is_corrected_too(house: Any) -> None:
    started = house.clocks.wall - 3_605 * NS
    await house.tell(off=-3_600, about={"started_at": started})
    assert (await house.reader.instance("web-1")).started_at == house.clocks.wall - 5 * NS
