"""Real receivers on 127.0.0.1, each with a behaviour of its own, and an outbox with notices to send."""

from __future__ import annotations

import asyncio
import base64
import uuid
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from looseends.wire import check_batch
from looseends_daemon.core.incidents import AlertRules, EndpointRule
from looseends_daemon.core.policy import Policy
from looseends_daemon.core.resources import Actor, Notice
from looseends_daemon.notify.webhook import Reach, Target, Webhook
from looseends_daemon.services.dispatcher import Dispatcher, begin
from looseends_daemon.store import incidents, outbox
from looseends_daemon.store.connection import Database
from looseends_daemon.store.facts import apply_batch
from looseends_daemon.store.judgements import Times, judge_due

KEYS = tuple("whsec_" + base64.b64encode(bytes([n]) * 32).decode() for n in (1, 2))
ACTOR = Actor(name="test", role="ingest", channel="uds:0", uid=0)


class Receiver:
    """A web server that answers as told: `status`, or what `behave` does. `requests` holds (headers, body) in order."""

    def __init__(self) -> None:
        self.requests: list[tuple[dict[str, str], bytes]] = []
        self.status = 200
        self.headers: dict[str, str] = {}
        self.body = b"thanks"
        self.behave: Callable[[web.Request], Any] | None = None
        self.arrived = asyncio.Event()
        self.release = asyncio.Event()
        self.url = ""

    async def handle(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        self.requests.append(({k.lower(): v for k, v in request.headers.items()}, body))
        self.arrived.set()
        if self.behave is not None:
            answer: web.StreamResponse = await self.behave(request)
            return answer
        return web.Response(status=self.status, headers=self.headers, body=self.body)

    async def hang(self, request: web.Request) -> web.Response:
        await self.release.wait()
        return web.Response(status=200)


@pytest.fixture
async def receivers() -> AsyncIterator[Callable[[], Any]]:
    """Make receivers; all are gone with the test."""
    runners: list[tuple[web.AppRunner, Receiver]] = []

    async def make() -> Receiver:
        receiver = Receiver()
        app = web.Application()
        app.router.add_route("*", "/{tail:.*}", receiver.handle)
        runner = web.AppRunner(app, shutdown_timeout=0.1)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        receiver.url = f"http://127.0.0.1:{runner.addresses[0][1]}/hook"
        runners.append((runner, receiver))
        return receiver

    yield make
    for runner, receiver in runners:
        receiver.release.set()
        await runner.cleanup()


@pytest.fixture
async def receiver(receivers: Any) -> Receiver:
    found: Receiver = await receivers()
    return found


@pytest.fixture
async def webhooks() -> AsyncIterator[Callable[..., Webhook]]:
    """Make senders; all are closed with the test."""
    made: list[Webhook] = []

    def make(url: str, *, name: str = "ops", timeout: float = 15.0, keys: tuple[str, ...] = KEYS, **reach: Any) -> Webhook:
        target = Target(name=name, url=url, secrets=keys, timeout=timeout)
        made.append(Webhook(target, Reach(**reach), version="1.2.3"))
        return made[-1]

    yield make
    for webhook in made:
        await webhook.close()


class Post:
    """A daemon's database with incidents on demand, and dispatchers for its endpoints, with a clock of the test's own."""

    def __init__(self, database: Database, names: tuple[str, ...]) -> None:
        self.database = database
        self.endpoints = {name: EndpointRule(name=name, fingerprint="1") for name in names}
        self.rules = AlertRules(endpoints=tuple(self.endpoints.values()), group_wait=0)
        self.now = 1_780_000_000_000_000_000
        self.number = 0

    async def begin(self) -> None:
        await begin(self.database, self.rules, self.now)

    async def incident(self) -> None:
        """One more failed task, of a name of its own: one open incident, one notice per endpoint."""
        self.number += 1
        task = str(uuid.UUID(int=self.number, version=4))
        events = [
            {"type": "started", "task": task, "name": f"job.{self.number}"},
            {"type": "failed", "task": task, "error": {"type": "ValueError"}},
        ]
        instance = {"id": str(uuid.UUID(int=0, version=4)), "service": "shop-web"}
        batch = check_batch({"instance": instance, "events": events}, self.now)

        def work(conn: Any) -> None:
            apply_batch(conn, batch, actor=ACTOR, now=self.now, policy=Policy())
            judged = judge_due(conn, Times(now=self.now, heard_since=0, ready_at=0), Policy())
            incidents.absorb(conn, self.now, judged.changes, self.rules)
            incidents.advance(conn, self.now, self.rules)

        await self.database.write(work)

    def dispatcher(self, name: str, post: Any) -> Dispatcher:
        return Dispatcher(self.database, self.endpoints[name], post, lambda: self.now, jitter=lambda: 0.0)

    async def notices(self, endpoint: str = "ops") -> list[Notice]:
        """Oldest first."""
        page = await self.database.read(lambda conn: outbox.notices(conn, None, 500))
        return [notice for notice in reversed(page.items) if notice.endpoint == endpoint]


@pytest.fixture
async def make_post(tmp_path: Path) -> AsyncIterator[Any]:
    """Open a database with these endpoints."""
    opened: list[Database] = []

    async def make(*names: str) -> Post:
        database = await Database.open(str(tmp_path / "ends.db"))
        opened.append(database)
        post = Post(database, names or ("ops",))
        await post.begin()
        return post

    yield make
    for database in opened:
        await database.close()
