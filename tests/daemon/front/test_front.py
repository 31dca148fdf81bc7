"""The first pages' reads over a real daemon: one ledger everywhere, counts that say how far they got, what happened beside."""

from __future__ import annotations

import asyncio
import json
import time
import uuid
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from looseends.wire import NS, format_time
from looseends_daemon import config
from looseends_daemon.app import Daemon, running
from looseends_daemon.core import front as port
from looseends_daemon.core.query import QueryError
from looseends_daemon.store.front import FAREWELL, StoreFront

MINUTE = 60 * NS


@dataclass
class Place:
    """A running daemon, its first-page reads, and a client that is signed in."""

    daemon: Daemon
    client: aiohttp.ClientSession
    service: aiohttp.ClientSession
    base: str

    @property
    def front(self) -> StoreFront:
        return self.daemon.front

    async def send(self, events: list[dict[str, Any]], **instance: Any) -> None:
        body = {"instance": instance, "events": events} if instance else events
        async with self.service.post(f"{self.base}/api/v1/events", json=body) as answer:
            told = await answer.json()
            assert answer.status == 200, told
            assert not told["rejected"], told

    async def get(self, path: str, kind: str = "json") -> Any:
        async with self.client.get(self.base + path, allow_redirects=False) as answer:
            assert answer.status == 200, await answer.text()
            return await answer.json() if kind == "json" else await answer.text()


@pytest.fixture
async def place(tmp_path: Path, state_dir: Path) -> AsyncIterator[Place]:
    path = str(tmp_path / "x.db")
    settings = config.with_flags(config.load(None, {"HOME": str(state_dir)}), listen=("127.0.0.1:0",), path=path)
    async with running(settings) as daemon:
        token = (await asyncio.to_thread(Path(f"{path}.token").read_text)).strip()
        base = daemon.listener.addresses[0] if daemon.listener else ""
        signed_in = {"Authorization": f"Bearer {token}"}
        async with aiohttp.ClientSession(headers=signed_in) as client, aiohttp.ClientSession() as service:
            yield Place(daemon, client, service, base)


def begun(minutes_ago: float, name: str = "mail.send", end: str | None = None, **more: Any) -> list[dict[str, Any]]:
    """A task that began then, and ended a second later if it did."""
    at = time.time_ns() - int(minutes_ago * MINUTE)
    event = {"type": "started", "task": str(uuid.uuid4()), "name": name, "service": "shop", "at": format_time(at)}
    events = [event | more]
    if end is not None:
        ended = {"type": end, "at": format_time(at + NS)}
        events.append(event | ended | ({"error": {"type": "E", "message": "m"}} if end == "failed" else {}))
    return events


def window() -> tuple[int, int]:
    end = (time.time_ns() // MINUTE + 1) * MINUTE
    return end - 60 * MINUTE, end


TERMS = ("tasks", "succeeded", "failed", "cancelled", "in_time", "gap")


async def test_page_api_and_database_tell_one_ledger(place: Place) -> None:
    events = [e for n in range(9) for e in begun(n * 5 + 1, end=("finished", "failed", "cancelled")[n % 3])]
    await place.send([*events, *begun(3), *begun(7, deadline=3600)])
    from_, to = window()
    query = f"from={format_time(from_)}&to={format_time(to)}"
    api = await place.get(f"/api/v1/ledger?{query}")
    mine = await place.front.ledger(from_, to, 60)
    page = await place.get(f"/?{query}", "text")
    rows = await place.daemon.database.write(
        lambda conn: dict(
            conn.execute("SELECT sum(succeeded) AS succeeded, sum(failed) AS failed, sum(gap) AS gap FROM ledger").fetchone()
        )
    )
    assert {term: api[term] for term in TERMS} == {term: getattr(mine, term) for term in TERMS}
    assert (rows["succeeded"], rows["failed"]) == (mine.succeeded, mine.failed) == (3, 3)
    assert sum(bucket.tasks for bucket in mine.buckets) == mine.tasks == 11
    for term in TERMS:
        assert f"<b>{api[term]}</b>" in page, term


async def test_the_ledger_of_one_environment_is_a_part_of_the_whole(place: Place) -> None:
    await place.send(
        [*begun(2, end="finished"), *begun(3, end="failed", environment="staging"), *begun(4, environment="staging")]
    )
    from_, to = window()
    parts = [await place.front.ledger(from_, to, None, name) for name in ("production", "staging")]
    whole = await place.front.ledger(from_, to)
    assert await place.front.environments() == ["production", "staging"]
    assert [part.tasks for part in parts] == [1, 2]
    assert sum(part.tasks for part in parts) == whole.tasks
    assert (await place.front.ledger(from_, to, None, "nowhere")).tasks == 0


async def test_a_release_is_marked_once_and_a_goodbye_is_no_death(place: Place) -> None:
    def who(release: str) -> dict[str, Any]:
        return {
            "id": str(uuid.uuid4()),
            "service": "shop",
            "environment": "production",
            "release": release,
            "host": "w1",
            "pid": 7,
        }

    polite, second, newer = who("1"), who("1"), who("2")
    for one in (polite, second, newer):
        await place.send([], **one)
    async with place.service.delete(
        f"{place.base}/api/v1/instances/{polite['id']}", json={"reason": "exit", "last_seq": 0, "open": [], "void": []}
    ) as answer:
        assert answer.status < 300, await answer.text()
    killed = {"reason": "killed", "last_seq": 0, "open": [], "void": []}
    async with place.service.delete(f"{place.base}/api/v1/instances/{newer['id']}", json=killed) as answer:
        assert answer.status < 300, await answer.text()
    from_, to = window()
    found = await place.front.happened(from_, to)
    assert sorted((one.what, one.release) for one in found) == [("death", "2"), ("release", "1"), ("release", "2")]
    assert [one.instance for one in found if one.what == "death"] == [newer["id"]]
    assert await place.front.happened(from_, to, "staging") == []
    assert await place.front.happened(0, from_) == []
    gone = await place.get(f"/api/v1/instances/{polite['id']}")
    assert gone["reason"].startswith(FAREWELL)


async def test_types_come_by_trouble_and_then_by_size(place: Place) -> None:
    await place.send([e for n in range(5) for e in begun(n, "big", end="finished")])
    await place.send([*begun(2, "sad", end="failed"), *begun(2, "sad", end="finished")])
    from_, to = window()
    assert [(row.name, row.tasks, row.failed) for row in await place.front.types(from_, to)] == [("sad", 2, 1), ("big", 5, 0)]
    assert len(await place.front.types(from_, to, limit=1)) == 1


async def test_facets_count_what_matches_and_narrow_with_it(place: Place) -> None:
    await place.send([e for n in range(4) for e in begun(n, "mail.send", end="finished")])
    await place.send([*begun(1, "mail.sort", end="failed"), *begun(1, "other", end="failed", environment="staging")])
    found = await place.front.found("name:mail.*")
    assert found is not None
    assert (found.matching, found.more, found.counted) == (5, False, 5)
    counts = {facet.word: {choice.value: choice.count for choice in facet.choices} for facet in found.facets}
    assert counts["state"] == {"succeeded": 4, "failed": 1}
    assert counts["name"] == {"mail.send": 4, "mail.sort": 1}
    assert counts["environment"] == {"production": 5}
    with pytest.raises(QueryError):
        await place.front.found("stat:x")


async def test_counting_gives_way_when_it_takes_too_long(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    await place.send([e for n in range(400) for e in begun(n / 100, f"n{n % 50}", end="finished")])
    assert await place.front.found("a b c") is not None
    monkeypatch.setattr("looseends_daemon.store.front.SEEN_S_MAX", -1.0)
    assert await place.front.found("a b c") is None
    assert "took too long" in await place.get("/tasks?q=a", "text")
    monkeypatch.undo()
    assert (await place.daemon.context().reader.tasks("name:n1")).items, "the connection is itself again"


async def test_more_than_can_be_counted_is_said(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    await place.send([e for n in range(12) for e in begun(n, f"n{n}", end="finished")])
    monkeypatch.setattr("looseends_daemon.store.front.MATCHING_MAX", 5)
    found = await place.front.found("")
    assert found is not None
    assert (found.matching, found.more) == (5, True)
    names = next(facet for facet in found.facets if facet.word == "name")
    assert (len(names.choices), names.left) == (port.FACET_CHOICES_MAX, 12 - port.FACET_CHOICES_MAX)


async def test_values_are_suggested_by_how_they_begin_whatever_their_case(place: Place) -> None:
    await place.send([*begun(1, "mail.send"), *begun(1, "Mail.sort"), *begun(1, 'x"y'), *begun(1, "50% off")])
    assert sorted(await place.front.values("name", "mA")) == ["Mail.sort", "mail.send"]
    assert await place.front.values("name", "%") == [], "a percent sign is a percent sign"
    assert await place.front.values("key", "a") == []
    said = await place.get("/suggest?q=is:open%20name:50&pos=15")
    assert said == {"start": 13, "items": [{"text": '"50% off"', "hint": "", "more": False}]}
    assert (await place.get("/suggest?q=name:x&pos=6"))["items"] == []


async def test_an_export_holds_everything_that_matches_and_nothing_that_runs(place: Place) -> None:
    evil = '=HYPERLINK("http://x";"y")'
    await place.send([e for n in range(250) for e in begun(n / 10, "mail.send", end="finished")])
    await place.send(begun(1, evil, key="+1", args={"a": "\x1b[31m"}))
    lines = (await place.get("/tasks.ndjson?q=name:mail.send", "text")).splitlines()
    assert len({json.loads(line)["id"] for line in lines}) == 250
    csv = await place.get("/tasks.csv", "text")
    assert f'"\'{evil.replace(chr(34), chr(34) * 2)}"' in csv
    assert ",'+1," in csv
    assert "\x1b" not in csv
    assert len(csv.splitlines()) == 252
    async with place.client.get(f"{place.base}/tasks.csv?q=stat:x") as answer:
        assert answer.status == 422
        assert "did you mean" in await answer.text()


async def test_a_verdict_changes_the_stamp_and_an_empty_batch_does_not(place: Place) -> None:
    await place.send(begun(1, deadline=3600))
    before = (await place.front.now()).stamp
    await place.daemon.database.write(lambda conn: conn.execute("UPDATE mark SET value = value WHERE name = 'x'"))
    assert (await place.front.now()).stamp == before
    await place.send(begun(1))
    assert (await place.front.now()).stamp != before
