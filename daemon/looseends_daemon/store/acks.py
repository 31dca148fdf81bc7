"""Acknowledgements: somebody has an incident in hand. Rows, the act, and how they are read."""

from __future__ import annotations

import sqlite3
from typing import Any

from looseends.wire import NS, format_time
from looseends_daemon.core.incidents import AlertRules, Taken
from looseends_daemon.core.marks import checked_expiry, checked_text
from looseends_daemon.core.resources import Actor, CommandRefused
from looseends_daemon.store.access import audit
from looseends_daemon.store.incident_counts import open_groups
from looseends_daemon.store.questions import Question, ask


def taken(conn: sqlite3.Connection, incident_no: int) -> Taken | None:
    """The acknowledgement that stands, as the machine looks at it."""
    row = conn.execute("SELECT * FROM acknowledgement WHERE incident = ?", (incident_no,)).fetchone()
    if row is None:
        return None
    return Taken(at=row["at"], until=row["until"], count=row["count"], severity=row["severity"], told=bool(row["told"]))


def write(conn: sqlite3.Connection, incident_no: int, mark: Taken | None) -> None:
    """Keep what the machine made of it: told, or cleared."""
    if mark is None:
        conn.execute("DELETE FROM acknowledgement WHERE incident = ?", (incident_no,))
    else:
        conn.execute("UPDATE acknowledgement SET told = ? WHERE incident = ?", (int(mark.told), incident_no))


def acknowledged(incident_no: int) -> Question[dict[str, Any] | None]:
    """The `acknowledged` member of an incident: by whom, when, until when (ns), and the note."""
    rows = yield "SELECT by, at, note, until FROM acknowledgement WHERE incident = ?", (incident_no,)
    if not rows:
        return None
    return {"by": rows[0]["by"], "at": rows[0]["at"], "note": rows[0]["note"], "expires_at": rows[0]["until"]}


def acknowledged_json(conn: sqlite3.Connection, incident_no: int) -> dict[str, Any] | None:
    """The same for a notice, whose times are text."""
    told = ask(conn, acknowledged(incident_no))
    return told and {**told, "at": format_time(told["at"]), "expires_at": format_time(told["expires_at"])}


def acknowledge(
    conn: sqlite3.Connection,
    incident_id: str,
    actor: Actor,
    now: int,
    *,
    note: str,
    expires: float | None,
    rules: AlertRules,
) -> None:
    """Mark an incident that is not resolved; the machine looks at it at once.

    Raises CommandRefused: 404 no such incident, 409 it is resolved, 422 note or time.
    """
    words = checked_text(note, "say in a note who does what: it is shown to whoever comes next")
    seconds = checked_expiry(expires, rules.ack_expires)
    row = conn.execute("SELECT * FROM incident WHERE id = ?", (incident_id,)).fetchone()
    if row is None:
        raise CommandRefused(404, "No such incident", [f"there is no incident {incident_id[:100]}"])
    if row["state"] == "resolved":
        raise CommandRefused(409, "It is resolved", [f"nothing of it is open any more: {row['title']}"])
    count = sum(group.count for group in ask(conn, open_groups(row["no"], row["problem"])))
    until = now + round(seconds * NS)
    conn.execute(
        "INSERT OR REPLACE INTO acknowledgement (incident, at, until, by, note, count, severity) VALUES (?, ?, ?, ?, ?, ?, ?)",
        (row["no"], now, until, actor.name, words, count, row["severity"]),
    )
    conn.execute("UPDATE incident SET next_at = ? WHERE no = ?", (now, row["no"]))
    audit(conn, now, actor.name, "acknowledge_incident", row["id"], f"until {format_time(until)}: {words}")
