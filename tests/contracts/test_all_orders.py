"""Every order and every duplication of histories of up to five events, two attempts, two instances, the detector in between.

How many deliveries there are, how many of them disagree with another delivery of the same facts (none may), and the same count
for the fold in which the last arrival wins. `ORDERS_EVENTS=5` plays them all (a minute); the suite plays up to four events.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from itertools import combinations_with_replacement, permutations
from typing import Any

import model as player
import pytest
from model import Model
from test_any_order import last_arrival_wins, outcome

EVENTS_MAX = int(os.environ.get("ORDERS_EVENTS", "4"))
LOOK = {"at": 12, "judge": True}
LAST_LOOK = {"at": 60, "judge": True}


def said(at: float, who: str, kind: str, attempt: int, **more: Any) -> dict[str, Any]:
    event = {"type": kind, "task": "t", "attempt": attempt, "name": "mail.send", "queue": "mail", **more}
    if kind not in ("scheduled", "started"):
        del event["queue"]
    return {"at": at, "from": who, "event": event}


UNIVERSE = [
    said(0, "a", "started", 1, deadline=10),
    said(5, "b", "started", 1, deadline=30),
    said(6, "a", "failed", 1, error={"type": "E"}, will_retry=True, retry_at=8),
    said(7, "b", "finished", 1),
    said(8, "b", "started", 2, deadline=20),
    said(9, "b", "cancelled", 2, reason="requested"),
    said(9, "a", "dropped", 2, reason="exit"),
]
HISTORY = {"clock": "2026-11-20T14:00:00Z", "instances": {"a": "shop", "b": "shop"}, "steps": UNIVERSE}


def deliveries(size: int) -> Iterator[tuple[frozenset[int], tuple[int, ...]]]:
    """(the facts, an order in which they arrive) for every multiset of this size; repeated facts are duplicates."""
    for chosen in combinations_with_replacement(range(len(UNIVERSE)), size):
        if max(map(chosen.count, chosen)) <= 2:
            for order in sorted(set(permutations(chosen))):
                yield frozenset(chosen), order


def played(order: tuple[int, ...]) -> str:
    """The outcome of one delivery, with the detector after every event, as text."""
    model = Model(HISTORY)
    for index in order:
        model.take(UNIVERSE[index])
        model.take(LOOK)
    model.take(LAST_LOOK)
    return repr(outcome(model))


def counted() -> tuple[int, int, int]:
    """(deliveries, sets of facts, sets of facts whose outcome depended on the delivery)."""
    outcomes: dict[frozenset[int], set[str]] = {}
    number = 0
    for size in range(1, EVENTS_MAX + 1):
        for facts, order in deliveries(size):
            outcomes.setdefault(facts, set()).add(played(order))
            number += 1
    return number, len(outcomes), sum(len(found) > 1 for found in outcomes.values())


def test_every_order_and_duplication_of_the_same_facts_agrees() -> None:
    number, sets, different = counted()
    print(f"\n{number} deliveries of {sets} sets of facts, up to {EVENTS_MAX} events: {different} sets disagree with themselves")
    assert sets > 90 and number > 2_000
    assert different == 0


def test_a_fold_in_which_the_last_arrival_wins_disagrees_with_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(player, "fold", last_arrival_wins)
    number, sets, different = counted()
    print(f"\nlast arrival wins: of {sets} sets of facts in {number} deliveries, {different} disagree with themselves")
    assert different > sets // 3
