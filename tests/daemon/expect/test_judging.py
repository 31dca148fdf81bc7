"""When an expectation is missed, when not yet, and what takes it back; on the real store."""

from __future__ import annotations

from typing import Any

import pytest
from ground import T0, Ground, S, expected, finished, started, uid

from looseends_daemon.core.policy import AfterRule
from looseends_daemon.core.resources import Actor
from looseends_daemon.store import retention
from looseends_daemon.store.codes import blob
from looseends_daemon.store.expectations import sweep
from looseends_daemon.store.facts import recorded_body

BY_PARENT = AfterRule(environment="production", after="order.create", name="mail.send_receipt", by="parent", within=60)
BY_KEY = AfterRule(environment="production", after="order.create", name="mail.send_receipt", by="key", within=60)
BY_TRACE = AfterRule(environment="production", after="order.create", name="mail.send_receipt", by="trace", within=60)


def test_what_never_began_is_missed_and_says_since_when() -> None:
    ground = Ground()
    ground.tell(0, expected("e", args={"order_id": 7}))
    assert ground.next() == 0
    ground.judge(1)
    assert ground.next() == 60 and ground.verdict("e") is None and ground.ledger() == {}
    ground.judge(61)
    assert ground.verdict("e") == "missed" and ground.ledger() == {"gap": 1}
    assert ground.why("e") == "expected at 14:00 within 1 min, never seen"
    assert [change.what for change in ground.changes] == ["opened"]
    body = recorded_body(ground.conn, blob(uid("e")))
    assert body is not None and (body["args"], body["name"], body["service"]) == (
        {"order_id": 7},
        "mail.send_receipt",
        "shop-web",
    )


def test_nothing_is_missed_before_the_daemon_was_up_for_its_grace() -> None:
    ground = Ground()
    ground.tell(0, expected("e"))
    ground.judge(61, ready=65)
    assert ground.verdict("e") is None and ground.next() == 65
    ground.judge(66, ready=65)
    assert ground.verdict("e") == "missed"


def test_nothing_is_missed_while_a_live_instance_has_not_told_all_it_knows() -> None:
    ground = Ground()
    ground.tell(0, expected("e"))
    ground.tell(1, who="worker-1")
    ground.conn.execute("UPDATE instance SET backlog = 3 WHERE id = 'worker-1'")
    ground.judge(61)
    assert ground.verdict("e") is None
    ground.conn.execute("UPDATE instance SET backlog = 0")
    ground.judge(63)
    assert ground.verdict("e") == "missed"


def test_what_fell_into_a_time_in_which_the_daemon_was_down_is_judged_within_after_its_return() -> None:
    ground = Ground()
    ground.tell(0, expected("e", within=60))
    ground.conn.execute(
        "INSERT INTO blind_window (cause, from_at, to_at, sure_at) VALUES ('down', ?, ?, 0)", (T0 + 30 * S, T0 + 600 * S)
    )
    ground.judge(606, heard_since=600, ready=605)
    assert ground.verdict("e") is None and ground.next() == 660
    ground.judge(661, heard_since=600, ready=605)
    assert ground.verdict("e") == "missed"


def test_what_was_over_before_the_daemon_went_down_is_judged_at_once() -> None:
    ground = Ground()
    ground.tell(0, expected("e", within=10))
    ground.conn.execute(
        "INSERT INTO blind_window (cause, from_at, to_at, sure_at) VALUES ('down', ?, ?, 0)", (T0 + 30 * S, T0 + 600 * S)
    )
    ground.judge(606, heard_since=600, ready=605)
    assert ground.verdict("e") == "missed"


def test_a_minute_that_the_clock_was_set_past_is_not_missed() -> None:
    ground = Ground()
    ground.state("e", 100, cron="* * * * *")
    ground.conn.execute(
        "INSERT INTO blind_window (cause, from_at, to_at, sure_at) VALUES ('clock', ?, ?, 0)", (T0 + 50 * S, T0 + 3650 * S)
    )
    ground.judge(4000)
    assert ground.verdict("e") is None


def test_a_late_success_settles_and_both_stay() -> None:
    ground = Ground()
    ground.tell(0, expected("e"))
    ground.judge(61)
    ground.tell(90, started("t"))
    ground.judge(91)
    assert ground.said("e") == ["verdict missed"]
    ground.tell(95, finished("t"))
    ground.judge(96)
    assert ground.said("e") == ["verdict missed", "settled finished_late"] and ground.verdict("e") == "missed"
    assert ground.ledger() == {"succeeded": 1, "gap": 1}
    assert "it began late, at 14:01:30, and ended well" in ground.why("e")


def test_a_late_failure_settles_nothing() -> None:
    ground = Ground()
    ground.tell(0, expected("e"))
    ground.tell(90, started("t"), {"type": "failed", "task": "t", "error": {"type": "E"}})
    ground.judge(91)
    assert ground.said("e") == ["verdict missed"] and ground.why("e").endswith("it began too late, at 14:01:30")


def test_word_of_a_start_in_time_takes_the_verdict_back_and_its_loss_gives_it_again() -> None:
    ground = Ground()
    ground.tell(0, expected("e", key="order-7"))
    ground.judge(61)
    ground.tell(300, {"type": "finished", "task": "t", "at": 31, "duration": 1.0, "name": "mail.send_receipt"})
    ground.judge(301)
    assert ground.verdict("e") == "missed", "its end alone does not say for which order it was"
    ground.tell(302, started("t", at=30, key="order-7"))
    ground.judge(303)
    assert ground.verdict("e") is None and ground.ledger() == {"succeeded": 1}
    assert [change.what for change in ground.changes] == ["opened", "withdrawn"]
    ground.tell(304, {"type": "scheduled", "task": "t", "at": -90, "name": "mail.send_receipt", "key": "order-7"})
    ground.judge(305)
    assert ground.verdict("e") == "missed", "it was begun long before"
    assert ground.said("e") == ["verdict missed", "withdrawn missed", "verdict missed"]


@pytest.mark.parametrize("rule", [BY_PARENT, BY_KEY, BY_TRACE], ids=lambda rule: rule.by)
def test_after_each_start_of_one_task_another_must_begin(rule: AfterRule) -> None:
    ground = Ground(rule)
    order: dict[str, Any] = {"key": "order-7", "trace_id": "abc"}
    receipt: dict[str, Any] = {"key": order["key"]} if rule.by == "key" else {"trace_id": "abc"} if rule.by == "trace" else {}
    ground.tell(0, started("o1", "order.create", **order), finished("o1", at=1))
    ground.tell(5, started("o2", "order.create", key="order-8", trace_id="def"), finished("o2", at=6))
    ground.tell(7, started("t", parent="o1", **receipt), finished("t", at=8))
    ground.judge(64)
    ground.judge(66)
    assert ground.ledger() == {"succeeded": 3, "gap": 1}
    (change,) = ground.changes
    assert change.reason == "expected at 14:00:05, after order.create, within 1 min, never seen"
    assert (change.service, change.name) == ("shop-web", "mail.send_receipt")


def test_what_only_waits_lets_nothing_be_expected() -> None:
    ground = Ground(BY_PARENT)
    ground.tell(0, {"type": "scheduled", "task": "o", "name": "order.create", "queue": "q"})
    ground.judge(3600)
    assert ground.ledger() == {"in_time": 1}


def test_a_task_that_turns_out_to_have_another_name_lets_nothing_be_expected() -> None:
    ground = Ground(BY_PARENT)
    ground.tell(10, started("o", "order.create"), who="worker-1")
    ground.judge(71)
    assert ground.ledger() == {"in_time": 1, "gap": 1}
    ground.tell(72, started("o", "order.import", at=5), who="web-1")
    ground.judge(73)
    assert ground.ledger() == {"in_time": 1} and [change.what for change in ground.changes][-1] == "withdrawn"


def test_tasks_that_were_there_before_anybody_expected_them_count() -> None:
    ground = Ground()
    ground.tell(0, started("t"), finished("t", at=1))
    ground.tell(30, expected("e", at=2))
    ground.judge(63)
    assert ground.ledger() == {"succeeded": 1}


def test_an_id_is_that_of_a_task_or_of_an_expectation() -> None:
    ground = Ground()
    ground.tell(0, expected("e"), started("t"))
    refused = ground.tell(1, started("e"), expected("t")).rejected
    assert [problem.pointer for problem in refused] == ["/task", "/task"]
    assert "needs an id of its own" in refused[0].detail and "needs an id of its own" in refused[1].detail
    ground.judge(61)
    assert ground.tell(62, started("e")).rejected[0].detail == refused[0].detail


def test_nobody_changes_what_another_service_expects() -> None:
    ground = Ground()
    ground.tell(0, expected("e", within=60))
    other = Actor(name="other", role="ingest", channel="token:2", service="other")
    refused = ground.tell(1, {**expected("e", within=6000), "service": "other"}, who=None, actor=other).rejected
    assert refused[0].detail == "this expectation was told by another service or another way in"
    ground.judge(61)
    assert ground.verdict("e") == "missed"


def test_the_same_expectation_twice_is_a_duplicate() -> None:
    ground = Ground()
    assert (ground.tell(0, expected("e")).accepted, ground.tell(1, expected("e", at=0)).duplicates) == (1, 1)


def test_replays_meet_nothing() -> None:
    ground = Ground()
    ground.tell(0, expected("e"))
    columns = "id, replay, task, root, depth, name, environment, service, args, state, fence, created_at, expires_at"
    values = (blob(uid("r")), 1, b"x", b"x", 1, "mail.send_receipt", "production", "shop-web", "{}", "claimed", 1, 0, 0)
    ground.conn.execute(f"INSERT INTO replay_order ({columns}) VALUES ({', '.join('?' * len(values))})", values)
    ground.tell(1, started("r"), finished("r", at=2))
    ground.judge(61)
    assert ground.verdict("e") == "missed"


def test_what_nobody_may_tell_of_any_more_is_forgotten_and_a_missed_one_stays() -> None:
    ground = Ground()
    ground.tell(0, expected("met"), started("t"), finished("t"), expected("missed", key="order-8"))
    ground.judge(61)
    assert sweep(ground.conn, T0 + 50 * S, 100) == 0, "they are not old yet, nor is what met them"
    while sweep(ground.conn, T0 + 500 * S, 1):
        pass
    tables = ("expectation", "expected_name", "seen", "seen_mark")
    assert [ground.conn.execute(f"SELECT count(*) FROM {table}").fetchone()[0] for table in tables] == [0, 0, 0, 0]
    ground.judge(600)
    ground.tell(601, started("u"), expected("e"))
    ground.judge(602)
    assert ground.verdict("missed") == "missed" and ground.verdict("e") is None, "a name may be expected again"
    ground.tell(603, finished("u"))
    ground.judge(604)
    assert ground.ledger() == {"succeeded": 2, "gap": 1}


def test_a_recount_misses_nothing_of_what_was_missed_and_then_met() -> None:
    ground = Ground()
    ground.tell(0, expected("e", within=200))
    ground.judge(201)
    assert ground.ledger() == {"gap": 1} and retention.recount(ground.conn) == []
    ground.tell(300, started("t", at=120))  # told late of what began in time, in a minute of its own
    ground.judge(301)
    assert ground.verdict("e") is None
    assert retention.recount(ground.conn) == []
