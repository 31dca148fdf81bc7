"""The loose ends that a notice lists, and the ledger window beside them.

Rules: oldest first, as many as the operator asked for; what comes from the task's own words (arguments, exception texts) is
left out unless the endpoint may see it. A long text is cut here, so that ten tasks fit into one body.
"""

from __future__ import annotations

import os
import sqlite3
from typing import Any

from looseends.wire import NS, canonical, format_time
from looseends_daemon.core.delivery import REASON_CHARS_MAX
from looseends_daemon.core.incidents import AlertRules
from looseends_daemon.core.resources import SETTLEMENTS, STATES, VERDICTS
from looseends_daemon.core.titles import bare_reason
from looseends_daemon.core.view import View, view_of
from looseends_daemon.store.cells import InstanceIds
from looseends_daemon.store.codes import text, word
from looseends_daemon.store.facts import cells_of
from looseends_daemon.store.questions import ask
from looseends_daemon.store.sources import allowed, lineage, source

MINUTE_NS = 60 * NS
WINDOW_MINUTES_MAX = 24 * 60
ARGS_BYTES_MAX = 2_000
TRACEBACK_CHARS_MAX = 1_000
_TERMS = ("succeeded", "failed", "cancelled", "in_time", "gap")

_SAMPLES = """
    SELECT t.*, ty.service, ty.name, i.id AS instance_id, i.host, i.pid, i.release, i.state AS instance_state, (
            SELECT j.reason FROM judgement j WHERE j.task = t.id AND j.what IN ('verdict', 'loose', :which)
            ORDER BY j.n DESC LIMIT 1
        ) AS why
    FROM task t JOIN type ty ON ty.id = t.type LEFT JOIN instance i ON i.no = t.instance
    WHERE t.incident = :no AND CASE :which
        WHEN 'open' THEN t.loose = 1 WHEN 'over' THEN t.loose = 1 OR t.settled IS NOT NULL ELSE t.loose = 0 AND t.settled IS NULL
    END
    ORDER BY t.began_at, t.id LIMIT :most"""


def new_id(prefix: str, now: int) -> str:
    """An id that sorts by the millisecond it was made in, with 64 random bits: `inc_...`, `msg_...`."""
    return f"{prefix}_{now // 1_000_000:012x}{os.urandom(8).hex()}"


def samples(
    conn: sqlite3.Connection, incident_no: int, *, which: str, include_args: bool, rules: AlertRules
) -> list[dict[str, Any]]:
    """The oldest loose ends of an incident as the JSON of a notice.

    `which`: those that are `open`; once it is `over`, also those that are settled; or, where nothing was wrong after all, those
    that were `withdrawn`.
    """
    rows = conn.execute(_SAMPLES, {"no": incident_no, "which": which, "most": rules.sample_tasks}).fetchall()
    return [_sample(conn, row, include_args, rules) for row in rows]


def withdrawn_count(conn: sqlite3.Connection, incident_no: int) -> int:
    """How many of an incident's loose ends are none."""
    query = "SELECT count(*) FROM task WHERE incident = ? AND loose = 0 AND settled IS NULL"
    return int(conn.execute(query, (incident_no,)).fetchone()[0])


def _sample(conn: sqlite3.Connection, row: sqlite3.Row, include_args: bool, rules: AlertRules) -> dict[str, Any]:
    task_id, key = text(row["id"]), bytes(row["id"])
    view = view_of(cells_of(conn, row, InstanceIds(conn), full=True))
    recorded = ask(conn, source(key, view))
    able = recorded is not None and ask(conn, allowed(recorded))
    told = {
        "id": task_id,
        "name": row["name"],
        "key": row["key"],
        "state": STATES[row["state"]],
        "verdict": word(VERDICTS, row["verdict"]),
        "settled": word(SETTLEMENTS, row["settled"]),
        "reason": _reason(row, view, include_args),
        "attempt": row["attempt"],
        "replay_of": ask(conn, lineage(key))[0],
        "began_at": _time(row["began_at"]),
        "due_at": _time(row["due_at"]),
        "instance": _instance(row),
        "error": _error(view, include_args),
        "replayable": able,
        "trace_id": view.opening.get("trace_id"),
        "url": rules.external_url and f"{rules.external_url}/tasks/{task_id}",
    }
    return {**told, **_args(view.opening.get("args"))} if include_args else told


def _reason(row: sqlite3.Row, view: View, include_args: bool) -> str:
    """The judgement's words, without the problem that stands beside them.

    Of a failure, without the exception's text where that must not leave the machine.
    """
    if row["verdict"] is None and not include_args and view.end.get("error"):
        return str(view.end["error"].get("type", "Error"))
    return bare_reason(str(row["why"] or ""), whole_places=True)[:REASON_CHARS_MAX]


def _instance(row: sqlite3.Row) -> dict[str, Any] | None:
    if row["instance_id"] is None:
        return None
    alive = row["instance_state"] == "alive"
    return {"id": row["instance_id"], "host": row["host"], "pid": row["pid"], "release": row["release"], "alive": alive}


def _error(view: View, include_args: bool) -> dict[str, Any] | None:
    """How it failed. Message and traceback are the application's own words."""
    error = view.end.get("error")
    if not error:
        return None
    trace = (error.get("traceback") or "")[-TRACEBACK_CHARS_MAX:] or None
    message = (error.get("message") or "")[:REASON_CHARS_MAX]
    told = {"message": message, "traceback": trace} if include_args else {"message": None, "traceback": None}
    return {"type": error.get("type", "Error"), **told}


def _args(args: Any) -> dict[str, Any]:
    if len(canonical(args).encode()) > ARGS_BYTES_MAX:
        return {"args": None, "left_out": ["args"]}
    return {"args": args}


def _time(at: int | None) -> str | None:
    return None if at is None else format_time(at)


def ledger_window(conn: sqlite3.Connection, incident: sqlite3.Row) -> dict[str, Any]:
    """The ledger of the minutes in which the loose ends of this incident began, of its name or, for lost work, its service.

    At most the last WINDOW_MINUTES_MAX minutes of it: a notice is no report, and the writer waits for this sum.
    """
    oldest, newest = conn.execute(
        "SELECT min(began_at), max(began_at) FROM task WHERE incident = ? AND (loose = 1 OR settled IS NOT NULL)",
        (incident["no"],),
    ).fetchone()
    last = (newest if newest is not None else incident["opened_at"]) // MINUTE_NS
    first = max((oldest if oldest is not None else incident["opened_at"]) // MINUTE_NS, last - WINDOW_MINUTES_MAX + 1)
    row = conn.execute(
        "SELECT " + ", ".join(f"ifnull(sum(l.{term}), 0) AS {term}" for term in _TERMS) + " FROM ledger l"
        " JOIN type ty ON ty.id = l.type JOIN environment e ON e.id = l.environment"
        " WHERE l.minute BETWEEN ? AND ? AND e.name = ? AND ty.service = ? AND ifnull(?, ty.name) = ty.name",
        (first, last, incident["environment"], incident["service"], incident["name"]),
    ).fetchone()
    terms = {term: row[term] for term in _TERMS}
    window = {"from": format_time(first * MINUTE_NS), "to": format_time((last + 1) * MINUTE_NS)}
    return {**window, "tasks": sum(terms.values()), **terms}
