"""Values that somebody might send: good ones by what the wire says of a field, and bad ones that look nearly good.

Rules: what is good for a field of an event comes from `wire.FIELDS`, by its check, so a new field is sent from the day it has
one; a bad value is a piece of JSON *text*, since much of what is bad (NaN, 1e999, a key twice) is no value at all.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

from hypothesis import strategies as st

from looseends import wire
from looseends.wire import DEPTH_MAX, INT_MAX, NS, format_time

Values = st.SearchStrategy[Any]

NEARLY = (
    *(
        "null",
        "true",
        "false",
        "0",
        "-1",
        "-0",
        "-0.0",
        "0.5",
        "1e999",
        "-1e999",
        "1E400",
        "1e-400",
        "NaN",
        "Infinity",
        "-Infinity",
    ),
    *(str(number) for number in (INT_MAX, INT_MAX + 1, -INT_MAX - 1, -INT_MAX - 2, 2**64 - 1, 2**64, 10**30, 10**400)),
    *(
        '""',
        '" "',
        '"never"',
        '"NaN"',
        '"null"',
        '"\\u0000"',
        '"\\ud800"',
        '"\\udfff\\ud800"',
        '"\\ud83d\\ude00"',
        '"\\u202e\\u2028"',
    ),
    *(
        '"2026-02-30T00:00:00Z"',
        '"2026-11-20T14:05:31"',
        '"0000-00-00T00:00:00Z"',
        '"2261-12-31T23:59:60-99:99"',
        '"1970-01-01T00:00:00+23:59"',
    ),
    *(
        '"<script>alert(1)</script>"',
        '"\' OR 1=1 --"',
        '"../../../etc/passwd"',
        '"%00"',
        '"a/b~c"',
        '"{{7*7}}"',
        '"\\r\\nX: y"',
        '"\\u001b[2J"',
    ),
    *(json.dumps("x" * length) for length in (199, 201, 501, 2_001, 16_400, 70_000)),
    *(json.dumps("é" * length, ensure_ascii=False) for length in (200, 40_000)),
    *("[]", "{}", "[null]", '{"":null}', '{"a":1,"a":2}', '{"~/":[]}', '[[["a"]]]', "[" + "1," * 2_000 + "1]"),
    *("[" * depth + "]" * depth for depth in (DEPTH_MAX, DEPTH_MAX + 1, 200, 900, 5_000)),
    *('{"a":' * depth + "1" + "}" * depth for depth in (DEPTH_MAX + 1, 900)),
    *("", ",", "tru", "'a'", "[1,]", '{"a"}', "\ufeff1", "\x00", "// no"),
)
"""Pieces of JSON text, most of them JSON, few of them good."""

BROKEN = (
    *(
        b"",
        b"\n",
        b"null",
        b"[]",
        b"{}",
        b"0",
        b'""',
        b"\x00",
        b"\xff",
        b"\xef\xbb\xbf{}",
        b"{",
        b'{"a":',
        b"[1,",
        b'"\xed\xa0\x80"',
    ),
    *(b"[" * 200_000, b'{"a":' * 100_000, b"[" + b"9" * 100_000 + b"]", b" " * (2 << 20), b"[" + b"1," * 500_000 + b"1]"),
    *(b"a=1&b=2", b"&" * 200, b"a=%ff", b"=", b"a=%ed%a0%80", b"%", b"\r\n--x\r\n", b"<?xml version='1.0'?>", b"PK\x03\x04"),
)
"""Whole bodies that are hardly what anybody asked for."""

TEXTS = st.one_of(
    st.sampled_from(("mail.send", "shop", "order-7", "é", "\u202e", "a" * 200, "a b", "*", '"', "\\", "%", "<b>", "=1+1")),
    st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=20),
)
TIMES = st.one_of(
    st.integers(-600, 120).map(lambda seconds: format_time(time.time_ns() + seconds * NS)),
    st.integers(-600, 120).map(lambda seconds: time.time_ns() + seconds * NS),
    st.sampled_from((0, 1, INT_MAX, "1970-01-01T00:00:00Z", "2261-12-31T23:59:59.999999999Z", "2026-11-20t14:05:31z")),
)
COUNTS = st.sampled_from((0, 1, 2, 3, 40, 2**31, INT_MAX))
SECONDS = st.sampled_from((0, 0.001, 0.5, 1, 30, 3_600, wire.DURATION_S_MAX))
JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-(2**70), 2**70), st.floats(allow_nan=False, allow_infinity=False), TEXTS),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=5), inner, max_size=3)),
    max_leaves=5,
)
ERRORS = st.fixed_dictionaries({}, optional={"type": TEXTS, "message": TEXTS, "traceback": TEXTS})

BY_CHECK: dict[Callable[..., Any], Values] = {
    wire._name: TEXTS,
    wire._clipped: TEXTS,
    wire._note: TEXTS,
    wire._when: TIMES,
    wire._count: COUNTS,
    wire._seconds: SECONDS,
    wire._deadline: st.one_of(SECONDS, st.just("never")),
    wire._fraction: st.sampled_from((0, 0.4, 1)),
    wire._bool: st.booleans(),
    wire._handled: st.sampled_from((True, False, wire.LATER)),
    wire._payload: JSON,
    wire._stack: st.lists(TEXTS, max_size=3),
    wire._tags: st.dictionaries(TEXTS, TEXTS, max_size=3),
    wire._error: ERRORS,
}
"""What a field takes, by the function that checks it."""


def field_values(kind: str, field: str, tasks: Values) -> Values:
    """Good values of one field of one type of event. Raises LookupError for a check that nobody made values for."""
    check = wire.FIELDS[kind].get(field) or wire._COMMON[field]
    if check is wire._task_ref:
        return tasks
    if field == "reason":
        return st.sampled_from(wire.CANCEL_REASONS if kind == "cancelled" else wire.DROP_REASONS)
    return BY_CHECK[check]


def events(tasks: Values, instances: Values) -> Values:
    """Documents for POST /events: batches, bare arrays and bare events about these tasks."""
    event = st.one_of([_event(kind, tasks) for kind in wire.TYPES])
    several = st.lists(event, min_size=1, max_size=4)
    # An instance is always of the service it was first seen with: a change is refused, and nothing of its batch is stored.
    instance = st.fixed_dictionaries(
        {"id": instances, "service": st.just("shop")},
        optional={name: BY_CHECK[check] for name, check in wire._INSTANCE.items() if name not in ("id", "service")},
    )
    batch = st.fixed_dictionaries(
        {"events": several}, optional={"instance": instance, "sent_at": TIMES, "backlog": COUNTS, "unknown": JSON}
    )
    return st.one_of(batch, batch, several, event)


def _event(kind: str, tasks: Values) -> Values:
    needed = {
        "type": st.just(kind),
        "task": tasks,
        "name": st.sampled_from(("mail.send", "report", "é")),
        "service": st.just("shop"),
    }
    fields = {field: field_values(kind, field, tasks) for field in (*wire.FIELDS[kind], "environment", "seq")}
    return st.fixed_dictionaries(needed, optional={**fields, "at": TIMES, "attempt": st.integers(1, 3), "unknown": JSON})


@st.composite
def spoiled(draw: st.DrawFn, document: Any) -> bytes:
    """The text of a document in which one place holds something else: a bad value, a member twice, one that nobody knows."""
    places = list(_places(document))
    place = draw(st.sampled_from(places)) if places else None
    bad = draw(st.sampled_from(NEARLY))
    if place is None:
        return bad.encode("utf-8", "surrogatepass")
    text = json.dumps(_with(document, place, MARK), ensure_ascii=False)
    how = draw(st.sampled_from(("value", "value", "value", "twice", "unknown", "cut")))
    if how == "twice" and isinstance(place[-1], str):
        bad = f"{bad or 1}, {json.dumps(place[-1])}: 1"
    elif how == "unknown" and isinstance(place[-1], str):
        bad = f"1, {json.dumps(place[-1][:-1] + 'x')}: {bad or 1}"
    whole = text.replace(json.dumps(MARK), bad, 1).encode("utf-8", "surrogatepass")
    return whole[: draw(st.integers(0, len(whole)))] if how == "cut" else whole


MARK = "@ here @"


def _places(value: Any, at: tuple[Any, ...] = ()) -> Any:
    """Every place within a document, as the keys that lead there."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield (*at, key)
        yield from _places(inner, (*at, key))


def _with(value: Any, place: tuple[Any, ...], put: Any) -> Any:
    """A copy of the document with something else at one place."""
    if not place:
        return put
    copy = value.copy()
    copy[place[0]] = _with(value[place[0]], place[1:], put)
    return copy
