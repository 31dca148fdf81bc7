"""POST /api/v1/events over a real server, a real database and the real fold."""

from __future__ import annotations

import gzip
import json
import uuid
from typing import Any

import pytest

from looseends.wire import format_time

EVENTS = "/api/v1/events"


def started(house: Any, **fields: Any) -> dict[str, Any]:
    return {
        "type": "started",
        "task": str(uuid.uuid4()),
        "name": "mail.send",
        "service": "shop",
        "at": format_time(house.now),
        **fields,
    }


async def test_an_accepted_event_is_in_the_database_when_the_answer_comes(house: Any) -> None:
    event = started(house)
    reply = await house.ask("POST", EVENTS, body=[event])
    assert (reply.status, reply.json) == (200, {"accepted": 1, "duplicates": 0, "warnings": [], "rejected": [], "orders": 0})
    assert [row["id"] for row in await house.rows("SELECT id FROM task")] == [uuid.UUID(event["task"]).bytes]
    assert house.woken == 1


async def test_the_same_event_twice_is_one_duplicate(house: Any) -> None:
    event = started(house)
    await house.ask("POST", EVENTS, body=[event])
    reply = await house.ask("POST", EVENTS, body=[event])
    assert (reply.json["accepted"], reply.json["duplicates"]) == (0, 1)


async def test_one_bad_event_never_holds_up_its_neighbours(house: Any) -> None:
    bad = [{"type": "begun"}, started(house, deadline="soon"), 7, started(house, args={"x": [[[[[]]]]], "n": "\x00"})]
    events = [started(house), *bad, started(house, unheard_of=1)]
    reply = await house.ask("POST", EVENTS, body={"events": events})
    assert reply.status == 200
    assert reply.json["accepted"] == 3
    assert [(entry["index"], entry["pointer"]) for entry in reply.json["rejected"]] == [(1, "/type"), (2, "/deadline"), (3, "")]
    assert [(entry["index"], entry["pointer"]) for entry in reply.json["warnings"]] == [(5, "/unheard_of")]


async def test_a_body_of_which_every_event_was_rejected_is_422_with_the_same_answer(house: Any) -> None:
    """`curl --fail` in a script must notice."""
    bodies = (started(house, deadline="soon"), [{"type": "begun"}, 7], {"events": [1]})
    for body in bodies:
        reply = await house.ask("POST", EVENTS, body=body)
        assert (reply.status, reply.headers["content-type"]) == (422, "application/json"), reply.text
        assert set(reply.json) == {"accepted", "duplicates", "warnings", "rejected", "orders"}
        assert reply.json["accepted"] == 0 and reply.json["rejected"]
    lines = await house.ask("POST", EVENTS, body=b"{nonsense\n", headers={"Content-Type": "application/x-ndjson"})
    assert lines.status == 422


async def test_a_batch_without_events_or_with_known_ones_only_is_200(house: Any) -> None:
    event = started(house)
    for body in ([], [event], [event, 7]):
        assert (await house.ask("POST", EVENTS, body=body)).status == 200


async def test_what_only_the_store_refuses_is_422_as_well(house: Any) -> None:
    token = await house.token("ingest", "shop")
    reply = await house.ask("POST", EVENTS, token=token, body=started(house, service="bank"))
    assert (reply.status, reply.json["rejected"][0]["index"]) == (422, 0)


async def test_an_end_without_an_instance_of_a_task_that_nobody_began_is_taken_with_a_warning(house: Any) -> None:
    finished = {"type": "finished", "task": "backup-7", "service": "cron"}
    for accepted in (1, 0):
        reply = await house.ask("POST", EVENTS, body=finished)
        assert (reply.status, reply.json["accepted"]) == (200, accepted)
    reply = await house.ask("POST", EVENTS, body=[started(house), {**finished, "task": "backup-8"}])
    assert [(w["index"], w["pointer"], w["detail"]) for w in reply.json["warnings"]] == [
        (1, "/task", "no start is known for this task yet")
    ]


async def test_an_end_beside_or_after_its_start_or_from_an_instance_brings_no_warning(house: Any) -> None:
    begun = started(house, task="backup-9")
    ended = {"type": "finished", "task": "backup-9", "service": "shop"}
    assert (await house.ask("POST", EVENTS, body=[ended, begun])).json["warnings"] == []
    assert (await house.ask("POST", EVENTS, body={**ended, "attempt": 2})).json["warnings"] == []
    told = {"instance": {"id": "i-1", "service": "shop"}, "events": [{"type": "finished", "task": str(uuid.uuid4())}]}
    assert (await house.ask("POST", EVENTS, body=told)).json["warnings"] == []


async def test_a_single_bare_event_is_taken(house: Any) -> None:
    assert (await house.ask("POST", EVENTS, body=started(house))).json["accepted"] == 1


async def test_a_line_that_does_not_parse_is_one_rejected_entry(house: Any) -> None:
    lines = [json.dumps(started(house)), "{nonsense", "", json.dumps(started(house, type="x")), json.dumps(started(house))]
    body = "\n".join(lines).encode()
    reply = await house.ask("POST", EVENTS, body=body, headers={"Content-Type": "application/x-ndjson"})
    assert reply.json["accepted"] == 2
    assert [entry["index"] for entry in reply.json["rejected"]] == [1, 3]
    assert "this line is not JSON" in reply.json["rejected"][0]["detail"]


async def test_gzip_is_unpacked(house: Any) -> None:
    body = gzip.compress(json.dumps([started(house)]).encode())
    reply = await house.ask("POST", EVENTS, body=body, headers={"Content-Encoding": "gzip"})
    assert reply.json["accepted"] == 1


HOSTILE = {
    "half an object": (b'{"events": [', 400, "byte 12"),
    "nothing": (b"\n", 400, ""),
    "a word": (b"null", 422, ""),
    "not a number": (b"[NaN]", 400, "byte 1"),
    "infinity": (b"[1e999]", 400, "out of range"),
    "a number of 100,000 digits": (b"[" + b"9" * 100_000 + b"]", 400, "out of range"),
    "200,000 levels": (b"[" * 200_000, 400, "too deep"),
    "half a surrogate pair": (b'[{"type": "\\ud800"}]', 400, ""),
    "bytes that are no text": (b'["\xff"]', 400, "byte 2"),
    "NUL": (b"\x00", 400, "byte 0"),
    "a broken envelope": (b'{"instance": 5, "events": []}', 422, "/instance"),
    "an instance without a service": (b'{"instance": {"id": "a"}, "events": []}', 422, "/instance/service"),
    "a backlog that is no number": (b'{"backlog": [], "events": [1]}', 422, "/backlog"),
    "1,001 events": (json.dumps([1] * 1_001).encode(), 413, "1001 events"),
    "2 MiB": (b" " * (2 << 20), 413, "at most 1048576 bytes"),
}


@pytest.mark.parametrize("name", HOSTILE)
async def test_a_hostile_body_gets_a_clear_answer_and_never_500(house: Any, name: str) -> None:
    body, status, words = HOSTILE[name]
    reply = await house.ask("POST", EVENTS, body=body)
    assert (reply.status, words in reply.text) == (status, True), reply.text
    if status >= 400:
        assert reply.headers["content-type"] == "application/problem+json"
        assert reply.json["status"] == status and reply.json["detail"]


async def test_values_json_can_carry_but_no_store_should_are_rejected_one_by_one(house: Any) -> None:
    deep: Any = []
    for _ in range(200):
        deep = [deep]
    args = [{"deep": deep}, {"big": 10**400}, {"long": "x" * 70_000}, {"fine": 10**30}]
    reply = await house.ask("POST", EVENTS, body=[started(house, args=each) for each in args])
    assert reply.status == 200, reply.text
    assert [entry["index"] for entry in reply.json["rejected"]] == [0, 2]


async def test_a_gzip_bomb_is_refused_and_unpacked_no_further_than_the_limit(house: Any) -> None:
    bomb = gzip.compress(b" " * (200 << 20))
    reply = await house.ask("POST", EVENTS, body=bomb, headers={"Content-Encoding": "gzip"})
    assert reply.status == 413


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Content-Type": "text/plain"}, 415),
        ({"Content-Type": "application/x-www-form-urlencoded"}, 415),
        ({"Content-Type": "multipart/form-data; boundary=x"}, 415),
        ({"Content-Type": "absent"}, 415),
        ({"Content-Encoding": "br"}, 415),
        ({"Content-Encoding": "gzip, gzip"}, 415),
        ({"Content-Encoding": "gzip"}, 400),
    ],
)
async def test_a_body_of_another_kind_is_refused(house: Any, headers: dict[str, str], status: int) -> None:
    reply = await house.ask("POST", EVENTS, body=b"[]", headers=headers)
    assert (reply.status, reply.headers["content-type"]) == (status, "application/problem+json")


async def test_an_ingest_token_speaks_for_its_service_only(house: Any) -> None:
    token = await house.token("ingest", "shop")
    mine = {"instance": {"id": "i-1", "service": "shop"}, "events": [started(house, service="bank"), started(house)]}
    reply = await house.ask("POST", EVENTS, token=token, body=mine)
    assert reply.json["accepted"] == 1
    assert "this token speaks for shop" in reply.json["rejected"][0]["detail"]
    other = {"instance": {"id": "i-2", "service": "bank"}, "events": []}
    refused = await house.ask("POST", EVENTS, token=token, body=other)
    assert (refused.status, refused.json["errors"][0]["pointer"]) == (403, "/instance")


async def test_plain_loopback_may_not_speak_for_an_instance_that_a_token_owns(house: Any) -> None:
    token = await house.token("ingest", "shop")
    batch: dict[str, Any] = {"instance": {"id": "i-1", "service": "shop"}, "events": []}
    assert (await house.ask("POST", EVENTS, token=token, body=batch)).status == 200
    assert (await house.ask("POST", EVENTS, body=batch)).status == 403


@pytest.mark.parametrize(("unix", "proven"), [(False, 0), (True, 1)])
async def test_the_unix_socket_of_the_daemons_user_proves_an_instance_and_plain_loopback_does_not(
    house: Any, unix: bool, proven: int
) -> None:
    batch: dict[str, Any] = {"instance": {"id": "i-1", "service": "shop"}, "events": []}
    assert (await house.ask("POST", EVENTS, body=batch, unix=unix)).status == 200
    assert (await house.rows("SELECT proven FROM instance")) == [{"proven": proven}]


async def test_a_full_queue_is_503_with_the_time_to_come_back(house: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("looseends_daemon.store.connection.QUEUE_BYTES_MAX", 0)
    reply = await house.ask("POST", EVENTS, body=[started(house)])
    assert (reply.status, reply.headers["retry-after"]) == (503, "1")
    assert house.woken == 0
