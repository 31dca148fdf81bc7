"""The two ports over plain lists, and an application of the pages over them.

Rules: the reader keeps the promises that pages rest on (newest first, None for unknown, QueryError for a bad query) and
filters by the words the pages themselves link to.
"""

from __future__ import annotations

import collections
import dataclasses
import warnings
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from aiohttp import web
from aiohttp.test_utils import TestClient

from dashboard.fake_alerts import FakeAlerts, FakeEndpoints, FakeTypes
from looseends_daemon.core import query
from looseends_daemon.core.endpoints import Endpoint
from looseends_daemon.core.front import Choice, Facet, Found, Happened, Now, TypeCount
from looseends_daemon.core.marks import Dismissal, Silence
from looseends_daemon.core.resources import (
    Actor,
    AuditRow,
    BlindWindow,
    Bucket,
    CommandRefused,
    HistoryEntry,
    Incident,
    Instance,
    Ledger,
    Notice,
    Page,
    Replay,
    Task,
)
from looseends_daemon.core.task_types import TypeStory
from looseends_daemon.core.vitals import Vitals
from looseends_dashboard.routes import Addresses, Pages, render_error, routes

TERMS = ("tasks", "succeeded", "failed", "cancelled", "in_time", "gap", "loose")
Client = TestClient[web.Request, web.Application]
Visit = Callable[..., Awaitable[Client]]
"""visit(reader, commands=None, actor=operator) -> a client of an application of the pages."""
OPERATOR = Actor(name="operator token", role="operator", channel="token:op")
VIEWER = Actor(name="viewer token", role="viewer", channel="token:v")


@dataclasses.dataclass
class FakeReader:
    """The port's read side over lists; `last` None: nothing was ever seen."""

    all_tasks: list[Task] = dataclasses.field(default_factory=list)
    histories: dict[str, list[HistoryEntry]] = dataclasses.field(default_factory=dict)
    all_incidents: list[Incident] = dataclasses.field(default_factory=list)
    all_notices: list[Notice] = dataclasses.field(default_factory=list)
    all_replays: list[Replay] = dataclasses.field(default_factory=list)
    all_instances: list[Instance] = dataclasses.field(default_factory=list)
    buckets: list[Bucket] = dataclasses.field(default_factory=list)
    complete: bool = True
    last: int | None = None
    all_marks: list[Happened] = dataclasses.field(default_factory=list)
    all_blind: list[BlindWindow] = dataclasses.field(default_factory=list)
    all_audit: list[AuditRow] = dataclasses.field(default_factory=list)
    all_silences: list[Silence] = dataclasses.field(default_factory=list)
    all_dismissals: list[Dismissal] = dataclasses.field(default_factory=list)
    all_endpoints: list[Endpoint] = dataclasses.field(default_factory=list)
    all_stories: list[TypeStory] = dataclasses.field(default_factory=list)
    vitals: Vitals = Vitals(version="")
    slow: bool = False

    async def tasks(
        self, q: str, *, from_: int | None = None, to: int | None = None, limit: int = 50, cursor: str | None = None
    ) -> Page[Task]:
        terms = query.parse(q).terms
        low, high = from_ or 0, to if to is not None else 1 << 63
        found = [t for t in self.all_tasks if low <= (t.began_at or 0) < high and all(_fits(t, term) for term in terms)]
        return _slice(found, limit, cursor)

    async def task(self, task_id: str) -> Task | None:
        return next((t for t in self.all_tasks if t.id == task_id), None)

    async def history(self, task_id: str) -> list[HistoryEntry] | None:
        return self.histories.get(task_id, [])

    async def ledger(self, from_: int, to: int, bucket: float | None = None, service: str | None = None) -> Ledger:
        rows = [b for b in self.buckets if from_ <= b.at < to]
        sums = {n: sum(getattr(b, n) for b in rows) for n in TERMS}
        settled = {"failed": sum(b.settled_failed for b in rows), "gap": sum(b.settled_gap for b in rows)}
        return Ledger(settled=settled, from_=from_, to=to, bucket=bucket, buckets=rows, complete=self.complete, **sums)

    async def incidents(self, state: str | None = None, limit: int = 50, cursor: str | None = None) -> Page[Incident]:
        return _slice([i for i in self.all_incidents if state in (None, i.state)], limit, cursor)

    async def incident(self, incident_id: str) -> Incident | None:
        return next((i for i in self.all_incidents if i.id == incident_id), None)

    async def notices(self, incident: str | None = None, limit: int = 50, cursor: str | None = None) -> Page[Notice]:
        return _slice([n for n in self.all_notices if incident in (None, n.incident)], limit, cursor)

    async def notice(self, notice_id: str) -> Notice | None:
        return next((n for n in self.all_notices if n.id == notice_id), None)

    async def replays(self, limit: int = 50, cursor: str | None = None) -> Page[Replay]:
        return _slice(self.all_replays, limit, cursor)

    async def replay(self, replay_id: str) -> Replay | None:
        return next((r for r in self.all_replays if r.id == replay_id), None)

    async def instances(self, limit: int = 50, cursor: str | None = None) -> Page[Instance]:
        return _slice(self.all_instances, limit, cursor)

    async def instance(self, instance_id: str) -> Instance | None:
        return next((i for i in self.all_instances if i.id == instance_id), None)

    async def blind_windows(
        self, from_: int | None = None, to: int | None = None, limit: int = 50, cursor: str | None = None
    ) -> Page[BlindWindow]:
        low, high = from_ or 0, to if to is not None else 1 << 63
        return _slice([one for one in self.all_blind if one.to >= low and one.from_ < high], limit, cursor)

    async def audit(self, limit: int = 50, cursor: str | None = None) -> Page[AuditRow]:
        return _slice(self.all_audit, limit, cursor)

    async def last_event_at(self) -> int | None:
        return self.last


@dataclasses.dataclass
class FakeFront:
    """The port of the first pages over the same lists."""

    reader: FakeReader

    async def ledger(self, from_: int, to: int, bucket: float | None = None, environment: str | None = None) -> Ledger:
        return await self.reader.ledger(from_, to, bucket)

    async def happened(self, from_: int, to: int, environment: str | None = None) -> list[Happened]:
        return [mark for mark in self.reader.all_marks if from_ <= mark.at < to]

    async def types(self, from_: int, to: int, environment: str | None = None, limit: int = 5) -> list[TypeCount]:
        sums: dict[tuple[str, str], dict[str, int]] = {}
        for task in self.reader.all_tasks:
            row = sums.setdefault((task.service, task.name), dict.fromkeys(("tasks", "failed", "gap", "loose"), 0))
            row["tasks"] += 1
            row["failed"] += task.state == "failed"
            row["gap"] += task.verdict is not None
            row["loose"] += task.loose
        rows = [TypeCount(service=service, name=name, **row) for (service, name), row in sums.items()]
        return sorted(rows, key=lambda row: (-row.gap, -row.failed, -row.tasks))[:limit]

    async def loose(self, environment: str | None = None, limit: int = 50) -> Page[Task]:
        tasks = [task for task in self.reader.all_tasks if task.loose and environment in (None, task.environment)]
        return _slice(tasks, limit, None)

    async def environments(self) -> list[str]:
        return sorted({task.environment for task in self.reader.all_tasks})

    async def found(self, q: str, *, from_: int | None = None, to: int | None = None) -> Found | None:
        tasks = (await self.reader.tasks(q, from_=from_, to=to, limit=1 << 30)).items
        if self.reader.slow:
            return None
        facets = []
        for word in ("state", "verdict", "name", "service", "environment"):
            counted = collections.Counter(value for task in tasks if (value := getattr(task, word)) is not None)
            facets.append(Facet(word=word, choices=[Choice(value=v, count=n) for v, n in counted.most_common(8)]))
        return Found(matching=len(tasks), more=False, counted=len(tasks), facets=facets)

    async def values(self, word: str, beginning: str, limit: int = 10) -> list[str]:
        if word not in ("name", "service", "environment"):
            return []
        known = {str(getattr(task, word)) for task in self.reader.all_tasks}
        return sorted(value for value in known if value.lower().startswith(beginning.lower()))[:limit]

    async def now(self) -> Now:
        loose = sum(task.loose for task in self.reader.all_tasks)
        return Now(last_event_at=self.reader.last, loose=loose, incidents=len(self.reader.all_incidents), acts=0, instances=0)


def _slice(items: Sequence[Any], limit: int, cursor: str | None) -> Page[Any]:
    start = int(cursor or 0)
    following = str(start + limit) if start + limit < len(items) else None
    return Page(items=list(items[start : start + limit]), next_cursor=following)


FIELDS = ("state", "verdict", "name", "service", "environment", "id", "incident", "parent")


def _fits(task: Task, term: query.Term) -> bool:
    own = {
        "is": [w for w, held in (("loose", task.loose), ("gap", task.verdict), ("open", task.ended_at is None)) if held],
        "instance": [task.instance.id] if task.instance else [],
        **{word: [getattr(task, word) or ""] for word in FIELDS},
    }.get(term.word, [task.name])
    hit = any(m.text == value or (m.prefix and value.startswith(m.text)) for m in term.matches for value in own)
    return hit != term.negated


@dataclasses.dataclass
class FakeCommands:
    """The port's write side: keeps what was asked, refuses what it is told to refuse."""

    asked: list[dict[str, Any]] = dataclasses.field(default_factory=list)
    refusal: CommandRefused | None = None

    async def replay_task(
        self, task_id: str, actor: Actor, *, note: str = "", args: Any = None, confirm: Sequence[str] = ()
    ) -> Replay:
        self.asked.append({"task": task_id, "actor": actor.name, "note": note, "args": args, "confirm": list(confirm)})
        if self.refusal is not None:
            raise self.refusal
        return Replay(id="rep_1", state="running", requested_by=actor.name, requested_at=0)

    async def dismiss_task(self, task_id: str, actor: Actor, *, note: str) -> Task:
        self.asked.append({"dismissed": task_id, "actor": actor.name, "note": note})
        if self.refusal is not None:
            raise self.refusal
        return Task(id=task_id, name="n", service="s", environment="e", state="running", settled="dismissed")

    async def resolve_order(self, order_id: str, actor: Actor, *, answer: str, note: str) -> Replay:
        self.asked.append({"order": order_id, "answer": answer, "note": note})
        if self.refusal is not None:
            raise self.refusal
        return Replay(id="rep_1", state="done", requested_by=actor.name, requested_at=0)


def make_app(
    reader: FakeReader,
    now: int,
    commands: FakeCommands | None = None,
    actor: Actor = OPERATOR,
    alerts: FakeAlerts | None = None,
    endpoints: FakeEndpoints | None = None,
) -> web.Application:
    """The pages behind a stand-in for the guard: everyone is `actor`, and the CSRF token is a known word."""
    warnings.filterwarnings("ignore", category=web.NotAppKeyWarning)  # the guard hands these over by plain names

    async def vitals() -> Vitals:
        return reader.vitals

    async def lose_one(actor: Actor) -> str:
        return reader.all_tasks[0].id if reader.all_tasks else "none"

    pages = Pages(
        reader=reader,
        front=FakeFront(reader),
        commands=commands or FakeCommands(),
        clock=lambda: now,
        addresses=Addresses(http_url="http://127.0.0.1:3637", socket="/run/user/1000/looseends.sock"),
        alerts=alerts or FakeAlerts(reader, now),
        endpoints=endpoints or FakeEndpoints(reader),
        types=FakeTypes(reader),
        vitals=vitals,
        lose_one=lose_one,
    )

    @web.middleware
    async def known(request: web.Request, handler: Any) -> web.StreamResponse:
        request["actor"] = actor
        request["csrf"] = "csrf-word"
        try:
            response: web.StreamResponse = await handler(request)
        except web.HTTPServerError as error:
            return web.Response(
                status=error.status, text=render_error(error.status, "Not now", error.reason), content_type="text/html"
            )
        return response

    app = web.Application(middlewares=[known])
    for route in routes(pages):
        app.router.add_route(route.method, route.path, route.handler)
    return app
