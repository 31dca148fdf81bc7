"""Events nobody should send: each may be refused, none may take its neighbours down or stop the daemon."""

from __future__ import annotations

import time
from typing import Any

import pytest

from looseends.wire import INT_MAX
from looseends_daemon.core.facts import Cells, Fact
from looseends_daemon.core.view import view_of

DIGITS = b"9" * 400


async def test_a_parent_that_only_looks_like_an_id_keeps_its_neighbours_stored(house: Any, started: Any) -> None:
    events = [started(parent="zzzzzzzz-zzzz-zzzz-zzzz-zzzzzzzzzzzz"), started()]
    status, answer = await house.send(events)
    assert (status, answer["accepted"]) == (200, 2)


@pytest.mark.parametrize(
    "late",
    [
        {"type": "scheduled", "eta": INT_MAX},
        {"type": "failed", "will_retry": True, "retry_at": INT_MAX},
    ],
)
async def test_a_time_at_the_end_of_all_times_is_stored_and_shown(house: Any, started: Any, late: dict[str, Any]) -> None:
    event = {**started(), **late}
    assert (await house.send([event, started()]))[1]["accepted"] == 2
    status, shown = await house.get(f"/api/v1/tasks/{event['task']}")
    assert (status, shown["due_at"] is not None) == (200, True)
    assert (await house.get(f"/tasks/{event['task']}"))[0] == 200


@pytest.mark.parametrize("sent_at", [0, INT_MAX])
async def test_a_clock_that_is_decades_off_cannot_push_a_time_out_of_the_database(house: Any, started: Any, sent_at: int) -> None:
    event = started(type="scheduled", eta=INT_MAX)
    status, answer = await house.send({"instance": {"id": "web-1", "service": "shop"}, "sent_at": sent_at, "events": [event]})
    assert (status, answer["accepted"]) == (200, 1)
    assert (await house.get(f"/api/v1/tasks/{event['task']}"))[0] == 200


@pytest.mark.parametrize("field", [b"deadline", b"start_within", b"progress_within"])
async def test_a_whole_number_without_a_float_is_never_a_failure_of_the_daemon(house: Any, field: bytes) -> None:
    body = b'[{"type":"started","task":"a","name":"n","service":"s","%b":%b}]' % (field, DIGITS)
    status, answer = await house.send(body)
    assert status == 400 or (status == 422 and answer["rejected"])


async def test_a_heartbeat_with_a_number_without_a_float_is_told_which(house: Any) -> None:
    await house.send({"instance": {"id": "web-1", "service": "shop"}, "events": []})
    status, answer = await house.call("PUT", "/api/v1/instances/web-1/heartbeat", b'{"loop_lag_ms":%b}' % DIGITS)
    assert (status, answer["errors"][0]["pointer"]) == (422, "/loop_lag_ms")


def test_a_task_of_thousands_of_attempts_is_seen_in_one_go() -> None:
    fact = Fact(at=1, said_at=1)
    cells: Cells = {(attempt, "web-1"): {"started": fact, "failed": fact} for attempt in range(1, 10_001)}
    begun = time.process_time()
    assert view_of(cells).attempt == 10_000
    assert time.process_time() - begun < 1.5  # it was 5 s while every attempt looked through all the others


async def test_a_repeated_fact_is_compared_without_reading_what_other_attempts_carry(house: Any, started: Any) -> None:
    event = started(args={"of": 1})
    await house.send([event, *({**event, "attempt": attempt, "args": {"x": "y" * 60_000}} for attempt in range(2, 16))])
    read: list[str] = []

    def traced(conn: Any) -> None:
        conn.set_trace_callback(read.append)

    await house.daemon.database.write(traced)
    assert (await house.send([event]))[1]["duplicates"] == 1
    asked = [sql for sql in read if "FROM payload" in sql]
    assert asked and all("slot IN" in sql for sql in asked)
    shown = (await house.get(f"/api/v1/tasks/{event['task']}"))[1]
    assert shown["attempt"] == 15
