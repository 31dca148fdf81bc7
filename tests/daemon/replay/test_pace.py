"""The pace of a run, decided from values alone."""

from __future__ import annotations

from typing import Any

import pytest

from looseends.wire import NS
from looseends_daemon.core.pace import BURST_NS, Rule, Seen, pace, remaining_s

NOW = 1_780_000_000 * NS


def seen(**more: Any) -> Seen:
    given = {"pending": 1_000, "released": 0, "in_flight": 0, "failures": 0, "canary_passed": True, "next_at": NOW}
    return Seen(**{**given, **more})


def test_the_canary_goes_alone() -> None:
    rule = Rule(canary=5, per_second=200)
    first = pace(rule, seen(canary_passed=False, next_at=0), NOW)
    assert first.release == 5 and not first.canary_passed
    waiting = pace(rule, seen(canary_passed=False, released=5, in_flight=1), NOW)
    assert waiting.release == 0 and not waiting.canary_passed
    passed = pace(rule, seen(canary_passed=False, released=5, in_flight=0), NOW)
    assert passed.release and passed.canary_passed


def test_a_canary_of_which_one_failed_stops_the_run() -> None:
    step = pace(Rule(canary=5), seen(canary_passed=False, released=5, failures=1), NOW)
    assert step.release == 0 and step.stop is not None and "1 of the first 5" in step.stop


def test_a_run_stops_at_its_number_of_failures_and_not_before() -> None:
    assert pace(Rule(stop_after_failures=3), seen(failures=2), NOW).stop is None
    assert "3 did not do their work" in str(pace(Rule(stop_after_failures=3), seen(failures=3), NOW).stop)
    assert pace(Rule(stop_after_failures=0), seen(failures=999), NOW).stop is None


def test_what_is_in_flight_takes_a_place() -> None:
    assert pace(Rule(in_flight=20, per_second=200), seen(in_flight=18, next_at=0), NOW).release == 2
    assert pace(Rule(in_flight=20, per_second=200), seen(in_flight=20, next_at=0), NOW).release == 0


@pytest.mark.parametrize("per_second", [0.5, 3.0, 50.0, 200.0])
def test_over_a_minute_the_pace_is_kept(per_second: float) -> None:
    rule, next_at, released = Rule(canary=0, per_second=per_second, in_flight=200), NOW, 0
    for tick in range(600):
        step = pace(rule, seen(pending=100_000, next_at=next_at), NOW + tick * NS // 10)
        next_at, released = step.next_at, released + step.release
    assert released == pytest.approx(60 * per_second, rel=0.02, abs=1)


def test_a_pause_is_not_made_up_for() -> None:
    step = pace(Rule(per_second=50, in_flight=200), seen(next_at=NOW - 3_600 * NS), NOW)
    assert step.release <= 50 * BURST_NS / NS + 1


def test_the_estimate_is_by_what_was_seen_then_by_the_pace() -> None:
    assert remaining_s(100, 0, recent=60, over_s=30, per_second=50) == 50
    assert remaining_s(100, 0, recent=0, over_s=30, per_second=50) == 2
    assert remaining_s(0, 0, recent=0, over_s=30, per_second=50) == 0
