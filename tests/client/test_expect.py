"""`expect`: one record in the journal that survives a kill, is sent as `expected`, and never gets in the way."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

import looseends
from looseends import journal, trouble
from looseends.lifecycle import PROCESS

Recorded = Callable[[], list[dict[str, Any]]]


def test_what_must_begin_is_one_event_with_all_that_a_replay_needs(recorded: Recorded) -> None:
    looseends.expect("mail.send_receipt", within="2m", key="order-7", args={"order_id": 7})
    (event,) = recorded()
    assert event.pop("task") and event.pop("at") > 0
    assert event == {
        "type": "expected",
        "name": "mail.send_receipt",
        "attempt": 1,
        "seq": 1,
        "within": 120.0,
        "key": "order-7",
        "args": {"order_id": 7},
    }


def test_without_arguments_there_are_none_and_a_minute_is_the_default(recorded: Recorded) -> None:
    looseends.expect("mail.send_receipt")
    (event,) = recorded()
    assert "args" not in event and "key" not in event and event["within"] == 60.0


def test_secrets_stay_here_and_the_event_says_why_it_cannot_be_replayed(recorded: Recorded) -> None:
    looseends.expect("mail.send_receipt", args={"order_id": 7, "password": "x", "nickname": "y"}, redact=("nickname",))
    (event,) = recorded()
    assert event["args"] == {"order_id": 7, "password": {"$t": "redacted"}, "nickname": {"$t": "redacted"}}
    assert event["not_replayable_because"] == "argument password is redacted"


@pytest.mark.parametrize("within", ["soon", "never", -1, 0, object(), float("nan")], ids=lambda value: type(value).__name__)
def test_a_time_that_cannot_be_used_is_counted_and_a_minute_is_taken(recorded: Recorded, within: Any) -> None:
    looseends.expect("mail.send_receipt", within=within)
    assert recorded()[0]["within"] == 60.0
    assert trouble.COUNTS["an option was left out"] == 1


class Hostile:
    def __str__(self) -> str:
        raise RuntimeError("no")


def test_nothing_that_is_given_raises() -> None:
    looseends.expect(Hostile(), key=Hostile(), args=Hostile())  # type: ignore[arg-type]
    looseends.expect("x" * 5000, args={"a": "y" * 1_000_000})


def test_it_belongs_to_no_task_and_is_no_current_task(recorded: Recorded) -> None:
    with looseends.track("order.create") as task:
        looseends.expect("mail.send_receipt")
        assert looseends.current() is task
    assert [event["type"] for event in recorded()] == ["started", "finished", "expected"]


def test_many_keys_and_times_are_all_told(recorded: Recorded) -> None:
    for n in range(50):
        looseends.expect("mail.send_receipt", within=1 + n, key=n)
    events = recorded()
    assert [event["key"] for event in events] == [str(n) for n in range(50)]
    assert len({event["name"] for event in events}) == 1 and len({event["seq"] for event in events}) == 50


def test_it_survives_a_kill_right_after_the_call(child: Any, spool: str) -> None:
    process = child(
        """
        import os, signal
        import looseends
        looseends.expect("mail.send_receipt", key="order-7")
        os.kill(os.getpid(), signal.SIGKILL)
        """
    )
    process.wait(20)
    (folder,) = journal.folders(spool)
    orphan = journal.adopt(folder)
    assert orphan is not None
    (event,) = [event for batch in orphan.batches() for event in batch]
    orphan.discard()
    assert (event["type"], event["key"]) == ("expected", "order-7")


def test_it_is_sent_and_its_record_is_done(receiver: Any) -> None:
    looseends.expect("mail.send_receipt", within="5m")
    receiver.wait(lambda seen: seen.of("mail.send_receipt"))
    assert looseends.flush() == 0
    assert [(event["type"], event["within"]) for event in receiver.of("mail.send_receipt")] == [("expected", 300.0)]
    assert PROCESS.sender is not None and PROCESS.sender._cursors.open_count() == 0
