"""Silences: rows, the acts, what is in force, and what one would hide."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from functools import lru_cache

from looseends.wire import format_time
from looseends_daemon.core.marks import (
    SILENCES_MAX,
    InForce,
    Silence,
    checked_matchers,
    checked_text,
    checked_window,
)
from looseends_daemon.core.matchers import Matcher, matchers
from looseends_daemon.core.resources import Actor, CommandRefused, Page
from looseends_daemon.store.access import audit
from looseends_daemon.store.questions import Question, mark_of, page_mark
from looseends_daemon.store.samples import new_id

_STATES = {
    None: "",
    "active": " AND starts_at <= ?2 AND ends_at > ?2",
    "pending": " AND starts_at > ?2 AND ends_at > ?2",
    "expired": " AND ends_at <= ?2",
}


@lru_cache(maxsize=SILENCES_MAX)
def _read(text: str) -> tuple[Matcher, ...]:
    return matchers(text)


def in_force(now: int) -> Question[list[InForce]]:
    """The silences that hold at `now` (ns)."""
    rows = yield "SELECT * FROM silence WHERE ends_at > ? AND starts_at <= ?", (now, now)
    return [
        InForce(
            id=row["id"],
            author=row["author"],
            comment=row["comment"],
            matchers=_read(row["matchers"]),
            ends_at=row["ends_at"],
        )
        for row in rows
    ]


def add(
    conn: sqlite3.Connection,
    actor: Actor,
    now: int,
    *,
    matchers: Sequence[str],
    comment: str,
    ends_at: int,
    starts_at: int | None = None,
) -> Silence:
    """Make one. Raises CommandRefused: 422 matchers, window or comment; 409 there are SILENCES_MAX."""
    found = checked_matchers(matchers)
    begin, end = checked_window(starts_at, ends_at, now)
    words = checked_text(comment, "say in a comment why this may be quiet: it is shown until it ends")
    if conn.execute("SELECT count(*) FROM silence WHERE ends_at > ?", (now,)).fetchone()[0] >= SILENCES_MAX:
        raise CommandRefused(409, "Too many silences", [f"at most {SILENCES_MAX} in force or to come; end one first"])
    text = ", ".join(str(one) for one in found)
    row = conn.execute(
        "INSERT INTO silence (id, matchers, author, comment, created_at, starts_at, ends_at)"
        " VALUES (?, ?, ?, ?, ?, ?, ?) RETURNING *",
        (new_id("sil", now), text, actor.name, words, now, begin, end),
    ).fetchone()
    audit(conn, now, actor.name, "silence", row["id"], f"{{{text}}} until {format_time(end)}: {words}")
    return _shown(row, now)


def end(conn: sqlite3.Connection, silence_id: str, actor: Actor, now: int) -> Silence:
    """End one now; the machine looks at everything that was withheld. Raises CommandRefused: 404, 409 it is over."""
    row = conn.execute("SELECT * FROM silence WHERE id = ?", (silence_id,)).fetchone()
    if row is None:
        raise CommandRefused(404, "No such silence", [f"there is no silence {silence_id[:100]}"])
    if row["ends_at"] <= now:
        raise CommandRefused(409, "It is over", [f"it ended at {format_time(row['ends_at'])}"])
    row = conn.execute(
        "UPDATE silence SET ends_at = ?1, starts_at = min(starts_at, ?1), ended_by = ?2 WHERE no = ?3 RETURNING *",
        (now, actor.name, row["no"]),
    ).fetchone()
    conn.execute("UPDATE incident SET next_at = ? WHERE held = 1", (now,))
    audit(conn, now, actor.name, "end_silence", row["id"], f"{{{row['matchers']}}}")
    return _shown(row, now)


def silence_page(state: str | None, limit: int, cursor: str | None, now: int) -> Question[Page[Silence]]:
    """Newest first. Raises ValueError for a made-up cursor."""
    rows = yield (
        f"SELECT * FROM silence WHERE no < ?1{_STATES[state]} ORDER BY no DESC LIMIT ?3",
        (page_mark(cursor), now, limit + 1),
    )
    items = [_shown(row, now) for row in rows[:limit]]
    return Page(items=items, next_cursor=mark_of(rows[limit - 1]["no"]) if len(rows) > limit else None)


def silence_one(silence_id: str, now: int) -> Question[Silence | None]:
    """One silence; None: there is none with this id."""
    rows = yield "SELECT * FROM silence WHERE id = ?", (silence_id,)
    return _shown(rows[0], now) if rows else None


def _shown(row: sqlite3.Row, now: int) -> Silence:
    state = "expired" if row["ends_at"] <= now else "pending" if row["starts_at"] > now else "active"
    return Silence(
        id=row["id"],
        state=state,
        matchers=[str(one) for one in _read(row["matchers"])],
        author=row["author"],
        comment=row["comment"],
        created_at=row["created_at"],
        starts_at=row["starts_at"],
        ends_at=row["ends_at"],
        ended_by=row["ended_by"],
    )


def forget(conn: sqlite3.Connection, until: int) -> int:
    """Take out silences that ended before `until` (ns), at most SILENCES_MAX of them; how many."""
    found = "SELECT no FROM silence WHERE ends_at < ? ORDER BY ends_at LIMIT ?"
    return conn.execute(f"DELETE FROM silence WHERE no IN ({found})", (until, SILENCES_MAX)).rowcount
