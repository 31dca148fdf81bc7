"""Which records are here: ranges that always agree with the plain set of numbers, in any order, within their bound."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from looseends_daemon.core.records import SPANS_MAX, Records, gaps, pack, seen, unpack

numbers = st.sets(st.integers(1, 60), max_size=40)


@given(numbers, st.randoms(use_true_random=False), st.integers(0, 70))
def test_what_is_missing_is_what_the_plain_set_says(here: set[int], chance: object, last: int) -> None:
    order = list(here)
    chance.shuffle(order)  # type: ignore[attr-defined]
    records = Records()
    while order:
        part, order = order[:7], order[7:]
        records = seen(unpack(pack(records)), {number: 1_000 + number for number in part})
    missing = {n for gap in gaps(records, last, since=1_000, until=2_000) for n in range(gap.first, gap.last + 1)}
    assert missing == set(range(1, max([last, *here], default=0) + 1)) - here
    assert records.whole == (not missing - set(range(max(here, default=0) + 1, last + 1)))


@given(numbers)
def test_a_gap_lies_between_the_good_records_beside_it(here: set[int]) -> None:
    records = seen(Records(), {number: 1_000 + number for number in here})
    for gap in gaps(records, 61, since=1_000, until=2_000):
        assert gap.from_at == 1_000 + gap.first - 1
        assert gap.to_at == (1_000 + gap.last + 1 if gap.last < max(here, default=0) else 2_000)


def test_seeing_a_record_twice_changes_nothing() -> None:
    records = seen(Records(), {1: 5, 2: 6, 4: 8})
    assert seen(records, {2: 9, 4: 8}) == records


def test_beyond_the_bound_the_oldest_gaps_are_counted_and_not_forgotten() -> None:
    records = Records()
    for number in range(2, 2 * SPANS_MAX + 42, 2):
        records = seen(records, {number: number})
    assert len(records.spans) == SPANS_MAX and len(pack(records)) < 2_600
    missing = records.below + sum(gap.missing for gap in gaps(records, 0, since=0, until=10_000))
    assert missing == SPANS_MAX + 20
    assert not records.whole
    assert seen(records, {1: 1}).below == records.below, "one that comes too late cannot be told from the others"
