"""Same facts, judged at the same now: same state and same five ledger terms, whatever order, duplication and detector runs.

The naive fold beside it (the last arrival wins) must fail in the same harness, or the harness proves nothing.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import permutations
from typing import Any

import expecting
import model as player
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from model import Model, histories

from looseends_daemon.core.expect import EARLY_NS, Begun, Expectation
from looseends_daemon.core.facts import Cells, Fact, fact_of, slots_of

READY = {name: history for name, history in histories().items() if "pending" not in history}
Outcome = tuple[dict[str, int], dict[str, tuple[Any, ...]]]


def outcome(model: Model) -> Outcome:
    """What must not depend on the order: the five terms, and state, verdict and times of each task."""
    tasks = {}
    for task, view in [*model.views(), *model.missed()]:
        standing = model.standing.get(task)
        verdict = None if view.ended or standing is None else standing.verdict
        tasks[task] = (view.state, verdict, view.attempt, view.began_at, view.ended_at, view.instance, view.name)
    return model.ledger(), tasks


def end_of(history: dict[str, Any]) -> float:
    return max(step["at"] for step in history["steps"]) + 1


def told(history: dict[str, Any], steps: list[dict[str, Any]]) -> Outcome:
    """Play these steps, then judge once at the end of the history."""
    model = Model(history)
    for step in steps:
        model.take(step)
    model.take({"at": end_of(history), "judge": True})
    return outcome(model)


def in_order(history: dict[str, Any]) -> Outcome:
    return told(history, [step for step in history["steps"] if not step.get("judge")])


def looks_max(history: dict[str, Any], most: int) -> int:
    """How often the detector may run before everything is told.

    That a loop ended with its process is decided once, by what was seen of its type until then: with the daemon's own fact the
    facts differ, and so may the outcome. Where a history rests on that, the detector runs at the end alone.
    """
    return 0 if history.get("decides_once") else most


@st.composite
def deliveries(draw: st.DrawFn) -> tuple[str, list[dict[str, Any]]]:
    """A history with its events shuffled and repeated, the news of instances in their own order, and judging anywhere."""
    name = draw(st.sampled_from(sorted(READY)))
    steps = READY[name]["steps"]
    events = [step for step in steps if "event" in step or "expect" in step]
    again = draw(st.lists(st.sampled_from(events), max_size=3))
    shuffled = draw(st.permutations(events + again))
    for fixed in (step for step in reversed(steps) if "instance" in step):
        at = draw(st.integers(0, min((n for n, s in enumerate(shuffled) if "instance" in s), default=len(shuffled))))
        shuffled.insert(at, fixed)
    times = st.floats(0, end_of(READY[name]), allow_nan=False)
    for at in draw(st.lists(times, max_size=looks_max(READY[name], 4))):
        shuffled.insert(draw(st.integers(0, len(shuffled))), {"at": at, "judge": True})
    return name, [step for step in steps if "replay" in step] + shuffled


@settings(max_examples=600, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(deliveries())
def test_any_order_with_the_detector_between_gives_the_same_ledger(delivery: tuple[str, list[dict[str, Any]]]) -> None:
    name, steps = delivery
    assert told(READY[name], steps) == in_order(READY[name])


TWO_BY_TWO = [
    {"at": 0, "from": "a", "event": {"type": "started", "task": "t", "name": "n", "queue": "q"}},
    {"at": 5, "from": "b", "event": {"type": "started", "task": "t", "name": "n", "queue": "q"}},
    {"at": 6, "from": "a", "event": {"type": "failed", "task": "t", "will_retry": True, "error": {"type": "E"}}},
    {"at": 8, "from": "b", "event": {"type": "started", "task": "t", "name": "n", "attempt": 2, "deadline": 20}},
    {"at": 9, "from": "b", "event": {"type": "finished", "task": "t", "attempt": 2}},
]
EXHAUSTIVE = {"clock": "2026-11-20T14:00:00Z", "instances": {"a": "s", "b": "s"}, "steps": TWO_BY_TWO}


def all_deliveries() -> list[list[dict[str, Any]]]:
    """Every order of every subset of two attempts in two instances, each once more with its first event repeated."""
    found = []
    for size in range(2, len(TWO_BY_TWO) + 1):
        for steps in permutations(TWO_BY_TWO, size):
            found += [list(steps), [*steps, steps[0]]]
    return found


def disagreements() -> tuple[int, int]:
    """(deliveries, sets of facts whose outcome depended on their order)."""
    outcomes: dict[frozenset[int], set[str]] = {}
    for steps in all_deliveries():
        key = frozenset(TWO_BY_TWO.index(step) for step in steps)
        judged = [part for step in steps for part in (step, {"at": 7, "judge": True})]
        outcomes.setdefault(key, set()).add(repr(told(EXHAUSTIVE, judged)))
    return len(all_deliveries()), sum(len(found) > 1 for found in outcomes.values())


def test_every_order_of_two_attempts_in_two_instances_agrees() -> None:
    count, different = disagreements()
    assert count == 640
    assert different == 0


def last_arrival_wins(cells: Cells, event: dict[str, Any], instance: str | None) -> bool:
    """The fold that everybody writes first: what came last is what is."""
    cells.clear()
    cells[event["attempt"], instance or ""] = {
        slot: Fact(at=event["at"], said_at=event["at"], body=fact_of(event).body) for slot in slots_of(event)
    }
    return True


def test_a_fold_in_which_the_last_arrival_wins_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(player, "fold", last_arrival_wins)
    _, different = disagreements()
    assert different > 0


def first_come_first_served(expectations: Iterable[Expectation], tasks: Iterable[Begun]) -> dict[str, str]:
    """The pairing that everybody writes first: each expectation takes the first task that fits, in the order they were told."""
    found: dict[str, str] = {}
    left = list(tasks)
    for one in expectations:
        fits = [t for t in left if one.at - EARLY_NS <= t.began_at <= one.until and one.mark in t.marks]
        if fits:
            found[one.id] = fits[0].id
            left.remove(fits[0])
    return found


def outcomes_of_all_orders(history: dict[str, Any]) -> int:
    """How many different outcomes the orders of a history's events have."""
    events = [step for step in history["steps"] if "event" in step]
    told_so = (told(history, list(steps)) for steps in permutations(events))
    return len({repr((ledger, sorted(tasks.items()))) for ledger, tasks in told_so})


def test_a_pairing_by_order_of_arrival_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    history = READY["expectation-narrow-beside-a-wide-one"]
    assert outcomes_of_all_orders(history) == 1
    monkeypatch.setattr(expecting, "pair_in_time", first_come_first_served)
    assert outcomes_of_all_orders(history) > 1
