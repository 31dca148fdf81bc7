"""Tasks as spans and log records of a trace, from their facts. Pure; telemetry/otlp.py gives them the SDK's form.

Rules:

1. Ids are made from ids: a task that was begun in a span of its service is a child of that span, in its trace; else one that was
   begun in another task is a child of that task's span; else its trace id is its own id. The span id is a digest of task and
   attempt. So a span that is sent twice is the same span, and children find their parents whoever is exported first.
2. One resource for each instance: a daemon speaks for many services.
3. A replay is a trace of its own, with a link to the span of what it runs again.
4. Arguments and results never leave. Texts of exceptions do, as log records with the span's ids: that is where the conventions
   put them.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from typing import Any

from looseends.wire import NEVER, is_uuid
from looseends_daemon.core.resources import Value
from looseends_daemon.core.view import View

_TRACE = re.compile(r"[0-9a-f]{32}", re.ASCII)
_SPAN = re.compile(r"[0-9a-f]{16}", re.ASCII)
SEVERITY = {"exception": "ERROR", "lost": "ERROR", "never_started": "ERROR", "missed": "ERROR", "finished_late": "INFO"}
Ids = tuple[int, int]
"""(trace id, span id)."""


class Known(Value, frozen=True):
    """One task to be told of: its id, what its facts say up to the attempt meant, and where it was begun.

    `own`: its span is its service's own. `parent`: the ids of the span it was begun in (span id 0: none, it begins a trace).
    `replays`: the ids of the span of what it runs again.
    """

    id: str
    view: View
    parent: Ids
    replays: Ids | None = None
    instance: Mapping[str, Any] = {}


class Span(Value, frozen=True):
    """A span, ready to be told. Times in ns; `failed`: its status is an error with these words."""

    ids: Ids
    parent: int
    name: str
    start: int
    end: int
    queued: bool
    failed: str | None
    attributes: Mapping[str, Any]
    resource: Mapping[str, Any]
    link: Ids | None = None


class Log(Value, frozen=True):
    """A log record with the ids of the span that it belongs to. `at` in ns."""

    ids: Ids
    at: int
    event: str
    severity: str
    body: str
    attributes: Mapping[str, Any]
    resource: Mapping[str, Any]


def span_id(task: str, attempt: int) -> int:
    """The id of the span of an attempt: never 0."""
    return int.from_bytes(hashlib.sha256(f"{task} {attempt}".encode()).digest()[:8], "big") or 1


def trace_of(task: str) -> int:
    """The trace id of a task that nothing else gives one."""
    return int(task.replace("-", ""), 16) or 1


def told_ids(opening: Mapping[str, Any]) -> Ids | None:
    """The span that a task says it was begun in; None: it says none, or what is no such id."""
    trace, span = str(opening.get("trace_id", "")).lower(), str(opening.get("span_id", "")).lower()
    if _TRACE.fullmatch(trace) is None or not int(trace, 16):
        return None
    return int(trace, 16), int(span, 16) if _SPAN.fullmatch(span) else 0


def parent_id(opening: Mapping[str, Any]) -> str | None:
    """The task that it was begun in, where that is what places it in a trace."""
    parent = opening.get("parent")
    return parent if told_ids(opening) is None and isinstance(parent, str) and is_uuid(parent) else None


def ids_of(task: Known) -> Ids:
    """Where a task's own span stands."""
    return task.parent[0], span_id(task.id, task.view.attempt)


def span_of(task: Known, at: int, reason: str) -> Span:
    """The span of a task that ended, or was lost at `at` (ns) for this reason."""
    view = task.view
    end = view.ended_at if view.ended and view.ended_at is not None else at
    start = min(view.started_at or view.scheduled_at or view.began_at, end)
    outcome = view.state if view.ended else "lost"
    return Span(
        ids=ids_of(task),
        parent=task.parent[1],
        name=f"run {view.name}",
        start=start,
        end=end,
        queued=view.opening.get("queue") is not None,
        failed=_failure(view, outcome, reason),
        attributes={**_named(task), "looseends.task.outcome": outcome, **_details(view, outcome)},
        resource=_resource(task),
        link=task.replays,
    )


def _failure(view: View, outcome: str, reason: str) -> str | None:
    if outcome == "lost":
        return reason or "lost"
    return str((view.end.get("error") or {}).get("message") or "failed") if outcome == "failed" else None


def _named(task: Known) -> dict[str, Any]:
    return {
        "looseends.task.id": task.id,
        "looseends.task.name": task.view.name,
        "looseends.task.attempt": task.view.attempt,
    }


def _details(view: View, outcome: str) -> dict[str, Any]:
    opening = view.opening
    found: dict[str, Any] = {f"looseends.task.{name}": opening.get(name) for name in ("key", "source", "queue", "request")}
    deadline = opening.get("deadline")
    found["looseends.task.deadline"] = None if deadline == NEVER else deadline
    found.update({f"looseends.tag.{name}": value for name, value in (opening.get("tags") or {}).items()})
    if outcome == "failed":
        found["error.type"] = (view.end.get("error") or {}).get("type") or "_OTHER"
    return {name: value for name, value in found.items() if value is not None}


def _resource(task: Known) -> dict[str, Any]:
    known = task.instance
    found = {
        "service.name": task.view.service,
        "deployment.environment.name": task.view.environment,
        "service.instance.id": known.get("id"),
        "service.version": known.get("release"),
        "host.name": known.get("host"),
        "process.pid": known.get("pid"),
    }
    return {name: value for name, value in found.items() if value is not None}


def log_of(task: Known, kind: str, at: int, detail: str) -> Log:
    """The log record of an exception, a verdict (`detail`: its reason) or an end after a verdict (`detail`: the state)."""
    error = task.view.end.get("error") or {} if kind == "exception" else {}
    body = {
        "exception": str(error.get("message") or error.get("type") or "failed"),
        "finished_late": f"it ended after all: {detail}",
    }.get(kind, f"{kind}: {detail}")
    told = {"exception.type": "type", "exception.message": "message", "exception.stacktrace": "traceback"}
    attributes = {name: error[key] for name, key in told.items() if error.get(key)}
    if kind not in ("exception", "finished_late"):
        attributes["looseends.verdict.reason"] = detail
    return Log(
        ids=ids_of(task),
        at=at,
        event=f"looseends.task.{kind}",
        severity=SEVERITY.get(kind, "WARN"),
        body=body,
        attributes={**_named(task), **attributes},
        resource=_resource(task),
    )
