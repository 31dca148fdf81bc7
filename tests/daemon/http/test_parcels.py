"""The journal's own bytes at the daemon's door: taken like their JSON, and refused in words whatever else they are."""

from __future__ import annotations

import json
import random
import time
import uuid
from typing import Any

import pytest

from looseends import parcel, slots
from looseends.parcel import Run
from looseends.slots import Name

EVENTS = "/api/v1/events"
KIND = {"Content-Type": parcel.CONTENT_TYPE}
HEAD = slots.make_header(slots.SLOTS[0], time.time_ns() // 1_000_000, 7, 0)
LINE = slots.pack_name(1, Name("mail.send", ("order_id",), "order_id", {"declared": True, "source": "task"}))


def slot(index: int, args: bytes = b"[7]", name: int = 1) -> bytes:
    """A plain record that began and ended."""
    rest = bytes(32) + args
    crc = slots.seal(HEAD.seal + index, 0, 1, name, len(args), 0, rest)
    ended = 9_000 & ~7 | slots.FINISHED
    return (slots.SLOT.pack(1, 0, 1, name, crc, len(args), 0, 0, 1_000, ended, 0, 0) + rest).ljust(slots.SLOT_BYTES, b"\0")


def body(*records: bytes, who: str = "", anchor: int | None = None) -> bytes:
    said = f'"instance":{{"id":"{who or uuid.uuid4()}","service":"shop"}},"sent_at":{time.time_ns()},"backlog":0'
    return parcel.pack(said, anchor or time.time_ns(), [Run(HEAD, 0, parcel.EVERYTHING, b"".join(records))], [[]], [LINE])


async def test_records_are_taken_like_their_json_and_the_answer_asks_for_more(house: Any) -> None:
    told = body(slot(0), slot(1), anchor=house.now)
    reply = await house.ask("POST", EVENTS, body=told, headers=KIND)
    assert (reply.status, reply.json["accepted"], reply.headers["looseends-takes"]) == (200, 4, "journal")
    again = await house.ask(
        "POST", EVENTS, body=json.dumps(parcel.read(told).document).encode(), headers={"Content-Type": "application/json"}
    )
    assert (again.json["accepted"], again.json["duplicates"], again.headers["looseends-takes"]) == (0, 4, "journal")


async def test_what_is_no_record_is_one_rejected_entry_and_holds_up_no_other(house: Any) -> None:
    damaged = slot(1).replace(b"[7]", b"[8]")
    reply = await house.ask("POST", EVENTS, body=body(slot(0), damaged, slot(2, name=9), slot(3), anchor=house.now), headers=KIND)
    assert (reply.status, reply.json["accepted"]) == (200, 4)
    assert [(entry["index"], entry["pointer"]) for entry in reply.json["rejected"]] == [(-1, "/slots/1"), (-1, "/slots/2")]


@pytest.mark.parametrize(("odd", "status"), [(b"{}", 422), (b"", 422), (b'{"instance":{}}\n', 422)])
async def test_what_is_no_parcel_is_refused_in_words(house: Any, odd: bytes, status: int) -> None:
    reply = await house.ask("POST", EVENTS, body=odd, headers=KIND)
    assert reply.status == status and reply.json["detail"]


async def test_nothing_that_is_sent_as_a_parcel_is_an_error_of_ours(house: Any) -> None:
    good, dice = body(slot(0), slot(1), slot(2), anchor=house.now), random.Random(3)
    for _ in range(150):
        bad = bytearray(good)
        for _ in range(dice.choice((1, 2, 9))):
            bad[dice.randrange(len(bad) if dice.random() < 0.5 else 300)] = dice.randrange(256)
        reply = await house.ask("POST", EVENTS, body=bytes(bad), headers=KIND)
        assert reply.status in (200, 403, 413, 422), (reply.status, bytes(bad[:300]))
