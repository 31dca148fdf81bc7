"""Incidents as they are read: counts, marks, releases, and the reason of every transition."""

from __future__ import annotations

import sqlite3
from typing import Any

from looseends_daemon.core.incidents import OpenGroup, counts_of
from looseends_daemon.core.marks import InForce, labels_of, silence_over
from looseends_daemon.core.resources import Incident, Page
from looseends_daemon.store.acks import acknowledged
from looseends_daemon.store.incident_counts import open_groups, settled
from looseends_daemon.store.incident_titles import releases_of
from looseends_daemon.store.questions import Question, mark_of, page_mark
from looseends_daemon.store.silences import in_force


def incident_page(
    state: str | None, limit: int, cursor: str | None, base_url: str = "", now: int | None = None
) -> Question[Page[Incident]]:
    """Newest first. `now` (ns): when silences are measured; None: they are not. Raises ValueError for a made-up cursor."""
    where = "" if state is None else " AND state = ?"
    rows = yield (
        f"SELECT * FROM incident WHERE no < ?{where} ORDER BY no DESC LIMIT ?",
        (page_mark(cursor), *([] if state is None else [state]), limit + 1),
    )
    silences = [] if now is None else (yield from in_force(now))
    items = []
    for row in rows[:limit]:
        items.append((yield from of_row(row, base_url, silences)))
    return Page(items=items, next_cursor=mark_of(rows[limit - 1]["no"]) if len(rows) > limit else None)


def incident_one(incident_id: str, base_url: str = "", now: int | None = None) -> Question[Incident | None]:
    """One incident; None: there is none with this id."""
    rows = yield "SELECT * FROM incident WHERE id = ?", (incident_id,)
    silences = [] if now is None else (yield from in_force(now))
    return (yield from of_row(rows[0], base_url, silences)) if rows else None


def of_row(row: sqlite3.Row, base_url: str, silences: list[InForce]) -> Question[Incident]:
    """The resource of a row, with these silences in force."""
    groups = yield from open_groups(row["no"], row["problem"])
    done = yield from settled(row["no"])
    why = yield "SELECT at, state, reason, words FROM incident_why WHERE incident = ? ORDER BY n", (row["no"],)
    return Incident(
        id=row["id"],
        state=row["state"],
        problem=row["problem"],
        environment=row["environment"],
        service=row["service"],
        name=row["name"],
        instance=row["instance"],
        severity=row["severity"],
        title=row["title"],
        reason=row["reason"],
        opened_at=row["opened_at"],
        acknowledged=(yield from acknowledged(row["no"])),
        silenced=_silenced(row, groups, silences),
        resolved_at=row["resolved_at"],
        resolution=row["resolution"],
        release=(yield from releases_of(row["instance"])),
        counts=counts_of(sum(group.count for group in groups), done),
        why=[dict(one) for one in why],
        url=f"{base_url}/incidents/{row['id']}",
    )


def _silenced(row: sqlite3.Row, groups: list[OpenGroup], silences: list[InForce]) -> dict[str, Any] | None:
    if not silences or row["state"] == "resolved":
        return None
    found = silence_over(silences, labels_of(row, groups))
    return None if found is None else found.shown()
