"""Events as they travel: what is taken, mended, refused alone, and refused whole."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from looseends import wire
from looseends.wire import NS, Refused, check_batch, format_time, parse_time

NOW = parse_time("2026-11-20T14:00:00Z")


def event(**fields: Any) -> dict[str, Any]:
    return {"type": "started", "task": "backup-7", "service": "cron", "name": "backup", **fields}


def problem(**fields: Any) -> str:
    """The pointer of what is wrong with this one event."""
    batch = check_batch([event(**fields), event()], NOW)
    assert len(batch.events) == 1, "the good neighbour is kept"
    (found,) = batch.rejected
    return found.pointer


@given(st.datetimes(min_value=datetime(1970, 1, 2), max_value=datetime(2261, 1, 1)))  # noqa: DTZ001 - made aware below
def test_times_are_those_of_the_calendar(moment: datetime) -> None:
    moment = moment.replace(tzinfo=UTC)
    expected = int((moment - datetime(1970, 1, 1, tzinfo=UTC)).total_seconds()) * NS + moment.microsecond * 1000
    assert abs(parse_time(moment.isoformat()) - expected) < NS
    assert parse_time(format_time(parse_time(moment.isoformat()))) == parse_time(moment.isoformat())


@pytest.mark.parametrize(
    "text", ["2026-02-31T00:00:00Z", "2025-02-29T00:00:00Z", "2026-11-20", "2026-11-20T14:00:00", "x", 1.5, -1, True]
)
def test_what_is_no_time_is_refused(text: object) -> None:
    with pytest.raises(ValueError, match="time"):
        parse_time(text)


@pytest.mark.parametrize(
    ("fields", "pointer"),
    [
        ({"type": "stared"}, "/type"),
        ({"task": ""}, "/task"),
        ({"task": "x" * 201}, "/task"),
        ({"name": None}, "/name"),
        ({"attempt": 0}, "/attempt"),
        ({"attempt": ""}, "/attempt"),
        ({"attempt": 10_001}, "/attempt"),
        ({"deadline": -1}, "/deadline"),
        ({"deadline": 10**400}, "/deadline"),
        ({"deadline": float("nan")}, "/deadline"),
        ({"deadline": "soon"}, "/deadline"),
        ({"at": "1969-12-31T23:59:59Z"}, "/at"),
        ({"at": "2026-10-01T00:00:00Z"}, "/at"),
        ({"at": "2026-11-20T14:06:00Z"}, "/at"),
        ({"tags": {"a/b": 7}}, "/tags/a~1b"),
        ({"args": {"x": "\ud800"}}, "/args"),
        ({"args": {"x": "y" * 70_000}}, "/args"),
        ({"key": "nul\0"}, "/key"),
    ],
)
def test_one_bad_event_names_its_field_and_leaves_its_neighbours(fields: dict[str, Any], pointer: str) -> None:
    assert problem(**fields) == pointer


def test_too_deep_arguments_are_refused_alone() -> None:
    deep: Any = 1
    for _ in range(wire.DEPTH_MAX + 2):
        deep = [deep]
    assert problem(args={"x": deep}) == "/args"


def test_an_odd_message_never_loses_its_failure() -> None:
    failed = event(type="failed", error={"type": "E" * 500, "message": "a\0b\ud800" + "c" * 5_000, "traceback": "t\0"})
    (kept,) = check_batch(failed, NOW).events
    assert len(kept["error"]["type"]) == wire.NAME_CHARS_MAX
    assert kept["error"]["message"].startswith("a\ufffdb\ufffdc")
    assert kept["error"]["traceback"] == "t\ufffd"


def test_an_unknown_field_is_a_warning_and_an_unknown_member_too() -> None:
    batch = check_batch({"events": [event(colour="red")], "mood": 1}, NOW)
    assert len(batch.events) == 1
    assert [(w.index, w.pointer) for w in batch.warnings] == [(-1, "/mood"), (0, "/colour")]


def test_a_shell_users_own_text_always_gives_the_same_id() -> None:
    first, second = (check_batch(event(), NOW).events[0]["task"] for _ in range(2))
    other = check_batch(event(service="shop"), NOW).events[0]["task"]
    assert first == second != other
    assert wire.is_uuid(first) and first[14] == "8"


@pytest.mark.parametrize("document", ["x", 7, None, {"events": {}}, {"instance": 7, "events": []}, {"backlog": [], "events": []}])
def test_a_body_that_is_no_batch_is_refused_whole(document: object) -> None:
    with pytest.raises(Refused):
        check_batch(document, NOW)


def test_over_a_thousand_events_are_refused_whole() -> None:
    with pytest.raises(Refused, match="at most 1000"):
        check_batch([event()] * 1_001, NOW)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    )
)
def test_no_json_at_all_makes_the_check_stumble(document: Any) -> None:
    try:
        check_batch(document, NOW)
    except Refused as refused:
        assert str(refused)


@given(
    st.fixed_dictionaries(
        {},
        optional={
            name: st.recursive(
                st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
                lambda i: st.lists(i) | st.dictionaries(st.text(), i),
            )
            for name in ("at", "deadline", "args", "tags", "error", "eta", "attempt", "key", "stack", "done", "handled", "reason")
        },
    )
)
def test_no_value_of_a_field_makes_the_check_stumble(fields: dict[str, Any]) -> None:
    for kind in wire.TYPES:
        batch = check_batch([event(**{**fields, "type": kind})], NOW)
        assert len(batch.events) + len(batch.rejected) == 1
