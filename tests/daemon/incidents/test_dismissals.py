"""A person dismisses a loose end: what moves with it, what is refused, and that it stands."""

from __future__ import annotations

import json
import uuid
from typing import Any

import pytest

from looseends_daemon.core.resources import Actor, CommandRefused, Task
from looseends_daemon.store import codes, facts
from looseends_daemon.store.dismissals import dismiss
from looseends_daemon.store.judgements import judgements_of

ADA = Actor(name="ada", role="operator", channel="session")


def press(ground: Any, task: str, note: str = "the customer was called") -> Task:
    with ground.transaction():
        return dismiss(ground.conn, task, ADA, ground.now, note=note, rules=ground.rules)


def ledger(ground: Any) -> dict[str, int]:
    columns = ("in_time", "gap", "settled_gap", "failed", "settled_failed", "loose")
    row = ground.conn.execute("SELECT " + ", ".join(f"sum({name}) AS {name}" for name in columns) + " FROM ledger").fetchone()
    return {name: row[name] for name in columns if row[name]}


def lost(ground: Any) -> str:
    task: str = ground.start()
    ground.later(1)
    ground.kill()
    ground.detect()
    ground.after(1)
    return task


def test_dismissing_the_only_loose_end_resolves_its_incident_as_dismissed(ground: Any) -> None:
    task = lost(ground)
    ground.deliver()
    shown = press(ground, task)
    assert (shown.loose, shown.settled, shown.verdict) == (False, "dismissed", "lost")
    ground.detect()
    found = ground.incident()
    assert (found.state, found.resolution, found.counts.settled["dismissed"]) == ("resolved", "dismissed", 1)
    assert found.title.endswith("; dismissed")
    assert ground.types() == ["opened", "resolved"]
    [sample] = json.loads(ground.notices()[-1].body)["data"]["tasks"]
    assert (sample["verdict"], sample["settled"]) == ("lost", "dismissed")


def test_what_was_dismissed_stays_in_the_gap_and_is_counted_as_settled(ground: Any) -> None:
    task = lost(ground)
    assert ledger(ground) == {"gap": 1, "loose": 1}
    press(ground, task)
    assert ledger(ground) == {"gap": 1, "settled_gap": 1}


def test_a_failure_can_be_dismissed_as_well(ground: Any) -> None:
    task = ground.start()
    ground.fail(task)
    ground.after(1)
    press(ground, task)
    assert ledger(ground) == {"failed": 1, "settled_failed": 1}


def test_the_note_and_the_person_are_kept_in_the_history_and_in_the_audit_log(ground: Any) -> None:
    task = lost(ground)
    press(ground, task, "  known since Monday  ")
    last = judgements_of(ground.conn, codes.blob(task))[-1]
    assert (last.what, last.verdict, last.by, last.reason) == ("dismissed", "dismissed", "ada", "known since Monday")
    audited = ground.conn.execute("SELECT actor, act, subject, detail FROM audit").fetchall()
    assert [tuple(row) for row in audited] == [("ada", "dismiss_task", task, "known since Monday")]


def test_a_dismissal_stands_whatever_is_told_later(ground: Any) -> None:
    hung, failing = ground.start(), ground.start()
    ground.after(30)
    for task in (hung, failing):
        press(ground, task)
    ground.fail(failing)
    ground.finish(hung)
    ground.after(1)
    ground.kill()
    ground.after(1)
    rows = ground.conn.execute("SELECT loose, settled FROM task").fetchall()
    assert {tuple(row) for row in rows} == {(0, codes.code(("finished_late", "retried", "replayed", "dismissed"), "dismissed"))}
    assert [incident.state for incident in ground.incidents()] == ["resolved"]


def test_a_worse_verdict_after_a_dismissal_makes_no_loose_end(ground: Any) -> None:
    task = ground.start()
    ground.after(30)
    press(ground, task)
    ground.kill()
    ground.after(1)
    row = ground.conn.execute("SELECT loose, verdict FROM task").fetchone()
    assert (row["loose"], row["verdict"]) == (0, 4)
    assert ledger(ground) == {"gap": 1, "settled_gap": 1}


def test_one_of_two_dismissed_leaves_the_incident_open(ground: Any) -> None:
    first = ground.start()
    lost(ground)
    press(ground, first)
    ground.detect()
    assert (ground.incident().state, ground.incident().counts.open) == ("open", 1)


@pytest.mark.parametrize(("note", "says"), [("", "say in a note"), (" \n", "say in a note"), ("x" * 501, "at most 500")])
def test_a_dismissal_without_a_fitting_note_is_refused(ground: Any, note: str, says: str) -> None:
    task = lost(ground)
    with pytest.raises(CommandRefused) as refused:
        press(ground, task, note)
    ground.conn.execute("ROLLBACK")
    assert refused.value.status == 422 and says in refused.value.reasons[0]
    assert ledger(ground) == {"gap": 1, "loose": 1}


def test_what_is_no_open_loose_end_is_refused_with_the_reason(ground: Any) -> None:
    settled = lost(ground)
    press(ground, settled)
    ground.boot()
    running = ground.start()
    ended = ground.start()
    ground.finish(ended)
    wanted = {running: "its state is running", ended: "its state is succeeded", settled: "settled already: dismissed"}
    for task, says in wanted.items():
        with pytest.raises(CommandRefused) as refused:
            press(ground, task)
        ground.conn.execute("ROLLBACK")
        assert refused.value.status == 409 and says in refused.value.reasons[0]


def test_an_unknown_task_is_a_404(ground: Any) -> None:
    for task in (str(uuid.UUID(int=9, version=4)), "backup-7"):
        with pytest.raises(CommandRefused) as refused:
            press(ground, task)
        ground.conn.execute("ROLLBACK")
        assert refused.value.status == 404


def test_the_row_and_the_ledger_agree_after_a_dismissal(ground: Any) -> None:
    task = lost(ground)
    press(ground, task)
    row = ground.conn.execute("SELECT * FROM task").fetchone()
    assert facts.place_of_row(row).marks() == ledger(ground)
