"""Incidents, silences and endpoints: how they stand, why, and the forms of what can be done about them.

Rules: as in site.py. A form is shown to operators only, and only where its act would be taken; what somebody typed into a form
that was refused stands there again.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from aiohttp import web

from looseends_daemon.core.marks import SHOWN_MAX, UNDO_S, Dismissal
from looseends_daemon.core.resources import Actor, CommandRefused, Incident, Notice, Task
from looseends_dashboard import access, asked, links, marks, views

if TYPE_CHECKING:
    from looseends_dashboard.site import Site

ROWS_MAX = 50
INCIDENT_TASKS_MAX = 50
NOTICES_MAX = 50
DISMISSALS_MAX = 20
LOG_MAX = 100
_DURATIONS = (("1h", "1 hour"), ("2h", "2 hours"), ("8h", "8 hours"), ("1d", "1 day"), ("7d", "7 days"))


class AlertPages:
    """The handlers, around the site they belong to."""

    def __init__(self, site: Site) -> None:
        self.site = site
        self.reader = site.reader
        self.alerts = site.pages.alerts

    # --- incidents ---

    async def incidents(self, request: web.Request) -> web.Response:
        """GET /incidents?cursor=: the open ones, then the resolved ones by page, and what was dismissed lately."""
        cursor = request.query.get("cursor") or None
        open_, pending, resolved = await asyncio.gather(
            self.reader.incidents("open", limit=ROWS_MAX),
            self.reader.incidents("pending", limit=ROWS_MAX),
            asked.listed(self.reader.incidents("resolved", limit=ROWS_MAX, cursor=cursor)),
        )
        dismissals = list((await self.alerts.dismissals(DISMISSALS_MAX)).items) if self.alerts else []
        return self.site.page(
            request,
            "incidents.html",
            here="Incidents",
            api="/api/v1/incidents",
            open=[*pending.items, *open_.items],
            more_open=open_.next_cursor is not None,
            dismissals=dismissals,
            **paged(resolved, cursor, "/incidents"),
        )

    async def incident(self, request: web.Request) -> web.Response:
        """GET /incidents/{id}: why, its tasks, and every delivery attempt of its notices."""
        return await self.incident_page(request, request.match_info["id"])

    async def incident_page(
        self, request: web.Request, incident_id: str, refused: access.Refusal | None = None, status: int = 200
    ) -> web.Response:
        """An incident's page, also with the reasons why an act on it was refused."""
        incident = await self.reader.incident(incident_id)
        if incident is None:
            return self.site.missing(request, "incident")
        tasks, notices, undoable = await asyncio.gather(
            self._tasks_of(incident), self.reader.notices(incident.id, limit=NOTICES_MAX), self._undoable(incident)
        )
        acting = access.may_act(request.get("actor")) and self.alerts is not None
        return self.site.page(
            request,
            "incident.html",
            status=status,
            back=f"/incidents/{incident.id}",
            here="Incidents",
            api=f"/api/v1/incidents/{incident.id}",
            incident=incident,
            seen=marks.incident_mark(incident),
            why=views.why_lines(incident),
            tasks=tasks,
            tasks_left=max(0, incident.counts.total - len(tasks)),
            tasks_href=links.href(links.cause_query(incident)),
            notices=notices.items,
            more_notices=notices.next_cursor is not None,
            undoable=undoable,
            refused=refused,
            may_acknowledge=acting and incident.state != "resolved",
            may_dismiss=acting and incident.counts.open > 0,
            frozen=await self._frozen(incident) if acting and incident.counts.open > 0 else None,
            silence_href=links.address("/silences", {"matchers": matchers_of(incident)}) if incident.state != "resolved" else "",
            replay_href=_plan_href(incident),
        )

    async def _tasks_of(self, incident: Incident) -> list[Task]:
        """Its open loose ends first, then the settled ones, each newest first."""
        query = links.cause_query(incident)
        open_, settled = await asyncio.gather(
            self.reader.tasks(f"is:loose {query}", limit=INCIDENT_TASKS_MAX),
            self.reader.tasks(f"-is:loose {query}", limit=INCIDENT_TASKS_MAX),
        )
        return [*open_.items, *settled.items][:INCIDENT_TASKS_MAX]

    async def _frozen(self, incident: Incident) -> str:
        """The digest of what "dismiss all" would settle: nothing is dismissed that was not seen. "" where there is nothing."""
        if self.alerts is None:
            return ""
        try:
            return (await self.alerts.freeze(incident=incident.id)).digest
        except CommandRefused:  # the last one was settled between the two reads: the form is not shown
            return ""

    async def _undoable(self, incident: Incident) -> list[Dismissal]:
        """Dismissals of this whole incident that can still be taken back."""
        if self.alerts is None:
            return []
        now = self.site.clock()
        return [
            one for one in (await self.alerts.dismissals(DISMISSALS_MAX)).items if _is_of(one, incident) and may_undo(one, now)
        ]

    async def dismissal(self, request: web.Request) -> web.Response:
        """GET /dismissals/{id}: what was dismissed, how far it got, and the way back."""
        return await self.dismissal_page(request, request.match_info["id"])

    async def dismissal_page(
        self, request: web.Request, dismissal_id: str, refused: access.Refusal | None = None, status: int = 200
    ) -> web.Response:
        """A dismissal's page, also with the reasons why taking it back was refused."""
        found = await self.alerts.dismissal(dismissal_id) if self.alerts else None
        if found is None:
            return self.site.missing(request, "dismissal")
        now = self.site.clock()
        response = self.site.page(
            request,
            "dismissal.html",
            status=status,
            here="Incidents",
            api=f"/api/v1/dismissals/{found.id}",
            it=found,
            refused=refused,
            may_undo=may_undo(found, now) and access.may_act(request.get("actor")),
            undo_min=round(UNDO_S / 60),
            incident=incident_of(found),
        )
        if found.state in ("running", "undoing") and refused is None:
            response.headers["Refresh"] = "2"
        return response

    # --- silences ---

    async def silences(self, request: web.Request) -> web.Response:
        """GET /silences?matchers=&cursor=: those in force, those that are over, and the form for a new one."""
        return await self.silences_page(request, {"matchers": request.query.get("matchers", "")[:2_000]})

    async def silences_page(
        self,
        request: web.Request,
        typed: dict[str, str],
        refused: access.Refusal | None = None,
        preview: Any = None,
        status: int = 200,
    ) -> web.Response:
        """The page with what was typed, what that would hide, or why it was refused."""
        cursor = request.query.get("cursor") or None
        current: list[Any] = []
        over: dict[str, Any] = {"page": None, "first": None, "next": None}
        if self.alerts is not None:
            active, pending = await asyncio.gather(self.alerts.silences("active", 200), self.alerts.silences("pending", 200))
            current = [*active.items, *pending.items]
            over = paged(await asked.listed(self.alerts.silences("expired", ROWS_MAX, cursor)), cursor, "/silences")
        return self.site.page(
            request,
            "silences.html",
            status=status,
            back="/silences",
            here="Incidents",
            api="/api/v1/silences",
            current=current,
            typed={"matchers": "", "comment": "", "duration": "2h"} | typed,
            durations=_DURATIONS,
            preview=preview,
            shown_max=SHOWN_MAX,
            refused=refused,
            **over,
        )

    # --- endpoints ---

    async def endpoints(self, request: web.Request) -> web.Response:
        """GET /endpoints: how deliveries go, and the latest notices with every attempt."""
        return await self.endpoints_page(request)

    async def endpoints_page(
        self, request: web.Request, refused: access.Refusal | None = None, status: int = 200
    ) -> web.Response:
        """The page, also with the reasons why an act was refused."""
        cursor = request.query.get("cursor") or None
        only = request.query.get("endpoint", "")[:200]
        listed, log = await asyncio.gather(
            self.site.pages.endpoints.endpoints(), asked.listed(self.reader.notices(None, limit=LOG_MAX, cursor=cursor))
        )
        rows = [notice for notice in log.items if not only or notice.endpoint == only]
        return self.site.page(
            request,
            "endpoints.html",
            status=status,
            back="/endpoints",
            here="Incidents",
            api="/api/v1/endpoints",
            endpoints=listed,
            marks_of={one.name: marks.endpoint_mark(one) for one in listed},
            notices=rows,
            only=only,
            log_max=LOG_MAX,
            refused=refused,
            **paged(log, cursor, "/endpoints"),
        )

    async def notice(self, request: web.Request) -> web.Response:
        """GET /notices/{id}: one message as it was sent, with every delivery attempt."""
        return await self.notice_page(request, request.match_info["id"])

    async def notice_page(
        self, request: web.Request, notice_id: str, refused: access.Refusal | None = None, status: int = 200
    ) -> web.Response:
        """A notice's page, also with the reasons why sending it again was refused."""
        found: Notice | None = await self.reader.notice(notice_id)
        if found is None:
            return self.site.missing(request, "notice")
        return self.site.page(
            request,
            "notice.html",
            status=status,
            back=f"/notices/{found.id}",
            here="Incidents",
            api=f"/api/v1/notices/{found.id}",
            it=found,
            refused=refused,
        )


def paged(page: Any, cursor: str | None, base: str) -> dict[str, Any]:
    """A list with its way on and its way back."""
    following = links.href(cursor=page.next_cursor, base=base) if page.next_cursor else None
    return {"page": page, "first": base if cursor else None, "next": following}


def matchers_of(incident: Incident) -> str:
    """What a silence for this incident would match on: its cause, as narrow as its key."""
    cause = {"instance": incident.instance} if incident.instance else {"name": incident.name}
    return links.matching(environment=incident.environment, service=incident.service, **cause)


def _plan_href(incident: Incident) -> str:
    return links.address("/replays/new", {"incident": incident.id}) if incident.counts.open else ""


def incident_of(dismissal: Dismissal) -> str:
    """The incident that a dismissal was about; "" if it was a query or a task."""
    said = dismissal.what.removeprefix("incident").strip(" :")
    return said if dismissal.what.startswith("incident") and said.startswith("inc_") else ""


def _is_of(dismissal: Dismissal, incident: Incident) -> bool:
    return incident_of(dismissal) == incident.id


def may_undo(dismissal: Dismissal, now: int) -> bool:
    """Whether it can still be taken back."""
    return dismissal.state in ("running", "done") and dismissal.undo_until_at > now


def actor_of(request: web.Request) -> Actor:
    """Who acts, as the guard found out."""
    actor = request["actor"]
    if not isinstance(actor, Actor):
        raise web.HTTPForbidden
    return actor
