"""Stored rows as the task resource that people and programs see; everything a page of tasks shares is fetched once."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from looseends.wire import NS
from looseends_daemon.core.detect import within_of
from looseends_daemon.core.facts import Cells
from looseends_daemon.core.resources import (
    SETTLEMENTS,
    STATES,
    VERDICTS,
    Children,
    Error,
    Expected,
    HistoryEntry,
    InstanceRef,
    Progress,
    Task,
)
from looseends_daemon.core.view import View, view_of
from looseends_daemon.core.words import span
from looseends_daemon.store.cells import InstanceIds, numbers, unpack, with_payloads
from looseends_daemon.store.codes import EXPECTED, JUDGED, ORDER, REPLAYED, flag_words, text, word
from looseends_daemon.store.packed import learnt
from looseends_daemon.store.questions import Question
from looseends_daemon.store.sources import replayable, source

ENDED = (STATES.index("succeeded"), STATES.index("failed"), STATES.index("cancelled"))


class Neighbours:
    """What a page of tasks needs besides their rows, by task id."""

    def __init__(self) -> None:
        self.ids = InstanceIds()
        self.instances: dict[str, sqlite3.Row] = {}
        self.payloads: dict[bytes, list[tuple[str, bytes]]] = {}
        self.external: dict[bytes, str] = {}
        self.reasons: dict[bytes, str] = {}
        self.children: dict[bytes, Children] = {}
        self.incidents: dict[int, str] = {}
        self.met: dict[bytes, tuple[str, bool]] = {}
        self.replay_of: dict[bytes, str] = {}
        self.replays: dict[bytes, list[str]] = {}

    def cells(self, row: sqlite3.Row) -> Cells:
        """A task's cells with their payloads."""
        return with_payloads(unpack(row["facts"], self.ids), self.ids, self.payloads.get(row["id"], []))


def _marks(values: Iterable[Any]) -> tuple[str, list[Any]]:
    found = list(values)
    return ", ".join("?" * len(found)), found


def neighbours(rows: Sequence[sqlite3.Row]) -> Question[Neighbours]:
    """Fetch what these rows (at most 500) share."""
    found = Neighbours()
    yield from learnt(found.ids, (row["facts"] for row in rows))
    marks, params = _marks({no for row in rows for no in numbers(row["facts"])})
    for one in (yield f"SELECT * FROM instance WHERE no IN ({marks})", params):
        found.ids.learn(one["no"], one["id"])
        found.instances[one["id"]] = one
    marks, ids = _marks(row["id"] for row in rows)
    for one in (yield f"SELECT task, slot, data FROM payload WHERE task IN ({marks})", ids):
        found.payloads.setdefault(one["task"], []).append((one["slot"], one["data"]))
    for one in (yield f"SELECT task, text FROM external WHERE task IN ({marks})", ids):
        found.external[one["task"]] = one["text"]
    counted = (
        "SELECT c.parent, count(*) AS total, sum(t.state >= 3) AS ended FROM child c JOIN task t ON t.id = c.task"
        f" WHERE c.parent IN ({marks}) GROUP BY c.parent"
    )
    for one in (yield counted, ids):
        found.children[one["parent"]] = Children(total=one["total"], ended=one["ended"])
    marks, numbered = _marks({row["incident"] for row in rows if row["incident"] is not None})
    for one in (yield f"SELECT no, id FROM incident WHERE no IN ({marks})", numbered):
        found.incidents[one["no"]] = one["id"]
    marks, made = _marks(row["id"] for row in rows if row["flags"] & ORDER)
    for one in (yield f"SELECT id, task FROM replay_order WHERE id IN ({marks})", made):
        found.replay_of[one["id"]] = text(one["task"])
    marks, replayed = _marks(row["id"] for row in rows if row["flags"] & REPLAYED)
    for one in (yield f"SELECT id, task FROM replay_order WHERE task IN ({marks}) ORDER BY created_at", replayed):
        found.replays.setdefault(one["task"], []).append(text(one["id"]))
    marks, expected = _marks(row["id"] for row in rows if row["flags"] & EXPECTED)
    for one in (yield f"SELECT id, met, late FROM expectation WHERE met IS NOT NULL AND id IN ({marks})", expected):
        found.met[one["id"]] = (text(one["met"]), bool(one["late"]))
    marks, judged = _marks(row["id"] for row in rows if row["flags"] & JUDGED)
    for one in (yield f"SELECT task, what, reason FROM judgement WHERE task IN ({marks}) ORDER BY task, n", judged):
        if one["what"] in ("verdict", "loose") or (one["what"] == "withdrawn" and one["task"] in expected):
            found.reasons[one["task"]] = one["reason"]
    return found


def resource(row: sqlite3.Row, found: Neighbours, base_url: str = "") -> Task:
    """One task as its row and its neighbours tell it; whether it can be replayed costs questions of its own (`full`)."""
    view = view_of(found.cells(row))
    ended = row["state"] in ENDED
    verdict = None if ended else word(VERDICTS, row["verdict"])
    reason = found.reasons.get(row["id"])
    failed_in_words = verdict is None and view.state == "failed"
    return Task(
        id=text(row["id"]),
        external_id=found.external.get(row["id"]),
        name=view.name,
        service=view.service,
        environment=view.environment,
        state=view.state,
        verdict=verdict,
        reason=reason if verdict is not None or failed_in_words or row["loose"] or view.expected else None,
        loose=bool(row["loose"]),
        settled=word(SETTLEMENTS, row["settled"]),
        attempt=view.attempt,
        key=view.opening.get("key"),
        declared=view.declared,
        source=view.opening.get("source"),
        queue=view.opening.get("queue"),
        tags=view.opening.get("tags") or {},
        scheduled_at=view.scheduled_at,
        started_at=view.started_at,
        began_at=view.began_at,
        ended_at=view.ended_at,
        due_at=row["due_at"],
        duration=view.duration,
        progress=_progress(view),
        args=view.opening.get("args"),
        result=view.end.get("result"),
        error=_error(view),
        instance=_instance(view, found),
        parent=view.opening.get("parent"),
        children=found.children.get(row["id"], Children()),
        replay_of=found.replay_of.get(row["id"]),
        replays=found.replays.get(row["id"], []),
        trace_id=view.opening.get("trace_id"),
        request=view.opening.get("request"),
        incident=found.incidents.get(row["incident"]),
        flags=flag_words(row["flags"]),
        expected=_expected(row, view, found) if view.expected else None,
        not_replayable_because=view.opening.get("not_replayable_because"),
        url=f"{base_url}/tasks/{text(row['id'])}",
    )


def _progress(view: View) -> Progress | None:
    if view.progress is None and view.stack is None:
        return None
    body = view.progress.body if view.progress else {}
    stack = view.stack.body.get("stack") if view.stack else None
    latest = max(fact.at for fact in (view.progress, view.stack) if fact is not None)
    return Progress(done=body.get("done"), note=body.get("note"), at=latest, stack=stack)


def _error(view: View) -> Error | None:
    error = view.end.get("error")
    if view.state not in ("failed", "retrying") or error is None:
        return None
    return Error(type=error.get("type", "Error"), message=error.get("message", ""), traceback=error.get("traceback"))


def _expected(row: sqlite3.Row, view: View, found: Neighbours) -> Expected:
    met_by, late = found.met.get(row["id"], (None, False))
    said = view.opening
    return Expected(within=within_of(said) / NS, cron=said.get("cron"), after=said.get("after"), met_by=met_by, late=late)


def _instance(view: View, found: Neighbours) -> InstanceRef | None:
    row = found.instances.get(view.instance or "")
    if row is None:
        return None
    alive = row["state"] == "alive"
    return InstanceRef(id=row["id"], host=row["host"], pid=row["pid"], release=row["release"], alive=alive)


def full(row: sqlite3.Row, found: Neighbours, base_url: str = "") -> Question[Task]:
    """One task with everything: also whether and why not it can be replayed now."""
    task = resource(row, found, base_url)
    recorded = yield from source(row["id"], view_of(found.cells(row)))
    able = None if recorded is None else (yield from replayable(recorded))
    blocked = able is not None and able.answer == "blocked"
    why = "; ".join(reason.words for reason in able.reasons) if able is not None and blocked else None
    return msgspec.structs.replace(task, replayable=not blocked, not_replayable_because=why)


# --- history ------------------------------------------------------------------------------------------------------


def history(row: sqlite3.Row) -> Question[list[HistoryEntry]]:
    """Facts and judgements of one task in order of time; at equal times facts first."""
    found = yield from neighbours([row])
    entries = [entry for (attempt, who), cell in found.cells(row).items() for entry in _facts(attempt, who, cell)]
    asked = "SELECT at, what, verdict, attempt, reason, by FROM judgement WHERE task = ? ORDER BY n"
    for said in (yield asked, (row["id"],)):
        entries.append(HistoryEntry(kind="judgement", **dict(said)))
    return sorted(entries, key=lambda entry: (entry.at, entry.kind))


def _facts(attempt: int, who: str, cell: Any) -> Iterable[HistoryEntry]:
    for slot, fact in cell.items():
        words = _said(slot, fact.body)
        what = "cancelled" if slot == "with_process" else slot
        yield HistoryEntry(at=fact.at, kind="fact", what=what, attempt=attempt, instance=who or None, reason=words)


def _said(slot: str, body: dict[str, Any]) -> str | None:
    """What a fact adds to its name, in a few words."""
    if slot == "failed":
        error = body.get("error") or {}
        words = ": ".join(part for part in (error.get("type"), error.get("message")) if part)
        return f"{words} (will be tried again)" if body.get("will_retry") else words or None
    if slot == "with_process":
        return "a loop: it ended with its process"
    if slot in ("cancelled", "dropped"):
        return str(body["reason"]).replace("_", " ") if body.get("reason") else None
    if slot == "finished":
        return f"took {span(body['duration'])}" if "duration" in body else None
    if slot == "progress":
        done = f"{body['done']:.0%}" if "done" in body else ""
        return " ".join(part for part in (done, body.get("note", "")) if part) or None
    if slot == "stack":
        return body.get("where") or (body.get("stack") or [""])[-1] or None
    if slot == "expected":
        after = f"after {body['after']}, " if "after" in body else ""
        return f"{after}within {span(within_of(body) / NS)}"
    if slot == "scheduled" and body.get("queue"):
        return f"into queue {body['queue']}"
    return body.get("request") if slot in ("scheduled", "started") else None
