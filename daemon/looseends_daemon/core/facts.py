"""What clients reported about a task, folded so that order, duplication and splitting do not matter.

Rules:

1. A fact is (task, attempt, instance, type). All facts of one (attempt, instance) form a *cell*. A cell keeps, per type,
   the earliest `at`, and the body with the greatest (at, canonical JSON); of progress it keeps the latest. Both are
   maxima or minima of a total order, so folding is commutative, associative and idempotent by construction.
2. Nothing is decided while folding. State, head, end and flags are a pure *view* of the cells (`view_of`).
3. `scheduled` belongs to the attempt. An end from an instance that did not start the attempt, or from none, ends the latest
   execution begun at or before it. Equal starts: the greater instance id is later.
4. The end of an execution is the worst it reported: failed > cancelled > finished. A failure is never hidden by a later
   finish; more than one end sets `contradiction`. `dropped` is no end.
5. Head of an attempt: its execution with the latest start. Head of a task: its highest attempt.
6. `with_process` is the one fact that the daemon adds: this loop ended with its process (core/loops.py). Any end that a client
   reports outweighs it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from looseends.wire import LATER, canonical
from looseends_daemon.core.places import with_place
from looseends_daemon.core.resources import Value

ENDS = ("finished", "cancelled", "failed")
"""From the least to the worst."""
OPENINGS = ("scheduled", "started", "expected")
"""`expected` stands alone: an expectation has its own id, and no other fact may bear it (core/expect.py)."""
LATEST = ("progress", "stack")
SLOTS = ("scheduled", "started", "progress", "stack", "finished", "cancelled", "failed", "dropped", "expected", "with_process")
UNKNOWN = "unknown"
_NOT_BODY = ("type", "task", "attempt", "at", "seq", "external_id")


class Fact(Value, frozen=True):
    """One slot of a cell: `at` is the earliest (progress: latest) report in ns; the body was said at `said_at`."""

    at: int
    said_at: int
    body: dict[str, Any] = msgspec.field(default_factory=dict)


Cell = dict[str, Fact]
Cells = dict[tuple[int, str], Cell]
"""(attempt, instance id or "") -> slot -> Fact."""


# --- folding ------------------------------------------------------------------------------------------------------


def slots_of(event: Mapping[str, Any]) -> tuple[str, ...]:
    """Where an event of the wire goes. Progress with a stack fills two slots: a stack is no progress."""
    kind = event["type"]
    if kind != "progress":
        return (kind,)
    has_stack = event.get("stack") is not None
    moved = "done" in event or "note" in event or not has_stack
    return (("progress",) if moved else ()) + (("stack",) if has_stack else ())


def fact_of(event: Mapping[str, Any]) -> Fact:
    """The fact that one checked event of the wire states."""
    body = dict(event)
    for field in _NOT_BODY:
        body.pop(field, None)
    return Fact(at=event["at"], said_at=event["at"], body=with_place(body) if "stack" in body else body)


def join(slot: str, a: Fact, b: Fact) -> Fact:
    """Two reports of the same fact as one; the order of the arguments does not matter."""
    if slot in LATEST:
        return max(a, b, key=said)
    kept = max(a, b, key=said)
    body = kept.body
    handled = _handled(a.body.get("handled"), b.body.get("handled"))
    if handled != body.get("handled"):
        body = {**body, "handled": handled}
    return Fact(at=min(a.at, b.at), said_at=kept.said_at, body=body)


def said(fact: Fact) -> tuple[int, str]:
    """What two reports of one fact are compared by: when they were said, then what (`handled` has a rule of its own)."""
    return (fact.said_at, canonical({k: v for k, v in fact.body.items() if k != "handled"}))


def _handled(a: bool | str | None, b: bool | str | None) -> bool | str | None:
    """True wins over False, that over not knowing, and each of them over a promise that somebody else will know."""
    return max(a, b, key=(LATER, None, False, True).index)


def fold(cells: Cells, event: Mapping[str, Any], instance: str | None) -> bool:
    """Add one checked event to the cells in place; True if it said something new, False for a duplicate.

    Progress counts as new when it is later than what is kept.
    """
    cell = cells.setdefault((event["attempt"], instance or ""), {})
    new = False
    fact = fact_of(event)
    for slot in slots_of(event):
        known = cell.get(slot)
        if known is None:
            cell[slot] = fact
            new = True
        else:
            cell[slot] = join(slot, known, fact)
            new = new or (slot in LATEST and cell[slot].said_at > known.said_at)
    return new
