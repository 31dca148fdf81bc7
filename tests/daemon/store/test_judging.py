"""Judging in the database: no task is forgotten, none is judged while its news is on its way, and chains of replays settle."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from typing import Any

import pytest

from looseends.wire import NS, canonical, check_batch, format_time, uuid8
from looseends_daemon.core.policy import Policy
from looseends_daemon.core.resources import SETTLEMENTS, VERDICTS, Actor, encode
from looseends_daemon.core.resources import Task as TaskResource
from looseends_daemon.store.cells import InstanceIds
from looseends_daemon.store.codes import blob, flag_words, word
from looseends_daemon.store.facts import Applied, apply_batch, cells_of, end_instance, touch_instance
from looseends_daemon.store.judgements import Times, judge_due, judgements_of
from looseends_daemon.store.questions import ask
from looseends_daemon.store.replays import insert_order, insert_replay
from looseends_daemon.store.schema import migrate
from looseends_daemon.store.shown import neighbours, resource
from looseends_daemon.store.sources import source_now

START = 1_795_183_200 * NS
ACTOR = Actor(name="uid 0", role="ingest", channel="uds:0", uid=0)
POLICY = Policy()
MINUTE = 60


class Ground:
    """A store and a clock. Times in seconds from the start."""

    def __init__(self) -> None:
        self.conn = sqlite3.connect(":memory:", isolation_level=None)
        self.conn.row_factory = sqlite3.Row
        migrate(self.conn)

    def tell(self, at: float, who: str | None, *events: dict[str, Any], service: str = "shop", **envelope: Any) -> Applied:
        now = START + int(at * NS)
        told: dict[str, Any] = {"events": [{"name": "n", "service": service, **event} for event in events], **envelope}
        if who is not None:
            told["instance"] = {"id": who, "service": service}
        batch = check_batch(told, now)
        assert not batch.rejected, batch.rejected
        return apply_batch(self.conn, batch, actor=ACTOR, now=now, policy=POLICY)

    def gone(self, at: float, who: str, backlog: int = 0) -> None:
        self.conn.execute("UPDATE instance SET backlog = ? WHERE id = ?", (backlog, who))
        end_instance(self.conn, who, state="gone", reason="killed", now=START + int(at * NS))

    def judge(self, at: float) -> list[tuple[str, str]]:
        """Judge until nothing is due; what incidents would hear, in order."""
        times = Times(now=START + int(at * NS), heard_since=START - NS, ready_at=START)
        heard = []
        for _ in range(20):
            judged = judge_due(self.conn, times, POLICY)
            heard += [(change.what, change.task) for change in judged.changes]
            if not judged.more:
                return heard
        raise AssertionError("the detector comes to no end")

    def row(self, task: str) -> sqlite3.Row:
        row: sqlite3.Row = self.conn.execute("SELECT * FROM task WHERE id = ?", (blob(task),)).fetchone()
        return row

    def verdict(self, task: str) -> str | None:
        return word(VERDICTS, self.row(task)["verdict"])

    def flags(self, task: str) -> list[str]:
        return flag_words(self.row(task)["flags"])

    def said(self, task: str) -> list[tuple[str, str | None]]:
        return [(row.what, row.verdict) for row in judgements_of(self.conn, blob(task))]

    def order(self, at: float, task: str, who: str) -> str:
        """An order for a task, claimed by an instance; the id of the new task."""
        now = START + int(at * NS)
        found = source_now(self.conn, blob(task))
        assert found is not None
        new = insert_order(self.conn, insert_replay(self.conn, "ada", "", now), found, {}, False, None, now)
        self.conn.execute(
            "UPDATE replay_order SET state = 'claimed', fence = 1, claimed_at = ?,"
            " instance = (SELECT no FROM instance WHERE id = ?) WHERE id = ?",
            (now, who, blob(new)),
        )
        return new


@pytest.fixture
def ground() -> Iterator[Ground]:
    made = Ground()
    yield made
    made.conn.close()


def task(n: int) -> str:
    return uuid8(n.to_bytes(16, "big"))


# --- no task is forgotten -----------------------------------------------------------------------------------------


def test_news_from_elsewhere_does_not_put_off_the_look_at_work_whose_process_is_gone(ground: Ground) -> None:
    one = task(1)
    ground.tell(0, "work-1", {"type": "started", "task": one, "deadline": "never", "queue": "mail"})
    ground.gone(10, "work-1")
    ground.tell(10, "web-1", {"type": "scheduled", "task": one, "queue": "mail"})
    ground.judge(11)
    assert ground.verdict(one) == "lost"


def test_news_from_elsewhere_does_not_end_the_wait_for_a_journal(ground: Ground) -> None:
    one = task(1)
    ground.tell(0, "work-1", {"type": "started", "task": one, "deadline": "never", "queue": "mail"})
    ground.gone(10, "work-1", backlog=3)
    ground.judge(11)
    assert ground.verdict(one) is None
    ground.tell(12, "web-1", {"type": "scheduled", "task": one, "queue": "mail"})
    ground.judge(10 + 11 * MINUTE)
    assert ground.verdict(one) == "lost"
    reason = judgements_of(ground.conn, blob(one))[0].reason
    assert "it may have ended: 3 records of this instance are missing" in reason


def beat(ground: Ground, at: float, who: str, backlog: int) -> None:
    touch_instance(ground.conn, who, ACTOR, START + int(at * NS), backlog=backlog)


def test_a_live_instance_that_stays_behind_for_ten_minutes_is_judged_all_the_same(ground: Ground) -> None:
    one = task(1)
    ground.tell(0, "web-1", {"type": "started", "task": one, "deadline": 30}, backlog=1)
    for at in range(10, 10 * MINUTE, 10):
        beat(ground, at, "web-1", 1)
        ground.judge(at + 1)
        assert ground.verdict(one) is None, at
    for at in range(10 * MINUTE, 12 * MINUTE, 10):
        beat(ground, at, "web-1", 1)
        ground.judge(at + 1)
    assert ground.verdict(one) == "stuck"
    assert "1 record of this instance is missing" in judgements_of(ground.conn, blob(one))[0].reason


def test_who_gets_on_with_its_backlog_is_waited_for_up_to_an_hour(ground: Ground) -> None:
    one = task(1)
    ground.tell(0, "web-1", {"type": "started", "task": one, "deadline": 30}, backlog=100_000)
    for at in range(10, 60 * MINUTE, 10):
        beat(ground, at, "web-1", 100_000 - at)
        ground.judge(at + 1)
        assert ground.verdict(one) is None, at
    for at in range(60 * MINUTE, 62 * MINUTE, 10):
        beat(ground, at, "web-1", 1_000)
        ground.judge(at + 1)
    assert ground.verdict(one) == "stuck"


def test_after_a_time_out_of_reach_the_time_for_sending_begins_anew(ground: Ground) -> None:
    one = task(1)
    ground.tell(0, "web-1", {"type": "started", "task": one, "deadline": 30}, backlog=1)
    beat(ground, 30 * MINUTE, "web-1", 5_000)
    ground.judge(30 * MINUTE + 1)
    assert ground.verdict(one) is None


def test_a_queue_waits_for_who_is_behind_and_not_for_ever(ground: Ground) -> None:
    one = task(1)
    ground.tell(0, "web-1", {"type": "scheduled", "task": one, "queue": "mail", "start_within": 30})
    for at in range(0, 12 * MINUTE, 10):
        beat(ground, at, "web-1", 0)
        beat_or_begin(ground, at)
        ground.judge(at + 1)
        assert ground.verdict(one) is None or at >= 10 * MINUTE, at
    assert ground.verdict(one) == "never_started"


def beat_or_begin(ground: Ground, at: float) -> None:
    """A worker that is always behind by two records."""
    if at == 0:
        ground.tell(0, "work-1", backlog=2)
    beat(ground, at, "work-1", 2)


# --- ids, clocks and bodies ---------------------------------------------------------------------------------------


def test_a_used_id_does_not_hide_the_next_nights_run(ground: Ground) -> None:
    night = {"task": "backup-7", "name": "backup"}
    ground.tell(0, None, {**night, "type": "started"})
    ground.tell(60, None, {**night, "type": "finished"})
    refused = ground.tell(86_400, None, {**night, "type": "started"})
    ended = format_time(START + 60 * NS)[:16]
    assert [problem.detail for problem in refused.rejected] == [f"backup-7 ended {ended}; use a fresh id per run"]
    assert ground.tell(86_400, None, {**night, "type": "started", "attempt": 2}).accepted == 1
    again = ground.tell(86_400, None, {**night, "type": "started", "at": format_time(START)})
    assert (again.duplicates, again.rejected) == (1, ())


def test_a_clock_that_is_off_is_corrected_without_an_instance_too(ground: Ground) -> None:
    sent = START - 3600 * NS
    started = {"type": "started", "task": task(1), "at": format_time(sent - NS)}
    ground.tell(0, None, started, sent_at=format_time(sent))
    assert ground.row(task(1))["began_at"] == START - NS


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_what_is_shown_of_an_end_that_was_told_twice_does_not_depend_on_the_order(ground: Ground, order: tuple[int, int]) -> None:
    told = (
        {"type": "failed", "task": task(1), "at": format_time(START), "error": {"type": "ValueError", "message": "first"}},
        {"type": "failed", "task": task(1), "at": format_time(START + NS)},
    )
    for n in order:
        ground.tell(10, "web-1", told[n])
    cells = cells_of(ground.conn, ground.row(task(1)), InstanceIds(ground.conn), full=True)
    assert "error" not in cells[1, "web-1"]["failed"].body


def test_what_a_task_gave_back_is_shown_as_it_was(ground: Ground) -> None:
    result = [{"at": 5, "to": 7, "closed_at": 9}]
    shown = encode(TaskResource(id="i", name="n", service="s", environment="e", state="succeeded", began_at=START, result=result))
    assert canonical(shown["result"]) == canonical(result)
    assert shown["began_at"] == format_time(START)


# --- replays ------------------------------------------------------------------------------------------------------


def lost_and_ordered(ground: Ground) -> tuple[str, str]:
    """A lost task, and the order for it that web-2 took."""
    one = task(1)
    ground.tell(0, "web-1", {"type": "started", "task": one})
    ground.tell(0, "web-2")
    ground.gone(5, "web-1")
    ground.judge(6)
    return one, ground.order(7, one, "web-2")


def test_a_replay_whose_process_dies_is_in_the_gap_and_no_second_loose_end(ground: Ground) -> None:
    one, new = lost_and_ordered(ground)
    ground.tell(8, "web-2", {"type": "started", "task": new})
    ground.gone(9, "web-2")
    assert ground.judge(10) == []
    assert (ground.verdict(new), ground.row(new)["loose"], ground.row(one)["loose"]) == ("lost", 0, 1)
    found = source_now(ground.conn, blob(one))
    assert found is not None
    assert [(sibling.state, sibling.verdict) for sibling in found.recorded.siblings] == [("gap", "lost")]


def test_a_replay_of_a_replay_settles_every_loose_end_that_it_runs_again(ground: Ground) -> None:
    one, two = lost_and_ordered(ground)
    ground.tell(8, "web-2", {"type": "started", "task": two}, {"type": "finished", "task": two})
    ground.judge(9)
    three = ground.order(10, one, "web-2")
    ground.tell(11, "web-2", {"type": "started", "task": three}, {"type": "failed", "task": three})
    assert ground.judge(12) == [("opened", three)]
    four = ground.order(13, three, "web-2")
    ground.tell(14, "web-2", {"type": "started", "task": four}, {"type": "failed", "task": four})
    ground.judge(15)
    five = ground.order(16, four, "web-2")
    ground.tell(17, "web-2", {"type": "started", "task": five}, {"type": "finished", "task": five})
    assert ("settled", three) in ground.judge(18)
    for settled in (three, four):
        assert word(SETTLEMENTS, ground.row(settled)["settled"]) == "replayed"
    assert not ground.conn.execute("SELECT 1 FROM task WHERE loose = 1").fetchall()


def test_work_that_nobody_judged_and_that_ran_beside_its_replay_says_so(ground: Ground) -> None:
    one = task(1)
    ground.tell(0, "web-1", {"type": "scheduled", "task": one, "queue": "mail"})
    new = ground.order(1, one, "web-1")
    ground.tell(2, "web-1", {"type": "started", "task": new})
    ground.judge(3)
    ground.tell(4, "web-1", {"type": "started", "task": one}, {"type": "finished", "task": one})
    ground.judge(5)
    ground.tell(6, "web-1", {"type": "finished", "task": new})
    ground.judge(7)
    assert "ran_twice" in ground.flags(one)
    assert "ran_twice" in ground.flags(new)


def test_a_mark_made_in_a_pass_survives_the_judging_of_the_marked_task_in_the_same_pass(ground: Ground) -> None:
    one, new = lost_and_ordered(ground)
    ground.tell(8, "web-1", {"type": "finished", "task": one, "at": format_time(START + 9 * NS)})
    ground.tell(9, "web-2", {"type": "started", "task": new, "at": format_time(START + 8 * NS)})
    ground.conn.execute("UPDATE task SET check_at = ?", (START + 9 * NS,))
    ground.judge(10)
    assert "ran_twice" in ground.flags(new)
    assert ground.said(one)[-1] == ("settled", "finished_late")


def test_a_list_of_tasks_shows_what_runs_what_again(ground: Ground) -> None:
    one, new = lost_and_ordered(ground)
    ground.tell(8, "web-2", {"type": "started", "task": new})
    rows = ground.conn.execute("SELECT * FROM task ORDER BY id").fetchall()
    found = ask(ground.conn, neighbours(rows))
    listed = {task.id: task for task in (resource(row, found) for row in rows)}
    assert (listed[one].replay_of, listed[one].replays) == (None, [new])
    assert (listed[new].replay_of, listed[new].replays) == (one, [])
