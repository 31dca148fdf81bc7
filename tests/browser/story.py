"""A shop's two days, told to a real daemon: what somebody new finds when they open the pages on Friday at 09:10.

    Thu 14:01  release 2026.11.3 goes out on web-1 and web-2
    Thu 14:05  web-2 is killed with fourteen receipts and two welcome mails open; it is started again
    Thu 16:30  a reindex is never started: a task before it in the same response raised
    Fri 06:02  partner.sync begins to fail, and does so every twenty minutes
    Fri 09:04  a receipt hangs

Rules: the daemon lives at five moments, each with a clock that stands where the story is; between them its mark of absence is
taken away, since in the story it ran all the time. Everything goes in and comes out by the doors that everybody uses. Two live
instances take orders, so that a replay runs.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import math
import sqlite3
import time
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import aiohttp
from aiohttp import web

from daemon.notify.conftest import webhook_table
from looseends.wire import NS, format_time, parse_time
from looseends_daemon import config
from looseends_daemon.app import Daemon, running
from looseends_daemon.clock import Clock
from looseends_daemon.store import access

BATCH = 500
BEAT_S = 1.0
PATIENCE_S = 20.0
TUESDAY, RELEASED = parse_time("2026-11-17T08:00:00Z"), parse_time("2026-11-19T14:01:00Z")
KILLED, DROPPED = parse_time("2026-11-19T14:05:31Z"), parse_time("2026-11-19T16:30:12Z")
FAILING, FRIDAY = parse_time("2026-11-20T06:02:00Z"), parse_time("2026-11-20T09:10:00Z")
MINUTE = 60 * NS
LOST_RECEIPTS, FAILURES = 14, 10
ORDER = 1042
"""The order whose receipt is looked for by its argument."""
HANGS = ["/srv/shop/jobs.py:41 deliver", "/srv/shop/mail.py:88 send", "httpx/_transports/default.py:72 read [httpx]"]
REFUSED = """Traceback (most recent call last):
  File "/srv/shop/partner.py", line 31, in sync
    with connect(PARTNER) as line:
  File "/srv/venv/lib/python3.12/site-packages/httpx/_client.py", line 1157, in connect
    raise ConnectError(message)
ConnectError: partner.example refused the connection"""
OFFERED = ("mail.send_receipt", "mail.send_welcome", "search.reindex_customer", "partner.sync")


class StoryClock(Clock):
    """The real clock, set to a moment of the story."""

    def __init__(self, at: int) -> None:
        self._ahead = at - time.time_ns()

    def wall_ns(self) -> int:
        return time.time_ns() + self._ahead


def process(number: int, host: str, pid: int, release: str, at: int, service: str = "shop-web") -> dict[str, Any]:
    """One instance of the story."""
    told = {"id": str(uuid.UUID(int=0x5A0 << 68 | 0x8 << 76 | 0x8 << 60 | number)), "service": service, "release": release}
    return told | {"host": host, "pid": pid, "started_at": format_time(at), "python": "3.12.7", "environment": "production"}


OLD_1 = process(1, "web-1", 2290, "2026.11.2", TUESDAY)
OLD_2 = process(2, "web-2", 2291, "2026.11.2", TUESDAY)
WEB_1 = process(3, "web-1", 3107, "2026.11.3", RELEASED)
WEB_2 = process(4, "web-2", 4121, "2026.11.3", RELEASED)
WEB_2_AGAIN = process(5, "web-2", 4377, "2026.11.3", KILLED + 40 * NS)
WORKER = process(6, "worker-1", 911, "2026.11.1", TUESDAY, service="shop-worker")


def where(at: int, place: int) -> dict[str, Any]:
    """Which instance of the web service took the request of that time."""
    if at < RELEASED:
        return (OLD_1, OLD_2)[place % 2]
    if place % 2 == 0:
        return WEB_1
    return WEB_2 if at < KILLED else WEB_2_AGAIN


Told = tuple[dict[str, Any], list[dict[str, Any]]]
_numbers = itertools.count(1)


def task_id() -> str:
    """An id that is the same in every telling, as long as the order of calls is."""
    return str(uuid.UUID(int=0x019A_9000_0000_8000_8000_0000_0000_0000 + next(_numbers)))


def one(at: int, name: str, end: str | None = "finished", took_s: float = 0.3, **more: Any) -> list[dict[str, Any]]:
    """A task that began then, with its end unless it has none."""
    about: dict[str, Any] = {"task": task_id(), "name": name, "source": "starlette", "deadline": 30, **more}
    events = [about | {"type": "started", "at": format_time(at)}]
    if end is not None:
        error = {"type": "ConnectError", "message": "partner.example refused the connection", "traceback": REFUSED}
        kind = {"type": end, "at": format_time(at + int(took_s * NS)), "duration": took_s}
        events.append({"task": about["task"], "name": name} | kind | ({"error": error} if end == "failed" else {}))
    return events


def bought(number: int) -> dict[str, Any]:
    """What a request of this order gives its tasks."""
    who = f"{('ada', 'bo', 'cy', 'dee', 'eli', 'fay')[number % 6]}{number}@example.com"
    return {"args": {"order_id": number, "email": who}, "key": f"order-{number}", "request": "POST /orders"}


def everyday(begin: int, end: int, every_s: int) -> Iterator[Told]:
    """Work that ends well, most of it by day."""
    for place, at in enumerate(range(begin, end, every_s * NS)):
        by_day = 0.5 - 0.5 * math.cos(((at // NS) % 86_400 - 7_200) / 86_400 * 2 * math.pi)
        if place * 7 % 10 >= 1 + round(by_day * 9):
            continue
        number, slow = 2000 + (at - TUESDAY) // (every_s * NS), place % 97 == 0
        took = 0.2 + place % 13 * 0.11 + (4.2 if slow else 0)
        name = "mail.send_receipt" if place % 2 else ("audit.write_row", "images.thumbnail", "mail.send_welcome")[place % 3]
        yield where(at, place), one(at, name, took_s=took if place % 2 else took / 3, **bought(number))
        if place % 8 == 0:
            about: dict[str, Any] = {"deadline": 600, "args": {"month": "2026-11"}, "source": "celery"}
            yield WORKER, one(at, "reports.export_csv", took_s=took * 20, **about)


class Story:
    """The daemon of one moment, and whoever reports to it. `base` is its address."""

    def __init__(self, daemon: Daemon, session: aiohttp.ClientSession, tokens: dict[str, str]) -> None:
        self.daemon, self._session, self._tokens = daemon, session, tokens
        self.base = daemon.listener.addresses[0] if daemon.listener else ""

    async def call(self, method: str, path: str, body: Any = None, service: str = "") -> Any:
        """One request, as a service or as the operator; its JSON."""
        headers = {"Authorization": f"Bearer {self._tokens[service]}"}
        async with self._session.request(method, f"{self.base}/api/v1{path}", json=body, headers=headers) as answer:
            assert answer.status in (200, 204), (path, await answer.text())
            return None if answer.status == 204 else await answer.json()

    async def tell(self, instance: dict[str, Any], events: list[dict[str, Any]]) -> None:
        """What one instance reports; all of it must be taken."""
        for start in range(0, max(1, len(events)), BATCH):
            now = format_time(self.daemon.clock.wall_ns())
            batch = {"instance": instance, "sent_at": now, "backlog": 0, "events": events[start : start + BATCH]}
            told = await self.call("POST", "/events", batch, instance["service"])
            assert not told["rejected"], told["rejected"][:2]

    async def tell_all(self, told: Iterator[Told]) -> None:
        """What many report, sorted by instance."""
        by_instance: dict[str, Told] = {}
        for instance, events in told:
            by_instance.setdefault(instance["id"], (instance, []))[1].extend(events)
        for instance, events in by_instance.values():
            await self.tell(instance, events)

    async def gone(self, instance: dict[str, Any], reason: str) -> None:
        """A process ended."""
        await self.call("DELETE", f"/instances/{instance['id']}", {"reason": reason}, instance["service"])

    async def until(self, q: str, count: int) -> list[dict[str, Any]]:
        """The tasks of this query, once there are so many."""
        async with asyncio.timeout(PATIENCE_S):
            while True:
                found = (await self.call("GET", f"/tasks?limit=500&q={q}"))["items"]
                if len(found) >= count:
                    return list(found)
                await asyncio.sleep(0.05)

    # --- the living ---

    async def live(self) -> None:
        """Heartbeats of all that live, and a mail server that works again: every order is taken and ends well."""
        while True:
            for instance in (WEB_1, WEB_2_AGAIN, WORKER):
                path, service = f"/instances/{instance['id']}", instance["service"]
                if (await self.call("PUT", f"{path}/heartbeat", {"backlog": 0}, service))["orders"]:
                    for order in (await self.call("GET", f"{path}/orders", None, service))["items"]:
                        await self._run(instance, order)
            await asyncio.sleep(BEAT_S)

    async def offer(self) -> None:
        """What can be run again."""
        offered = [{"name": name, "signature": "(order_id: int, email: str)", "replay": "yes"} for name in OFFERED]
        for instance in (WEB_1, WEB_2_AGAIN):
            await self.call("PUT", f"/instances/{instance['id']}/functions", offered, "shop-web")

    async def _run(self, instance: dict[str, Any], order: dict[str, Any]) -> None:
        path, service = f"/orders/{order['id']}", instance["service"]
        claim = await self.call("POST", f"{path}/claim", {"instance": instance["id"]}, service)
        await self.call("POST", f"{path}/result", {"fence": claim["fence"], "outcome": "started"}, service)
        about = {"task": order["id"], "name": order["name"], "replay_of": order["replay_of"], "args": order["args"]}
        now = self.daemon.clock.wall_ns()
        begun, ended = {"type": "started", "at": format_time(now)}, {"type": "finished", "at": format_time(now), "duration": 0.2}
        await self.tell(instance, [about | begun, about | ended])


# --- the moments --------------------------------------------------------------------------------------------------


async def _tuesday(story: Story) -> None:
    """Everybody is heard for the first time."""
    for instance in (OLD_1, OLD_2, WORKER):
        await story.tell(instance, [])


async def _the_release(story: Story) -> None:
    """Until Thursday's release, and the release."""
    await story.tell_all(everyday(TUESDAY, RELEASED - 6 * 3600 * NS, 180))
    await story.tell_all(everyday(RELEASED - 6 * 3600 * NS, RELEASED, 20))
    for instance in (OLD_1, OLD_2):
        await story.gone(instance, "exit")
    for instance in (WEB_1, WEB_2):
        await story.tell(instance, [])


async def _the_kill(story: Story) -> None:
    """web-2 takes orders, and is killed in the middle of them."""
    await story.tell_all(everyday(RELEASED + 20 * NS, KILLED, 20))
    began = [(n * 11, "mail.send_receipt", ORDER - n) for n in range(LOST_RECEIPTS)]
    began += [(n * 40, "mail.send_welcome", ORDER - n) for n in (1, 3)]
    open_ = [one(KILLED - s * NS, name, None, **bought(order), deadline=600) for s, name, order in began]
    await story.tell(WEB_2, [event for events in open_ for event in events])
    await story.gone(WEB_2, "killed")
    await story.tell(WEB_2_AGAIN, [])
    await story.until("verdict:lost", LOST_RECEIPTS + 2)


async def _the_night(story: Story) -> None:
    """Everything ends well but one reindex; in the morning the partner goes away."""
    await story.tell_all(everyday(KILLED + MINUTE, FAILING, 20))
    dropped = {"task": task_id(), "name": "search.reindex_customer", **bought(2_900), "start_within": 60, "source": "starlette"}
    scheduled = dropped | {"type": "scheduled", "at": format_time(DROPPED)}
    await story.tell(WEB_1, [scheduled, dropped | {"type": "dropped", "at": format_time(DROPPED), "reason": "neighbour_raised"}])
    await story.tell(WORKER, _failure(0))
    await story.until("is:loose", LOST_RECEIPTS + 2 + 2)


async def _the_morning(story: Story) -> None:
    await story.tell_all(everyday(FAILING + MINUTE, FRIDAY - 2 * MINUTE, 20))
    await story.tell(WORKER, [event for n in range(1, FAILURES) for event in _failure(n)])
    await story.tell(WEB_1, [*one(FRIDAY - 2 * NS, "images.thumbnail", None, **bought(3_990)), *_hanging()])
    await story.offer()
    await story.until("is:loose", LOST_RECEIPTS + 2 + 1 + FAILURES + 1)


def _failure(number: int) -> list[dict[str, Any]]:
    at = FAILING - MINUTE + number * 20 * MINUTE
    return one(at - NS, "partner.sync", "failed", 1.0, args={"page": number}, source="celery")


def _hanging() -> list[dict[str, Any]]:
    events = one(FRIDAY - 6 * MINUTE, "mail.send_receipt", None, **bought(3_977))
    at = format_time(FRIDAY - 5 * MINUTE)
    about = {"type": "progress", "task": events[0]["task"], "name": "mail.send_receipt", "at": at}
    return [*events, about | {"done": 0.4, "note": "connecting", "stack": HANGS}]


MOMENTS: tuple[tuple[int, Callable[[Story], Any]], ...] = (
    (TUESDAY, _tuesday),
    (RELEASED, _the_release),
    (KILLED, _the_kill),
    (FAILING, _the_night),
    (FRIDAY, _the_morning),
)


@contextlib.asynccontextmanager
async def told(folder: Path) -> AsyncIterator[Story]:
    """The daemon of Friday morning, with everything told and everybody alive. `folder` must be empty."""
    heard: list[Any] = []
    async with _receiver(heard) as address:
        file = folder / "config.toml"
        head = f'[server]\nlisten = ["127.0.0.1:0"]\n[storage]\npath = "{folder}/x.db"\n[detect]\ngrace = "0s"\n'
        file.write_text(f"{head}{webhook_table(address, 'pager')}")
        settings = config.load(str(file), {"HOME": str(folder), "XDG_STATE_HOME": str(folder)})
        tokens: dict[str, str] = {}
        for at, tell in MOMENTS:
            async with running(settings, StoryClock(at)) as daemon, aiohttp.ClientSession() as session:
                tokens = tokens or await _tokens(daemon, folder)
                story = Story(daemon, session, tokens)
                await tell(story)
                if at == FRIDAY:
                    async with asyncio.TaskGroup() as group:
                        living = group.create_task(story.live())
                        yield story
                        living.cancel()
            with contextlib.closing(sqlite3.connect(folder / "x.db")) as conn, conn:
                conn.execute("DELETE FROM mark WHERE name IN ('alive_at', 'alive_boot')")


async def _tokens(daemon: Daemon, folder: Path) -> dict[str, str]:
    """What each service, and the operator ("" here), signs with."""
    made = {"": (await asyncio.to_thread(Path(f"{folder}/x.db.token").read_text)).strip()}
    for service in ("shop-web", "shop-worker"):
        asked = {"role": "ingest", "service": service, "name": "", "now": daemon.clock.wall_ns()}
        text: str = await daemon.database.write(lambda conn, asked=asked: access.create_token(conn, **asked))
        made[service] = ".".join(text.split(".")[:2])
    return made


@contextlib.asynccontextmanager
async def _receiver(heard: list[Any]) -> AsyncIterator[str]:
    """Somebody who is told."""

    async def hook(request: web.Request) -> web.Response:
        heard.append(await request.json())
        return web.Response(status=204)

    app = web.Application()
    app.router.add_post("/hook", hook)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    yield f"http://127.0.0.1:{runner.addresses[0][1]}/hook"
    await runner.cleanup()
