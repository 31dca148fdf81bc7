"""The loose ends that a dismissal would settle: exactly which, so that a digest can stand for them.

Rules: a query that searches text is refused, since it reaches the newest tasks only, and a decision must be exact; so is one that
names more than DISMISSED_MAX. What is listed is a sample, the digest is of all.
"""

from __future__ import annotations

from looseends_daemon.core.marks import DISMISSED_MAX, SHOWN_MAX, Frozen, digest_of
from looseends_daemon.core.query import QUERY_CHARS_MAX, QueryError, parse
from looseends_daemon.core.resources import CommandRefused
from looseends_daemon.store import shown
from looseends_daemon.store.query_sql import where
from looseends_daemon.store.questions import Question


def tasks_of(q: str | None, incident: str | None, now: int) -> Question[tuple[str, list[bytes]]]:
    """(what they are the loose ends of, their ids). Raises CommandRefused 404, 409, 422; QueryError."""
    if (q is None) == (incident is None):
        raise CommandRefused(422, "What shall be dismissed?", ['/q: give "q" (a query) or "incident" (an id), one of them'])
    sql, params = ("", []) if q is None else _checked(q, now)
    if incident is not None:
        rows = yield "SELECT no FROM incident WHERE id = ?", (incident,)
        if not rows:
            raise CommandRefused(404, "No such incident", [f"there is no incident {incident[:100]}"])
        sql, params = "task.incident = ?", [rows[0]["no"]]
    rows = yield (f"SELECT task.id FROM task WHERE task.loose = 1 AND {sql} LIMIT ?", [*params, DISMISSED_MAX + 1])
    if not rows:
        raise CommandRefused(409, "Nothing to dismiss", ["no loose end is open there"])
    if len(rows) > DISMISSED_MAX:
        words = f"over {DISMISSED_MAX:,} loose ends at once; narrow it, by name: or older: for instance"
        raise CommandRefused(422, "Too many", [f"/q: {words}"])
    return (f"incident {incident}" if incident is not None else f"query {q!r}"), [bytes(row["id"]) for row in rows]


def _checked(q: str, now: int) -> tuple[str, list[object]]:
    if not q.strip():
        raise CommandRefused(422, "Everything?", ["/q: an empty query is every loose end there is; is:loose says so on purpose"])
    query = parse(q[: QUERY_CHARS_MAX + 1])
    text = next((term for term in query.terms if term.is_searched), None)
    if text is not None:
        detail = "a dismissal cannot search text; name what shall go"
        raise QueryError(detail, text.column, ["name:mail.*", "service:shop", "key:order-7"])
    return where(query, now=now)


def freeze(q: str | None, incident: str | None, now: int, base_url: str = "") -> Question[Frozen]:
    """The list as a digest, a count and a sample. Raises as `tasks_of`."""
    what, tasks = yield from tasks_of(q, incident, now)
    marks = ", ".join("?" * len(tasks[:SHOWN_MAX]))
    rows = yield f"SELECT * FROM task WHERE id IN ({marks}) ORDER BY began_at DESC, id DESC", tasks[:SHOWN_MAX]
    found = yield from shown.neighbours(rows)
    items = []
    for row in rows:
        items.append((yield from shown.full(row, found, base_url)))
    return Frozen(what=what, digest=digest_of(tasks), count=len(tasks), items=items)
