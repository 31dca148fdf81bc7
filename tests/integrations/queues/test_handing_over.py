"""A message between its producer's record and its broker's answer, as the journal tells it."""

from __future__ import annotations

from looseends.slots import FAILED, HANDED, HAS_END, HAS_SCHEDULED, Name, Record
from looseends.telling import HAND_OVER_S, events_of
from looseends.wire import canonical

S = 1_000_000_000
NAME = Name("mail.send", ("n",), None, {"declared": True, "source": "celery", "tags": {"tier": "gold"}})


def record(status: int = 0, started: int = 0) -> Record:
    ended = 9 * S if status else 0
    return Record(1, bytes(16), 1, NAME, bytes(16), b"[1]", b'{"queue":"mails"}', 5 * S, started, ended, status, 0, 0)


def test_until_its_broker_has_it_a_message_must_begin_within_a_minute() -> None:
    (event,) = events_of(record(), S, lambda *_: b"")
    assert event["type"] == "scheduled" and event["start_within"] == HAND_OVER_S == 60.0


def test_what_a_broker_has_waits_its_turn() -> None:
    (event,) = events_of(record(HANDED), S, lambda *_: b"")
    assert event["type"] == "scheduled" and "start_within" not in event and event["at"] == 6 * S


def test_a_broker_that_answers_after_the_message_was_told_is_told_too() -> None:
    (first,) = events_of(record(), S, lambda *_: b"", HAS_SCHEDULED)
    (second,) = events_of(record(HANDED), S, lambda *_: b"", HAS_END)
    assert second["type"] == "scheduled" and "start_within" not in second and second["at"] > first["at"]


def test_an_adopter_that_tells_it_once_more_at_the_same_time_wins_over_the_doubt() -> None:
    (doubtful,) = events_of(record(), S, lambda *_: b"")
    (certain,) = events_of(record(HANDED), S, lambda *_: b"")
    assert doubtful["at"] == certain["at"] and canonical(certain) > canonical(doubtful)


def test_a_started_record_that_another_message_goes_on_with_has_no_end_to_tell() -> None:
    assert [e["type"] for e in events_of(record(HANDED, started=6 * S)._replace(scheduled=0), S, lambda *_: b"")] == ["started"]


def test_what_else_is_known_of_a_message_is_no_doubt() -> None:
    kinds = [(e["type"], "start_within" in e) for e in events_of(record(FAILED), S, lambda *_: b"")]
    assert kinds == [("scheduled", False), ("failed", False)]
