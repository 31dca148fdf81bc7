"""What the players share about expectations, and the plain way to pair them: everything anew, from the facts alone.

A history may also hold the step `{"at", "expect": {"service", "name", "within"}}`: a rule's due minute, whose expectation is
called `expected@<at>`; or with `"cron"`, `"tz"` and `"until"` all the due minutes up to then. `"after"` lists rules by which one
task lets another be expected: `after@<task>` by the first of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import takewhile
from typing import Any

from looseends.wire import NS, external_task_id, parse_time
from looseends_daemon.core.detect import Finding, World
from looseends_daemon.core.expect import (
    Begun,
    CronRule,
    Meeting,
    after_started,
    expectation_of,
    find,
    follower_id,
    marks_of,
    pair_in_time,
    pair_late,
)
from looseends_daemon.core.facts import Cells, Fact
from looseends_daemon.core.judgements import ended_well
from looseends_daemon.core.policy import AfterRule, Policy
from looseends_daemon.core.view import View, view_of
from looseends_daemon.services.expecter import due_minutes


def task_id(symbol: str) -> str:
    """The UUID that stands for a history's short task name."""
    return external_task_id("production", "histories", symbol)


def policy_of(history: Mapping[str, Any]) -> Policy:
    """The policy that a history asks for, its rules among it."""
    after = tuple(AfterRule(**{"environment": "production", **rule}) for rule in history.get("after", []))
    return Policy(**history.get("policy", {}), after=after)


def symbol_id(history: Mapping[str, Any], symbol: str) -> str:
    """The id of a task or expectation by its short name."""
    if symbol.startswith("after@"):
        return follower_id(policy_of(history).after[0], task_id(symbol.removeprefix("after@")))
    return task_id(symbol)


def stated(history: Mapping[str, Any], step: Mapping[str, Any]) -> list[tuple[str, dict[str, Any], int]]:
    """(id, body, at in ns) of each expectation of a step's `expect`."""
    clock = parse_time(history["clock"])
    told = {"environment": "production", **step["expect"]}
    body = {field: value for field, value in told.items() if field in ("environment", "service", "name", "within")}
    minutes = [clock + int(step["at"] * NS)]
    if "cron" in told:
        rule = CronRule(**body, cron=told["cron"], tz=told["tz"])
        until = clock + told["until"] * NS
        minutes = list(takewhile(lambda at: at <= until, due_minutes(rule, clock)))
    return [(task_id(f"expected@{(at - clock) // NS}{history.get('suffix', '')}"), body, at) for at in minutes]


def meetings(expected: Mapping[str, Cells], tasks: Mapping[str, Cells], orders: Mapping[str, str]) -> dict[str, Meeting]:
    """Who met whom, from nothing but the facts."""
    views = {task: view_of(cells) for task, cells in tasks.items() if task not in orders}
    found: dict[str, Meeting] = {}
    named: dict[tuple[str, str], list[str]] = {}
    for one, cells in expected.items():
        view = view_of(cells)
        named.setdefault((view.environment, view.name), []).append(one)
    for name, ids in named.items():
        wanted = {one: expectation_of(one, view_of(expected[one])) for one in ids}
        begun = {
            task: Begun(id=task, began_at=view.began_at, marks=marks_of(task, view))
            for task, view in views.items()
            if (view.environment, view.name) == name
        }
        met = pair_in_time(wanted.values(), begun.values())
        unmet = [expectation for one, expectation in wanted.items() if one not in met]
        late = pair_late(unmet, [task for task in begun.values() if task.id not in met.values()])
        for pairs, is_late in ((met, False), (late, True)):
            found |= {one: _meeting(task, views[task], is_late) for one, task in pairs.items()}
    return found


def _meeting(task: str, view: View, late: bool) -> Meeting:
    return Meeting(task=task, began_at=view.began_at, late=late, well=ended_well(view))


def followers(policy: Policy, tasks: Mapping[str, Cells], orders: Mapping[str, str]) -> dict[str, Cells]:
    """What the rules expect after these tasks."""
    found: dict[str, Cells] = {}
    for task, cells in tasks.items():
        view = view_of(cells)
        for rule in policy.after if task not in orders else ():
            made = after_started(rule, task, view, cells)
            if made is not None:
                one, body, at = made
                found[one] = {(1, view.instance or ""): {"expected": Fact(at=at, said_at=at, body=body)}}
    return found


def findings(
    expected: Mapping[str, Cells], tasks: Mapping[str, Cells], orders: Mapping[str, str], world: World
) -> dict[str, tuple[View, Finding]]:
    """What is to be said of every expectation."""
    met = meetings(expected, tasks, orders)
    views = {one: view_of(cells) for one, cells in expected.items()}
    return {one: (view, find(expectation_of(one, view), view, met.get(one), world)) for one, view in views.items()}
