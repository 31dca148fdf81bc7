"""The pages: what was asked -> reader -> view -> template.

Rules: the address is the only state; a bad parameter is answered on the page with the place and the allowed values; each
page names the same data in the API. Reading only: what changes something stands in acts.py, the table of doors in routes.py.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from aiohttp import web

from looseends_daemon.core.query import QUERY_CHARS_MAX, QueryError
from looseends_daemon.core.resources import Commands, Incident, Page, Reader, Task, Value, encode
from looseends_dashboard import access, asked, links, marks, overview, render, snippets, tree, verdicts, views, words

ROWS_MAX = 50
LOOSE_READ_MAX = 200
INCIDENT_TASKS_MAX = 50
NOTICES_MAX = 50
KIN_MAX = 20
STEPS_MAX = 200
ORDERS_MAX = 100
REFRESH_S = 10
REPLAY_REFRESH_S = 3
Handler = Callable[[web.Request], Awaitable[web.Response]]


class Pages(Value, frozen=True):
    """What the pages are handed: the two ports, a wall clock in ns, and the daemon's own addresses for the setup page."""

    reader: Reader
    commands: Commands
    clock: Callable[[], int]
    addresses: snippets.Addresses


class Site:
    """The handlers, around what they were handed."""

    def __init__(self, pages: Pages) -> None:
        self.reader = pages.reader
        self.commands = pages.commands
        self.clock = pages.clock
        self.snippets = snippets.snippets(pages.addresses)
        self.addresses = pages.addresses

    async def overview(self, request: web.Request) -> web.Response:
        """GET /: the equation, the gap, what needs a look. Before the first event: the setup page."""
        last_event = await self.reader.last_event_at()
        if last_event is None:
            return await self.setup(request)
        window = request.query.get("window")
        if window is not None and window not in overview.WINDOWS:
            return self.problem(request, 422, "Unknown window", f"window is one of {', '.join(overview.WINDOWS)}.")
        shown = await overview.read(self.reader, self.clock(), window)
        return self.page(request, "overview.html", here="Overview", last_event=last_event, **shown)

    async def tasks(self, request: web.Request) -> web.Response:
        """GET /tasks?q=&from=&to=&cursor=."""
        typed = {name: request.query.get(name, "").strip() for name in ("q", "from", "to")}
        cursor = request.query.get("cursor") or None
        page: Page[Task] | None = None
        problem = None
        from_: int | None = None
        to: int | None = None
        try:
            from_, to = asked.time_of(typed["from"], "from"), asked.time_of(typed["to"], "to")
            page = await asked.listed(self.reader.tasks(typed["q"], from_=from_, to=to, limit=ROWS_MAX, cursor=cursor))
        except QueryError as error:
            problem = asked.query_problem(typed["q"], error)
        except asked.BadParameter as error:
            problem = asked.of_parameter(error)
        next_cursor = page.next_cursor if page else None
        return self.page(
            request,
            "tasks.html",
            status=422 if problem else 200,
            here="Tasks",
            api=None if problem else links.href(typed["q"], from_, to, cursor, base="/api/v1/tasks"),
            q=typed["q"][: QUERY_CHARS_MAX + 1],
            from_text=typed["from"][:40],
            to_text=typed["to"][:40],
            problem=problem,
            page=page,
            first=links.href(typed["q"], from_, to) if cursor else None,
            next=links.href(typed["q"], from_, to, next_cursor) if next_cursor else None,
        )

    async def task(self, request: web.Request) -> web.Response:
        """GET /tasks/{id}."""
        return await self.task_page(request, request.match_info["id"])

    async def task_page(
        self, request: web.Request, task_id: str, *, refused: access.Refusal | None = None, status: int = 200
    ) -> web.Response:
        """A task's page, also with the reasons why an act on it was refused."""
        task = await self.reader.task(task_id)
        if task is None:
            return self.missing(request, "task")
        history = await self.reader.history(task_id) or []
        kin = await self._kin(task)
        steps = views.timeline(history)
        now = self.clock()
        return self.page(
            request,
            "task.html",
            status=status,
            back=f"/tasks/{task.id}",
            here="Tasks",
            api=f"/api/v1/tasks/{task.id}",
            task=task,
            seen=marks.mark(task),
            head=verdicts.headline(task, now),
            replay=access.replay_button(task, request.get("actor")),
            args_text=_editable(task),
            answers=verdicts.diagnosis(task, history) if task.loose else [],
            refused=refused,
            args=tree.tree(task.args) if task.args is not None else None,
            result=tree.tree(task.result) if task.result is not None else None,
            kin=kin[:KIN_MAX],
            kin_left=max(0, len(task.replays) + (task.replay_of is not None) - KIN_MAX),
            steps=steps[-STEPS_MAX:],
            steps_left=max(0, len(steps) - STEPS_MAX),
            copy_json=words.json_text(encode(task)),
            copy_curl=snippets.curl(self.addresses, f"/api/v1/tasks/{task.id}"),
        )

    async def _kin(self, task: Task) -> list[views.Kin]:
        """The task this one runs again, and those that run it again, with where they stand."""
        ids = [("Runs again", task.replay_of)] if task.replay_of else []
        ids += [("Run again as", new) for new in reversed(task.replays)]
        found = await asyncio.gather(*(self.reader.task(kin_id) for _, kin_id in ids[:KIN_MAX]))
        return [views.kin(said, kin_id, other) for (said, kin_id), other in zip(ids, found, strict=False)]

    async def incidents(self, request: web.Request) -> web.Response:
        """GET /incidents?cursor=: the open ones, then the resolved ones by page."""
        cursor = request.query.get("cursor") or None
        open_, pending, resolved = await asyncio.gather(
            self.reader.incidents("open", limit=ROWS_MAX),
            self.reader.incidents("pending", limit=ROWS_MAX),
            asked.listed(self.reader.incidents("resolved", limit=ROWS_MAX, cursor=cursor)),
        )
        return self.page(
            request,
            "incidents.html",
            here="Incidents",
            api="/api/v1/incidents",
            open=[*pending.items, *open_.items],
            **_paged(resolved, cursor, "/incidents"),
        )

    async def incident(self, request: web.Request) -> web.Response:
        """GET /incidents/{id}: why, its tasks, and every delivery attempt of its notices."""
        incident = await self.reader.incident(request.match_info["id"])
        if incident is None:
            return self.missing(request, "incident")
        tasks, notices = await asyncio.gather(self._tasks_of(incident), self.reader.notices(incident.id, limit=NOTICES_MAX))
        return self.page(
            request,
            "incident.html",
            here="Incidents",
            api=f"/api/v1/incidents/{incident.id}",
            incident=incident,
            seen=marks.incident_mark(incident),
            why=views.why_lines(incident),
            tasks=tasks,
            tasks_left=max(0, incident.counts.total - len(tasks)),
            tasks_href=links.href(links.cause_query(incident)),
            notices=notices.items,
        )

    async def _tasks_of(self, incident: Incident) -> list[Task]:
        """Its open loose ends first, then the settled ones, each newest first."""
        query = links.cause_query(incident)
        open_, settled = await asyncio.gather(
            self.reader.tasks(f"is:loose {query}", limit=INCIDENT_TASKS_MAX),
            self.reader.tasks(f"-is:loose {query}", limit=INCIDENT_TASKS_MAX),
        )
        return [*open_.items, *settled.items][:INCIDENT_TASKS_MAX]

    async def replays(self, request: web.Request) -> web.Response:
        """GET /replays?cursor=."""
        cursor = request.query.get("cursor") or None
        page = await asked.listed(self.reader.replays(limit=ROWS_MAX, cursor=cursor))
        return self.page(request, "replays.html", here="Replays", api="/api/v1/replays", **_paged(page, cursor, "/replays"))

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
        # Whoever is typing what became of an order must not have it taken away.
        refreshing = looking and replay.state == "running" and not replay.counts.get("outcome_unknown")
        response = self.page(
            request,
            "replay.html",
            status=status,
            back=f"/replays/{replay.id}",
            here="Replays",
            api=f"/api/v1/replays/{replay.id}",
            replay=replay,
            refused=refused,
            refresh_s=REPLAY_REFRESH_S if refreshing else None,
            rows=views.order_rows(replay.items[:ORDERS_MAX]),
            rows_left=max(0, len(replay.items) - ORDERS_MAX),
        )
        if refreshing:
            response.headers["Refresh"] = str(REPLAY_REFRESH_S)
        return response

    async def instances(self, request: web.Request) -> web.Response:
        """GET /instances?cursor=."""
        cursor = request.query.get("cursor") or None
        page = await asked.listed(self.reader.instances(limit=ROWS_MAX, cursor=cursor))
        return self.page(
            request, "instances.html", here="Instances", api="/api/v1/instances", **_paged(page, cursor, "/instances")
        )

    async def instance(self, request: web.Request) -> web.Response:
        """GET /instances/{id}."""
        instance = await self.reader.instance(request.match_info["id"])
        if instance is None:
            return self.missing(request, "instance")
        return self.page(
            request,
            "instance.html",
            here="Instances",
            api=f"/api/v1/instances/{instance.id}",
            it=instance,
            seen=marks.instance_mark(instance),
        )

    async def setup(self, request: web.Request) -> web.Response:
        """GET /setup, and / while nothing has been seen. It looks again by itself, unless told to stop."""
        last_event = await self.reader.last_event_at()
        refreshing = last_event is None and request.query.get("refresh") != "off"
        response = self.page(
            request,
            "setup.html",
            here="Setup",
            last_event=last_event,
            refreshing=refreshing,
            refresh_s=REFRESH_S,
            snippets=self.snippets,
        )
        if refreshing:
            response.headers["Refresh"] = str(REFRESH_S)
        return response

    def answered(self, handler: Handler) -> Handler:
        """A handler whose bad parameters are answered on a small page."""

        async def door(request: web.Request) -> web.Response:
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


def _editable(task: Task) -> str:
    """The recorded arguments as text to edit; empty where they are no object or too long to edit in a page."""
    text = words.json_text(task.args) if isinstance(task.args, dict) else ""
    return text if len(text) <= words.TEXT_CHARS_MAX else ""


def _paged(page: Page[Any], cursor: str | None, base: str) -> dict[str, Any]:
    """A list with its way on and its way back."""
    following = links.href(cursor=page.next_cursor, base=base) if page.next_cursor else None
    return {"page": page, "first": base if cursor else None, "next": following}
