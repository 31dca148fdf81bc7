"""Notices that a person asked for: tests of an endpoint, and news that is told again.

Rules:

1. What is told again is the incident as it stands now, in a new notice with a `webhook-id` of its own: its old words may be long
   overtaken, and nobody shall hear "opened" after "resolved". The reason is `manual_resend`.
2. A notice that still waits is only brought forward: two of the same would be one too many.
3. A test is a notice without an incident. It overtakes what waits, is tried once, and says how that went in its own log.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

from looseends.wire import NS
from looseends_daemon.core import delivery
from looseends_daemon.core.endpoints import RESENT_MAX, Resent
from looseends_daemon.core.incidents import AlertRules, counts_of
from looseends_daemon.core.resources import SETTLEMENTS, Actor, CommandRefused, Counts
from looseends_daemon.store import endpoints, outbox
from looseends_daemon.store.access import audit
from looseends_daemon.store.samples import new_id

TESTS_KEPT_S = 7 * 86_400
MISSED_MAX = 200
"""Incidents that an endpoint is told of when it is enabled again, the newest first."""


def test(conn: sqlite3.Connection, now: int, endpoint: str, actor: Actor, rules: AlertRules) -> str:
    """Write a test of this endpoint; returns the notice's id. Audited."""
    _forget_tests(conn, now, endpoint)
    message_id = new_id("msg", now)
    event = delivery.test_event(message_id=message_id, source=rules.instance, endpoint=endpoint, at=now, by=actor.name)
    outbox.write(conn, now, message_id, endpoint, delivery.plain_body(event), type_=delivery.TEST_TYPE, reason="test")
    audit(conn, now, actor.name, "test_endpoint", endpoint)
    return message_id


def _forget_tests(conn: sqlite3.Connection, now: int, endpoint: str) -> None:
    """Old tests of this endpoint: they are about no incident whose retention would take them."""
    old = conn.execute(
        "SELECT no FROM notice WHERE endpoint = ? AND incident IS NULL AND created_at < ?"
        " AND state NOT IN ('pending', 'delivering')",
        (endpoint, now - TESTS_KEPT_S * NS),
    ).fetchall()
    for row in old:
        conn.execute("DELETE FROM delivery_attempt WHERE notice = ?", (row["no"],))
        conn.execute("DELETE FROM notice WHERE no = ?", (row["no"],))


def resend(conn: sqlite3.Connection, now: int, notice_id: str, actor: Actor, rules: AlertRules) -> str:
    """Tell again what this notice was about; returns the id of the notice now on its way. Audited.

    Raises CommandRefused 404, and 409: a test, an endpoint that is disabled or no longer configured, an incident that is gone.
    """
    row = conn.execute("SELECT * FROM notice WHERE id = ?", (notice_id,)).fetchone()
    if row is None:
        raise CommandRefused(404, "No such notice", [f"there is no notice {notice_id[:100]!r}; GET /api/v1/notices lists them"])
    if row["incident"] is None:
        way = f"make a new one: POST /api/v1/endpoints/{row['endpoint']}/test"
        raise CommandRefused(409, "A test is not sent again", [way])
    _must_be_known(row["endpoint"], rules)
    endpoints.must_be_open(conn, row["endpoint"])
    told = _again(conn, now, row["incident"], row["endpoint"], rules)
    audit(conn, now, actor.name, "resend_notice", notice_id, "" if told == notice_id else f"as {told}")
    return told


def resend_range(
    conn: sqlite3.Connection, now: int, from_: int, to: int, only: str | None, actor: Actor, rules: AlertRules
) -> Resent:
    """Tell again what was written in [from_, to), once per incident and endpoint, oldest first. Audited.

    Endpoints that are disabled or no longer configured are left out, unless named: then CommandRefused 404, 409.
    """
    if only is not None:
        _must_be_known(only, rules)
        endpoints.must_be_open(conn, only)
    open_now = [
        rule.name for rule in rules.endpoints if only in (None, rule.name) and endpoints.state_of(conn, rule.name) != "disabled"
    ]
    marks = ", ".join("?" * len(open_now))
    rows = conn.execute(
        "SELECT incident, endpoint, min(no) AS first FROM notice WHERE created_at >= ? AND created_at < ?"
        f" AND incident IS NOT NULL AND endpoint IN ({marks}) GROUP BY incident, endpoint ORDER BY first",
        (from_, to, *open_now),
    ).fetchall()
    items = [_again(conn, now, row["incident"], row["endpoint"], rules) for row in rows[:RESENT_MAX]]
    audit(conn, now, actor.name, "resend_notices", only or "all endpoints", f"{len(items)} of {len(rows)}")
    return Resent(items=items, left_out=len(rows) - len(items))


def catch_up(conn: sqlite3.Connection, now: int, endpoint: str, rules: AlertRules) -> None:
    """Tell an endpoint that is enabled again how the incidents stand that went on without it: those it had heard of."""
    rows = conn.execute(
        "SELECT i.no FROM incident i WHERE i.sequence >"
        " (SELECT max(n.sequence) FROM notice n WHERE n.incident = i.no AND n.endpoint = ? AND n.state = 'delivered')"
        " ORDER BY i.no DESC LIMIT ?",
        (endpoint, MISSED_MAX),
    ).fetchall()
    for row in reversed(rows):
        _again(conn, now, row["no"], endpoint, rules, reason=None)


def _again(
    conn: sqlite3.Connection, now: int, incident: int, endpoint: str, rules: AlertRules, reason: str | None = "manual_resend"
) -> str:
    """The id of the notice that tells how this incident stands now."""
    waiting: Sequence[sqlite3.Row] = conn.execute(
        "SELECT no, id FROM notice WHERE incident = ? AND endpoint = ? AND state IN ('pending', 'delivering')"
        " ORDER BY no DESC LIMIT 1",
        (incident, endpoint),
    ).fetchall()
    if waiting:
        conn.execute("UPDATE notice SET next_attempt_at = ? WHERE no = ? AND state = 'pending'", (now, waiting[0]["no"]))
        return str(waiting[0]["id"])
    conn.execute("UPDATE incident SET sequence = sequence + 1 WHERE no = ?", (incident,))
    row = conn.execute("SELECT * FROM incident WHERE no = ?", (incident,)).fetchone()
    if row is None:
        raise CommandRefused(409, "The incident is gone", ["its retention is over; nothing is left to tell"])
    type_ = "resolved" if row["state"] == "resolved" else "repeated"
    [made] = outbox.enqueue(conn, now, row, _counts(conn, incident), type_, rules, only=[endpoint], asked_for=reason)
    return made


def _counts(conn: sqlite3.Connection, incident: int) -> Counts:
    opened = conn.execute("SELECT ifnull(sum(n), 0) FROM incident_open WHERE incident = ?", (incident,)).fetchone()[0]
    settled = conn.execute("SELECT settled, n FROM incident_settled WHERE incident = ? AND n > 0", (incident,))
    return counts_of(opened, {SETTLEMENTS[row["settled"]]: row["n"] for row in settled})


def _must_be_known(name: str, rules: AlertRules) -> None:
    if all(rule.name != name for rule in rules.endpoints):
        raise CommandRefused(409, "The endpoint is not configured", [f"there is no [[endpoint]] {name!r} any more"])
