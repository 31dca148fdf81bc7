"""Facts as the bytes of the narrow row: what comes out is what went in, to the type of every number, whatever home it had."""

from __future__ import annotations

import sqlite3
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from looseends.wire import FIELDS as WIRE_FIELDS
from looseends.wire import NS, canonical
from looseends_daemon.core.facts import SLOTS, Cells, Fact
from looseends_daemon.store import packed
from looseends_daemon.store.packed import NOWHERE, Home, InstanceIds, learnt, numbers, pack, told_in, unpack
from looseends_daemon.store.questions import ask
from looseends_daemon.store.schema import migrate

START = 1_795_000_000 * NS
HOME = Home(type=3, environment=2, words=("mail.send", "shop", "production"))


def known() -> InstanceIds:
    ids = InstanceIds()
    for no in (1, 2):
        ids.learn(no, f"i-{no}")
    ids.learn_type(3, "shop", "mail.send")
    ids.learn_environment(2, "production")
    return ids


words = st.text(max_size=12)
seconds = st.one_of(st.floats(min_value=0, max_value=1e7), st.integers(0, 10**6).map(float), st.just(-1.0))
bodies = st.fixed_dictionaries(
    {},
    optional={
        "name": st.one_of(st.just("mail.send"), words),
        "service": st.one_of(st.just("shop"), words),
        "environment": st.one_of(st.just("production"), words),
        "key": words,
        "deadline": seconds,
        "duration": seconds,
        "done": st.floats(0, 1),
        "declared": st.booleans(),
        "tags": st.dictionaries(words, words, max_size=3),
        "eta": st.integers(0, 2**62),
        "handled": st.one_of(st.booleans(), st.just("later")),
        "a_field_of_tomorrow": st.one_of(words, st.integers(-5, 5)),
    },
)
times = st.integers(START, START + 10**14)
facts = st.builds(
    lambda at, said, body: Fact(at=at, said_at=at if said is None else said, body=body), times, st.none() | times, bodies
)
cells_of_a_task = st.dictionaries(
    st.tuples(st.integers(1, 4), st.sampled_from(("", "i-1", "i-2"))),
    st.dictionaries(st.sampled_from(SLOTS), facts, min_size=1, max_size=4),
    min_size=1,
    max_size=3,
)


def same(a: Cells, b: Cells) -> bool:
    """Equal, and equal as JSON: 30 and 30.0 are told apart there."""
    return a == b and all(canonical(a[key][slot].body) == canonical(b[key][slot].body) for key in a for slot in a[key])


@given(cells_of_a_task, st.sampled_from((HOME, NOWHERE)))
@settings(max_examples=300, deadline=None)
def test_what_comes_out_is_what_went_in(cells: Cells, home: Home) -> None:
    ids = known()
    blob = pack(cells, ids, home)
    assert same(unpack(blob, ids), cells)
    assert numbers(blob) == {ids.no(who) for _, who in cells} - {0}


def test_a_duration_that_lost_a_bit_would_be_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    started = Fact(at=START, said_at=START, body={"name": "mail.send"})
    ended = Fact(at=START + 5_000_001, said_at=START + 5_000_001, body={"duration": 5_000_001 / NS})
    cells: Cells = {(1, "i-1"): {"started": started, "finished": ended}}
    assert same(unpack(pack(cells, known(), HOME), known()), cells)
    blob = pack(cells, known(), HOME)
    monkeypatch.setattr(packed, "NS", 1_000_000)
    assert not same(unpack(blob, known()), cells)


def test_a_plain_task_takes_few_bytes() -> None:
    body = {"name": "mail.send", "service": "shop", "environment": "production"}
    started = Fact(at=START, said_at=START, body={**body, "key": "order-7", "deadline": 30.0})
    ended = Fact(at=START + 5_000_000, said_at=START + 5_000_000, body={**body, "duration": 0.005})
    cells: Cells = {(1, "i-1"): {"started": started, "finished": ended}}
    assert 2 * len(pack(cells, known(), HOME)) < len(pack(cells, known()))


def test_every_field_of_the_wire_has_a_number_of_its_own() -> None:
    told = {field for fields in WIRE_FIELDS.values() for field in fields} | {"name", "service", "environment"}
    assert told - set(packed.PAYLOADS) <= set(packed.FIELDS)
    assert len(set(packed.FIELDS)) == len(packed.FIELDS)


def test_a_reader_without_a_connection_learns_the_words_in_one_question() -> None:
    conn = sqlite3.connect(":memory:", isolation_level=None)
    conn.row_factory = sqlite3.Row
    migrate(conn)
    conn.execute("INSERT INTO type (id, service, name) VALUES (3, 'shop', 'mail.send')")
    conn.execute("INSERT INTO environment (id, name) VALUES (2, 'production')")
    cells: Cells = {(1, ""): {"started": Fact(at=START, said_at=START, body={"name": "mail.send", "service": "shop"})}}
    blobs = [pack(cells, known(), HOME), pack(cells, known())]
    ids = ask(conn, learnt(InstanceIds(), blobs))
    assert [unpack(blob, ids) for blob in blobs] == [cells, cells]
    with pytest.raises(KeyError):
        unpack(blobs[0], InstanceIds())


def test_a_field_is_read_without_unpacking_the_latest_attempt_first() -> None:
    def told(source: Any, at: int) -> Fact:
        return Fact(at=at, said_at=at, body={"source": source} if source else {"key": "k"})

    cells: Cells = {
        (1, "i-1"): {"started": told("first", START)},
        (2, "i-1"): {"scheduled": told("second", START), "started": told(None, START)},
    }
    assert list(told_in(pack(cells, known(), HOME), "source", ("started", "scheduled"))) == ["second", "first"]
