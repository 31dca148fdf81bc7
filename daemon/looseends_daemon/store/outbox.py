"""The outbox: notices waiting for their endpoints, written with the step that caused them and marked after the answer.

Rules:

1. A notice is *leased* before it is sent and *marked* after the answer. Between the two a crash leaves it `delivering`; the
   next daemon sends it again with the same id and the same bytes, overtaken or not, since the receiver may have it. So a
   notice arrives at least once, and once more for each crash at worst.
2. In order per incident and endpoint: a notice is leased only when none before it of the same pair is still under way. One
   that was overtaken before it was ever delivered is `superseded`: nobody hears "opened" after "resolved".
3. Whatever an endpoint hears first of an incident has the type `opened`, unless it is the end: a receiver that acts on
   `opened` alone must not miss an incident because it was down for a minute.
4. A failing endpoint gets one attempt at a time; its first 2xx brings everything that waits for it forward.
5. Nothing is dropped for being too much: what `max_per_minute` holds back waits, and what overtakes it supersedes it.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Iterable
from typing import Any

import aiosqlite

from looseends.wire import NS, format_time
from looseends_daemon.core import delivery
from looseends_daemon.core.delivery import Message, Outcome
from looseends_daemon.core.incidents import AlertRules, EndpointRule, rank
from looseends_daemon.core.matchers import LABELS, fit
from looseends_daemon.core.resources import Counts, DeliveryAttempt, Notice, Page
from looseends_daemon.core.troubles import TROUBLES
from looseends_daemon.store import counters
from looseends_daemon.store import endpoints as health
from looseends_daemon.store.acks import acknowledged_json
from looseends_daemon.store.incident_titles import releases_of
from looseends_daemon.store.questions import Question, ask, ask_async, mark_of, page_mark
from looseends_daemon.store.samples import ledger_window, new_id, samples, withdrawn_count

LEASE_MARGIN_S = 15.0
"""How long after its time limit an attempt of this daemon counts as lost; only a bug or a frozen machine gets there."""
ATTEMPTS_SHOWN_MAX = 20
_CUT_OFF = "no answer is known: the daemon stopped during this attempt"

# --- writing notices ----------------------------------------------------------------------------------------------


def enqueue(
    conn: sqlite3.Connection,
    now: int,
    incident: sqlite3.Row,
    counts: Counts,
    type_: str,
    rules: AlertRules,
    only: Collection[str] | None = None,
    asked_for: str | None = None,
) -> list[str]:
    """One notice about a step of this incident for every endpoint that wants to hear of it, in the step's transaction.

    `only`: the names of those endpoints that are to be told; None: all. `asked_for`: a person wants it told, for this reason, to
    whoever is named. Returns the ids of the notices.
    """
    disabled = {row["name"] for row in conn.execute("SELECT name FROM endpoint WHERE state = 'disabled'")}
    facts = _incident_json(conn, incident, counts, rules)
    which = "open" if counts.open else "over" if counts.total else "withdrawn"
    tasks: dict[bool, list[dict[str, Any]]] = {}
    made = []
    for endpoint in rules.endpoints:
        if endpoint.name in disabled or (only is not None and endpoint.name not in only):
            continue
        if not asked_for and not _wants(conn, endpoint, incident, type_):
            continue
        told = endpoint.include_args
        if told not in tasks:
            tasks[told] = samples(conn, incident["no"], which=which, include_args=told, rules=rules)
        totals = {"open": counts.open, "over": counts.total}
        total = totals[which] if which in totals else withdrawn_count(conn, incident["no"])
        made.append(_insert(conn, now, incident, facts, type_, endpoint.name, tasks[told], total, rules, asked_for))
    return made


def _wants(conn: sqlite3.Connection, endpoint: EndpointRule, incident: sqlite3.Row, type_: str) -> bool:
    """Whether an endpoint is to hear of this step: whoever heard of an incident hears the rest, its end included.

    What is about the daemon itself is told past matchers: they speak of tasks.
    """
    if _has_notice(conn, incident["no"], endpoint.name):
        return True
    if type_ == "resolved" or rank(incident["severity"]) < rank(endpoint.min_severity):
        return False
    return incident["problem"] in TROUBLES or fit(endpoint.match, {name: incident[name] for name in LABELS})


def unaware(conn: sqlite3.Connection, incident: int, endpoints: Iterable[str]) -> list[str]:
    """Those of these endpoints for which no notice of this incident was ever made, or only ones that were cancelled."""
    return [name for name in endpoints if not _has_notice(conn, incident, name)]


def _has_notice(conn: sqlite3.Connection, incident: int, endpoint: str) -> bool:
    query = "SELECT 1 FROM notice WHERE incident = ? AND endpoint = ? AND state != 'cancelled' LIMIT 1"
    return conn.execute(query, (incident, endpoint)).fetchone() is not None


def _insert(
    conn: sqlite3.Connection,
    now: int,
    incident: sqlite3.Row,
    facts: dict[str, Any],
    type_: str,
    endpoint: str,
    tasks: list[dict[str, Any]],
    total: int,
    rules: AlertRules,
    asked_for: str | None,
) -> str:
    reason = asked_for or incident["reason"]
    if type_ in ("updated", "repeated", "acknowledged") and not _heard_of(conn, incident["no"], endpoint):
        type_, reason = "opened", asked_for or ("silence_ended" if reason == "silence_ended" else "first_notification")
    message_id = new_id("msg", now)
    event = delivery.envelope(
        message_id=message_id,
        source=rules.instance,
        type_=type_,
        at=now,
        sequence=incident["sequence"],
        incident={**facts, "reason": reason},
    )
    _supersede(conn, incident["no"], endpoint)
    body, type_ = delivery.body_of(event, tasks, total), delivery.WEBHOOK_TYPE + type_
    write(conn, now, message_id, endpoint, body, type_=type_, reason=reason, incident=incident)
    return message_id


def write(
    conn: sqlite3.Connection,
    now: int,
    message_id: str,
    endpoint: str,
    body: bytes,
    *,
    type_: str,
    reason: str,
    incident: sqlite3.Row | None = None,
) -> None:
    """One row of the outbox, due at once. Without an incident it is a test."""
    no, sequence = (None, 0) if incident is None else (incident["no"], incident["sequence"])
    conn.execute(
        "INSERT INTO notice (id, incident, endpoint, sequence, type, reason, state, created_at, next_attempt_at, body)"
        " VALUES (?, ?, ?, ?, ?, ?, 'pending', ?, ?, ?)",
        (message_id, no, endpoint, sequence, type_, reason, now, now, body),
    )


def _heard_of(conn: sqlite3.Connection, incident: int, endpoint: str) -> bool:
    """Whether this endpoint was told of the incident, or may be hearing of it right now."""
    query = "SELECT 1 FROM notice WHERE incident = ? AND endpoint = ? AND state IN ('delivered', 'delivering') LIMIT 1"
    return conn.execute(query, (incident, endpoint)).fetchone() is not None


def _supersede(conn: sqlite3.Connection, incident: int, endpoint: str) -> None:
    conn.execute(
        "UPDATE notice SET state = 'superseded', next_attempt_at = NULL"
        " WHERE incident = ? AND endpoint = ? AND state = 'pending'",
        (incident, endpoint),
    )


def _incident_json(conn: sqlite3.Connection, row: sqlite3.Row, counts: Counts, rules: AlertRules) -> dict[str, Any]:
    labels = {name: row[name] for name in ("service", "name", "instance", "environment")}
    return {
        "id": row["id"],
        "state": row["state"],
        "reason": row["reason"],
        "problem": row["problem"],
        "severity": row["severity"],
        "title": row["title"],
        "labels": labels,
        "release": ask(conn, releases_of(row["instance"])),
        "opened_at": format_time(row["opened_at"]),
        "acknowledged": acknowledged_json(conn, row["no"]),
        "resolved_at": None if row["resolved_at"] is None else format_time(row["resolved_at"]),
        "resolution": row["resolution"],
        "counts": {"open": counts.open, "total": counts.total, "settled": counts.settled},
        "ledger": ledger_window(conn, row),
        **delivery.links(row["id"], rules.external_url, rules.instance, rules.command),
    }


# --- for the dispatcher -------------------------------------------------------------------------------------------


def begin(conn: sqlite3.Connection, now: int, endpoints: Iterable[EndpointRule]) -> list[str]:
    """Once at the start, before anything is leased: take back what the daemon before was sending, and fit the endpoints.

    Returns the names of those that are new, or have a new address.

    An endpoint with a new address starts afresh, also when it was disabled. Notices for endpoints that are no longer
    configured are cancelled.
    """
    conn.execute("UPDATE notice SET lease_until = ? WHERE state = 'delivering'", (now,))
    known = {row["name"]: row["fingerprint"] for row in conn.execute("SELECT name, fingerprint FROM endpoint")}
    names, fresh = set(), []
    for endpoint in endpoints:
        names.add(endpoint.name)
        if known.get(endpoint.name) != endpoint.fingerprint:
            fresh.append(endpoint.name)
            conn.execute(
                "INSERT OR REPLACE INTO endpoint (name, fingerprint, state, since) VALUES (?, ?, 'ok', ?)",
                (endpoint.name, endpoint.fingerprint, now),
            )
    gone = [row["endpoint"] for row in conn.execute("SELECT DISTINCT endpoint FROM notice WHERE state = 'pending'")]
    for name in (*known, *gone):
        if name not in names:
            health.cancel(conn, name)
            conn.execute("DELETE FROM endpoint WHERE name = ?", (name,))
    return fresh


def lease(conn: sqlite3.Connection, now: int, endpoint: EndpointRule, room: int) -> tuple[list[Message], int | None]:
    """Up to `room` due notices for this endpoint, oldest first, now `delivering`: each must be marked.

    Also when the next of those that wait is due (ns); None: none waits.
    """
    if health.state_of(conn, endpoint.name) == "failing":
        room = min(room, 1 - _flying(conn, now, endpoint.name))
    rows: list[sqlite3.Row] = []
    for query in (_CUT_OFF_ONES, _TESTS, _DUE):
        if len(rows) < room:
            rows += conn.execute(query, {"endpoint": endpoint.name, "now": now, "room": room - len(rows)}).fetchall()
    until = now + round((endpoint.timeout + LEASE_MARGIN_S) * NS)
    return [_leased(conn, row, now, until) for row in rows], next_due(conn, endpoint.name)


_FIRST_OF_ITS_PAIR = """
    NOT EXISTS (SELECT 1 FROM notice b WHERE b.incident = n.incident AND b.endpoint = n.endpoint AND b.no < n.no
                AND b.state IN ('pending', 'delivering'))"""
# Three queries, each of which walks an index and stops at once: one with one order would sort all that waits, for every attempt.
_CUT_OFF_ONES = f"""
    SELECT * FROM notice n WHERE endpoint = :endpoint AND state = 'delivering' AND lease_until <= :now AND {_FIRST_OF_ITS_PAIR}
    ORDER BY lease_until, no LIMIT :room"""
_TESTS = """
    SELECT * FROM notice n WHERE endpoint = :endpoint AND incident IS NULL AND state = 'pending'
    ORDER BY created_at, no LIMIT :room"""
_DUE = f"""
    SELECT * FROM notice n WHERE endpoint = :endpoint AND state = 'pending' AND incident IS NOT NULL AND next_attempt_at <= :now
        AND {_FIRST_OF_ITS_PAIR}
    ORDER BY next_attempt_at, no LIMIT :room"""


def _leased(conn: sqlite3.Connection, row: sqlite3.Row, now: int, until: int) -> Message:
    message = Message(
        notice=row["no"], id=row["id"], endpoint=row["endpoint"], body=bytes(row["body"]), attempt=row["attempt"] + 1
    )
    if row["state"] == "delivering":
        _log(conn, row["leased_at"], row["no"], row["attempt"], Outcome(detail=_CUT_OFF))
    conn.execute(
        "UPDATE notice SET state = 'delivering', attempt = ?, leased_at = ?, lease_until = ?, next_attempt_at = NULL"
        " WHERE no = ?",
        (message.attempt, now, until, message.notice),
    )
    return message


def _flying(conn: sqlite3.Connection, now: int, endpoint: str) -> int:
    query = "SELECT count(*) FROM notice WHERE endpoint = ? AND state = 'delivering' AND lease_until > ?"
    return int(conn.execute(query, (endpoint, now)).fetchone()[0])


def next_due(conn: sqlite3.Connection, endpoint: str) -> int | None:
    """When the next notice for this endpoint is due, or an attempt is given up (ns); None: none waits."""
    queries = (
        "SELECT min(next_attempt_at) FROM notice WHERE endpoint = ? AND state = 'pending'",
        "SELECT min(lease_until) FROM notice WHERE endpoint = ? AND state = 'delivering'",
    )
    times = [conn.execute(query, (endpoint,)).fetchone()[0] for query in queries]
    return min((at for at in times if at is not None), default=None)


def mark(conn: sqlite3.Connection, now: int, message: Message, outcome: Outcome, jitter: float) -> str:
    """Write down what an attempt came to; returns the notice's new state. `jitter` in -1..1 moves the next attempt.

    A late answer to an attempt that was given up meanwhile still counts if it is a 2xx.
    """
    _log(conn, now - round(outcome.duration * NS), message.notice, message.attempt, outcome)
    row = conn.execute("SELECT * FROM notice WHERE no = ?", (message.notice,)).fetchone()
    if outcome.delivered:
        return _delivered(conn, now, row)
    if row["state"] != "delivering" or row["attempt"] != message.attempt:
        return str(row["state"])
    if health.failed(conn, now, row["endpoint"], outcome):
        # It is disabled. What waited is cancelled, a test apart: that is over, and says what it found.
        return _over(conn, row) if row["incident"] is None else "cancelled"
    return _retry(conn, now, row, delivery.wait_after(message.attempt, outcome, jitter))


def _delivered(conn: sqlite3.Connection, now: int, row: sqlite3.Row) -> str:
    conn.execute(
        "UPDATE notice SET state = 'delivered', delivered_at = ?, lease_until = NULL, next_attempt_at = NULL WHERE no = ?",
        (now, row["no"]),
    )
    health.succeeded(conn, now, row["endpoint"])
    return "delivered"


def _over(conn: sqlite3.Connection, row: sqlite3.Row) -> str:
    conn.execute("UPDATE notice SET state = 'exhausted', next_attempt_at = NULL, lease_until = NULL WHERE no = ?", (row["no"],))
    return "exhausted"


def _retry(conn: sqlite3.Connection, now: int, row: sqlite3.Row, wait: float | None) -> str:
    """Send it again later, unless a newer notice of the same pair has overtaken it or this was the last attempt.

    A test is tried once: whoever asked for it waits for the answer.
    """
    if row["incident"] is None:
        return _over(conn, row)
    newer = conn.execute(
        "SELECT no, type, attempt, body FROM notice WHERE incident = ? AND endpoint = ? AND no > ? AND state = 'pending'"
        " ORDER BY no LIMIT 1",
        (row["incident"], row["endpoint"], row["no"]),
    ).fetchone()
    if newer is not None:
        _pass_on(conn, row, newer)
    state = "superseded" if newer is not None else "exhausted" if wait is None else "pending"
    due = delivery.due_after(now, wait) if state == "pending" and wait is not None else None
    conn.execute("UPDATE notice SET state = ?, next_attempt_at = ?, lease_until = NULL WHERE no = ?", (state, due, row["no"]))
    return state


def _pass_on(conn: sqlite3.Connection, row: sqlite3.Row, newer: sqlite3.Row) -> None:
    """The news of the opening moves on to the notice that overtook it, which was never sent and may still be rewritten."""
    opened = delivery.WEBHOOK_TYPE + "opened"
    if row["type"] != opened or newer["attempt"] or newer["type"] == delivery.WEBHOOK_TYPE + "resolved":
        return
    conn.execute(
        "UPDATE notice SET type = ?, reason = 'first_notification', body = ? WHERE no = ?",
        (opened, delivery.as_first(bytes(newer["body"])), newer["no"]),
    )


def _log(conn: sqlite3.Connection, at: int, notice: int, attempt: int, outcome: Outcome) -> None:
    row = (notice, attempt, at, outcome.status, outcome.duration, outcome.detail)
    conn.execute("INSERT OR REPLACE INTO delivery_attempt (notice, n, at, status, duration, detail) VALUES (?,?,?,?,?,?)", row)
    counters.attempt(conn, notice, outcome.delivered)


# --- reading ------------------------------------------------------------------------------------------------------

_NOTICE = "SELECT n.*, i.id AS incident_id FROM notice n LEFT JOIN incident i ON i.no = n.incident"


def notice_page(incident: str | None, limit: int, cursor: str | None) -> Question[Page[Notice]]:
    """Newest first, without bodies. Raises ValueError for a made-up cursor."""
    where = "" if incident is None else " AND i.id = ?"
    rows = yield (
        f"{_NOTICE} WHERE n.no < ?{where} ORDER BY n.no DESC LIMIT ?",
        (page_mark(cursor), *([] if incident is None else [incident]), limit + 1),
    )
    items = []
    for row in rows[:limit]:
        items.append((yield from _notice(row, with_body=False)))
    return Page(items=items, next_cursor=mark_of(rows[limit - 1]["no"]) if len(rows) > limit else None)


def notice_one(notice_id: str) -> Question[Notice | None]:
    """One notice with its body; None: there is none with this id."""
    rows = yield f"{_NOTICE} WHERE n.id = ?", (notice_id,)
    return (yield from _notice(rows[0], with_body=True)) if rows else None


def _notice(row: sqlite3.Row, *, with_body: bool) -> Question[Notice]:
    tries = yield (
        "SELECT at, status, duration, detail FROM delivery_attempt WHERE notice = ? ORDER BY n DESC LIMIT ?",
        (row["no"], ATTEMPTS_SHOWN_MAX),
    )
    return Notice(
        id=row["id"],
        incident=row["incident_id"],
        endpoint=row["endpoint"],
        type=row["type"],
        reason=row["reason"],
        state=row["state"],
        created_at=row["created_at"],
        delivered_at=row["delivered_at"],
        next_attempt_at=row["next_attempt_at"],
        attempts=[DeliveryAttempt(**dict(one)) for one in reversed(tries)],
        body=bytes(row["body"]).decode() if with_body else None,
    )


async def notices(
    conn: aiosqlite.Connection, incident: str | None = None, limit: int = 50, cursor: str | None = None
) -> Page[Notice]:
    """For Reader.notices."""
    return await ask_async(conn, notice_page(incident, limit, cursor))


async def notice(conn: aiosqlite.Connection, notice_id: str) -> Notice | None:
    """For Reader.notice."""
    return await ask_async(conn, notice_one(notice_id))
