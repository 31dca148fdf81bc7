"""Who met whom: as many as possible, the earlier before the later, and never by the order in which they were told."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import permutations

from hypothesis import given
from hypothesis import strategies as st

from looseends_daemon.core.expect import ANY, EARLY_NS, Begun, Expectation, pair_in_time, pair_late

S = 1_000_000_000


def one(name: str, at: float, within: float = 60, mark: str = ANY) -> Expectation:
    return Expectation(id=name, at=int(at * S), within=int(within * S), mark=mark)


def task(name: str, at: float, *marks: str) -> Begun:
    return Begun(id=name, began_at=int(at * S), marks=frozenset((ANY, *marks)))


def fits(expectation: Expectation, begun: Begun) -> bool:
    near = expectation.at - EARLY_NS <= begun.began_at <= expectation.until
    return near and expectation.mark in begun.marks


def test_a_task_meets_an_expectation_from_five_seconds_before_to_within_after() -> None:
    for at, met in ((-5.001, False), (-5, True), (0, True), (60, True), (60.001, False)):
        assert bool(pair_in_time([one("e", 0)], [task("t", at)])) is met, at


def test_pairs_go_in_order_of_time() -> None:
    assert pair_in_time([one("e2", 5), one("e1", 0)], [task("t2", 9), task("t1", 8)]) == {"e1": "t1", "e2": "t2"}


def test_a_task_meets_one_expectation_and_the_earlier_goes_first() -> None:
    assert pair_in_time([one("e2", 1), one("e1", 0)], [task("t1", 3)]) == {"e1": "t1"}


def test_the_key_must_be_the_same_where_one_is_asked_for() -> None:
    assert pair_in_time([one("e", 0, mark="key:7")], [task("t1", 1), task("t2", 2, "key:8")]) == {}
    assert pair_in_time([one("e", 0, mark="key:7")], [task("t1", 1), task("t2", 2, "key:7")]) == {"e": "t2"}


def test_one_that_can_wait_gives_way_to_one_that_cannot() -> None:
    wide, narrow = one("wide", 0, 600), one("narrow", 1, 10, "key:8")
    assert pair_in_time([wide, narrow], [task("t1", 2, "key:8"), task("t2", 300)]) == {"wide": "t2", "narrow": "t1"}


def test_a_task_that_is_left_over_meets_late_the_newest_unmet_one_before_it() -> None:
    unmet = [one("e1", 0), one("e2", 10), one("e3", 500)]
    assert pair_late(unmet, [task("t1", 90)]) == {"e2": "t1"}
    assert pair_late(unmet, [task("t2", 95), task("t1", 90)]) == {"e2": "t1", "e1": "t2"}
    assert pair_late([one("e", 0, mark="key:7")], [task("t1", 90, "key:8")]) == {}


EXPECTATIONS = st.lists(
    st.builds(
        one,
        st.uuids().map(str),
        st.integers(0, 40),
        st.integers(0, 20),
        st.sampled_from([ANY, ANY, "key:1", "key:2", "parent:a"]),
    ),
    max_size=7,
    unique_by=lambda made: made.id,
)
TASKS = st.lists(
    st.builds(
        lambda name, at, marks: task(name, at, *marks),
        st.uuids().map(str),
        st.integers(-10, 60),
        st.sets(st.sampled_from(["key:1", "key:2", "parent:a"]), max_size=2),
    ),
    max_size=7,
    unique_by=lambda made: made.id,
)


def best(expectations: Sequence[Expectation], tasks: Sequence[Begun]) -> int:
    """The most that can be met, by trying everything."""
    if not expectations:
        return 0
    first, rest = expectations[0], expectations[1:]
    taken = [1 + best(rest, [other for other in tasks if other is not t]) for t in tasks if fits(first, t)]
    return max([best(rest, tasks), *taken])


@given(EXPECTATIONS.filter(lambda found: len(found) <= 5), TASKS.filter(lambda found: len(found) <= 5))
def test_as_many_as_possible_are_met(expectations: list[Expectation], tasks: list[Begun]) -> None:
    met = pair_in_time(expectations, tasks)
    by_id = {t.id: t for t in tasks}
    assert all(fits(e, by_id[met[e.id]]) for e in expectations if e.id in met)
    assert len(set(met.values())) == len(met) == best(expectations, tasks)


@given(EXPECTATIONS, TASKS, st.randoms(use_true_random=False))
def test_the_order_in_which_they_are_told_changes_no_pair(
    expectations: list[Expectation], tasks: list[Begun], chance: object
) -> None:
    before = pair_in_time(expectations, tasks)
    chance.shuffle(expectations)  # type: ignore[attr-defined]
    chance.shuffle(tasks)  # type: ignore[attr-defined]
    assert pair_in_time(expectations, tasks) == before


def test_whoever_is_earlier_is_met_where_not_all_can_be() -> None:
    expectations = [one("e1", 0, 10), one("e2", 1, 10), one("e3", 2, 10)]
    for told in permutations(expectations):
        assert set(pair_in_time(told, [task("t1", 5), task("t2", 6)])) == {"e1", "e2"}
