"""Told in any order, with the detector between any two words, the store pairs as if all had been told at once.

The rival in the same harness, whoever comes first takes the first that fits, must fail.
"""

from __future__ import annotations

from typing import Any

import pytest
from ground import T0, Ground, S, expected, finished, started, uid
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from looseends_daemon.core.expect import ANY, EARLY_NS, Begun, Expectation, pair_in_time
from looseends_daemon.store import pairing

Word = tuple[str, float, float, str | None]
"""("e" or "t", at, within, key)"""
KEYS = st.sampled_from([None, None, "order-1", "order-2"])
WORDS = st.lists(
    st.one_of(
        st.tuples(st.just("e"), st.integers(0, 40), st.integers(1, 30), KEYS),
        st.tuples(st.just("t"), st.integers(0, 70), st.just(0), KEYS),
    ),
    min_size=2,
    max_size=9,
)


def event(number: int, word: Word) -> list[dict[str, Any]]:
    kind, at, within, key = word
    said = {"at": at} | ({"key": key} if key else {})
    name = f"{kind}{number}"
    return [expected(name, within=within, **said)] if kind == "e" else [started(name, **said), finished(name, at=at)]


def missed_by_the_facts(words: list[Word]) -> set[str]:
    """The expectations that nothing met in time, from everything at once."""
    wanted = [
        Expectation(id=uid(f"e{n}"), at=at * S, within=within * S, mark=f"key:{key}" if key else ANY)
        for n, (kind, at, within, key) in enumerate(words)
        if kind == "e"
    ]
    begun = [
        Begun(id=uid(f"t{n}"), began_at=at * S, marks=frozenset((ANY, *([f"key:{key}"] if key else []))))
        for n, (kind, at, _, key) in enumerate(words)
        if kind == "t"
    ]
    return {one.id for one in wanted} - set(pair_in_time(wanted, begun))


def played(words: list[Word], order: list[int], looks: list[int]) -> Ground:
    ground = Ground()
    for place, number in enumerate(order):
        ground.tell(100 + place, *event(number, words[number]))
        if place in looks:
            ground.judge(100 + place)
    ground.judge(200)
    return ground


def disagrees(words: list[Word], order: list[int], looks: list[int]) -> str:
    """What is wrong after this telling, or nothing."""
    ground = played(words, order, looks)
    found = {f"e{n}" for n, word in enumerate(words) if word[0] == "e" and ground.verdict(f"e{n}") == "missed"}
    wanted = missed_by_the_facts(words)
    if {uid(one) for one in found} != wanted:
        return f"missed: {found}"
    terms = {"succeeded": sum(word[0] == "t" for word in words), "gap": len(wanted)}
    if ground.ledger() != {term: count for term, count in terms.items() if count}:
        return f"ledger: {ground.ledger()}"
    mates = ground.conn.execute(
        "SELECT e.met, s.met AS back, s.late = e.late AS same FROM expectation e"
        " LEFT JOIN seen s ON s.task = e.met AND s.met = e.id WHERE e.met IS NOT NULL"
    ).fetchall()
    lonely = ground.conn.execute(
        "SELECT count(*) FROM seen WHERE met IS NOT NULL AND NOT EXISTS (SELECT 1 FROM expectation e WHERE e.met = seen.task)"
    ).fetchone()[0]
    if any(row["back"] is None or not row["same"] for row in mates) or lonely:
        return "a pair that only one of them knows"
    return ""


@st.composite
def tellings(draw: st.DrawFn) -> tuple[list[Word], list[int], list[int]]:
    words = draw(WORDS)
    order = draw(st.permutations(range(len(words))))
    return words, order, draw(st.lists(st.integers(0, len(words)), max_size=4))


@settings(max_examples=250, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(tellings())
def test_told_in_any_order_the_same_are_missed(telling: tuple[list[Word], list[int], list[int]]) -> None:
    assert not disagrees(*telling)


def first_that_fits(expectations: Any, tasks: Any) -> dict[str, str]:
    found: dict[str, str] = {}
    left = list(tasks)
    for one in expectations:
        fits = [t for t in left if one.at - EARLY_NS <= t.began_at <= one.until and one.mark in t.marks]
        if fits:
            found[one.id] = fits[0].id
            left.remove(fits[0])
    return found


def test_whoever_comes_first_takes_the_first_that_fits_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    words: list[Word] = [("e", 0, 40, None), ("e", 1, 10, "order-1"), ("t", 2, 0, "order-1"), ("t", 30, 0, None)]
    orders = ([0, 1, 2, 3], [3, 2, 1, 0], [1, 0, 3, 2])
    assert not any(disagrees(words, order, [0, 1, 2]) for order in orders)
    monkeypatch.setattr(pairing, "pair_in_time", first_that_fits)
    assert any(disagrees(words, order, [0, 1, 2]) for order in orders)


def test_a_crowd_without_keys_is_paired_piece_by_piece_and_nothing_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pairing, "NODES_MAX", 20)
    ground = Ground()
    for n in range(120):
        ground.tell(n / 10, expected(f"e{n}", within=30))
    for n in range(120):
        ground.tell(13 + n / 10, started(f"t{n}"), finished(f"t{n}"))
        if n % 7 == 0:
            ground.judge(13 + n / 10)
    ground.judge(60)
    assert ground.ledger() == {"succeeded": 120}
    assert ground.conn.execute("SELECT count(DISTINCT met), count(*) FROM expectation").fetchone()[:] == (120, 120)


def test_the_longest_patience_does_not_make_every_search_long() -> None:
    """The plan: expectations and tasks near each other are found by index, never by reading all of a name."""
    ground = Ground()
    plans = {
        pairing._TASKS_NEAR: (1, "", 0, 1, 1),
        pairing._EXPECTATIONS_NEAR: (1, 2, 1, "", 10),
        pairing._LEFT_OVER: (1, "", 0, 1),
        pairing._DUE: (T0, 1),
    }
    for sql, params in plans.items():
        steps = [row["detail"] for row in ground.conn.execute(f"EXPLAIN QUERY PLAN {sql}", params)]
        assert all("SEARCH" in step or "USE TEMP B-TREE" in step or "CORRELATED" in step for step in steps), steps
