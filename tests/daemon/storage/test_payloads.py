"""`max_payload`: what is larger is not kept, arguments whole or not at all, the same event always in the same way."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from looseends.wire import PAYLOAD_BYTES_MAX, check_batch
from looseends_daemon.core.payloads import within
from looseends_daemon.store.codes import blob
from looseends_daemon.store.facts import recorded_body

if TYPE_CHECKING:
    from conftest import Yard

NOW = 1_795_183_200_000_000_000
BIG = {"order_id": 7, "text": "x" * 5_000}
TASK = "00000000-0000-8000-8000-000000000001"


def batch(**fields: Any) -> Any:
    """One started event."""
    return check_batch({"events": [{"type": "started", "task": TASK, "name": "n", "service": "s", "at": NOW, **fields}]}, NOW)


def test_what_is_small_enough_stays_as_it_was() -> None:
    one = batch(args={"a": 1})
    assert within(one, 1_000) == one
    assert within(one, PAYLOAD_BYTES_MAX) is one


def test_large_arguments_are_left_out_whole_and_say_why_they_cannot_be_replayed() -> None:
    cut = within(batch(args=BIG), 1_000)
    [event] = cut.events
    assert "args" not in event
    assert event["not_replayable_because"].endswith("over the 1000 bytes of [storage] max_payload")
    assert [problem.pointer for problem in cut.warnings] == ["/args"]


def test_of_an_error_the_type_and_the_ends_of_its_texts_stay() -> None:
    error = {"type": "TimeoutError", "message": "m" * 1_000, "traceback": "t" * 5_000 + "the last line"}
    told = {"type": "failed", "task": TASK, "name": "n", "service": "s", "at": NOW, "error": error}
    [event] = within(check_batch({"events": [told]}, NOW), 1_200).events
    kept = event["error"]
    assert kept["type"] == "TimeoutError" and kept["traceback"].endswith("the last line")
    assert len(kept["traceback"]) + len(kept["message"]) < 1_200


@pytest.mark.parametrize("bytes_max", [256, 1_000, 4_000])
def test_cutting_twice_is_cutting_once(bytes_max: int) -> None:
    once = within(batch(args=BIG, result=None), bytes_max)
    again = within(once, bytes_max)
    assert again.events == once.events


async def test_a_task_whose_arguments_were_not_kept_is_never_replayed_without_them(yard: Yard) -> None:
    one = within(
        check_batch({"events": [{"type": "started", "task": TASK, "name": "n", "service": "s", "args": BIG}]}, yard.now), 1_000
    )
    await yard.tell(None, *one.events)
    body = await yard.database.write(lambda conn: recorded_body(conn, blob(TASK)))
    assert body is not None and "args" not in body and "max_payload" in body["not_replayable_because"]
