"""Pings in Healthchecks' form, sent to a real server: what each address becomes, and what is refused with which words."""

from __future__ import annotations

import uuid
from typing import Any

import pytest

from looseends_daemon.core.pings import BODY_KEPT_BYTES_MAX
from looseends_daemon.http import pings
from looseends_daemon.store.pings import RUNS_MAX
from looseends_daemon.store.reads import StoreReader

NS = 1_000_000_000


@pytest.fixture
async def house(make_house: Any) -> Any:
    return await make_house(routes=pings.routes)


async def tasks(house: Any) -> list[Any]:
    """Every task, the newest first."""
    reader = StoreReader(house.database, base_url="", wall_ns=lambda: house.now)
    return [await reader.task(one.id) for one in (await reader.tasks("", limit=500)).items]


async def ping(house: Any, path: str, method: str = "GET", **asked: Any) -> None:
    house.now += NS
    reply = await house.ask(method, f"/ping/{path}", **asked)
    assert (reply.status, reply.text) == (200, "" if method == "HEAD" else "OK"), reply.text


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST"])
async def test_a_success_alone_is_a_task_that_ended_well(house: Any, method: str) -> None:
    await ping(house, "nightly-backup", method)
    (task,) = await tasks(house)
    assert (task.service, task.name, task.state, task.environment) == ("ping", "nightly-backup", "succeeded", "production")


@pytest.mark.parametrize(
    ("action", "state", "message"),
    [
        ("", "succeeded", None),
        ("/0", "succeeded", None),
        ("/fail", "failed", "no space left"),
        ("/1", "failed", "exit status 1: no space left"),
        ("/255", "failed", "exit status 255: no space left"),
    ],
)
async def test_each_end_is_the_end_of_its_own_run(house: Any, action: str, state: str, message: str | None) -> None:
    rid = str(uuid.uuid4())
    await ping(house, f"backup/start?rid={rid}")
    (begun,) = await tasks(house)
    assert (begun.id, begun.state, begun.source) == (rid, "running", "ping")
    assert begun.due_at - begun.started_at == 3600 * NS
    await ping(house, f"backup{action}?rid={rid}", "POST", body="copying\nno space left\n")
    (task,) = await tasks(house)
    assert (task.id, task.state) == (rid, state)
    assert (task.error.message if task.error else None) == message
    kept = task.error.traceback if task.error else task.result["output"]
    assert kept == "copying\nno space left\n"


async def test_overlapping_runs_are_kept_apart_by_their_rid(house: Any) -> None:
    one, two = str(uuid.uuid4()), str(uuid.uuid4())
    for path in (f"sync/start?rid={one}", f"sync/start?rid={two}", f"sync/fail?rid={one}", f"sync?rid={two}"):
        await ping(house, path)
    assert {task.id: task.state for task in await tasks(house)} == {one: "failed", two: "succeeded"}


async def test_a_rid_that_is_no_uuid_is_an_id_of_its_slug(house: Any) -> None:
    for path in ("a/start?rid=7", "b/start?rid=7", "a?rid=7"):
        await ping(house, path)
    assert {task.name: (task.external_id, task.state) for task in await tasks(house)} == {
        "a": ("a:7", "succeeded"),
        "b": ("b:7", "running"),
    }
    house.now += NS
    reply = await house.ask("GET", "/ping/a/start?rid=7")
    assert reply.status == 409 and "use a fresh id per run" in reply.json["detail"]


async def test_without_a_rid_an_end_ends_the_newest_start_and_a_dead_run_stays_to_be_found(house: Any) -> None:
    await ping(house, "report/start")  # killed: no end ever comes
    await ping(house, "report/start")
    await ping(house, "report/log", "POST", body="half way")
    await ping(house, "report")
    newest, dead = await tasks(house)
    assert (newest.state, newest.progress.note, newest.duration) == ("succeeded", "half way", 2.0)
    assert (dead.state, dead.due_at is not None) == ("running", True)


async def test_a_log_line_of_nothing_that_runs_makes_no_task(house: Any) -> None:
    await ping(house, "report/log", "POST", body="hello")
    assert await tasks(house) == []


async def test_a_start_sent_twice_with_its_rid_is_one_task(house: Any) -> None:
    rid = str(uuid.uuid4())
    for _ in range(3):
        await ping(house, f"backup/start?rid={rid}")
        await ping(house, f"backup?rid={rid}")
    assert [(task.id, task.state) for task in await tasks(house)] == [(rid, "succeeded")]


async def test_starts_that_are_never_ended_are_remembered_within_a_bound(house: Any) -> None:
    for _ in range(RUNS_MAX + 5):
        await ping(house, "leaky/start")
    rows = await house.rows("SELECT count(*) AS n, min(at) AS oldest FROM ping_run")
    assert rows[0]["n"] == RUNS_MAX
    assert rows[0]["oldest"] == house.now - (RUNS_MAX - 1) * NS


async def test_a_key_is_the_token_of_a_service(house: Any) -> None:
    token = await house.token("ingest", "shop-cron")
    key = ".".join(token.split(".")[:2])
    await ping(house, f"{key}/backup/start", headers={"Via": "a proxy"})
    await ping(house, f"{key}/backup", headers={"Via": "a proxy"})
    await ping(house, "backup")
    assert {(task.service, task.state) for task in await tasks(house)} == {("shop-cron", "succeeded"), ("ping", "succeeded")}
    assert len(await tasks(house)) == 2


async def test_a_run_of_one_key_is_not_ended_by_another(house: Any) -> None:
    first, second = [".".join((await house.token("ingest", "cron")).split(".")[:2]) for _ in range(2)]
    await ping(house, f"{first}/backup/start")
    await ping(house, f"{second}/backup")
    assert sorted(task.state for task in await tasks(house)) == ["running", "succeeded"]
    rid = str(uuid.uuid4())
    await ping(house, f"{first}/backup/start?rid={rid}")
    house.now += NS
    reply = await house.ask("GET", f"/ping/backup?rid={rid}")
    assert reply.status == 409


@pytest.mark.parametrize(
    ("path", "status", "words"),
    [
        ("Backup", 400, "a slug is 1 to 100 of a-z"),
        ("backup/stop", 400, "an exit status from 0 to 255"),
        ("backup/256", 400, "an exit status from 0 to 255"),
        ("backup/-1", 400, "an exit status from 0 to 255"),
        ("%00", 400, "a slug is"),
        ("b" * 101, 400, "a slug is"),
        ("backup?rid=" + "x" * 91, 400, "rid is at most 90"),
        ("backup?rid=%0a", 400, "rid is at most 90"),
        ("fqOOd6-F4MMNuCEnzTU01w/backup/start", 400, "the key is <id>.<secret>"),
        ("ing_0000000000.wrong/backup", 401, "this token is not valid"),
        ("a.b/backup", 401, "this token is not valid"),
        ("a/b/c/d", 404, ""),
    ],
)
async def test_garbage_is_refused_in_words_and_makes_no_task(house: Any, path: str, status: int, words: str) -> None:
    reply = await house.ask("GET", f"/ping/{path}")
    assert reply.status == status, reply.text
    assert words in reply.json["detail"]
    assert "wrong" not in reply.text
    assert await tasks(house) == []


async def test_a_key_of_another_role_is_refused(house: Any) -> None:
    key = await house.token("viewer")
    assert (await house.ask("GET", f"/ping/{key}/backup")).status == 403


async def test_from_elsewhere_a_ping_without_a_key_is_refused(house: Any) -> None:
    assert (await house.ask("GET", "/ping/backup", headers={"X-Forwarded-For": "10.0.0.1"})).status == 401
    assert (await house.ask("GET", "/ping/backup", headers={"Sec-Fetch-Site": "cross-site"})).status == 403


async def test_a_long_log_is_kept_from_its_end_and_any_bytes_are_taken(house: Any) -> None:
    body = b"\xff\x00begin" + b"x" * (3 << 20) + b"\nthe end"
    await ping(house, "noisy/3", "POST", body=body, headers={"Content-Type": "application/octet-stream"})
    (task,) = await tasks(house)
    assert task.error.message.endswith("the end")
    assert len(task.error.traceback) == BODY_KEPT_BYTES_MAX


async def test_a_body_that_breaks_off_or_is_not_packed_as_it_says_is_refused(house: Any) -> None:
    reply = await house.ask("POST", "/ping/backup", body=b"no gzip", headers={"Content-Encoding": "gzip"})
    assert reply.status == 400 and await tasks(house) == []


async def test_a_rule_for_its_type_gives_a_run_its_deadline(make_house: Any) -> None:
    from msgspec.structs import replace

    from looseends_daemon.core.policy import Policy, TaskRule

    policy = Policy(rules=(TaskRule(match="ping/long-*", deadline=7200.0),))
    from dataclasses import replace as changed

    house = await make_house(routes=lambda context: pings.routes(changed(context, policy=policy)))
    await ping(house, "long-haul/start")
    (task,) = await tasks(house)
    assert task.due_at - task.started_at == 7200 * NS
    assert replace(policy) == policy
