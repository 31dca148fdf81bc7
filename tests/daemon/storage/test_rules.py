"""The rules of forgetting as values: what never goes, when the rest does, and how size and forecast are reckoned."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from looseends_daemon.core.resources import STATES
from looseends_daemon.core.retention import (
    ANY_AGE,
    DAY_NS,
    STAGES,
    Growth,
    Kept,
    Rules,
    Sizes,
    forecast,
    is_eased,
    is_over,
    limit_of,
    may_go,
    over_since,
    refusal,
    size_text,
    stage_of,
    without_age,
)

GIB = 1 << 30
RULES = Rules(finished=7 * DAY_NS, failed=90 * DAY_NS, size_bytes_max=10 * GIB)
NOW = 20_000 * DAY_NS
times = st.integers(0, NOW)
tasks = st.builds(
    Kept,
    state=st.integers(0, len(STATES) - 1),
    loose=st.booleans(),
    settled=st.booleans(),
    verdict=st.booleans(),
    ended_at=st.none() | times,
    judged_at=st.none() | times,
)
rules = st.builds(Rules, finished=times, failed=times, size_bytes_max=st.integers(1, 1 << 44))
sizes = st.builds(
    Sizes,
    used=st.integers(0, 1 << 40),
    file=st.integers(0, 1 << 40),
    disk_free=st.integers(0, 1 << 40),
    disk_total=st.integers(1, 1 << 41),
)


@given(tasks, rules)
def test_neither_age_nor_size_nor_a_purge_takes_a_loose_end_or_an_open_task(task: Kept, some: Rules) -> None:
    open_ = task.state < STATES.index("succeeded") and not (task.verdict and task.settled)
    if task.loose or open_:
        for one in (some, ANY_AGE, *(without_age(some, stage) for stage in STAGES)):
            assert not may_go(task, one, NOW * 1_000)


@given(tasks, st.integers(0, 200))
def test_what_may_go_today_may_go_tomorrow(task: Kept, days: int) -> None:
    now = NOW + days * DAY_NS
    assert not may_go(task, RULES, now) or may_go(task, RULES, now + DAY_NS)


@given(tasks)
def test_giving_up_for_space_takes_no_class_before_its_stage(task: Kept) -> None:
    for stage in ("payloads", "finished"):
        if may_go(task, without_age(RULES, stage), NOW) and not may_go(task, RULES, NOW):
            assert stage_of(task) == "finished"


@given(tasks)
def test_the_time_runs_from_the_last_that_happened(task: Kept) -> None:
    over = over_since(task)
    assert over is None or over >= max(task.ended_at or 0, task.judged_at or 0)


def test_a_failed_task_and_a_once_loose_one_stay_longer_than_a_finished_one() -> None:
    def ended(state: str, judged_at: int | None = None) -> Kept:
        return Kept(state=STATES.index(state), loose=False, settled=False, verdict=False, ended_at=NOW, judged_at=judged_at)

    assert [stage_of(task) for task in (ended("succeeded"), ended("cancelled"), ended("failed"), ended("succeeded", NOW))] == [
        *("finished", "finished", "failed", "failed")
    ]
    assert may_go(ended("succeeded"), RULES, NOW + 7 * DAY_NS) and not may_go(ended("succeeded", NOW), RULES, NOW + 89 * DAY_NS)


@given(sizes, rules)
def test_the_limit_is_never_more_than_was_allowed_or_than_the_disk_can_hold(size: Sizes, some: Rules) -> None:
    limit = limit_of(size, some)
    assert 0 <= limit <= some.size_bytes_max
    assert limit <= size.file + size.disk_free


@given(sizes, rules, st.booleans())
def test_facts_are_refused_only_over_the_limit_and_always_once_nothing_is_left(size: Sizes, some: Rules, exhausted: bool) -> None:
    words = refusal(size, some, exhausted)
    assert words is None or is_over(size, some)
    assert words is not None or not (exhausted and is_over(size, some))


@given(sizes, rules)
def test_eased_is_not_over(size: Sizes, some: Rules) -> None:
    assert not (is_eased(size, some) and is_over(size, some))


def test_the_refusal_names_what_is_full_and_the_way_out() -> None:
    size = Sizes(used=11 * GIB, file=11 * GIB, disk_free=100 * GIB, disk_total=200 * GIB)
    assert "max_size" in (refusal(size, RULES, exhausted=True) or "")
    low = Sizes(used=5 * GIB, file=5 * GIB, disk_free=10 << 20, disk_total=200 * GIB)
    assert "the disk is nearly full (10 MiB left)" in (refusal(low, RULES, exhausted=True) or "")


SIZE = Sizes(used=5 * GIB, file=5 * GIB, disk_free=100 * GIB, disk_total=200 * GIB)


@pytest.mark.parametrize(
    ("tasks_in_all", "today", "days"),
    [
        (10_000_000, 1_000_000, None),  # 0.5 GiB a day, a week of it is 3.5 GiB: it levels off
        (10_000_000, 5_000_000, 2.0),  # 2.5 GiB a day, 5 GiB are left
        (10_000_000, 0, None),
        (3, 3, None),  # too few to say anything
    ],
)
def test_the_forecast_says_when_it_is_full_or_that_it_levels_off(tasks_in_all: int, today: int, days: float | None) -> None:
    ahead = forecast(SIZE, RULES, Growth(tasks=tasks_in_all, recent=today, span=DAY_NS))
    assert ahead.days_left == (None if days is None else pytest.approx(days))
    assert ahead.is_near == (days is not None)


def test_a_forecast_from_a_young_database_is_scaled_to_a_day() -> None:
    ahead = forecast(SIZE, RULES, Growth(tasks=1_000_000, recent=1_000_000, span=DAY_NS // 2))
    assert ahead.bytes_per_day == pytest.approx(10 * GIB)


def test_over_the_limit_no_days_are_left() -> None:
    full = Sizes(used=11 * GIB, file=11 * GIB, disk_free=GIB, disk_total=20 * GIB)
    assert forecast(full, RULES, Growth(tasks=1, recent=1, span=DAY_NS)).days_left == 0


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 B"), (640, "640 B"), (1 << 20, "1 MiB"), (10 * GIB, "10 GiB"), (1_010 * GIB, "1010 GiB"), (13_000, "12.7 KiB")],
)
def test_sizes_are_written_as_people_read_them(count: int, text: str) -> None:
    assert size_text(count) == text


def test_the_values_are_frozen() -> None:
    with pytest.raises(AttributeError):
        RULES.finished = 0  # type: ignore[misc]
