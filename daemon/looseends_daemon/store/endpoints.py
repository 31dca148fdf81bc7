"""How each endpoint does: failing, disabled by whom, what waits for it; and what people may decide about one.

Rules:

1. `ok` -> `failing` after FAILING_AFTER failed attempts in a row, back with the first yes. `disabled` by a 410, by a person,
   or after DISABLED_AFTER_S of nothing but failures; then nothing is sent to it, and what waits is cancelled.
2. Only a person enables an endpoint again (or a new address, or kind, of it in the configuration).
3. An answer is shown with its beginning, since "why does it not work" is asked here first.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Collection, Sequence
from pathlib import Path
from sqlite3 import Connection as Connection

from looseends.wire import NS
from looseends_daemon.core.delivery import DISABLED_AFTER_S, FAILING_AFTER, WEBHOOK_TYPE, Outcome
from looseends_daemon.core.endpoints import Endpoint
from looseends_daemon.core.incidents import EndpointRule
from looseends_daemon.core.resources import Actor, CommandRefused
from looseends_daemon.store.access import audit
from looseends_daemon.store.questions import Question


def state_of(conn: sqlite3.Connection, name: str) -> str:
    """`ok`, `failing` or `disabled`; one that nobody knows yet is ok."""
    row = conn.execute("SELECT state FROM endpoint WHERE name = ?", (name,)).fetchone()
    return "ok" if row is None else str(row["state"])


def succeeded(conn: sqlite3.Connection, now: int, name: str) -> None:
    """It said yes. If it was failing, everything that waits for it is due now. One that is disabled stays so."""
    if state_of(conn, name) == "failing":
        conn.execute("UPDATE notice SET next_attempt_at = ? WHERE endpoint = ? AND state = 'pending'", (now, name))
        conn.execute("UPDATE endpoint SET state = 'ok', since = ? WHERE name = ?", (now, name))
    conn.execute(
        "UPDATE endpoint SET failures = 0, delivered_at = ?, detail = CASE state WHEN 'disabled' THEN detail ELSE '' END"
        " WHERE name = ?",
        (now, name),
    )


def failed(conn: sqlite3.Connection, now: int, name: str, outcome: Outcome) -> bool:
    """It did not. Returns whether it is disabled now; then what waits for it is cancelled."""
    row = conn.execute("SELECT state, failures, since FROM endpoint WHERE name = ?", (name,)).fetchone()
    if row is None or row["state"] == "disabled":
        return row is not None and outcome.refused_for_good
    failures, state = row["failures"] + 1, row["state"]
    detail = outcome.words
    if outcome.refused_for_good:
        state = "disabled"
    elif state == "failing" and now - row["since"] >= DISABLED_AFTER_S * NS:
        state, detail = "disabled", f"failed for {DISABLED_AFTER_S // 86_400} days; the last time: {detail}"
    elif failures >= FAILING_AFTER:
        state = "failing"
    since = row["since"] if state == row["state"] else now
    conn.execute(
        "UPDATE endpoint SET failures = ?, detail = ?, state = ?, since = ?, by = NULL WHERE name = ?",
        (failures, detail, state, since, name),
    )
    if state == "disabled":
        cancel(conn, name)
    return bool(state == "disabled")


def cancel(conn: sqlite3.Connection, name: str) -> None:
    """Nothing that waits for this endpoint is sent any more."""
    conn.execute(
        "UPDATE notice SET state = 'cancelled', next_attempt_at = NULL, lease_until = NULL"
        " WHERE endpoint = ? AND state IN ('pending', 'delivering')",
        (name,),
    )


# --- sending --------------------------------------------------------------------------------------------------------


def sent_since(conn: sqlite3.Connection, endpoint: str, since: int) -> list[int]:
    """When notices were last sent to this endpoint, from `since` on (ns): what a daemon that starts owes to max_per_minute."""
    query = "SELECT leased_at FROM notice WHERE endpoint = ? AND leased_at >= ? ORDER BY leased_at"
    return [int(row["leased_at"]) for row in conn.execute(query, (endpoint, since))]


def standing(conn: sqlite3.Connection, now: int, endpoint: str, resolved_for: int, most: int) -> list[bytes]:
    """The latest body that it took about each open incident, and those about the end of one, sent within `resolved_for` ns.

    At most `most` of each, the newest first.
    """
    opened = conn.execute(
        "SELECT n.body FROM incident i JOIN notice n ON n.no = ("
        "  SELECT max(b.no) FROM notice b WHERE b.incident = i.no AND b.endpoint = ? AND b.state = 'delivered')"
        " WHERE i.state = 'open' ORDER BY i.no DESC LIMIT ?",
        (endpoint, most),
    )
    resolved = conn.execute(
        "SELECT body FROM notice WHERE endpoint = ? AND leased_at > ? AND state = 'delivered' AND type = ?"
        " ORDER BY leased_at DESC LIMIT ?",
        (endpoint, now - resolved_for, WEBHOOK_TYPE + "resolved", most),
    )
    return [bytes(row["body"]) for row in (*opened, *resolved)]


# --- acts ---------------------------------------------------------------------------------------------------------


def disable(conn: sqlite3.Connection, now: int, name: str, actor: Actor) -> None:
    """Stop sending to an endpoint; what waits is cancelled. Doing it twice changes nothing. Audited."""
    if state_of(conn, name) == "disabled":
        return
    conn.execute(
        "UPDATE endpoint SET state = 'disabled', since = ?, by = ?, detail = ? WHERE name = ?",
        (now, actor.name, f"disabled by {actor.name}", name),
    )
    cancel(conn, name)
    audit(conn, now, actor.name, "disable_endpoint", name)


def enable(conn: sqlite3.Connection, now: int, name: str, actor: Actor) -> bool:
    """Send to it again; returns whether it was disabled. Audited."""
    if state_of(conn, name) != "disabled":
        return False
    conn.execute(
        "UPDATE endpoint SET state = 'ok', since = ?, by = NULL, failures = 0, detail = '' WHERE name = ?",
        (now, name),
    )
    audit(conn, now, actor.name, "enable_endpoint", name)
    return True


def must_be_open(conn: sqlite3.Connection, name: str) -> None:
    """Raises CommandRefused 409 for a disabled endpoint, with its reason and the way out."""
    row = conn.execute("SELECT state, detail FROM endpoint WHERE name = ?", (name,)).fetchone()
    if row is not None and row["state"] == "disabled":
        way = f"enable it first: POST /api/v1/endpoints/{name}/enable"
        raise CommandRefused(409, "The endpoint is disabled", [f"{name} is disabled ({row['detail']}); {way}"])


# --- reading ------------------------------------------------------------------------------------------------------

_BACKLOG = """
    SELECT count(*) AS n, min(created_at) AS oldest, min(next_attempt_at) AS next FROM (
        SELECT created_at, next_attempt_at FROM notice WHERE endpoint = ? AND state = 'pending'
        UNION ALL SELECT created_at, NULL FROM notice WHERE endpoint = ? AND state = 'delivering')"""


def endpoints(rules: Sequence[EndpointRule]) -> Question[list[Endpoint]]:
    """Every configured endpoint in the order of the configuration."""
    rows = yield "SELECT * FROM endpoint", ()
    known = {row["name"]: row for row in rows}
    found = []
    for rule in rules:
        waiting = (yield _BACKLOG, (rule.name, rule.name))[0]
        row = known.get(rule.name)
        found.append(
            Endpoint(
                name=rule.name,
                kind=rule.kind,
                state="ok" if row is None else row["state"],
                changed_at=None if row is None else row["since"],
                detail=(row["detail"] if row is not None else "") or None,
                disabled_by=None if row is None else row["by"],
                failures=0 if row is None else row["failures"],
                backlog=waiting["n"],
                oldest_at=waiting["oldest"],
                next_attempt_at=waiting["next"],
                delivered_at=None if row is None else row["delivered_at"],
                min_severity=rule.min_severity,
                match=[str(one) for one in rule.match],
                max_per_minute=rule.max_per_minute,
                timeout=rule.timeout,
                include_args=rule.include_args,
            )
        )
    return found


def disabled_in(path: str, names: Collection[str]) -> list[tuple[str, str]]:
    """(name, why) of those of these endpoints that are disabled in the database at `path`; none where there is no database."""
    if not os.path.isfile(path):
        return []
    try:
        with contextlib.closing(sqlite3.connect(f"{Path(path).absolute().as_uri()}?mode=ro", uri=True, timeout=2.0)) as conn:
            rows = conn.execute("SELECT name, detail FROM endpoint WHERE state = 'disabled' ORDER BY name").fetchall()
    except sqlite3.DatabaseError:
        return []  # not ours, or of another version: whoever opens it for good says so better
    return [(str(name), str(detail)) for name, detail in rows if name in names]
