"""The six answers: each cause is named by its own answer, and by no other."""

from __future__ import annotations

from typing import Any

import pytest

from looseends.wire import NS
from looseends_daemon.core.resources import Error, HistoryEntry, Instance, InstanceRef, Task
from looseends_dashboard import why

ALIVE = InstanceRef(id="i", host="web-2", pid=4121, alive=True)
GONE = InstanceRef(id="i", host="web-2", pid=4121, alive=False)


def task(**more: Any) -> Task:
    base: dict[str, Any] = {"id": "t", "name": "mail.send", "service": "shop", "environment": "e", "state": "running"}
    return Task(**(base | {"scheduled_at": NS, "started_at": 2 * NS, "loose": True} | more))


def fact(what: str, reason: str | None = None, at: int = NS) -> HistoryEntry:
    return HistoryEntry(at=at, kind="fact", what=what, reason=reason)


CASES: dict[str, tuple[Task, list[HistoryEntry], str]] = {
    "raised": (
        task(state="failed", error=Error(type="TimeoutError", message="smtp"), instance=ALIVE, ended_at=3 * NS),
        [],
        "Yes: TimeoutError: smtp.",
    ),
    "killed": (task(verdict="lost", instance=GONE), [], "Yes: pid 4121 on web-2 is gone: killed; last heard 14:05."),
    "never began": (
        task(verdict="never_started", started_at=None, queue="mails", instance=ALIVE),
        [fact("scheduled")],
        "It was scheduled into the queue mails and never started.",
    ),
    "hangs": (task(verdict="stuck", instance=ALIVE), [], "No: pid 4121 on web-2 is alive."),
    "collected": (
        task(verdict="lost", instance=ALIVE),
        [fact("dropped", "collected")],
        "Yes: nobody kept a reference to it, so it was garbage-collected before it ended.",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_each_cause_is_told_by_one_answer(case: str) -> None:
    given, history, wanted = CASES[case]
    instance = Instance(id="i", service="shop", environment="e", state="gone", reason="killed; last heard 14:05")
    answers = why.diagnosis(given, history, instance)
    assert len(answers) == 6
    assert [one.answer for one in answers if one.telling] == [wanted]


def test_what_was_expected_and_never_seen_points_at_an_early_return() -> None:
    told = why.diagnosis(task(verdict="missed", state="scheduled", scheduled_at=None, started_at=None), [fact("expected")])
    assert [one.question for one in told if one.telling] == [
        "Was it ever scheduled, and did it start?",
        "Was it skipped by an early return?",
    ]


def test_an_unknown_reason_of_a_drop_is_said_as_it_came() -> None:
    told = why.diagnosis(task(verdict="lost"), [fact("dropped", "moon_phase")])
    assert [one.answer for one in told if one.telling and "moon" in one.answer] == ["Yes: moon phase."]


def test_earlier_attempts_that_raised_are_counted() -> None:
    told = why.diagnosis(task(attempt=2, verdict="lost", instance=GONE), [fact("failed", "TimeoutError: smtp"), fact("started")])
    assert told[0].answer == "1 attempt before did: TimeoutError: smtp"
    assert not told[0].telling


def test_work_that_went_well_needs_no_answers() -> None:
    assert not why.needs_answers(task(state="succeeded", loose=False))
    assert why.needs_answers(task(state="succeeded", loose=False, settled="finished_late"))
