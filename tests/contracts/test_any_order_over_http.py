"""Over HTTP to a real database: any order, duplication, splitting and interleaving, the detector between any two events.

What the API then shows must equal what the pure functions say of the same facts in order. A fold in which the last arrival
wins, planted into the same daemon, must fail in the same harness.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from model import histories
from served import Played, Served
from test_any_order import READY, TWO_BY_TWO, end_of, first_come_first_served, last_arrival_wins, looks_max

from looseends_daemon.store import facts as store_facts
from looseends_daemon.store import pairing

NUMBERS = count(1)
TWO = {"clock": "2026-11-20T14:00:00Z", "instances": {"a": "s", "b": "s"}, "steps": TWO_BY_TWO}


@pytest.fixture(scope="module")
def served() -> Iterator[Served]:
    with tempfile.TemporaryDirectory(prefix="le-") as folder:
        daemon = Served(Path(folder))
        yield daemon
        daemon.close()


def symbols_of(history: dict[str, Any]) -> set[str]:
    symbols = {step["event"]["task"] for step in history["steps"] if "event" in step}
    return symbols | set(history["expect"]["tasks"] if "expect" in history else ())


def expected(played: Played, history: dict[str, Any]) -> dict[str, Any]:
    """What the pure functions say when everything comes in order and is judged once, at the end."""
    steps = [played.own_step(step) for step in history["steps"] if not step.get("judge")]
    for step in [*steps, {"at": end_of(history), "judge": True}]:
        played.pure.take(step)
    tasks = {}
    for symbol in sorted(symbols_of(history)):
        task = played.id_of(symbol)
        view = {**dict(played.pure.views()), **dict(played.pure.missed())}.get(task)
        if view is None:
            continue
        standing = played.pure.standing[task]
        verdict = None if view.ended else standing.verdict
        tasks[symbol] = (view.state, verdict, view.attempt, view.began_at, view.ended_at, view.instance, view.name)
    return {"ledger": played.pure.ledger(), "tasks": tasks}


def play(served: Served, history: dict[str, Any], steps: list[dict[str, Any]]) -> tuple[dict[str, Any], dict[str, Any]]:
    """(what the API shows, what it must show) after these steps and one judgement at the end."""
    played = Played(served, history, next(NUMBERS))
    played.take([played.own_step(step) for step in steps])
    # An instance that speaks is alive; what is known of each at the end is part of the world, not of the delivery.
    news = {step["instance"]: step for step in history["steps"] if "instance" in step}
    played.take([played.own_step(step) for step in news.values()])
    played.take([{"at": end_of(history), "judge": True}])
    wanted = expected(played, history)
    return played.outcome(symbols_of(history)), wanted


@st.composite
def deliveries(draw: st.DrawFn) -> tuple[str, list[dict[str, Any]]]:
    """Events shuffled and repeated, the news of instances in their own order, and the detector anywhere between."""
    name = draw(st.sampled_from(sorted(READY)))
    steps = READY[name]["steps"]
    events = [step for step in steps if "event" in step or "expect" in step]
    again = draw(st.lists(st.sampled_from(events), max_size=2))
    shuffled = draw(st.permutations(events + again))
    for fixed in (step for step in reversed(steps) if "instance" in step):
        last = min((n for n, step in enumerate(shuffled) if "instance" in step), default=len(shuffled))
        shuffled.insert(draw(st.integers(0, last)), fixed)
    for at in draw(st.lists(st.floats(0, end_of(READY[name])), max_size=looks_max(READY[name], 3))):
        shuffled.insert(draw(st.integers(0, len(shuffled))), {"at": at, "judge": True})
    return name, [step for step in steps if "replay" in step] + shuffled


@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture])
@given(delivery=deliveries())
def test_any_delivery_over_http_shows_the_same_ledger(served: Served, delivery: tuple[str, list[dict[str, Any]]]) -> None:
    name, steps = delivery
    shown, wanted = play(served, READY[name], steps)
    assert shown == wanted


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture])
@given(order=st.permutations(TWO_BY_TWO), cuts=st.lists(st.booleans(), min_size=4, max_size=4), again=st.sampled_from(TWO_BY_TWO))
def test_two_attempts_in_two_instances_split_and_joined_anyhow(
    served: Served, order: list[dict[str, Any]], cuts: list[bool], again: dict[str, Any]
) -> None:
    steps: list[dict[str, Any]] = []
    for n, step in enumerate([*order, again]):
        joins = steps and n <= 4 and not cuts[n - 1] and "events" in steps[-1] and steps[-1]["from"] == step["from"]
        if joins:
            steps[-1]["events"].append(step)
        else:
            steps.append({"at": step["at"], "from": step["from"], "events": [step]})
        if n % 2:
            steps.append({"at": 7, "judge": True})
    shown, wanted = play(served, TWO, steps)
    assert shown == wanted


def test_a_fold_in_which_the_last_arrival_wins_is_caught(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_facts, "fold", last_arrival_wins)
    history = histories()["fail-retry-succeed"]
    steps = [step for step in history["steps"] if "event" in step]
    orders = [steps, steps[::-1], [steps[1], steps[0], *steps[2:]]]
    outcomes = [play(served, history, order) for order in orders]
    assert any(shown != wanted for shown, wanted in outcomes)


def test_a_pairing_by_order_of_arrival_is_caught(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    history = histories()["expectation-narrow-beside-a-wide-one"]
    steps = [step for step in history["steps"] if "event" in step]
    judged = [part for step in reversed(steps) for part in (step, {"at": 600, "judge": True})]
    shown, wanted = play(served, history, judged)
    assert shown == wanted
    monkeypatch.setattr(pairing, "pair_in_time", first_come_first_served)
    orders = [steps, steps[::-1], [*steps[2:], *steps[:2]], judged]
    outcomes = [play(served, history, order) for order in orders]
    assert any(shown != wanted for shown, wanted in outcomes)
