"""A real server over a real database, and a client that sends exactly the bytes a test wants."""

from __future__ import annotations

import asyncio
import json
import sqlite3
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from looseends_daemon.config.settings import Server, Settings
from looseends_daemon.core.policy import Policy
from looseends_daemon.core.resources import Actor, CommandRefused, Page, Replay, Task
from looseends_daemon.core.routing import Route
from looseends_daemon.http import api, ingest, instances, orders, signin
from looseends_daemon.http.access import Access
from looseends_daemon.http.answers import Limits
from looseends_daemon.http.server import Context, Listener, listen, make_app
from looseends_daemon.store import access as kept
from looseends_daemon.store.connection import Database

TASK = "01890000-0000-8000-8000-000000000001"


@dataclass
class Reply:
    """An answer, as read from the wire. Header names in lower case."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def text(self) -> str:
        return self.body.decode()


@dataclass
class House:
    """A running server. `now` is the clock every handler sees; `calls` what reached the commands; `woken` counts wakes."""

    database: Database
    context: Context = field(init=False)
    listener: Listener = field(init=False)
    now: int = 0
    calls: list[tuple[str, Actor, dict[str, Any]]] = field(default_factory=list)
    refusal: Exception | None = None
    hold: asyncio.Event | None = None
    reached: asyncio.Event = field(default_factory=asyncio.Event)
    tasks: dict[str, Task] = field(default_factory=dict)
    asked: list[dict[str, Any]] = field(default_factory=list)
    woken: int = 0
    not_ready: list[str] = field(default_factory=list)
    routes: list[Route] = field(default_factory=list)

    @property
    def tcp(self) -> tuple[str, int]:
        host, _, port = self.listener.addresses[0].removeprefix("http://").rpartition(":")
        return host, int(port)

    @property
    def unix(self) -> str:
        return next(a for a in self.listener.addresses if a.startswith("unix:")).removeprefix("unix:")

    async def write(self, fn: Callable[[sqlite3.Connection], Any]) -> Any:
        return await self.database.write(fn)

    async def rows(self, sql: str, *params: Any) -> list[dict[str, Any]]:
        return await self.database.write(lambda conn: [dict(row) for row in conn.execute(sql, params)])

    async def session(self, role: str = "operator") -> dict[str, str]:
        """Sign in with a fresh token; the Cookie header."""
        reply = await self.ask("POST", "/sign-in", body=f"token={await self.token(role)}")
        assert reply.status == 303, reply.text
        return {"Cookie": reply.headers["set-cookie"].partition(";")[0]}

    async def csrf(self, cookie: dict[str, str]) -> str:
        """The form token that pages of this session carry."""
        return (await self.ask("GET", "/", headers=cookie)).text.partition("csrf=")[2]

    async def token(self, role: str, service: str | None = None, name: str = "") -> str:
        text = await self.write(lambda c: kept.create_token(c, role=role, service=service, name=name, now=self.now))
        return str(text)

    async def ask(
        self,
        method: str,
        path: str,
        *,
        token: str | None = None,
        headers: dict[str, str] | None = None,
        body: bytes | str | dict[str, Any] | list[Any] | None = None,
        unix: bool = False,
    ) -> Reply:
        """One request. A dict or list is sent as JSON, text as a form. Host is right unless `headers` says otherwise."""
        raw, kind = _encoded(body)
        lines = {"Host": f"127.0.0.1:{self.tcp[1]}", "Connection": "close", **kind, **(headers or {})}
        if token is not None:
            lines["Authorization"] = f"Bearer {token}"
        if raw and "Transfer-Encoding" not in lines:
            lines.setdefault("Content-Length", str(len(raw)))
        head = "".join(f"{name}: {value}\r\n" for name, value in lines.items() if value != "absent")
        return await self.raw(f"{method} {path} HTTP/1.1\r\n{head}\r\n".encode() + raw, unix=unix)

    async def raw(self, sent: bytes, *, unix: bool = False, wait_s: float = 10.0) -> Reply:
        """Send bytes, read until the other end closes."""
        async with asyncio.timeout(wait_s):
            pair = await (asyncio.open_unix_connection(self.unix) if unix else asyncio.open_connection(*self.tcp))
            reader, writer = pair
            try:
                writer.write(sent)
                await writer.drain()
                return _reply(await reader.read())
            finally:
                writer.close()


def _encoded(body: Any) -> tuple[bytes, dict[str, str]]:
    if body is None:
        return b"", {}
    if isinstance(body, bytes):
        return body, {"Content-Type": "application/json"}
    if isinstance(body, str):
        return body.encode(), {"Content-Type": "application/x-www-form-urlencoded"}
    return json.dumps(body).encode(), {"Content-Type": "application/json"}


def _reply(raw: bytes) -> Reply:
    head, _, body = raw.partition(b"\r\n\r\n")
    status, *lines = head.decode("latin-1").split("\r\n")
    headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
    if headers.get("transfer-encoding") == "chunked":
        body = _unchunked(body)
    return Reply(int(status.split(" ")[1]), headers, body)


def _unchunked(body: bytes) -> bytes:
    whole = b""
    while body:
        size, _, body = body.partition(b"\r\n")
        whole, body = whole + body[: int(size, 16)], body[int(size, 16) + 2 :]
    return whole


class FakeReader:
    """Answers like the store would, and notes what it was asked."""

    def __init__(self, house: House) -> None:
        self._house = house

    async def tasks(self, q: str, **asked: Any) -> Page[Task]:
        from looseends_daemon.core.query import parse

        parse(q)
        if asked.get("cursor") == "made-up":
            raise ValueError("it is none of ours")
        self._house.asked.append({"q": q, **asked})
        return Page(items=list(self._house.tasks.values()), next_cursor=None)

    async def task(self, task_id: str) -> Task | None:
        return self._house.tasks.get(task_id)

    def __getattr__(self, name: str) -> Any:
        async def read(*args: Any, **asked: Any) -> Any:
            self._house.asked.append({"what": name, "args": args, **asked})
            return Page(items=[]) if name in ("incidents", "notices", "replays", "instances", "audit") else None

        return read


class FakeCommands:
    """Acts by noting that it was asked to."""

    def __init__(self, house: House) -> None:
        self._house = house

    async def replay_task(self, task_id: str, actor: Actor, **wish: Any) -> Replay:
        self._house.reached.set()
        if self._house.hold is not None:
            await self._house.hold.wait()
        self._house.calls.append((task_id, actor, wish))
        if self._house.refusal is not None:
            raise self._house.refusal
        return Replay(id=f"rpl_{len(self._house.calls)}", state="running", requested_by=actor.name, requested_at=1)

    async def dismiss_task(self, task_id: str, actor: Actor, *, note: str) -> Task:
        self._house.calls.append((task_id, actor, {"note": note}))
        if self._house.refusal is not None:
            raise self._house.refusal
        return Task(id=task_id, name="n", service="s", environment="e", state="running", settled="dismissed")

    async def resolve_order(self, order_id: str, actor: Actor, **wish: Any) -> Replay:
        raise CommandRefused(404, "No such order", ["there is none"])


def standard_routes(context: Context) -> list[Route]:
    """Everything this package serves, and two pages as the dashboard would have them."""
    from aiohttp import web

    async def page(request: web.Request) -> web.Response:
        return web.Response(text=f"hello {request['actor'].name} csrf={request['csrf']}", content_type="text/html")

    async def act(request: web.Request) -> web.Response:
        form = await request.post()
        await context.commands.replay_task(TASK, request["actor"], note=str(form.get("note", "")))
        return web.Response(status=303, headers={"Location": "/tasks/done"})

    pages = [
        Route(method="GET", path="/", role="viewer", handler=page, page=True),
        Route(method="POST", path="/tasks/{id}/replay", role="operator", handler=act, page=True, acts=True),
    ]
    makers: Iterable[Callable[[Context], list[Route]]] = (
        *(api.api_routes, ingest.routes, signin.routes, instances.routes, orders.routes),
    )
    return [*pages, *(route for make in makers for route in make(context))]


@pytest.fixture
def all_routes() -> Callable[[Context], list[Route]]:
    """The route table of `house`, to add to."""
    return standard_routes


@pytest.fixture
def build(tmp_path: Path, state_dir: Path) -> Iterable[Any]:
    """Start a server; settings of [server], limits and routes can be given."""
    houses: list[House] = []

    async def start(
        *,
        limits: Limits | None = None,
        routes: Callable[[Context], list[Route]] = standard_routes,
        listen_on: tuple[str, ...] = (),
        **server: Any,
    ) -> House:
        database = await Database.open(str(tmp_path / f"test{len(houses)}.db"))
        house = House(database, now=time.time_ns())
        houses.append(house)

        def wake() -> None:
            house.woken += 1

        house.context = Context(
            database=database,
            reader=FakeReader(house),
            commands=FakeCommands(house),
            settings=Settings(server=Server(**server)),
            access=Access(database),
            policy=Policy(),
            started_at=house.now,
            wake=wake,
            ready=lambda: house.not_ready,
            render_sign_in=lambda error, next_path: f"<form>{error} next={next_path}</form>",
            now=lambda: house.now,
            limits=limits or Limits(),
        )
        house.routes = routes(house.context)
        app = make_app(house.routes, house.context)
        addresses = list(listen_on) or ["127.0.0.1:0", f"unix:{state_dir}/{len(houses)}.sock"]
        house.listener = await listen(app, addresses, limits=house.context.limits)
        return house

    return [start, houses]


@pytest.fixture
async def make_house(build: Any) -> AsyncIterator[Callable[..., Awaitable[House]]]:
    """`await make_house(...)` starts a server that ends with the test."""
    start, houses = build
    yield start
    for house in houses:
        if hasattr(house, "listener"):
            await house.listener.close(0.5)
        await house.database.close()


@pytest.fixture
async def house(make_house: Callable[..., Awaitable[House]]) -> House:
    """A server as it is without configuration."""
    return await make_house()
