"""Records that are known by number and never came: said in words with counts, and closed when they come late."""

from __future__ import annotations

from typing import Any

from looseends.wire import NS
from looseends_daemon.store.facts import end_instance


def event(number: int) -> dict[str, Any]:
    return {"type": "started", "task": f"00000000-0000-8000-8000-{number:012}", "seq": number, "deadline": "never"}


async def seen_of(house: Any) -> tuple[int, list[str], bool]:
    """(missing, notes, whether the ledger is complete) as shown."""
    instance = await house.reader.instance("web-1")
    now = house.clocks.wall
    ledger = await house.reader.ledger(now - 3_600 * NS, now + 60 * NS)
    return instance.missing, instance.notes, ledger.complete


async def test_three_records_that_never_came_are_missing_in_words_and_numbers(house: Any) -> None:
    await house.tell(event(1), event(2))
    await house.live(60)
    await house.tell(event(6))
    await house.beat(last_seq=6)
    assert await seen_of(house) == (0, [], True), "what is on its way is not missing"
    await house.live(62)
    missing, notes, complete = await seen_of(house)
    assert (missing, complete) == (3, False)
    assert notes[0] == "3 records of this instance are missing"
    assert await house.windows() == [("records", 0, 60)]


async def test_a_record_that_comes_late_closes_its_window(house: Any) -> None:
    await house.tell(event(1))
    await house.live(10)
    await house.tell(event(4))
    await house.live(70)
    assert (await seen_of(house))[0] == 2
    await house.tell(event(3))
    assert (await seen_of(house))[0] == 1
    await house.tell(event(2))
    assert await seen_of(house) == (0, [], True)


async def test_while_an_instance_says_that_more_is_coming_nothing_is_missing(house: Any) -> None:
    await house.tell(event(1), event(5), backlog=3)
    for _ in range(9):
        await house.live(10, beats=False)
        await house.beat(backlog=3, last_seq=5)
    assert (await seen_of(house))[0] == 0


async def test_the_last_records_are_missing_when_a_heartbeat_counts_more_than_came(house: Any) -> None:
    await house.tell(event(1), event(2))
    await house.beat(last_seq=7)
    await house.live(65)
    assert (await seen_of(house))[0] == 5
    await house.tell(*(event(number) for number in range(3, 8)))
    assert await seen_of(house) == (0, [], True)


async def test_at_a_goodbye_what_is_missing_is_missing_at_once_and_void_numbers_are_not(house: Any) -> None:
    await house.tell(event(1), event(2), event(5), event(7))

    def goodbye(conn: Any) -> None:
        end_instance(conn, "web-1", state="gone", reason="goodbye", now=house.clocks.wall, void=[3, 6])

    await house.database.write(goodbye)
    missing, notes, complete = await seen_of(house)
    assert (missing, complete) == (1, False)
    assert notes[0] == "1 record of this instance is missing"


async def test_a_service_whose_records_are_all_here_has_a_complete_ledger(house: Any) -> None:
    await house.tell(event(1))
    await house.tell(event(1), event(9), instance="web-2", about={"service": "mail"})
    await house.beat("web-2", last_seq=9)
    await house.live(65)
    now = house.clocks.wall
    assert (await house.reader.ledger(now - 3_600 * NS, now, service="shop")).complete
    assert not (await house.reader.ledger(now - 3_600 * NS, now, service="mail")).complete
    assert not (await house.reader.ledger(now - 3_600 * NS, now)).complete


async def test_records_that_an_instance_could_not_keep_are_a_blind_window(house: Any) -> None:
    await house.tell(event(1))
    await house.live(10)
    await house.beat(dropped=12, last_seq=1)
    await house.beat(dropped=12, last_seq=1)
    missing, notes, complete = await seen_of(house)
    assert (missing, complete) == (0, False)
    assert notes == [notes[0]] and notes[0].startswith("12 records of this instance could not be kept in its spool")


async def test_shell_users_have_no_numbers_and_miss_nothing(house: Any) -> None:
    await house.tell({"type": "started", "task": "00000000-0000-8000-8000-000000000001"})
    await house.live(65)
    assert await seen_of(house) == (0, [], True)
