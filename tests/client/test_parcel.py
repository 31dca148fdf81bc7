"""The journal's own bytes on the wire mean what the same records mean as JSON, and no bytes of anybody mean harm."""

from __future__ import annotations

import json
import random
import time
import uuid
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from looseends import journal, parcel, slots
from looseends.batch import Batch
from looseends.cursor import Cursors
from looseends.parcel import TooMuch
from looseends.slots import Name
from looseends.wire import EVENTS_MAX, Refused, check_batch
from looseends.writing import Writing

FIELDS = {"declared": True, "source": "task", "deadline": 30.0, "tags": {"tier": "gold"}}
NAMES = [
    Name("mail.send", ("order_id", "customer"), "order-{order_id}", FIELDS),
    Name("é", (), None, {"source": "spawn"}),
    Name("must begin", ("a",), "a", {"source": "expect"}),
    Name("queued", (), None, {"source": "celery", "queue": "q"}),
]
ARGS = [b"", b'[7,"ada"]', b"[1]", b'{"order_id":"' + b"x" * 300 + b'"}']
ENDS = [0, slots.FINISHED, slots.FAILED, slots.CANCELLED, slots.DROPPED, slots.HANDED, slots.UNSURE, slots.HANDLED]
DETAIL = [b"", b'{"error":{"type":"E","message":"m"}}', b'{"reason":"exit","result":' + b"9" * 200 + b"}"]
PLAN = st.tuples(
    st.integers(0, len(NAMES) - 1),
    st.sampled_from(ARGS),
    st.sampled_from([b"", b'{"request":"GET /"}']),
    st.booleans(),
    st.sampled_from(ENDS),
    st.sampled_from(DETAIL),
    st.booleans(),
)


@contextmanager
def written(folder: Any, plans: list[Any]) -> Iterator[tuple[journal.Journal, list[Any]]]:
    """A journal with a record for each plan, and where each lies."""
    who = {"id": str(uuid.uuid4()), "service": "tests"}
    with closing(journal.Journal(str(folder), who)) as kept:
        numbers = [kept.name(name) for name in NAMES]
        places = []
        for name, args, extra, scheduled, *_ in plans:
            now = time.monotonic_ns()
            place = kept.begin(numbers[name], args, extra, now if scheduled else 0, 0 if scheduled else now)
            assert place is not None
            places.append(place)
        yield kept, places


def envelope(kept: journal.Journal) -> str:
    who = json.dumps({"id": kept.folder.rpartition("/")[2], "service": "tests"})
    return f'"instance":{who},"sent_at":{time.time_ns()},"backlog":3'


def both(writing: Writing, said: str, batch: Batch) -> tuple[Any, Any]:
    """A batch as the daemon would understand it, from its JSON and from its parcel."""
    now = time.time_ns()
    as_json = check_batch(json.loads(writing.as_json(said, batch)), now)
    found = parcel.read(writing.as_parcel(said, batch))
    assert found.damaged == []
    return as_json, check_batch(json.loads(json.dumps(found.document)), now)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(plans=st.lists(PLAN, min_size=1, max_size=40), split=st.integers(0, 40), events_max=st.sampled_from([4, 10, 1_000]))
def test_both_forms_mean_the_same_events_in_whatever_pieces(tmp_path: Any, plans: list[Any], split: int, events_max: int) -> None:
    with written(tmp_path, plans) as (kept, places):
        cursors, writing, said = Cursors(kept), Writing(kept), envelope(kept)
        seen: list[Any] = []

        def drain() -> None:
            while (batch := cursors.cut(events_max)).parts:
                as_json, as_parcel = both(writing, said, batch)
                assert as_json == as_parcel
                assert len(as_json.events) <= max(events_max, 4) and as_json.rejected == []
                seen.extend((event["task"], event["type"]) for event in as_json.events)
                cursors.taken(batch)

        def go_on(number: int) -> None:
            *_, scheduled, end, detail, starts = plans[number]
            segment, at = places[number]
            if scheduled and starts:
                kept.start(segment, at, time.monotonic_ns())
            if end:
                kept.end(segment, at, time.monotonic_ns(), end, detail)

        for number in range(min(split, len(plans))):
            go_on(number)
        drain()
        for number in range(split, len(plans)):
            go_on(number)
        drain()
        once = [told for told in seen if told[1] != "scheduled"]  # which is told again where a broker took a message over
        assert len(once) == len(set(once))
        assert cursors.unsent() == 0
        done = [end for _, _, _, _, end, *_ in plans if end not in (0, slots.UNSURE)]
        assert cursors.open_count() == len(plans) - len(done)


def test_what_many_open_records_tell_later_is_found_among_them(tmp_path: Any) -> None:
    plans = [(0, b"", b"", True, 0, b"", True)] * 300
    with written(tmp_path, plans) as (kept, places):
        cursors = Cursors(kept)
        cursors.taken(cursors.cut())
        assert cursors.open_count() == 300 and cursors.unsent() == 0
        segment, at = places[200]
        kept.start(segment, at, 1 << 40)  # whose low bytes are zeros
        kept.end(places[7][0], places[7][1], time.monotonic_ns(), slots.FINISHED)
        assert cursors.unsent() == 2
        batch = cursors.cut()
        assert [(part.run.first, part.run.want) for part in batch.parts] == [(7, slots.HAS_END), (200, slots.HAS_STARTED)]
        cursors.taken(batch)
        assert cursors.unsent() == 0 and cursors.open_count() == 299


def test_what_came_after_the_cut_is_told_by_the_next_one(tmp_path: Any) -> None:
    with written(tmp_path, [(0, b"", b"", False, 0, b"", True)] * 3) as (kept, places):
        cursors = Cursors(kept)
        batch = cursors.cut()
        kept.end(places[1][0], places[1][1], time.monotonic_ns(), slots.FINISHED)
        cursors.taken(batch)
        assert cursors.unsent() == 1 and cursors.cut().parts[0].run.want == slots.HAS_END


def test_a_batch_that_was_not_taken_is_cut_again_whole(tmp_path: Any) -> None:
    with written(tmp_path, [(0, b"", b"", False, 0, b"", True)] * 200) as (kept, _):
        cursors = Cursors(kept)
        for _ in range(2):
            assert (cursors.cut().records, cursors.unsent()) == (200, 200)
        some = cursors.cut(100)
        cursors.taken(some)
        left = 200 - some.records
        assert 0 < some.records <= 50 and some.backlog == left
        assert (cursors.cut().records, cursors.unsent(), cursors.open_count()) == (left, left, 200)


def test_a_slot_that_was_never_written_is_no_record_and_holds_up_none(tmp_path: Any) -> None:
    with written(tmp_path, [(0, b"", b"", False, 0, b"", True)] * 2) as (kept, _):
        hole = kept.reserve()
        assert hole is not None and kept.begin(1, b"", b"", 0, time.monotonic_ns()) is not None
        cursors = Cursors(kept)
        batch = cursors.cut()
        assert [(part.run.first, len(part.run)) for part in batch.parts] == [(0, 2), (3, 1)]
        cursors.taken(batch)
        assert cursors.void() == [3] and cursors.last_seq == 4


# --- hostile bodies -----------------------------------------------------------------------------------------------


@pytest.fixture
def body(tmp_path: Any) -> bytes:
    plans = [(n % 4, ARGS[n % 4], b"", n % 3 == 0, ENDS[n % 6], DETAIL[n % 3], True) for n in range(24)]
    with written(tmp_path, plans) as (kept, places):
        for (_, _, _, _, end, detail, _), place in zip(plans, places, strict=True):
            if end:
                kept.end(place[0], place[1], time.monotonic_ns(), end, detail)
        return Writing(kept).as_parcel(envelope(kept), Cursors(kept).cut())


def tasks_in(body: bytes) -> set[str]:
    return {event["task"] for event in parcel.read(body).document["events"]}


def test_no_mutation_of_a_body_raises_anything_else_or_invents_a_task(body: bytes) -> None:
    true, dice = tasks_in(body), random.Random(1)
    head = body.index(b"\n")
    for _ in range(6_000):
        bad = bytearray(body)
        for _ in range(dice.choice((1, 1, 2, 8))):
            at = dice.randrange(head if dice.random() < 0.4 else len(bad))
            bad[at] = dice.choice((0, 255, 48 + dice.randrange(10), dice.randrange(256)))
        if dice.random() < 0.2:
            del bad[dice.randrange(len(bad)) :]
        try:
            found = parcel.read(bytes(bad))
        except (Refused, TooMuch):
            continue
        assert len(found.document["events"]) <= EVENTS_MAX
        if bytes(bad[:head]) == body[:head]:  # its slots, names and side entries alone were changed
            assert {event["task"] for event in found.document["events"]} <= true


def changed(body: bytes, **members: Any) -> bytes:
    """The body with other members in its first line."""
    line, _, rest = body.partition(b"\n")
    return json.dumps(json.loads(line) | members).encode() + b"\n" + rest


@pytest.mark.parametrize(
    ("members", "pointer"),
    [
        ({"anchor": "now"}, "/anchor"),
        ({"anchor": True}, "/anchor"),
        ({"names": -1}, "/names"),
        ({"names": 1 << 40}, "/names"),
        ({"segments": [[7, 1, 1, 0]]}, "/segments/0"),
        ({"segments": {}}, "/segments"),
        ({"runs": [[9, 0, 1, 15]]}, "/runs/0"),
        ({"runs": [[0, 239, 2, 15]]}, "/runs/0"),
        ({"runs": [[0, 0, 1, 16]]}, "/runs/0"),
        ({"runs": [[0, 0, 1]]}, "/runs"),
        ({"side": [[7, 0, 1]]}, "/side/0"),
        ({"side": [[0, 0, 1.5]]}, "/side"),
        ({"names": 0}, ""),
        ({"instance": None}, ""),
    ],
)
def test_a_wrong_first_line_is_refused_by_its_place(body: bytes, members: dict[str, Any], pointer: str) -> None:
    with pytest.raises(Refused) as refused:
        parcel.read(changed(body, **members))
    assert refused.value.pointer == pointer and refused.value.detail


@pytest.mark.parametrize("odd", [b"", b"\n", b"{}\n", b"[" * 100_000 + b"\n", b'{"instance":{}}\n', b"no json at all"])
def test_what_is_no_parcel_is_refused(odd: bytes) -> None:
    with pytest.raises(Refused):
        parcel.read(odd)


def test_more_events_than_a_batch_may_hold_are_too_much(tmp_path: Any) -> None:
    with written(tmp_path, [(0, b"", b"", True, 0, b"", True)] * 600) as (kept, places):
        for place in places:
            kept.start(place[0], place[1], time.monotonic_ns())
        batch = Batch(0, 10_000)
        cursors = Cursors(kept)
        cursors.look()
        for cursor in cursors.all():
            for part in cursor.cut([]):
                batch.add(part)
        with pytest.raises(TooMuch):
            parcel.read(Writing(kept).as_parcel(envelope(kept), batch))


def test_a_name_is_not_repeated_without_end(tmp_path: Any) -> None:
    heavy = Name("heavy", (), None, {"tags": {"t": "x" * 100_000}})
    with written(tmp_path, []) as (kept, _):
        number = kept.name(heavy)
        for _ in range(100):
            assert kept.begin(number, b"", b"", 0, time.monotonic_ns()) is not None
        with pytest.raises(TooMuch):
            parcel.read(Writing(kept).as_parcel(envelope(kept), Cursors(kept).cut()))


def test_a_side_entry_is_not_given_out_to_every_record(tmp_path: Any) -> None:
    with written(tmp_path, [(0, b"", b"", False, 0, b"", True)] * 100) as (kept, places):
        segment, at = places[0]
        kept.end(segment, at, time.monotonic_ns(), slots.FAILED, b'{"error":{"type":"E","message":"' + b"x" * 9_000 + b'"}}')
        word = segment.map[at + slots.DETAIL_AT : at + slots.DETAIL_AT + 8]
        for segment, at in places[1:]:
            segment.map[at + slots.DETAIL_AT : at + slots.DETAIL_AT + 8] = word
            kept.end(segment, at, time.monotonic_ns(), slots.FAILED)
        found = parcel.read(Writing(kept).as_parcel(envelope(kept), Cursors(kept).cut())).document["events"]
        told = [event["error"]["message"] for event in found if event["type"] == "failed"]
        assert len(told) == 50 and sum(message == "x" * 9_000 for message in told) == 1
