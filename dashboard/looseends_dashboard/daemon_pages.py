"""Instances, the daemon itself, the audit log, and the setup page."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from looseends_daemon.core.resources import Task
from looseends_dashboard import access, asked, links, marks, words
from looseends_dashboard.alert_pages import paged

if TYPE_CHECKING:
    from aiohttp import web

    from looseends_dashboard.site import Site

ROWS_MAX = 50
INSTANCE_TASKS_MAX = 20
BLIND_MAX = 20
REFRESH_S = 10


class DaemonPages:
    """The handlers, around the site they belong to."""

    def __init__(self, site: Site) -> None:
        self.site = site
        self.reader = site.reader

    async def instances(self, request: web.Request) -> web.Response:
        """GET /instances?cursor=."""
        cursor = request.query.get("cursor") or None
        page = await asked.listed(self.reader.instances(limit=ROWS_MAX, cursor=cursor))
        return self.site.page(
            request, "instances.html", here="Instances", api="/api/v1/instances", **paged(page, cursor, "/instances")
        )

    async def instance(self, request: web.Request) -> web.Response:
        """GET /instances/{id}: how it does, what is missing of it, and its tasks, the open ones first."""
        instance = await self.reader.instance(request.match_info["id"])
        if instance is None:
            return self.site.missing(request, "instance")
        query = links.term("instance", instance.id)
        tasks: list[Task] = []
        if query:
            loose, newest = await asyncio.gather(
                self.reader.tasks(f"is:loose {query}", limit=INSTANCE_TASKS_MAX),
                self.reader.tasks(f"-is:loose {query}", limit=INSTANCE_TASKS_MAX),
            )
            tasks = [*loose.items, *newest.items][:INSTANCE_TASKS_MAX]
        blind = [one for one in (await self.reader.blind_windows(limit=BLIND_MAX * 5)).items if one.instance == instance.id]
        return self.site.page(
            request,
            "instance.html",
            here="Instances",
            api=f"/api/v1/instances/{instance.id}",
            it=instance,
            seen=marks.instance_mark(instance),
            tasks=tasks,
            tasks_href=links.href(query) if query else "",
            blind=blind[:BLIND_MAX],
        )

    async def status(self, request: web.Request) -> web.Response:
        """GET /status: loops, storage and its forecast, blind windows, the configuration in force."""
        vitals, blind, last_event = await asyncio.gather(
            self.site.pages.vitals(), self.reader.blind_windows(limit=BLIND_MAX), self.reader.last_event_at()
        )
        return self.site.page(
            request,
            "status.html",
            here="Status",
            api="/api/v1/status",
            it=vitals,
            storage=_storage(vitals.storage),
            blind=blind.items,
            last_event=last_event,
        )

    async def audit(self, request: web.Request) -> web.Response:
        """GET /audit?cursor=: every act of a person."""
        cursor = request.query.get("cursor") or None
        page = await asked.listed(self.reader.audit(limit=ROWS_MAX, cursor=cursor))
        rows = [(row, _subject_href(row.subject)) for row in page.items]
        return self.site.page(
            request, "audit.html", here="Status", api="/api/v1/audit", rows=rows, **paged(page, cursor, "/audit")
        )

    async def setup(self, request: web.Request) -> web.Response:
        """GET /setup, and / while nothing has been seen. It looks again by itself, unless told to stop."""
        last_event = await self.reader.last_event_at()
        newest = list((await self.reader.tasks("", limit=1)).items) if last_event is not None else []
        refreshing = last_event is None and request.query.get("refresh") != "off"
        response = self.site.page(
            request,
            "setup.html",
            here="Setup",
            last_event=last_event,
            newest=newest,
            refreshing=refreshing,
            refresh_s=REFRESH_S,
            snippets=self.site.snippets,
            may_lose=self.site.pages.lose_one is not None and access.may_act(request.get("actor")),
        )
        if refreshing:
            response.headers["Refresh"] = str(REFRESH_S)
        return response


def _subject_href(subject: str) -> str:
    """Where the thing that was acted on is seen; "" where it has no page."""
    for beginning, path in (("inc_", "/incidents/"), ("rep_", "/replays/"), ("msg_", "/notices/"), ("dis_", "/dismissals/")):
        if subject.startswith(beginning) and len(subject) <= 80 and subject.replace("_", "").isalnum():
            return path + subject
    is_id = len(subject) == 36 and all(c in "0123456789abcdef-" for c in subject)
    return f"/tasks/{subject}" if is_id else ""


def _storage(figures: dict[str, Any]) -> list[tuple[str, str]]:
    """The storage in words; empty where nobody keeps count of it."""
    if not figures:
        return []
    sizes, forecast = figures.get("sizes", {}), figures.get("forecast", {})
    days = forecast.get("days_left")
    ahead = "stays below its limit" if days is None else f"reaches its limit in about {days:,.0f} days"
    lines = [
        ("Facts and history", size(sizes.get("used", 0))),
        ("File", f"{size(sizes.get('file', 0))}, log beside it {size(figures.get('wal', 0))}"),
        ("Limit", size(forecast.get("limit", 0))),
        ("Growth", f"{size(forecast.get('bytes_per_day', 0))} a day, {size(forecast.get('bytes_per_task', 0))} a task"),
        ("Forecast", f"levels off at {size(forecast.get('levels_off_at', 0))}; {ahead}"),
        ("Disk", f"{size(sizes.get('disk_free', 0))} free of {size(sizes.get('disk_total', 0))}"),
        ("Waiting to be written", _waiting(figures)),
        ("Still with the services", _behind(figures)),
        ("Commits", words.number(figures.get("commits", 0))),
        ("Removed by retention", words.plural(figures.get("removed", 0), "task")),
    ]
    if figures.get("given_up"):
        lines.append(("Given up for room", words.plural(figures["given_up"], "task")))
    return lines


def _waiting(figures: dict[str, Any]) -> str:
    """What the writer has not got to yet, and whether anybody was sent away because of that."""
    told = (
        f"{size(figures.get('queued', 0))} of {size(figures.get('queued_max', 0))}, at most {size(figures.get('queued_most', 0))}"
    )
    refused = figures.get("refused", 0)
    return f"{told}; {words.plural(refused, 'batch', 'batches')} told to come again" if refused else told


def _behind(figures: dict[str, Any]) -> str:
    """What services have recorded and not sent yet."""
    records = figures.get("behind_records", 0)
    if not records:
        return "nothing: all that is known is here"
    return f"{words.plural(records, 'record')} of {words.plural(figures.get('behind_instances', 0), 'instance')}"


def size(count: float) -> str:
    """Bytes for reading: 640.0 MiB."""
    for unit, digits in (("B", 0), ("KiB", 0), ("MiB", 1)):
        if abs(count) < 1024:
            return f"{count:,.{digits}f} {unit}"
        count /= 1024
    return f"{count:,.1f} GiB"
