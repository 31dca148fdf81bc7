"""How notices travel, as pure functions: waits, signatures, bodies."""

from __future__ import annotations

import datetime
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from standardwebhooks import Webhook as Verifier
from standardwebhooks import WebhookVerificationError

from looseends_daemon.core import delivery
from looseends_daemon.core.delivery import BODY_BYTES_MAX, SCHEDULE, Outcome, body_of, envelope, sign, wait_after

OLD = "whsec_" + "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="
NEW = "whsec_" + "AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE="
FAILED = Outcome(status=500)


def test_the_schedule_takes_about_77_hours_and_then_ends() -> None:
    assert 76.5 < sum(SCHEDULE) / 3600 < 77.5
    assert [wait_after(n, FAILED, 0.0) for n in range(1, len(SCHEDULE) + 2)] == [*SCHEDULE, None]


@given(st.integers(1, len(SCHEDULE)), st.floats(-1, 1))
def test_jitter_moves_a_wait_by_a_fifth_at_most(attempt: int, jitter: float) -> None:
    wait = wait_after(attempt, FAILED, jitter)
    assert wait is not None
    assert 0.8 * SCHEDULE[attempt - 1] <= wait <= 1.2 * SCHEDULE[attempt - 1] + 1e-9


@pytest.mark.parametrize(("asked", "wait"), [(1, 30), (45, 45), (60, 60), (86_400, 60)])
def test_retry_after_counts_between_one_and_two_steps(asked: float, wait: float) -> None:
    assert wait_after(2, Outcome(status=503, retry_after=asked), 0.0) == wait


def test_throttling_and_time_outs_wait_a_minute_at_least() -> None:
    assert wait_after(1, Outcome(status=429), 0.0) == 60
    assert wait_after(1, Outcome(timed_out=True), 0.0) == 60
    assert wait_after(5, Outcome(status=429), 0.0) == 900


@pytest.mark.parametrize("status", [200, 202, 204, 299])
def test_every_2xx_is_a_delivery(status: int) -> None:
    assert Outcome(status=status).delivered


@pytest.mark.parametrize("status", [None, 199, 301, 304, 400, 401, 410, 429, 500])
def test_nothing_else_is(status: int | None) -> None:
    assert not Outcome(status=status).delivered
    assert Outcome(status=status).refused_for_good is (status == 410)


def test_every_key_signs_and_each_verifies_alone() -> None:
    body = b'{"x":"\xe2\x82\xac"}'
    now = int(datetime.datetime.now(datetime.UTC).timestamp())
    headers = {"webhook-id": "msg_1", "webhook-timestamp": str(now), "webhook-signature": sign([NEW, OLD], "msg_1", now, body)}
    for key in (NEW, OLD):
        assert Verifier(key).verify(body.decode(), headers) == {"x": "\u20ac"}
    with pytest.raises(WebhookVerificationError):
        Verifier(NEW).verify(body.decode() + " ", headers)
    with pytest.raises(WebhookVerificationError):
        Verifier(NEW).verify(body.decode(), {**headers, "webhook-id": "msg_2"})


def sample(size: int) -> dict[str, object]:
    return {"id": "x", "args": {"text": "a" * size}, "error": {"type": "E", "message": "m", "traceback": "t" * size}}


def event() -> dict[str, object]:
    incident = {"id": "inc_1", "reason": "new_tasks"}
    return envelope(message_id="msg_1", source="eu", type_="updated", at=0, sequence=2, incident=incident)


def test_a_body_leaves_out_the_longest_texts_first_and_says_so() -> None:
    body = body_of(event(), [sample(100), sample(15_000), sample(100)], 3)
    assert len(body) <= BODY_BYTES_MAX
    tasks = json.loads(body)["data"]["tasks"]
    assert [task.get("left_out") for task in tasks] == [None, ["args"], None]


def test_then_the_newest_tasks_and_counts_them() -> None:
    many = [{"id": str(n), "reason": "r" * 900} for n in range(40)]
    body = body_of(event(), many, 100)
    data = json.loads(body)["data"]
    assert len(body) <= BODY_BYTES_MAX
    assert [task["id"] for task in data["tasks"]] == [str(n) for n in range(len(data["tasks"]))]
    assert len(data["tasks"]) + data["tasks_truncated"] == 100


def test_a_body_does_not_change_the_samples_it_was_made_of() -> None:
    """They are shared by all endpoints of one step."""
    tasks = [sample(15_000)]
    body_of(event(), tasks, 1)
    assert tasks == [sample(15_000)]


def test_a_notice_made_the_first_one_changes_in_two_places_only() -> None:
    before = json.loads(body_of(event(), [], 0))
    after = json.loads(delivery.as_first(body_of(event(), [], 0)))
    assert after["type"] == "looseends.incident.opened"
    assert after["data"]["incident"]["reason"] == "first_notification"
    before["type"], before["data"]["incident"]["reason"] = after["type"], "first_notification"
    assert after == before
