"""A world behind a real server: the doors of instances, orders and plans."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from typing import Any

import aiohttp

from looseends_daemon.config.settings import Server, Settings
from looseends_daemon.core.policy import Policy
from looseends_daemon.http import api, ingest, instances, orders, plans
from looseends_daemon.http.access import Access
from looseends_daemon.http.server import Context, listen, make_app
from looseends_daemon.services.planner import Planner
from looseends_daemon.store import access
from looseends_daemon.store.plan_reads import StorePlans
from looseends_daemon.store.reads import StoreReader

ID = "01234567-89ab-8def-8123-456789abcdef"
NOBODY = "01234567-89ab-8def-8123-0000000000ff"
SEND = {"name": "mail.send", "signature": "(order_id)", "code": None, "replay": "yes", "caution": None, "via": None}


class Served:
    """A world behind a server; every call is (status, JSON)."""

    def __init__(self, world: Any, socket: str, tcp: str) -> None:
        self.world, self._socket, self._tcp = world, socket, tcp

    async def call(
        self, method: str, path: str, body: Any = None, *, token: str | None = None, tcp: bool = False, key: str | None = None
    ) -> tuple[int, Any]:
        """One request, over the unix socket unless a token or `tcp` says otherwise."""
        over_tcp = tcp or token is not None
        connector = None if over_tcp else aiohttp.UnixConnector(self._socket)
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        headers |= {"Idempotency-Key": key} if key else {}
        base = self._tcp if over_tcp else "http://localhost"
        async with (
            aiohttp.ClientSession(connector=connector) as session,
            session.request(method, f"{base}/api/v1{path}", json=body, headers=headers) as response,
        ):
            return response.status, await response.json(content_type=None)

    async def token(self, role: str, service: str | None = None) -> str:
        """A new token's text."""
        text: str = await self.world.database.write(
            lambda conn: access.create_token(conn, role=role, service=service, name="", now=self.world.now)
        )
        return text

    async def lost_task(self, instance: str = ID, **how: Any) -> str:
        """A task of a dead instance, and a live one (`instance`) that came this way (`how`) and offers its function."""
        task: str = await self.world.lost(SEND)
        status, _ = await self.call("POST", "/events", {"instance": {"id": instance, "service": "shop"}}, **how)
        assert status == 200
        assert (await self.call("PUT", f"/instances/{instance}/functions", [SEND], **how))[0] == 200
        return task


@contextlib.asynccontextmanager
async def serving(world: Any, state_dir: str) -> AsyncIterator[Served]:
    """A server over this world; it ends with the block."""
    context = Context(
        database=world.database,
        reader=StoreReader(world.database, wall_ns=lambda: world.now),
        commands=world.commands,
        settings=Settings(server=Server()),
        access=Access(world.database),
        policy=Policy(),
        started_at=world.now,
        render_sign_in=lambda error, next_path: "",
        wake=lambda: None,
        ready=list,
        now=lambda: world.now,
        plans=StorePlans(world.database, lambda: world.now),
        plan_acts=Planner(world.database, lambda: world.now, lambda: None),
    )
    parts = (ingest.routes, instances.routes, orders.routes, plans.routes, api.api_routes)
    routes = [route for part in parts for route in part(context)]
    socket = f"{state_dir}/le.sock"
    listener = await listen(make_app(routes, context), ["127.0.0.1:0", f"unix:{socket}"], limits=context.limits)
    try:
        yield Served(world, socket, listener.addresses[0])
    finally:
        await listener.close(0.5)
