"""Folding into the database: who may join which task, what is refused alone, and what the detector is asked to look at."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from typing import Any

import pytest

from looseends.wire import NS, check_batch, format_time
from looseends_daemon.core.policy import Policy
from looseends_daemon.core.resources import STATES, Actor
from looseends_daemon.store.codes import blob
from looseends_daemon.store.facts import Applied, OwnershipRefused, apply_batch, end_instance, recorded_body, touch_instance
from looseends_daemon.store.schema import migrate

NOW = 1_795_183_200 * NS
TASK = "00000000-0000-8000-8000-000000000001"
LOOPBACK = Actor(name="loopback", role="ingest", channel="loopback")
SOCKET = Actor(name="uid 0", role="ingest", channel="uds:0", uid=0)
SHOP = Actor(name="shop", role="ingest", channel="token:a", service="shop", token="a")
BANK = Actor(name="bank", role="ingest", channel="token:b", service="bank", token="b")
POLICY = Policy()


@pytest.fixture
def conn() -> Iterator[sqlite3.Connection]:
    made = sqlite3.connect(":memory:", isolation_level=None)
    made.row_factory = sqlite3.Row
    migrate(made)
    yield made
    made.close()


def send(
    conn: sqlite3.Connection, actor: Actor, *events: dict[str, Any], who: str | None = None, service: str = "shop"
) -> Applied:
    envelope: dict[str, Any] = {"events": [{"task": TASK, "name": "n", **event} for event in events]}
    if who is not None:
        envelope["instance"] = {"id": who, "service": service}
    else:
        envelope["events"] = [{"service": service, **event} for event in envelope["events"]]
    batch = check_batch(envelope, NOW)
    assert not batch.rejected, batch.rejected
    return apply_batch(conn, batch, actor=actor, now=NOW, policy=POLICY)


def task(conn: sqlite3.Connection) -> sqlite3.Row:
    row: sqlite3.Row = conn.execute("SELECT * FROM task WHERE id = ?", (blob(TASK),)).fetchone()
    return row


def test_a_shell_user_begins_and_ends_a_task_without_any_instance(conn: sqlite3.Connection) -> None:
    send(conn, LOOPBACK, {"type": "started"})
    assert send(conn, LOOPBACK, {"type": "finished"}).accepted == 1
    assert STATES[task(conn)["state"]] == "succeeded"


def test_another_way_in_may_not_end_a_shell_users_task(conn: sqlite3.Connection) -> None:
    send(conn, LOOPBACK, {"type": "started"})
    applied = send(conn, SHOP, {"type": "finished"})
    assert [problem.pointer for problem in applied.rejected] == ["/task"]
    assert STATES[task(conn)["state"]] == "running"


def test_a_token_speaks_for_its_own_service_only(conn: sqlite3.Connection) -> None:
    with pytest.raises(OwnershipRefused):
        send(conn, BANK, {"type": "started"}, who="i1", service="shop")


def test_a_token_may_not_end_another_services_task(conn: sqlite3.Connection) -> None:
    send(conn, SHOP, {"type": "started"}, who="i1")
    assert send(conn, BANK, {"type": "finished"}, who="i2", service="bank").rejected
    assert STATES[task(conn)["state"]] == "running"


def test_a_queue_lets_another_service_take_over(conn: sqlite3.Connection) -> None:
    send(conn, SHOP, {"type": "scheduled", "queue": "mail"}, who="i1")
    applied = send(conn, BANK, {"type": "started"}, {"type": "finished"}, who="i2", service="bank")
    assert applied.accepted == 2
    row = task(conn)
    assert STATES[row["state"]] == "succeeded"
    assert conn.execute("SELECT service FROM type WHERE id = ?", (row["type"],)).fetchone()[0] == "bank"


def test_an_instance_belongs_to_who_first_spoke_for_it(conn: sqlite3.Connection) -> None:
    send(conn, SHOP, {"type": "started"}, who="i1")
    for stranger in (LOOPBACK, SOCKET, Actor(name="x", role="ingest", channel="token:c", service="shop", token="c")):
        with pytest.raises(OwnershipRefused):
            send(conn, stranger, {"type": "finished"}, who="i1")
        with pytest.raises(OwnershipRefused):
            touch_instance(conn, "i1", stranger, NOW, open=0)
    assert touch_instance(conn, "nobody", SHOP, NOW) is None


def test_a_service_that_finds_the_socket_later_goes_on_there_and_nobody_else_does(conn: sqlite3.Connection) -> None:
    send(conn, LOOPBACK, {"type": "started"}, who="i1")
    with pytest.raises(OwnershipRefused):
        send(conn, BANK, {"type": "finished"}, who="i1")
    assert send(conn, SOCKET, {"type": "finished"}, who="i1").accepted == 1
    assert STATES[task(conn)["state"]] == "succeeded"
    with pytest.raises(OwnershipRefused):
        send(conn, LOOPBACK, {"type": "failed"}, who="i1")


def test_a_task_may_not_bear_the_id_of_an_expectation(conn: sqlite3.Connection) -> None:
    applied = send(conn, LOOPBACK, {"type": "expected", "within": 60}, {"type": "started"})
    assert applied.accepted == 1
    assert "needs an id of its own" in applied.rejected[0].detail


def test_sending_twice_is_harmless_and_counted(conn: sqlite3.Connection) -> None:
    events = ({"type": "started", "args": {"a": 1}, "at": format_time(NOW)}, {"type": "finished", "at": format_time(NOW)})
    assert send(conn, SOCKET, *events, who="i1").accepted == 2
    again = send(conn, SOCKET, *events, who="i1")
    assert (again.accepted, again.duplicates) == (0, 2)
    assert conn.execute("SELECT sum(succeeded) FROM ledger").fetchone()[0] == 1


def test_the_detector_is_asked_at_the_deadline_and_never_about_what_ended(conn: sqlite3.Connection) -> None:
    send(conn, SOCKET, {"type": "started", "deadline": 30, "at": format_time(NOW)}, who="i1")
    assert task(conn)["check_at"] == NOW + 30 * NS
    send(conn, SOCKET, {"type": "finished"}, who="i1")
    assert task(conn)["check_at"] is None


def test_news_of_an_instance_puts_its_open_tasks_on_the_agenda(conn: sqlite3.Connection) -> None:
    send(conn, SOCKET, {"type": "started", "deadline": "never"}, who="i1")
    assert task(conn)["check_at"] is None
    end_instance(conn, "i1", state="gone", reason="killed", now=NOW + NS, adopted=True)
    assert task(conn)["check_at"] == NOW + NS
    conn.execute("UPDATE task SET check_at = NULL")
    touch_instance(conn, "i1", SOCKET, NOW + 2 * NS)
    assert task(conn)["check_at"] == NOW + 2 * NS


def test_the_greatest_body_wins_whatever_came_first(conn: sqlite3.Connection) -> None:
    at = format_time(NOW)
    small = {"type": "failed", "at": at, "error": {"type": "A", "message": "a"}}
    great = {"type": "failed", "at": at, "error": {"type": "B", "message": "b"}}
    kept = []
    for order in ((small, great), (great, small)):
        conn.execute("DELETE FROM task")
        conn.execute("DELETE FROM payload")
        for event in order:
            send(conn, SOCKET, event, who="i1")
        kept.append([row[0] for row in conn.execute("SELECT data FROM payload")])
    assert kept[0] == kept[1] == [b'{"error":{"message":"b","type":"B"}}']


def test_the_recorded_body_holds_what_a_replay_needs(conn: sqlite3.Connection) -> None:
    send(conn, SOCKET, {"type": "scheduled", "key": "order-7"}, {"type": "started", "args": {"order_id": 7}}, who="i1")
    body = recorded_body(conn, blob(TASK))
    assert body is not None
    assert (body["args"], body["key"], body["service"], body["state"]) == ({"order_id": 7}, "order-7", "shop", "running")
    assert recorded_body(conn, b"\0" * 16) is None


def test_a_clock_that_is_off_is_corrected_and_never_lies_after_arrival(conn: sqlite3.Connection) -> None:
    behind = NOW - 3600 * NS
    batch = check_batch(
        {
            "instance": {"id": "i1", "service": "shop"},
            "sent_at": format_time(behind),
            "events": [{"type": "started", "task": TASK, "name": "n", "at": format_time(behind + NS)}],
        },
        NOW,
    )
    apply_batch(conn, batch, actor=SOCKET, now=NOW, policy=POLICY)
    assert task(conn)["began_at"] == NOW
    assert conn.execute("SELECT skew FROM instance").fetchone()[0] == 3600 * NS
