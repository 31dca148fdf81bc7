"""Texts written the short way read back as the events that telling.py says."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from looseends import slots
from looseends.slots import Name, Record
from looseends.telling import events_of
from looseends.texts import Texts

FIELDS = {"declared": True, "source": "task", "deadline": 30.0, "tags": None}
NAMES = [
    Name("mail.send", ("order_id", "customer", "total"), "order_id", FIELDS),
    Name('o"dd\\ é', ("a",), "order-{a}", {"source": "spawn"}),
    Name("bare", (), None, {}),
    Name("must begin", (), None, {"source": "expect"}),
]
ODD = '{"order_id":"é\\u0000","a":{"$t":"uuid","v":"x"}}'.encode()
ARGS = [b"", b"{}", b"[]", b'[7,"ada",12.5]', ODD, b"[1,2,3,4,5]", b"no json", b"7"]
WORDS = st.one_of(st.just(0), st.integers(0, 1 << 62), st.integers(1 << 40, 1 << 41))


def no_side(offset: int, length: int) -> bytes:
    """A side file that holds nothing."""
    return b""


RECORDS = st.builds(
    Record,
    seq=st.integers(1, 1 << 30),
    task=st.binary(min_size=16, max_size=16),
    attempt=st.sampled_from([1] * 9 + [0, 2, 10_001]),
    name=st.sampled_from(NAMES),
    parent=st.sampled_from([slots.NO_ID] * 9 + [b"p" * 16]),
    args=st.sampled_from(ARGS),
    extra=st.sampled_from([b""] * 9 + [b'{"request":"GET /"}']),
    scheduled=st.sampled_from([0] * 9 + [1 << 40]),
    started=WORDS,
    ended=WORDS,
    status=st.sampled_from([0, 1, 1, 1, *range(8)]),
    detail=st.just(0),
    progress=st.just(0),
)


@settings(max_examples=1_000)
@given(RECORDS, st.sampled_from([0, 1 << 60, -(1 << 41)]), st.integers(0, 15))
def test_the_short_way_says_what_the_long_way_says(record: Record, anchor: int, want: int) -> None:
    wanted: list[dict[str, Any]] = events_of(record, anchor, no_side, want)
    found = [json.loads(text) for text in Texts().of(record, anchor, no_side, want)]
    assert found == json.loads(json.dumps(wanted))


def test_a_plain_record_takes_the_short_way() -> None:
    record = Record(7, b"t" * 16, 1, NAMES[0], slots.NO_ID, ARGS[3], b"", 0, 1 << 40, (1 << 40) + 8_000, slots.FINISHED, 0, 0)
    texts = Texts()
    assert texts._plain(record, 1 << 60, 15) == texts.of(record, 1 << 60, no_side, 15)
    assert len(texts.of(record, 1 << 60, no_side, 15)) == 2
