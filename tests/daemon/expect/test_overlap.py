"""Two live tasks that do the same work are flagged, both, by the facts and not by their order; nobody is paged."""

from __future__ import annotations

from itertools import permutations

import pytest
from ground import T0, Ground, S, finished, started

from looseends_daemon.core.policy import TaskRule
from looseends_daemon.store.instances_owned import end_instance


def ground(overlap: str = "warn") -> Ground:
    return Ground(rules=(TaskRule(match="shop-web/sync", overlap=overlap),))


def flagged(place: Ground, *names: str) -> set[str]:
    return {name for name in names if "overlap" in place.flags(name)}


def test_two_live_tasks_with_one_key_are_flagged_both_and_nobody_is_paged() -> None:
    place = ground()
    place.tell(0, started("a", "sync", key="7"), started("b", "sync", key="8"))
    place.tell(1, started("c", "sync", key="7"))
    assert flagged(place, "a", "b", "c") == {"a", "c"}
    place.tell(2, finished("a"), finished("b"), finished("c"))
    place.judge(3)
    assert flagged(place, "a", "b", "c") == {"a", "c"} and place.changes == []


def test_without_a_key_the_same_arguments_count() -> None:
    place = ground()
    place.tell(0, started("a", "sync", args={"day": 1}), started("b", "sync", args={"day": 2}), started("c", "sync"))
    place.tell(1, started("d", "sync", args={"day": 1}), started("e", "sync"))
    assert flagged(place, "a", "b", "c", "d", "e") == {"a", "d"}


def test_one_after_the_other_is_no_overlap() -> None:
    place = ground()
    place.tell(0, started("a", "sync", key="7"))
    place.tell(5, finished("a"), started("b", "sync", key="7"))
    assert flagged(place, "a", "b") == set()


def test_an_end_that_is_told_late_takes_the_flag_back() -> None:
    place = ground()
    place.tell(0, started("a", "sync", args={"day": 1}))
    place.tell(5, started("b", "sync", args={"day": 1}))
    assert flagged(place, "a", "b") == {"a", "b"}
    place.tell(6, finished("a", at=3))
    assert flagged(place, "a", "b") == set()


def test_what_was_lost_with_its_process_does_not_live_on() -> None:
    place = ground()
    place.tell(0, started("a", "sync", key="7"))
    end_instance(place.conn, "web-1", state="gone", reason="killed, it seems", now=T0 + 2 * S, adopted=True)
    place.tell(1.5, started("b", "sync", key="7"), who="web-2")
    place.judge(3)
    assert place.verdict("a") == "lost" and flagged(place, "a", "b") == set()


def test_only_where_it_is_asked_for() -> None:
    place = ground("allow")
    place.tell(0, started("a", "sync", key="7"), started("b", "sync", key="7"), started("x", "other", key="7"))
    assert flagged(place, "a", "b", "x") == set()


EVENTS = (
    started("a", "sync", key="7", at=0),
    finished("a", at=4),
    started("b", "sync", key="7", at=2),
    finished("b", at=9),
    started("c", "sync", key="7", at=5),
)


@pytest.mark.parametrize("drop", [(), ("a",), ("b",)], ids=str)
def test_the_order_of_telling_changes_no_flag(drop: tuple[str, ...]) -> None:
    events = [event for event in EVENTS if not (event["type"] == "finished" and event["task"] in drop)]
    found = set()
    for order in permutations(events):
        place = ground()
        for event in order:
            place.tell(20, event)
        found.add(frozenset(flagged(place, "a", "b", "c")))
    assert len(found) == 1
    assert found == ({frozenset("abc")})
