"""Real receivers on 127.0.0.1, each with a behaviour of its own, and an outbox with notices to send."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import uuid
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from looseends.wire import check_batch
from looseends_daemon import config
from looseends_daemon.app import Daemon, running
from looseends_daemon.core.incidents import AlertRules, EndpointRule
from looseends_daemon.core.policy import Policy
from looseends_daemon.core.resources import Actor, Notice
from looseends_daemon.notify.reach import Reach
from looseends_daemon.notify.webhook import Target, Webhook
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


class Living:
    """A whole daemon in this process, with its own token, and what people and services do to it over HTTP."""

    def __init__(self, daemon: Daemon, client: aiohttp.ClientSession) -> None:
        self.daemon = daemon
        self.token = Path(daemon.database.path + ".token").read_text().strip()
        self.client = client
        self.base = next(address for address in daemon.listener.addresses if address.startswith("http"))  # type: ignore[union-attr]
        self.number = 0

    async def ask(self, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        """One request as the operator, or with events as a service: (status, JSON or text)."""
        self.number += 1
        headers = {"Idempotency-Key": f"key-{self.number:08}"} if method == "POST" else {}
        if not path.startswith("/api/v1/events"):
            headers["Authorization"] = f"Bearer {self.token}"
        async with self.client.request(method, self.base + path, json=body, headers=headers) as answer:
            kind = answer.content_type
            return answer.status, await (answer.json(content_type=None) if "json" in kind else answer.text())

    async def fail(self, name: str, *, service: str = "shop-web", key: str | None = None, text: str = "it broke") -> str:
        """One task of this name begins and fails: an incident of its own. Returns its id."""
        task = str(uuid.uuid4())
        events = [
            {"type": "started", "task": task, "name": name, "service": service, "key": key},
            {"type": "failed", "task": task, "error": {"type": "ValueError", "message": text}},
        ]
        status, said = await self.ask("POST", "/api/v1/events", {"events": events})
        assert status == 200, said
        return task

    async def until(self, condition: Callable[[], Any], timeout_s: float = 20.0) -> Any:
        """Wait until an (async) condition gives something, and return that."""
        async with asyncio.timeout(timeout_s):
            while True:
                if found := await condition():
                    return found
                await asyncio.sleep(0.02)

    async def notices(self, **has: Any) -> list[dict[str, Any]]:
        """Oldest first; those whose members are as given."""
        _, page = await self.ask("GET", "/api/v1/notices?limit=500")
        return [one for one in reversed(page["items"]) if all(one[name] == value for name, value in has.items())]

    async def endpoint(self, name: str = "ops") -> dict[str, Any]:
        _, page = await self.ask("GET", "/api/v1/endpoints")
        return next(one for one in page["items"] if one["name"] == name)


def webhook_table(url: str, name: str = "ops", **more: Any) -> str:
    """An [[endpoint]] of kind webhook as TOML."""
    lines = [f"{key} = {value}" for key, value in more.items()]
    return "\n".join(["[[endpoint]]", f'name = "{name}"', f'url = "{url}"', f'secrets = ["{KEYS[0]}", "{KEYS[1]}"]', *lines, ""])


@pytest.fixture
async def living(tmp_path: Path) -> AsyncIterator[Any]:
    """Start daemons with these endpoint tables; the same folder again is the same database. All are closed with the test."""
    open_now: list[tuple[contextlib.AsyncExitStack, Living]] = []

    async def start(*tables: str, alerts: str = 'group_wait = "0s"') -> Living:
        file = tmp_path / "config.toml"
        head = f'[server]\nlisten = ["127.0.0.1:0"]\ninstance = "test"\n[storage]\npath = "{tmp_path}/ends.db"\n'
        spools = f'[detect]\ngrace = "0s"\nspools = ["{tmp_path}/spool"]\n'
        file.write_text("\n".join([head, spools, f"[alerts]\n{alerts}", *tables]))
        stack = contextlib.AsyncExitStack()
        daemon = await stack.enter_async_context(running(config.load(str(file), {"HOME": str(tmp_path)})))
        client = await stack.enter_async_context(aiohttp.ClientSession())
        made = Living(daemon, client)
        open_now.append((stack, made))
        return made

    async def stop(made: Living) -> None:
        for one in list(open_now):
            if one[1] is made:
                open_now.remove(one)
                await one[0].aclose()

    start.stop = stop  # type: ignore[attr-defined]
    yield start
    for stack, _ in open_now:
        await stack.aclose()
