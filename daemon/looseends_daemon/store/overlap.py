"""The flag `overlap`: the spans of watched tasks, and which of them lived at the same time.

Rules:

1. A span is written when its task is stored; it and all that it touches, before and now, are flagged anew: a late fact takes a
   flag back as well.
2. A task that was lost lived until its process was last heard. So the next one, begun by the process that came after, is no
   second one beside it.
"""

from __future__ import annotations

import sqlite3

from looseends_daemon.core.overlap import Span, overlaps, same_work
from looseends_daemon.core.resources import FLAGS
from looseends_daemon.core.view import View

OVERLAP = 1 << FLAGS.index("overlap")
NEAR_MAX = 200
"""Other tasks of the same work that one is compared with."""
_NEAR = """
SELECT task, started_at, ended_at FROM overlapping
WHERE type = ? AND environment = ? AND same = ? AND started_at <= ? AND (ended_at IS NULL OR ended_at >= ?)
ORDER BY started_at DESC LIMIT ?
"""
FAR = 1 << 62


def watch(conn: sqlite3.Connection, task: bytes, view: View, type_: int, environment: int) -> None:
    """A watched task was stored, its row is written: flag it, and whom it lived together with."""
    old = conn.execute("SELECT * FROM overlapping WHERE task = ?", (task,)).fetchone()
    # A later batch does not bring the arguments again, and they are not read back for this.
    same = same_work(view) or (None if old is None else old["same"])
    if view.started_at is None or same is None:
        return
    span = Span(started_at=view.started_at, ended_at=view.ended_at)
    touched = _near(conn, old["type"], old["environment"], old["same"], _span(old)) if old is not None else {}
    conn.execute(
        "INSERT OR REPLACE INTO overlapping (task, type, environment, same, started_at, ended_at) VALUES (?, ?, ?, ?, ?, ?)",
        (task, type_, environment, same, span.started_at, span.ended_at),
    )
    touched |= _near(conn, type_, environment, same, span)
    touched[task] = span
    for one in touched:
        _flag(conn, one)


def lost(conn: sqlite3.Connection, task: bytes) -> None:
    """A lost task lived until its process was last heard; what comes after that overlaps nothing."""
    row = conn.execute("SELECT * FROM overlapping WHERE task = ? AND ended_at IS NULL", (task,)).fetchone()
    if row is None:
        return
    heard = "SELECT i.last_heard_at FROM task t JOIN instance i ON i.no = t.instance WHERE t.id = ?"
    found = conn.execute(heard, (task,)).fetchone()
    at = row["started_at"] if found is None else found["last_heard_at"]
    touched = _near(conn, row["type"], row["environment"], row["same"], _span(row))
    conn.execute("UPDATE overlapping SET ended_at = ? WHERE task = ?", (max(at, row["started_at"]), task))
    for one in {*touched, task}:
        _flag(conn, one)


def _span(row: sqlite3.Row) -> Span:
    return Span(started_at=row["started_at"], ended_at=row["ended_at"])


def _near(conn: sqlite3.Connection, type_: int, environment: int, same: bytes, span: Span) -> dict[bytes, Span]:
    until = FAR if span.ended_at is None else span.ended_at
    rows = conn.execute(_NEAR, (type_, environment, same, until, span.started_at, NEAR_MAX))
    return {row["task"]: _span(row) for row in rows.fetchall()}


def _flag(conn: sqlite3.Connection, task: bytes) -> None:
    row = conn.execute("SELECT * FROM overlapping WHERE task = ?", (task,)).fetchone()
    others = _near(conn, row["type"], row["environment"], row["same"], _span(row))
    others.pop(task, None)
    bit = OVERLAP if overlaps(_span(row), others.values()) else 0
    conn.execute("UPDATE task SET flags = (flags & ~?) | ? WHERE id = ?", (OVERLAP, bit, task))
