"""What is removed by age, what never is, what goes along, and that the ledger adds up at every step."""

from __future__ import annotations

import sqlite3
import time
from typing import TYPE_CHECKING

import pytest

from looseends_daemon.core.retention import DAY_NS
from looseends_daemon.store import retention
from looseends_daemon.store.codes import blob
from looseends_daemon.store.schema import migrate

if TYPE_CHECKING:
    from conftest import Yard


async def test_a_finished_task_goes_seven_days_after_its_end_and_not_before(yard: Yard) -> None:
    long_ago = await yard.started()
    quick = await yard.done()
    yard.later(6)
    await yard.ended(long_ago)
    yard.later(0.99)
    await yard.sweep()
    assert await yard.there(long_ago, quick) == [True, True]
    yard.later(0.02)
    await yard.sweep()
    assert await yard.there(long_ago, quick) == [True, False]
    yard.later(6)
    await yard.sweep()
    assert await yard.there(long_ago, quick) == [False, False]
    assert await yard.count("ledger") == 0


async def test_everything_of_a_task_goes_with_it_and_nothing_of_others(yard: Yard) -> None:
    parent = await yard.done(key="order-1")
    child = await yard.done(parent=parent)
    yard.later(3)
    young = await yard.done(parent=parent)
    await yard.tell(None, {"type": "started", "task": "backup-7", "service": "cron", "name": "backup", "at": yard.now})
    yard.later(4.5)
    await yard.sweep()
    assert await yard.there(parent, child, young) == [False, False, True]
    assert [bytes(row[0]) for row in await yard.rows("SELECT DISTINCT task FROM payload")] == [blob(young)]
    assert await yard.count("child") == 0
    assert await yard.count("external") == 1


async def test_a_removed_child_is_no_longer_counted_on_a_parent_that_stays(yard: Yard) -> None:
    parent = await yard.started(deadline="never")
    await yard.done(parent=parent)
    yard.later(8)
    await yard.sweep()
    assert await yard.there(parent) == [True]
    assert await yard.count("child") == 0


async def test_open_tasks_and_open_loose_ends_are_never_removed(yard: Yard) -> None:
    open_ = await yard.started(deadline="never")
    stuck = await yard.started()
    failed = await yard.done("failed")
    yard.later(1)
    await yard.detect()
    assert [row[0] for row in await yard.rows("SELECT loose FROM task WHERE id IN (?, ?)", blob(stuck), blob(failed))] == [1, 1]
    yard.later(4_000)
    await yard.sweep()
    assert await yard.there(open_, stuck, failed) == [True, True, True]


async def test_what_failed_goes_ninety_days_after_its_end(yard: Yard) -> None:
    handled = await yard.started(declared=False)
    await yard.ended(handled, "failed", handled=True)
    await yard.detect()
    yard.later(89)
    await yard.sweep()
    assert await yard.there(handled) == [True]
    yard.later(1.1)
    await yard.sweep()
    assert await yard.there(handled) == [False]


async def test_a_once_loose_end_goes_ninety_days_after_the_last_word_about_it(yard: Yard) -> None:
    late = await yard.started()
    yard.later(1)
    await yard.detect()
    yard.later(19)
    await yard.ended(late)
    await yard.detect()
    assert (await yard.rows("SELECT settled FROM task"))[0][0] is not None
    assert await yard.count("judgement") >= 2
    yard.later(89)
    await yard.sweep()
    assert await yard.there(late) == [True]
    yard.later(1.1)
    await yard.sweep()
    assert await yard.there(late) == [False]
    assert await yard.count("judgement") == 0


async def test_the_incident_goes_with_its_last_task_and_takes_its_notices_along(yard: Yard) -> None:
    late = await yard.started()
    yard.later(1)
    await yard.detect()
    [incident] = await yard.rows("SELECT no FROM incident")
    body = (incident["no"], yard.now)
    await yard.rows(
        "INSERT INTO notice (id, incident, endpoint, sequence, type, reason, state, created_at, body)"
        " VALUES ('msg_1', ?, 'ops', 1, 't', 'r', 'delivered', ?, x'00')", *body)  # fmt: skip
    await yard.rows("INSERT INTO delivery_attempt VALUES (1, 1, 0, 200, 0.1, '')")
    await yard.ended(late)
    yard.later(0.1)
    await yard.detect()
    yard.later(0.1)
    await yard.detect()
    assert (await yard.rows("SELECT state FROM incident"))[0]["state"] == "resolved"
    yard.later(89)
    await yard.sweep()
    assert await yard.count("incident") == 1
    yard.later(2)
    await yard.sweep()
    await yard.sweep()
    tables = ("task", "incident", "incident_why", "notice", "delivery_attempt")
    assert {table: await yard.count(table) for table in tables} == dict.fromkeys(tables, 0)


async def test_an_incident_with_a_notice_still_under_way_stays(yard: Yard) -> None:
    await yard.rows(
        "INSERT INTO incident (id, state, environment, service, problem, severity, title, reason, detail, opened_at, resolved_at)"
        " VALUES ('inc_1', 'resolved', 'production', 'shop', 'lost', 'critical', 't', 'r', 'd', 1, 2)")  # fmt: skip
    await yard.rows(
        "INSERT INTO notice (id, incident, endpoint, sequence, type, reason, state, created_at, body)"
        " VALUES ('msg_1', 1, 'ops', 1, 't', 'r', 'pending', 1, x'00')")  # fmt: skip
    await yard.sweep()
    assert await yard.count("incident") == 1
    await yard.rows("UPDATE notice SET state = 'exhausted'")
    await yard.sweep()
    assert await yard.count("incident") == 0


async def order(yard: Yard, root: str, state: str = "claimed") -> str:
    """An order for a task; the id of the new task."""
    new = yard.new_id()
    await yard.rows(
        "INSERT INTO replay (id, state, requested_by, requested_at) VALUES (?, 'done', 'ada', ?)", f"rpl_{new}", yard.now
    )
    await yard.rows(
        "INSERT INTO replay_order (id, replay, task, root, depth, name, environment, service, args, state, met, created_at,"
        " expires_at) VALUES (?, (SELECT max(no) FROM replay), ?, ?, 1, 'mail.send', 'production', 'shop', '{}', ?, 0, ?, ?)",
        blob(new), blob(root), blob(root), state, yard.now, yard.now)  # fmt: skip
    return new


async def test_a_task_and_its_replays_go_together_when_the_last_of_them_may(yard: Yard) -> None:
    lost = await yard.started()
    yard.later(1)
    await yard.detect()
    taker = await yard.instance()
    again = await order(yard, lost)
    await yard.rows("UPDATE replay_order SET fence = 1, instance = (SELECT no FROM instance)")
    await yard.tell(taker, {"type": "started", "task": again, "name": "mail.send", "at": yard.now})
    await yard.ended(again, instance=taker)
    await yard.detect()
    yard.later(60)
    await yard.sweep()
    assert await yard.there(lost, again) == [True, True], "the replay alone is over for long, and its root is not"
    yard.later(31)
    await yard.sweep()
    assert await yard.there(lost, again) == [False, False]
    assert (await yard.count("replay_order"), await yard.count("replay")) == (0, 0)


@pytest.mark.parametrize("state", ["waiting", "claimed", "handed_over", "outcome_unknown"])
async def test_a_task_with_an_order_nobody_has_decided_stays(yard: Yard, state: str) -> None:
    task = await yard.done()
    await order(yard, task, state)
    yard.later(30)
    await yard.sweep()
    assert await yard.there(task) == [True]
    await yard.rows("UPDATE replay_order SET state = 'did_not_run'")
    await yard.sweep()
    assert await yard.there(task) == [False]


async def test_a_gone_instance_goes_when_no_task_speaks_of_it_any_more(yard: Yard) -> None:
    quiet, spoken, living = await yard.instance(), await yard.instance(), await yard.instance()
    await yard.rows("INSERT INTO function (instance, name, replay) SELECT no, 'f', 'yes' FROM instance")
    kept = await yard.started(spoken, deadline="never", attempt=1)
    # The head of the task is in another process now; the first attempt still speaks of `spoken`.
    await yard.tell(
        living, {"type": "started", "task": kept, "name": "mail.send", "attempt": 2, "at": yard.now, "deadline": "never"}
    )
    await yard.gone(quiet)
    await yard.gone(spoken)
    yard.later(40)
    await yard.sweep()
    left = {row["id"] for row in await yard.rows("SELECT id FROM instance")}
    assert left == {spoken["id"], living["id"]}
    assert await yard.count("function") == 2
    await yard.ended(kept, instance=living, attempt=2)
    yard.later(8)
    await yard.sweep()
    await yard.sweep()
    assert {row["id"] for row in await yard.rows("SELECT id FROM instance")} == {living["id"]}


async def test_an_instance_whose_records_are_still_missing_stays(yard: Yard) -> None:
    one = await yard.instance()
    await yard.rows("UPDATE instance SET backlog = 3")
    await yard.gone(one, adopted=False)
    yard.later(40)
    await yard.sweep()
    assert await yard.count("instance") == 1


async def test_sessions_links_and_old_answers_go_and_audit_stays(yard: Yard) -> None:
    await yard.rows("INSERT INTO session VALUES (x'01', 't', 1, ?)", yard.now - 1)
    await yard.rows("INSERT INTO session VALUES (x'02', 't', 1, ?)", yard.now + 1)
    await yard.rows("INSERT INTO signin_link VALUES (x'01', 't', ?)", yard.now)
    await yard.rows("INSERT INTO idempotency (door, key, body_hash, at) VALUES ('d', 'k', x'00', ?)", yard.now - 2 * DAY_NS)
    await yard.rows("INSERT INTO audit (at, actor, act, subject) VALUES (1, 'ada', 'purge', 'x')")
    await yard.sweep()
    counts = {table: await yard.count(table) for table in ("session", "signin_link", "idempotency", "audit")}
    assert counts == {"session": 1, "signin_link": 0, "idempotency": 0, "audit": 1}


async def test_a_step_is_bounded_and_the_walk_goes_on_where_it_stopped(yard: Yard, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retention, "STEP_TASKS_MAX", 10)
    tasks = [await yard.done() for _ in range(35)]
    yard.later(8)
    seen = []
    while True:
        due = await yard.janitor.run_once(yard.now)
        await yard.audit()
        seen.append(await yard.count("task"))
        if due is None:
            break
    assert seen[:4] == [25, 15, 5, 0]
    assert not any(await yard.there(*tasks))


async def test_a_task_that_is_heard_of_between_look_and_removal_is_judged_again(yard: Yard) -> None:
    task = await yard.done()
    yard.later(8)
    await yard.rows("UPDATE task SET loose = 1")
    removed = await yard.database.write(lambda conn: retention.remove(conn, [blob(task)], yard.rules, yard.now))
    assert removed.tasks == 0
    await yard.rows("UPDATE task SET loose = 0")
    removed = await yard.database.write(lambda conn: retention.remove(conn, [blob(task)], yard.rules, yard.now))
    assert removed.tasks == 1


async def test_a_ledger_that_is_off_by_one_is_noticed(yard: Yard) -> None:
    """The planted fault: what `audit` would miss, nobody would see."""
    await yard.done()
    await yard.rows("UPDATE ledger SET succeeded = succeeded + 1")
    with pytest.raises(AssertionError):
        await yard.audit()


async def test_every_table_has_somebody_who_takes_its_rows_out() -> None:
    conn = sqlite3.connect(":memory:", isolation_level=None)
    migrate(conn)
    tables = {row[0] for row in conn.execute("SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite_%'")}
    conn.close()
    assert tables == set(retention.OWNERS), "name who cleans a new table in store/retention.OWNERS, and see that it does"


async def test_a_walk_is_answered_by_the_index(yard: Yard) -> None:
    sql = f"EXPLAIN QUERY PLAN {retention._STEP}"
    plan = " ".join(row["detail"] for row in await yard.rows(sql, 1, b"", 2, 500))
    assert "task_newest" in plan and "TEMP B-TREE" not in plan, plan


async def test_removing_thousands_of_tasks_keeps_each_commit_short(yard: Yard) -> None:
    """Not a time limit but a count: no commit of the janitor holds more than one step."""
    for _ in range(20):
        events = []
        for _ in range(200):
            task = yard.new_id()
            events.append({"type": "started", "task": task, "name": "n", "service": "shop", "at": yard.now, "args": {"a": 1}})
            events.append({"type": "finished", "task": task, "at": yard.now})
        await yard.tell(None, *events)
    yard.later(8)
    worst, before = 0, await yard.count("task")
    began = time.perf_counter()
    while await yard.janitor.run_once(yard.now) is not None:
        left = await yard.count("task")
        worst, before = max(worst, before - left), left
    print(f"4,000 tasks in {time.perf_counter() - began:.2f} s, at most {worst} a commit")
    assert before == 0 and worst <= retention.STEP_TASKS_MAX
