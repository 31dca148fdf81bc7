"""A failure in a pool's process: the child tells of it, the parent knows whether anybody asked, in whatever order."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from looseends.wire import LATER, check_batch
from looseends_daemon.core.facts import fold
from looseends_daemon.core.view import view_of

TASK = "01a1f8e7-798f-8002-b218-1de14e4a6d0e"


def event(kind: str, at: int, **fields: Any) -> dict[str, Any]:
    return {"type": kind, "task": TASK, "name": "shop.render", "attempt": 1, "at": at, "declared": False, **fields}


@pytest.mark.parametrize("told", [True, False])
def test_what_the_parent_knows_wins_in_any_order(told: bool) -> None:
    child = [event("started", 2), event("failed", 3, handled=LATER, error={"type": "E", "message": "child"})]
    parent = [event("scheduled", 1), event("failed", 4, handled=told, error={"type": "E", "message": "parent"})]
    tagged = [(e, "child") for e in child] + [(e, "parent") for e in parent]
    for order in itertools.permutations(tagged):
        cells: dict[Any, Any] = {}
        for one, instance in order:
            fold(cells, one, instance)
        view = view_of(cells)
        assert (view.state, view.end["handled"], view.ended_at, view.executions) == ("failed", told, 3, 1)
        assert not view.contradiction and not view.ran_twice and not view.redelivered and not view.no_start


def test_the_wire_knows_the_word_and_no_other() -> None:
    for value, fine in ((True, True), (False, True), (LATER, True), ("soon", False), (1, False)):
        raw = {"type": "failed", "task": TASK, "name": "x", "at": 1_700_000_000_000_000_000, "handled": value}
        checked = check_batch([raw], now=1_700_000_000_000_000_000)
        assert bool(checked.rejected) is not fine, (value, checked.rejected)
