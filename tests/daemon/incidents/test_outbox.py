"""The outbox: what is leased when, what an answer does, what overtakes what, and what survives a daemon's death."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from looseends_daemon.core.delivery import SCHEDULE
from looseends_daemon.core.incidents import AlertRules, EndpointRule
from looseends_daemon.store import incidents, outbox
from looseends_daemon.store.endpoints import state_of
from looseends_daemon.store.questions import ask

OPS = EndpointRule(name="ops", fingerprint="1")
PAGER = EndpointRule(name="pager", fingerprint="1", min_severity="critical")
DESK = EndpointRule(name="desk", fingerprint="1")


@pytest.fixture
def opened(ground: Any) -> Any:
    """A ground with one open incident about a failure, and its notice not sent yet."""
    ground.task = ground.start()
    ground.fail(ground.task)
    ground.after(0)
    ground.after(1)
    return ground


def settle(ground: Any) -> None:
    ground.retry(ground.task)
    ground.after(0)


def test_a_notice_is_marked_only_after_a_2xx(opened: Any) -> None:
    [message] = opened.lease()
    assert opened.notices()[0].state == "delivering"
    assert opened.lease() == []
    assert opened.answer(message, 204) == "delivered"
    assert opened.notices()[0].delivered_at == opened.now


def test_a_failed_attempt_comes_again_with_the_same_id_and_the_same_bytes(opened: Any) -> None:
    [first] = opened.deliver(500)
    assert opened.lease() == []
    opened.later(SCHEDULE[0])
    [second] = opened.lease()
    assert (second.id, second.body) == (first.id, first.body)
    assert (first.attempt, second.attempt) == (1, 2)


def test_a_notice_is_exhausted_after_the_whole_schedule(opened: Any) -> None:
    for step in (*SCHEDULE, 0):
        assert len(opened.deliver(503)) == 1
        opened.later(step)
    assert opened.notices()[0].state == "exhausted"
    assert opened.lease() == []
    attempts = opened.conn.execute("SELECT count(*) FROM delivery_attempt").fetchone()[0]
    assert attempts == len(SCHEDULE) + 1


def test_every_attempt_is_logged_with_what_was_answered(opened: Any) -> None:
    [message] = opened.lease()
    opened.answer(message, 502, detail="bad gateway", duration=0.25)
    opened.later(5)
    [message] = opened.lease()
    opened.answer(message, None, detail="no answer within 15 s", timed_out=True)
    [notice] = opened.notices()
    assert [(a.status, a.duration, a.detail) for a in notice.attempts] == [
        (502, 0.25, "bad gateway"),
        (None, 0.0, "no answer within 15 s"),
    ]
    assert notice.next_attempt_at == opened.now + 60 * 10**9


def test_what_a_dead_daemon_was_sending_is_sent_again_by_the_next(opened: Any) -> None:
    [sent] = opened.lease()
    with opened.transaction():
        outbox.begin(opened.conn, opened.now, [OPS])
    [again] = opened.lease()
    assert (again.id, again.body, again.attempt) == (sent.id, sent.body, 2)
    assert "the daemon stopped during this attempt" in opened.notices()[0].attempts[0].detail


def test_an_attempt_that_never_came_back_is_given_up_after_its_lease(opened: Any) -> None:
    [first] = opened.lease()
    opened.later(OPS.timeout + outbox.LEASE_MARGIN_S)
    [second] = opened.lease()
    assert second.id == first.id
    assert opened.answer(first, 500) == "delivering", "a late failure of a given-up attempt decides nothing"
    assert opened.answer(first, 200) == "delivered", "a late success does: the notice arrived"


def test_a_notice_overtaken_before_its_first_success_is_superseded(opened: Any) -> None:
    opened.deliver(500)
    settle(opened)
    assert [(n.type[19:], n.state) for n in opened.notices()] == [("opened", "superseded"), ("resolved", "pending")]
    [sent] = opened.deliver()
    assert json.loads(sent.body)["type"] == "looseends.incident.resolved"


def test_a_notice_under_way_is_not_overtaken_and_the_next_one_waits_for_it(opened: Any) -> None:
    [message] = opened.lease()
    settle(opened)
    assert opened.lease() == []
    opened.answer(message, 200)
    [after] = opened.lease()
    assert json.loads(after.body)["type"] == "looseends.incident.resolved"


def test_a_notice_that_fails_under_way_gives_place_to_the_newer_one(opened: Any) -> None:
    [message] = opened.lease()
    settle(opened)
    assert opened.answer(message, 500) == "superseded"
    assert len(opened.lease()) == 1


def test_who_was_down_at_the_opening_hears_opened_first_all_the_same(opened: Any) -> None:
    opened.deliver(500)
    opened.fail(opened.start())
    opened.after(61)
    [sent] = opened.deliver()
    event = json.loads(sent.body)
    assert event["type"] == "looseends.incident.opened"
    assert event["data"]["incident"]["reason"] == "first_notification"
    assert event["data"]["incident"]["counts"]["open"] == 2


def test_the_opening_moves_on_when_it_fails_after_it_was_overtaken(opened: Any) -> None:
    [message] = opened.lease()
    opened.fail(opened.start())
    opened.after(61)
    assert opened.types() == ["opened", "updated"]
    opened.answer(message, 500)
    [notice] = opened.lease()
    assert json.loads(notice.body)["type"] == "looseends.incident.opened"
    assert opened.types() == ["opened", "opened"]
    assert [n.state for n in opened.notices()] == ["superseded", "delivering"]


def test_410_disables_the_endpoint_until_its_address_changes(opened: Any) -> None:
    [message] = opened.lease()
    assert opened.answer(message, 410) == "cancelled"
    opened.fail(opened.start("audit.write"))
    opened.after(0)
    opened.after(1)
    assert len(opened.notices()) == 1
    with opened.transaction():
        outbox.begin(opened.conn, opened.now, [OPS])
    assert state_of(opened.conn, "ops") == "disabled"
    with opened.transaction():
        outbox.begin(opened.conn, opened.now, [EndpointRule(name="ops", fingerprint="2")])
    opened.fail(opened.start("job.other"))
    opened.after(0)
    opened.after(1)
    assert len(opened.notices()) == 2


def test_notices_of_an_endpoint_that_is_no_longer_configured_are_cancelled(opened: Any) -> None:
    with opened.transaction():
        outbox.begin(opened.conn, opened.now, [PAGER])
    assert opened.notices()[0].state == "cancelled"


def restart(ground: Any, *endpoints: EndpointRule) -> None:
    """The next daemon on this store, with these endpoints configured."""
    ground.rules = msgspec.structs.replace(ground.rules, endpoints=endpoints)
    with ground.transaction():
        fresh = outbox.begin(ground.conn, ground.now, endpoints)
        incidents.announce(ground.conn, ground.now, fresh, ground.rules)


def test_an_endpoint_added_after_a_loss_is_told_of_what_is_open(opened: Any) -> None:
    opened.deliver()
    restart(opened, OPS, DESK)
    [sent] = opened.deliver(endpoint=DESK)
    event = json.loads(sent.body)
    assert event["type"] == "looseends.incident.opened"
    assert event["data"]["incident"]["reason"] == "first_notification"
    assert event["data"]["sequence"] == 2
    assert opened.types() == ["opened"], "who knows of it is not told again"
    settle(opened)
    assert opened.types("desk") == ["opened", "resolved"]


def test_an_endpoint_that_was_there_before_hears_nothing_at_a_restart(opened: Any) -> None:
    opened.deliver()
    restart(opened, OPS)
    restart(opened, OPS)
    assert opened.types() == ["opened"]


def test_a_new_endpoint_is_not_told_of_what_is_over_or_too_slight_for_it(opened: Any) -> None:
    restart(opened, OPS, EndpointRule(name="critical", fingerprint="3", min_severity="critical"))
    assert opened.types("critical") == []
    settle(opened)
    restart(opened, OPS, DESK)
    assert opened.types("desk") == []


def test_a_failing_endpoint_gets_one_attempt_at_a_time_and_its_first_success_brings_all_forward(ground: Any) -> None:
    for n in range(6):
        ground.fail(ground.start(f"job.{n}"))
    ground.after(0)
    ground.after(1)
    assert len(ground.deliver(500)) == 6
    assert state_of(ground.conn, "ops") == "failing"
    ground.later(6)
    [probe] = ground.lease()
    assert ground.lease() == []
    ground.answer(probe, 500)
    ground.later(1)
    [probe] = ground.lease()
    ground.answer(probe, 200)
    assert state_of(ground.conn, "ops") == "ok"
    assert len(ground.lease()) == 5


def test_min_severity_is_held_and_a_rise_brings_the_opening(make_ground: Any) -> None:
    ground = make_ground(AlertRules(endpoints=(OPS, PAGER)))
    ground.start()
    ground.after(30)
    ground.after(1)
    assert (ground.types("ops"), ground.types("pager")) == (["opened"], [])
    ground.deliver()
    ground.kill()
    ground.after(0)
    assert (ground.types("ops"), ground.types("pager")) == (["opened", "updated"], ["opened"])


def test_an_endpoint_that_never_heard_of_it_does_not_hear_its_end(make_ground: Any) -> None:
    ground = make_ground(AlertRules(endpoints=(OPS, PAGER)))
    task = ground.start()
    ground.fail(task)
    ground.after(0)
    ground.after(1)
    ground.retry(task)
    ground.after(0)
    assert ground.types("ops") == ["opened", "resolved"]
    assert ground.types("pager") == []


def test_sequence_numbers_grow_with_every_notice_of_an_incident(opened: Any) -> None:
    opened.deliver()
    opened.fail(opened.start())
    opened.after(61)
    opened.deliver()
    assert [json.loads(n.body)["data"]["sequence"] for n in opened.notices()] == [1, 2]


def test_room_bounds_what_is_leased(ground: Any) -> None:
    for n in range(6):
        ground.fail(ground.start(f"job.{n}"))
    ground.after(0)
    ground.after(1)
    assert len(ground.lease(room=4)) == 4
    assert len(ground.lease(room=0)) == 0
    assert len(ground.lease(room=4)) == 2


def test_notices_are_read_by_incident_and_page(ground: Any) -> None:
    for n in range(3):
        ground.fail(ground.start(f"job.{n}"))
    ground.after(0)
    ground.after(1)
    first = ground.incidents()[0]
    page = ask(ground.conn, outbox.notice_page(first.id, 10, None))
    assert [notice.incident for notice in page.items] == [first.id]
    assert page.items[0].body is None
    newest = ask(ground.conn, outbox.notice_page(None, 2, None))
    assert newest.next_cursor is not None
    assert len(ask(ground.conn, outbox.notice_page(None, 2, newest.next_cursor)).items) == 1
    assert ask(ground.conn, outbox.notice_one("msg_none")) is None
