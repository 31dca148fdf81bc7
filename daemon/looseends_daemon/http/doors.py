"""What each door of the API takes and answers, in words and types: the source of the OpenAPI document.

Rules: one entry per route of the table, held by a test, so that a door without a description cannot be opened; answers name the
very types that the handlers encode.
"""

from __future__ import annotations

from typing import Any

from looseends_daemon.core import resources as r
from looseends_daemon.core.endpoints import Endpoint, Resent
from looseends_daemon.core.marks import Dismissal, Frozen, Preview, Silence
from looseends_daemon.core.plans import Plan, PlanItem, RunItem
from looseends_daemon.core.task_types import TaskType, TypeStory
from looseends_daemon.core.vitals import Vitals

TEXT = {"type": "string"}
COUNT = {"type": "integer", "minimum": 0}
FLAG = {"type": "boolean"}
SECONDS = {"type": "number", "minimum": 0}
TIME = {"type": "string", "description": "RFC 3339, or unix nanoseconds as an integer"}
ANY: dict[str, Any] = {}
TEXTS = {"type": "array", "items": TEXT}


class Door:
    """One route as the document tells it. `answers`: status -> a type, a schema, or None for no JSON.

    `of_many`: the 200 is a list of the type. `takes`: the members of the body, `must`: those without which it is refused.
    """

    def __init__(
        self,
        summary: str,
        answer: Any = ANY,
        *,
        status: int = 200,
        many: bool = False,
        query: str = "",
        takes: dict[str, Any] | None = None,
        must: tuple[str, ...] = (),
        media: str = "application/json",
        body: dict[str, Any] | None = None,
        also: tuple[tuple[int, Any], ...] = (),
    ) -> None:
        self.summary, self.answer, self.status, self.many = summary, answer, status, many
        self.query, self.takes, self.must, self.media, self.body, self.also = query.split(), takes, must, media, body, also


def _object(**members: Any) -> dict[str, Any]:
    return {"type": "object", "properties": members}


EVENTS_ANSWER = _object(
    accepted=COUNT,
    duplicates=COUNT,
    orders=COUNT,
    warnings={"type": "array", "items": _object(index=COUNT, pointer=TEXT, detail=TEXT)},
    rejected={"type": "array", "items": _object(index=COUNT, pointer=TEXT, detail=TEXT)},
)
BATCH = {
    "oneOf": [
        _object(instance={"type": "object"}, sent_at=TIME, backlog=COUNT, events={"type": "array", "items": {"type": "object"}}),
        {"type": "array", "items": {"type": "object"}, "maxItems": 1_000},
    ]
}
NOTE = {"note": TEXT}
PAGED = "limit cursor"
PING = Door("Healthchecks' pings: each `rid` is a task of its own", None, media="text/plain", query="rid create")

API: dict[str, Door] = {
    "POST /events": Door(
        "Report events; the answer 200 means that they are on disk", EVENTS_ANSWER, body=BATCH, also=((422, EVENTS_ANSWER),)
    ),
    "PUT /instances/{id}/heartbeat": Door(
        "An instance lives; tells how many orders wait for it and whose stacks are wanted",
        _object(orders=COUNT, stacks=TEXTS),
        takes={
            "at": TIME,
            "last_seq": COUNT,
            "open": COUNT,
            "ended": COUNT,
            "dropped": COUNT,
            "backlog": COUNT,
            "loop_lag_ms": {"type": ["number", "null"]},
        },
    ),
    "PUT /instances/{id}/functions": Door(
        "What an instance can run again", ANY, body={"type": "array", "items": {"type": "object"}}
    ),
    "DELETE /instances/{id}": Door(
        "An instance says goodbye, or somebody says it for one that is gone",
        ANY,
        takes={"reason": {"enum": ["exit", "killed", "adopted"]}, "last_seq": COUNT, "open": TEXTS, "void": {"type": "array"}},
    ),
    "GET /instances/{id}/orders": Door("Orders that wait for this instance", ANY),
    "POST /orders/{id}/claim": Door("Take an order, once", ANY, takes={"instance": TEXT}, must=("instance",)),
    "POST /orders/{id}/result": Door(
        "What became of a claimed order",
        ANY,
        takes={"fence": COUNT, "outcome": {"enum": ["started", "handed_over", "refused"]}, "detail": TEXT},
        must=("fence", "outcome"),
    ),
    "POST /orders/{id}/resolve": Door(
        "A person decides an `outcome_unknown`",
        r.Replay,
        takes={"as": {"enum": ["ran", "did_not_run", "run_again"]}, "note": TEXT},
        must=("as", "note"),
    ),
    "POST /replay-plans": Door(
        "A frozen list of tasks to run again, and what stands against each",
        Plan,
        status=201,
        takes={"q": TEXT, "from": TIME, "to": TIME, "tasks": TEXTS, "incident": TEXT, "edit": {"type": "object"}},
    ),
    "GET /replay-plans/{id}": Door("One plan", Plan),
    "GET /replay-plans/{id}/items": Door("The tasks of a plan", PlanItem, many=True, query="answer reason limit cursor"),
    "POST /replays": Door(
        "Run a plan",
        r.Replay,
        status=202,
        takes={
            "plan": TEXT,
            "digest": TEXT,
            "confirm": TEXTS,
            "canary": COUNT,
            "per_second": SECONDS,
            "in_flight": COUNT,
            "stop_after_failures": COUNT,
            "note": TEXT,
        },
        must=("plan", "digest"),
    ),
    "GET /replays": Door("Replays, newest first", r.Replay, many=True, query=PAGED),
    "GET /replays/{id}": Door("One replay", r.Replay),
    "GET /replays/{id}/items": Door("The tasks of a replay, old and new side by side", RunItem, many=True, query=PAGED),
    "GET /replays/{id}/report": Door("All of it as JSON", ANY),
    "GET /replays/{id}/report.csv": Door("All of it as CSV", None, media="text/csv"),
    "POST /replays/{id}/pause": Door("Give out no more orders", r.Replay, takes={}),
    "POST /replays/{id}/resume": Door("Go on", r.Replay, takes={}),
    "POST /replays/{id}/cancel": Door("Give out no more orders, for good", r.Replay, takes={}),
    "GET /tasks": Door("Tasks, newest first", r.Task, many=True, query="q from to limit cursor"),
    "GET /tasks/{id}": Door("One task, by its id or the text its sender calls it by", r.Task),
    "GET /tasks/{id}/history": Door("Its facts and judgements in order of time", r.HistoryEntry, many=True),
    "POST /tasks/{id}/replay": Door(
        "Run one task again, as a new one",
        r.Replay,
        status=202,
        takes={"args": {"type": "object"}, "note": TEXT, "confirm": TEXTS},
    ),
    "POST /tasks/{id}/dismiss": Door("Nothing is to be done about this loose end", r.Task, takes=NOTE, must=("note",)),
    "GET /ledger": Door("tasks = succeeded + failed + cancelled + in_time + gap", r.Ledger, query="from to bucket service"),
    "GET /incidents": Door("Incidents, newest first", r.Incident, many=True, query="state limit cursor"),
    "GET /incidents/{id}": Door("One incident", r.Incident),
    "POST /incidents/{id}/acknowledge": Door(
        "Somebody looks after it: it is not repeated", r.Incident, takes={"note": TEXT, "expires": SECONDS}
    ),
    "GET /notices": Door("Notices, newest first", r.Notice, many=True, query="incident limit cursor"),
    "GET /notices/{id}": Door("One notice with its body and delivery attempts", r.Notice),
    "POST /notices/{id}/resend": Door("Send it once more", r.Notice, status=202),
    "POST /notices/resend": Door(
        "Send those of a time once more", Resent, status=202, takes={"from": TIME, "to": TIME, "endpoint": TEXT}
    ),
    "GET /instances": Door("Instances, newest first", r.Instance, many=True, query=PAGED),
    "GET /instances/{id}": Door("One instance with what it can run again", r.Instance),
    "GET /blind-windows": Door("Times in which something may be missing", r.BlindWindow, many=True, query="from to limit cursor"),
    "GET /audit": Door("Every act of a person, newest first", r.AuditRow, many=True, query=PAGED),
    "GET /silences": Door("Silences, newest first", Silence, many=True, query="state limit cursor"),
    "POST /silences": Door(
        "Hold back notices for a while; with `dry_run` say what it would hide",
        Silence,
        status=201,
        takes={"matchers": TEXTS, "comment": TEXT, "starts_at": TIME, "ends_at": TIME, "duration": SECONDS, "dry_run": FLAG},
        must=("matchers",),
        also=((200, Preview),),
    ),
    "GET /silences/{id}": Door("One silence", Silence),
    "DELETE /silences/{id}": Door("End it now", Silence),
    "GET /dismissals": Door("Dismissals, newest first", Dismissal, many=True, query=PAGED),
    "POST /dismissals": Door(
        "Settle all loose ends of a query or an incident; without `digest` say which they are",
        Dismissal,
        status=201,
        takes={"q": TEXT, "incident": TEXT, "digest": TEXT, "note": TEXT},
        also=((200, Frozen),),
    ),
    "GET /dismissals/{id}": Door("One dismissal", Dismissal),
    "DELETE /dismissals/{id}": Door("Take it back, within ten minutes", Dismissal),
    "GET /endpoints": Door("Who is told about incidents, and how that goes", Endpoint, many=True),
    "POST /endpoints/{name}/test": Door("Send it a test", r.Notice, status=202),
    "POST /endpoints/{name}/enable": Door("Send to it again", Endpoint),
    "POST /endpoints/{name}/disable": Door("Send to it no more", Endpoint),
    "GET /types": Door("Types in figures of a window", TaskType, many=True, query="from to environment limit cursor"),
    "GET /types/{service}/{name}": Door("One type with its durations", TypeStory, query="from to environment"),
    "POST /purge": Door(
        "Remove tasks; without `confirm` count them", ANY, takes={"q": TEXT, "from": TIME, "to": TIME, "confirm": FLAG}
    ),
    "GET /storage": Door("How the storage stands and where it is going", ANY),
    "GET /status": Door("How this daemon does", Vitals),
    "GET /stream": Door("Counts as they change: server-sent events", None, media="text/event-stream"),
    "GET /openapi.json": Door("This document", ANY),
    "GET ": Door("The route table", ANY),
}
ROOT: dict[str, Door] = {
    "GET /livez": Door("The process answers", None, media="text/plain"),
    "GET /readyz": Door("It does its work; 503 says in words what does not", None, media="text/plain", also=((503, None),)),
    "GET /metrics": Door("Prometheus metrics", None, media="text/plain"),
    "GET /suggest": Door("How a search could go on", ANY, query="q pos"),
    **{f"{verb} /ping/{path}": PING for verb in ("GET", "POST") for path in ("{slug}", "{key}/{slug}", "{key}/{slug}/{action}")},
}
