"""What the facts say about a task: state, head, end and flags, as a pure view of its cells (rules 2 to 6 of core/facts.py)."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from looseends.wire import NS, canonical
from looseends_daemon.core.facts import ENDS, OPENINGS, UNKNOWN, Cell, Cells, Fact, join, said
from looseends_daemon.core.resources import Value

_END_STATE = {"finished": "succeeded", "cancelled": "cancelled", "failed": "failed"}


class Execution(Value, frozen=True):
    """One start of an attempt in one instance, with the ends that belong to it; `started` is None if only an end is known."""

    attempt: int
    instance: str
    started: Fact | None
    ends: dict[str, Fact]
    cell: Cell

    @property
    def end(self) -> tuple[str, Fact] | None:
        """The worst end: (type, fact)."""
        told = next(((kind, self.ends[kind]) for kind in reversed(ENDS) if kind in self.ends), None)
        if told is None and "with_process" in self.cell:
            return ("cancelled", self.cell["with_process"])
        return told


class View(Value, frozen=True):
    """What the facts say about a task, before anybody judges it. Times in ns, durations in seconds."""

    state: str
    attempt: int
    name: str
    service: str
    environment: str
    began_at: int
    instance: str | None = None
    scheduled_at: int | None = None
    started_at: int | None = None
    ended_at: int | None = None
    duration: float | None = None
    opening: dict[str, Any] = msgspec.field(default_factory=dict)
    end: dict[str, Any] = msgspec.field(default_factory=dict)
    dropped: str | None = None
    dropped_at: int | None = None
    progress: Fact | None = None
    stack: Fact | None = None
    executions: int = 0
    contradiction: bool = False
    no_start: bool = False
    redelivered: bool = False
    ran_twice: bool = False
    expected: bool = False
    with_process: bool = False

    @property
    def ended(self) -> bool:
        """Whether the head has an end for good."""
        return self.state in ("succeeded", "failed", "cancelled")

    @property
    def declared(self) -> bool:
        """Somebody wrote this work down; False: a hook found it."""
        return bool(self.opening.get("declared", True))


def view_of(cells: Cells) -> View:
    """What the facts say, whatever order they came in. `cells` must hold at least one fact."""
    return _plain(cells) or _general(cells)


def _plain(cells: Cells) -> View | None:
    """The view of a task as nearly all are: one attempt in one instance, its start, at most one end. None: it is not so plain.

    It says what `_general` would say of the same cells, at a fifth of the time; a test holds the two together.
    """
    if len(cells) != 1:
        return None
    [((attempt, who), cell)] = cells.items()
    started = cell.get("started")
    if started is None or len(cell) > 2:
        return None
    opening, end = started.body, None
    for kind, fact in cell.items():
        if fact is not started:
            if kind not in _END_STATE:
                return None
            end = (kind, fact)
    told = end[1].body if end else {}
    retrying = end is not None and end[0] == "failed" and told.get("will_retry")
    return View(
        state="running" if end is None else "retrying" if retrying else _END_STATE[end[0]],
        attempt=attempt,
        name=str(opening.get("name") or told.get("name") or UNKNOWN),
        service=str(opening.get("service") or told.get("service") or UNKNOWN),
        environment=str(opening.get("environment") or told.get("environment") or UNKNOWN),
        began_at=started.at,
        instance=who or None,
        started_at=started.at,
        ended_at=end[1].at if end else None,
        duration=_duration(started, end),
        opening=dict(opening),
        end={} if end is None else {"type": end[0], **told},
        executions=1,
    )


def _general(cells: Cells) -> View:
    attempt = max(number for number, _ in cells)
    runs = _runs(cells)
    head = _head(runs[attempt])
    opening = _opening(cells, head)
    scheduled = [c["scheduled"].at for (n, _), c in cells.items() if n == attempt and "scheduled" in c]
    end = head.end if head else None
    dropped = _dropped(cells, attempt, head)
    started = head.started if head else None
    name, service, environment = identity(cells)
    return View(
        state=_state(head),
        attempt=attempt,
        name=name,
        service=service,
        environment=environment,
        began_at=_began_at(cells),
        instance=(head.instance if head else _scheduler(cells, attempt)) or None,
        scheduled_at=min(scheduled, default=None),
        started_at=started.at if started else None,
        ended_at=end[1].at if end else None,
        duration=_duration(started, end),
        opening=opening,
        end={} if end is None else {"type": end[0], **end[1].body},
        dropped=dropped.body.get("reason", "exit") if dropped else None,
        dropped_at=dropped.at if dropped else None,
        progress=_latest(cells, attempt, head, "progress"),
        stack=_latest(cells, attempt, head, "stack"),
        executions=sum(run.started is not None for run in runs[attempt]),
        contradiction=any(len(run.ends) > 1 for found in runs.values() for run in found),
        no_start=head is not None and head.started is None,
        redelivered=any(sum(run.started is not None for run in found) > 1 for found in runs.values()),
        ran_twice=_ran_twice(runs),
        expected=any("expected" in cell for cell in cells.values()),
        with_process=head is not None and not head.ends and "with_process" in head.cell,
    )


def _runs(cells: Cells) -> dict[int, list[Execution]]:
    """The executions of every attempt. Sorted out in one go: a task may have thousands of attempts."""
    attempts: dict[int, dict[str, Cell]] = {}
    for (number, who), cell in cells.items():
        attempts.setdefault(number, {})[who] = cell
    return {number: executions_of(number, mine) for number, mine in attempts.items()}


def executions_of(attempt: int, mine: Mapping[str, Cell]) -> list[Execution]:
    """The executions of one attempt (its cells by instance), foreign ends attached, in order of (start, instance)."""
    begun = [
        Execution(attempt=attempt, instance=who, started=c["started"], ends={k: c[k] for k in ENDS if k in c}, cell=c)
        for who, c in mine.items()
        if "started" in c
    ]
    begun.sort(key=_order)
    starts = [_order(run)[0] for run in begun]
    unbegun: list[Execution] = []
    for who, cell in sorted(mine.items()):
        if "started" not in cell:
            alone = _attach(begun, starts, cell)
            if alone or "progress" in cell or "stack" in cell:
                unbegun.append(Execution(attempt=attempt, instance=who, started=None, ends=alone, cell=cell))
    return [*reversed(unbegun), *begun]


def _order(run: Execution) -> tuple[int, str]:
    return (run.started.at if run.started else -1, run.instance)


def _attach(begun: list[Execution], starts: list[int], cell: Cell) -> dict[str, Fact]:
    """Give each end of a cell that never started to the execution it ends (rule 3); what ends none is returned."""
    alone: dict[str, Fact] = {}
    for kind in ENDS:
        if kind not in cell:
            continue
        place = bisect_right(starts, cell[kind].at)
        if place == 0:
            alone[kind] = cell[kind]
            continue
        ends = begun[place - 1].ends
        ends[kind] = cell[kind] if kind not in ends else join(kind, ends[kind], cell[kind])
    return alone


def _head(runs: list[Execution]) -> Execution | None:
    """The latest start; without any start, the execution with the latest word about it."""
    begun = [run for run in runs if run.started is not None]
    if begun:
        return begun[-1]
    return max(runs, key=lambda run: (len(run.ends) > 0, max(f.at for f in run.cell.values()), run.instance), default=None)


def _state(head: Execution | None) -> str:
    """An execution is known by its start, its end, or by progress: what makes progress has begun."""
    if head is None:
        return "scheduled"
    end = head.end
    if end is None:
        return "running"
    kind, fact = end
    if kind == "failed" and fact.body.get("will_retry"):
        return "retrying"
    return _END_STATE[kind]


def _duration(started: Fact | None, end: tuple[str, Fact] | None) -> float | None:
    """As measured by the client's monotonic clock; else by its wall clock."""
    if end is None:
        return None
    told = end[1].body.get("duration")
    if told is not None:
        return float(told)
    return max(0.0, (end[1].at - started.at) / NS) if started else None


def _opening(cells: Cells, head: Execution | None) -> dict[str, Any]:
    """What scheduled and started said, the weightier word winning field by field: started of the head, started, scheduled."""
    found = [
        ((head is not None and cell is head.cell, slot == "started", *said(cell[slot])), cell[slot].body)
        for cell in cells.values()
        for slot in OPENINGS
        if slot in cell
    ]
    merged: dict[str, Any] = {}
    for _, body in sorted(found, key=lambda pair: pair[0]):
        merged.update(body)
    return merged


def identity(cells: Cells) -> tuple[str, str, str]:
    """(name, service, environment) of the earliest started, before any of scheduled, before anything else."""
    facts: Iterable[tuple[tuple[int, int, str], dict[str, Any]]] = (
        ((_weight(slot), fact.at, canonical(fact.body)), fact.body) for cell in cells.values() for slot, fact in cell.items()
    )
    ordered = [body for _, body in sorted(facts, key=lambda pair: pair[0])]

    def first(field: str) -> str:
        return next((str(body[field]) for body in ordered if body.get(field)), UNKNOWN)

    return first("name"), first("service"), first("environment")


def _weight(slot: str) -> int:
    return {"started": 0, "scheduled": 1}.get(slot, 2)


def _began_at(cells: Cells) -> int:
    facts = [(slot, fact) for cell in cells.values() for slot, fact in cell.items()]
    opened = [fact.at for slot, fact in facts if slot in OPENINGS]
    if opened:
        return min(opened)
    ends = [fact.at - int(fact.body.get("duration", 0) * NS) for slot, fact in facts if slot in ENDS]
    return min(ends) if ends else min(fact.at for _, fact in facts)


def _scheduler(cells: Cells, attempt: int) -> str:
    """The instance that scheduled (else dropped) an attempt which nobody started yet."""
    slots = ("scheduled", "dropped", "expected")
    who = [(c[s].at, name) for (n, name), c in cells.items() if n == attempt for s in slots if s in c]
    return min(who)[1] if who else ""


def _dropped(cells: Cells, attempt: int, head: Execution | None) -> Fact | None:
    """The report that this work was dropped: of the head's own instance, or of anybody while nobody started it."""
    if head is not None and head.started is not None:
        return head.cell.get("dropped")
    found = [cell["dropped"] for (number, _), cell in cells.items() if number == attempt and "dropped" in cell]
    return min(found, key=lambda fact: (fact.at, canonical(fact.body)), default=None)


def _latest(cells: Cells, attempt: int, head: Execution | None, slot: str) -> Fact | None:
    if head is not None and slot in head.cell:
        return head.cell[slot]
    found = [cell[slot] for (number, _), cell in cells.items() if number == attempt and slot in cell and "started" not in cell]
    return max(found, key=said, default=None)


def _ran_twice(runs: Mapping[int, list[Execution]]) -> bool:
    """Two executions of one attempt both ended, or two attempts both succeeded: the work was done twice."""
    if any(sum(bool(run.ends) for run in found if run.started is not None) > 1 for found in runs.values()):
        return True
    return sum(any(run.end is not None and run.end[0] == "finished" for run in found) for found in runs.values()) > 1


# --- the daemon's own fact ------------------------------------------------------------------------------------------


def end_with_process(cells: Cells, view: View, at: int) -> None:
    """Add the daemon's own fact in place: the head of this task, a loop, ended with its process at `at` (ns)."""
    ended = max(at, view.started_at or at)
    cells[view.attempt, view.instance or ""]["with_process"] = Fact(at=ended, said_at=ended, body={"reason": "with_process"})


def take_back_end(cells: Cells) -> None:
    """Take the daemon's own fact back in place: the process lives after all."""
    for cell in cells.values():
        cell.pop("with_process", None)
