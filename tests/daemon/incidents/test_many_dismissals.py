"""Dismissals of a query, of an incident, taken back within ten minutes; and failures that dismiss themselves."""

from __future__ import annotations

from typing import Any

import pytest

from looseends.wire import NS
from looseends_daemon.core.query import QueryError
from looseends_daemon.core.resources import Actor, CommandRefused
from looseends_daemon.store import codes, dismissals, frozen, retention
from looseends_daemon.store.judgements import judgements_of
from looseends_daemon.store.questions import ask

ADA = Actor(name="ada", role="operator", channel="session")
DAY = 86_400


def failed(ground: Any, count: int, name: str = "mail.send_receipt") -> list[str]:
    """So many failures of one name, in an open incident of which somebody was told."""
    tasks = [ground.start(name) for _ in range(count)]
    for task in tasks:
        ground.fail(task)
    ground.after(0)
    ground.after(1)
    ground.deliver()
    return tasks


def loose(ground: Any) -> int:
    return int(ground.conn.execute("SELECT count(*) FROM task WHERE loose = 1").fetchone()[0])


def shown(ground: Any, dismissal: str) -> Any:
    return ask(ground.conn, dismissals.dismissal_one(dismissal))


def books_balance(ground: Any) -> None:
    assert retention.recount(ground.conn) == []


def test_a_query_is_dismissed_whole_in_steps_and_its_incident_resolves(ground: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dismissals, "STEP_TASKS_MAX", 3)
    tasks = failed(ground, 10)
    other = failed(ground, 1, "audit.write")
    made = shown(ground, ground.dismiss("name:mail.*", note="the mail server was down"))
    assert (made.state, made.total, made.dismissed, made.undone) == ("done", 10, 10, 0)
    assert (loose(ground), ground.incidents()[0].state, ground.incidents()[1].state) == (1, "resolved", "open")
    assert ground.incidents()[0].resolution == "dismissed"
    last = judgements_of(ground.conn, codes.blob(tasks[4]))[-1]
    assert (last.what, last.by, last.reason) == ("dismissed", "ada", "the mail server was down")
    audited = ground.conn.execute("SELECT act, subject, detail FROM audit").fetchall()
    assert [(row["act"], row["subject"]) for row in audited] == [("dismiss", made.id)]
    assert "10 loose ends of query 'name:mail.*'" in audited[0]["detail"]
    books_balance(ground)
    assert other


def test_a_dismissal_goes_on_where_a_stopped_daemon_left_it(ground: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dismissals, "STEP_TASKS_MAX", 4)
    failed(ground, 10)
    what, tasks = ask(ground.conn, frozen.tasks_of("is:loose", None, ground.now))
    with ground.transaction():
        dismissals.begin(ground.conn, tasks, ADA, ground.now, note="x", what=what)
    with ground.transaction():
        assert dismissals.step(ground.conn, ground.now, ground.rules)
    assert loose(ground) == 6 and ask(ground.conn, dismissals.is_busy())
    ground.detect()
    assert ground.incident().state == "open", "it resolves when all of it is settled, not before"
    ground.carry_out()
    assert loose(ground) == 0 and not ask(ground.conn, dismissals.is_busy())
    assert ground.incident().state == "resolved"


def test_an_incident_is_dismissed_with_what_is_open_of_it_only(ground: Any) -> None:
    tasks = failed(ground, 3)
    ground.retry(tasks[0])
    ground.after(0)
    made = shown(ground, ground.dismiss(incident=ground.incident().id))
    assert (made.total, made.what) == (2, f"incident {ground.incident().id}")
    assert ground.incident().counts.settled == {"finished_late": 0, "retried": 1, "replayed": 0, "dismissed": 2}
    assert ground.incident().resolution == "mixed"


def test_the_digest_names_the_list_whatever_its_order_and_changes_with_it(ground: Any) -> None:
    failed(ground, 3)
    first = ask(ground.conn, frozen.freeze("is:loose", None, ground.now))
    assert (first.count, len(first.items), first.what) == (3, 3, "query 'is:loose'")
    assert ask(ground.conn, frozen.freeze(None, ground.incident().id, ground.now)).digest == first.digest
    failed(ground, 1)
    assert ask(ground.conn, frozen.freeze("is:loose", None, ground.now)).digest != first.digest


@pytest.mark.parametrize(
    ("q", "incident", "status", "says"),
    [
        (None, None, 422, 'give "q"'),
        ("is:loose", "inc_1", 422, 'give "q"'),
        (" ", None, 422, "an empty query"),
        ("name:nothing", None, 409, "no loose end is open there"),
        (None, "inc_1", 404, "there is no incident inc_1"),
    ],
)
def test_what_cannot_be_frozen_is_refused(ground: Any, q: str | None, incident: str | None, status: int, says: str) -> None:
    failed(ground, 1)
    with pytest.raises(CommandRefused) as refused:
        ask(ground.conn, frozen.tasks_of(q, incident, ground.now))
    assert (refused.value.status, says in refused.value.reasons[0]) == (status, True)


def test_a_query_that_searches_text_cannot_dismiss(ground: Any) -> None:
    with pytest.raises(QueryError, match="cannot search text"):
        ask(ground.conn, frozen.tasks_of("is:loose timeout", None, ground.now))


def test_too_many_at_once_are_refused(ground: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(frozen, "DISMISSED_MAX", 2)
    failed(ground, 3)
    with pytest.raises(CommandRefused) as refused:
        ask(ground.conn, frozen.tasks_of("is:loose", None, ground.now))
    assert refused.value.status == 422 and "narrow it" in refused.value.reasons[0]


# --- taken back ---------------------------------------------------------------------------------------------------


def test_what_is_taken_back_is_loose_again_as_if_it_had_not_been(ground: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dismissals, "STEP_TASKS_MAX", 2)
    tasks = failed(ground, 5)
    dismissal = ground.dismiss("is:loose")
    assert loose(ground) == 0
    ground.later(599)
    ground.undo(dismissal)
    assert loose(ground) == 5
    made = shown(ground, dismissal)
    assert (made.state, made.dismissed, made.undone) == ("undone", 5, 5)
    last = judgements_of(ground.conn, codes.blob(tasks[0]))[-1]
    assert (last.what, last.reason) == ("restored", "ada's dismissal of it was taken back")
    ground.after(1)
    assert [one.state for one in ground.incidents()] == ["resolved", "open"], "what resolved stays so: a new incident says it"
    assert ground.types()[-1] == "opened"
    books_balance(ground)


def test_a_part_that_is_taken_back_returns_to_its_incident_without_a_word(ground: Any) -> None:
    tasks = failed(ground, 3)
    ground.conn.execute("UPDATE task SET key = 'k' WHERE id != ?", (codes.blob(tasks[0]),))
    dismissal = ground.dismiss("key:k")
    assert ground.incident().counts.open == 1
    ground.undo(dismissal)
    ground.after(120)
    assert (ground.incident().counts.open, ground.types()) == (3, ["opened"])


def test_after_ten_minutes_it_stands(ground: Any) -> None:
    failed(ground, 1)
    dismissal = ground.dismiss("is:loose")
    ground.later(600.1)
    with pytest.raises(CommandRefused) as refused:
        ground.undo(dismissal)
    ground.conn.execute("ROLLBACK")
    assert refused.value.status == 409 and "for 10 min" in refused.value.reasons[0]


@pytest.mark.parametrize(("twice", "status", "says"), [(True, 409, "open again"), (False, 404, "there is no dismissal")])
def test_it_is_taken_back_once(ground: Any, twice: bool, status: int, says: str) -> None:
    failed(ground, 1)
    dismissal = ground.dismiss("is:loose")
    if twice:
        ground.undo(dismissal)
    with pytest.raises(CommandRefused) as refused:
        ground.undo(dismissal if twice else "dis_0")
    ground.conn.execute("ROLLBACK")
    assert (refused.value.status, says in refused.value.reasons[0]) == (status, True)


def test_what_ended_well_meanwhile_settles_itself_when_its_dismissal_is_taken_back(ground: Any) -> None:
    task = ground.start(deadline=10)
    ground.after(10)
    dismissal = ground.dismiss("is:loose")
    ground.finish(task)
    ground.after(1)
    ground.undo(dismissal)
    row = ground.conn.execute("SELECT loose, settled FROM task").fetchone()
    assert (row["loose"], codes.word(("finished_late", "retried", "replayed", "dismissed"), row["settled"])) == (
        0,
        "finished_late",
    )
    books_balance(ground)


def test_a_loss_that_was_withdrawn_meanwhile_is_none_when_its_dismissal_is_taken_back(ground: Any) -> None:
    ground.start()
    ground.later(1)
    ground.kill()
    ground.detect()
    dismissal = ground.dismiss("is:loose")
    ground.conn.execute("UPDATE instance SET state = 'alive'")
    ground.conn.execute("UPDATE task SET check_at = ?", (ground.now,))
    ground.after(1)
    ground.undo(dismissal)
    row = ground.conn.execute("SELECT loose, settled, verdict FROM task").fetchone()
    assert tuple(row) == (0, None, None)
    books_balance(ground)


def test_a_dismissed_task_that_was_restored_can_be_dismissed_again(ground: Any) -> None:
    task = failed(ground, 1)[0]
    ground.undo(ground.dismiss("is:loose"))
    again = ground.dismiss("is:loose", note="this time for good")
    found = ask(ground.conn, dismissals.dismissal_of(codes.blob(task)))
    assert found is not None
    assert (loose(ground), found.id) == (0, again)
    ground.undo(again)
    assert loose(ground) == 1


def test_one_that_is_taken_back_half_way_stops_there(ground: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dismissals, "STEP_TASKS_MAX", 2)
    failed(ground, 5)
    what, tasks = ask(ground.conn, frozen.tasks_of("is:loose", None, ground.now))
    with ground.transaction():
        no = dismissals.begin(ground.conn, tasks, ADA, ground.now, note="x", what=what)
        dismissals.step(ground.conn, ground.now, ground.rules)
    made = ask(ground.conn, dismissals.dismissal_numbered(no))
    assert (made.state, made.dismissed) == ("running", 2)
    ground.undo(made.id)
    assert (loose(ground), shown(ground, made.id).undone) == (5, 2)


def test_single_dismissals_can_be_taken_back_too(ground: Any) -> None:
    task = failed(ground, 1)[0]
    with ground.transaction():
        dismissals.dismiss(ground.conn, task, ADA, ground.now, note="x", rules=ground.rules)
    found = ask(ground.conn, dismissals.dismissal_of(codes.blob(task)))
    assert found is not None
    assert (found.what, found.total) == (f"task {task}", 1)
    ground.undo(found.id)
    assert loose(ground) == 1


def test_lists_are_let_go_when_nothing_can_be_taken_back_and_the_decision_stays(ground: Any) -> None:
    failed(ground, 3)
    dismissal = ground.dismiss("is:loose")
    ground.later(601)
    assert ask(ground.conn, dismissals.is_due(ground.now, 0, -1))
    with ground.transaction():
        assert dismissals.forget(ground.conn, ground.now, 0)
    assert not ask(ground.conn, dismissals.is_due(ground.now, 0, -1))
    assert ground.conn.execute("SELECT count(*) FROM dismissed").fetchone()[0] == 0
    assert shown(ground, dismissal).dismissed == 3
    with ground.transaction():
        dismissals.forget(ground.conn, ground.now, ground.now)
    assert shown(ground, dismissal) is None


# --- by themselves ------------------------------------------------------------------------------------------------


def sweep(ground: Any) -> None:
    place: Any = dismissals.START
    while place is not None:
        with ground.transaction():
            place = dismissals.settle_old_failures(ground.conn, ground.now, ground.rules, place)
    ground.detect()


def test_failures_that_nobody_did_anything_about_dismiss_themselves_with_that_reason(
    ground: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dismissals, "STEP_TASKS_MAX", 2)
    old = failed(ground, 5)
    ground.start("hung", deadline=5)
    ground.later(3 * DAY)
    failed(ground, 1, "audit.write")
    ground.later(4 * DAY)
    sweep(ground)
    rows = ground.conn.execute("SELECT count(*) FROM task WHERE settled IS NOT NULL").fetchone()
    assert (rows[0], loose(ground)) == (5, 2), "a verdict waits for a person, and so does a younger failure"
    last = judgements_of(ground.conn, codes.blob(old[0]))[-1]
    assert (last.by, last.reason) == (
        "looseends",
        "nobody did anything about this failure for 7 d ([detect] settle_failed_after)",
    )
    assert ground.incidents()[0].resolution == "dismissed"
    books_balance(ground)


def test_the_time_counts_from_when_it_was_known_and_not_from_when_it_failed(ground: Any) -> None:
    """A spool that comes a week late: nobody can have looked at what was never told."""
    task = ground.start()
    failed_at = ground.now
    ground.later(8 * DAY)
    ground.fail(task, at=failed_at + NS)
    ground.after(1)
    sweep(ground)
    assert loose(ground) == 1
    ground.later(7 * DAY)
    sweep(ground)
    assert loose(ground) == 0
