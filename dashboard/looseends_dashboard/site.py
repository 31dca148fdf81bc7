"""The pages: what was asked -> reader -> view -> template.

Rules: the address is the only state; a bad parameter is answered on the page with the place and the allowed values; each
page names the same data in the API. Reading only: what changes something stands in acts.py, the table of doors in routes.py.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from aiohttp import web

from looseends_daemon.core.endpoints import NO_ENDPOINTS, EndpointActs
from looseends_daemon.core.front import Front
from looseends_daemon.core.marks import Alerts
from looseends_daemon.core.plans import PlanCommands, PlanReader
from looseends_daemon.core.resources import Actor, Commands, Reader, Task, Value
from looseends_daemon.core.task_types import Types
from looseends_daemon.core.vitals import Vitals, no_vitals
from looseends_dashboard import access, asked, daemon_pages, overview, plans, render, snippets, task_page, views
from looseends_dashboard.alert_pages import paged

ROWS_MAX = 50
ORDERS_MAX = 100
REPLAY_REFRESH_S = 3
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Pages(Value, frozen=True):
    """What the pages are handed: the ports, a wall clock in ns, and the daemon's own addresses for the setup page.

    `opened` hears whose page is looked at: where a running task is now, its instance is asked. `vitals` tells how the daemon
    does; `lose_one` begins a task that nobody will end and gives its id. `trace_url`: where a trace id leads. What nobody
    brought (None) has no buttons.
    """

    reader: Reader
    front: Front
    commands: Commands
    clock: Callable[[], int]
    addresses: snippets.Addresses
    opened: Callable[[Task], None] = lambda task: None
    plans: PlanReader | None = None
    plan_acts: PlanCommands | None = None
    alerts: Alerts | None = None
    endpoints: EndpointActs = NO_ENDPOINTS
    types: Types | None = None
    vitals: Callable[[], Awaitable[Vitals]] = no_vitals
    lose_one: Callable[[Actor], Awaitable[str]] | None = None
    trace_url: str | None = None


class Site:
    """The handlers, around what they were handed."""

    def __init__(self, pages: Pages) -> None:
        self.pages = pages
        self.reader = pages.reader
        self.front = pages.front
        self.commands = pages.commands
        self.clock = pages.clock
        self.snippets = snippets.snippets(pages.addresses)
        self.addresses = pages.addresses
        self.opened = pages.opened
        self.plans = pages.plans

    async def overview(self, request: web.Request) -> web.Response:
        """GET /: the equation, the gap, what needs a look. Before the first event: the setup page.

        `part=picked` is the line under the picture alone, for the brush.
        """
        if request.query.get("part") == "picked":
            part = await overview.picked(self.front, request.query, self.clock())
            return self.page(request, "picked.html", **part)
        now = await self.front.now()  # before what is shown is read: what changes meanwhile is asked for again
        if now.last_event_at is None:
            return await daemon_pages.DaemonPages(self).setup(request)
        shown = await overview.read(self.reader, self.front, self.clock(), request.query)
        told: dict[str, Any] = {"stamp": now.stamp, "last_event": now.last_event_at}
        return self.page(request, "overview.html", here="Overview", **told, **shown)

    async def task(self, request: web.Request) -> web.Response:
        """GET /tasks/{id}."""
        return await self.task_page(request, request.match_info["id"])

    async def task_page(
        self, request: web.Request, task_id: str, *, refused: access.Refusal | None = None, status: int = 200
    ) -> web.Response:
        """A task's page, also with the reasons why an act on it was refused."""
        return await task_page.page(self, request, task_id, refused, status)

    async def replays(self, request: web.Request) -> web.Response:
        """GET /replays?cursor=."""
        cursor = request.query.get("cursor") or None
        page = await asked.listed(self.reader.replays(limit=ROWS_MAX, cursor=cursor))
        return self.page(request, "replays.html", here="Replays", api="/api/v1/replays", **paged(page, cursor, "/replays"))

    async def replay(self, request: web.Request) -> web.Response:
        """GET /replays/{id}. While it runs it looks again by itself, unless told to stop."""
        return await self.replay_page(request, request.match_info["id"], looking=request.query.get("refresh") != "off")

    async def replay_page(
        self,
        request: web.Request,
        replay_id: str,
        *,
        refused: access.Refusal | None = None,
        status: int = 200,
        looking: bool = False,
    ) -> web.Response:
        """A replay's page, also with the reasons why an act on it was refused."""
        replay = await self.reader.replay(replay_id)
        if replay is None:
            return self.missing(request, "replay")
        # Without JavaScript the page is loaded anew, and whoever is typing what became of an order must not have it taken away.
        refreshing = looking and replay.state == "running" and not replay.counts.get("outcome_unknown")
        return self.page(
            request,
            "replay.html",
            status=status,
            back=f"/replays/{replay.id}",
            here="Replays",
            api=f"/api/v1/replays/{replay.id}",
            replay=replay,
            refused=refused,
            refresh_s=REPLAY_REFRESH_S if refreshing else None,
            again_s=REPLAY_REFRESH_S,
            rows=views.order_rows(replay.items[:ORDERS_MAX]),
            rows_left=max(0, len(replay.items) - ORDERS_MAX),
            **await plans.run_values(self.plans, request, replay),
        )

    def answered(self, handler: Handler) -> Handler:
        """A handler whose bad parameters are answered on a small page."""

        async def door(request: web.Request) -> web.StreamResponse:
            try:
                return await handler(request)
            except asked.BadParameter as error:
                problem = asked.of_parameter(error)
                return self.problem(request, 422, problem.title, problem.detail)

        return door

    def page(self, request: web.Request, template: str, *, status: int = 200, **values: Any) -> web.Response:
        """A page drawn at this moment."""
        return render.page(request, template, self.clock(), status, **values)

    def problem(self, request: web.Request, status: int, title: str, detail: str, **values: Any) -> web.Response:
        """A small page for what went wrong."""
        values = {"back": "/"} | values
        return self.page(request, "error.html", status=status, title=title, detail=detail, code=status, **values)

    def missing(self, request: web.Request, what: str) -> web.Response:
        """404: no such thing here, and why that may be."""
        detail = f"This {what} was never seen here, or it is past retention. Check the address, or search for it."
        return self.problem(request, 404, f"No such {what}", detail)
