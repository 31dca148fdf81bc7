"""Which types were seen to finish by themselves (core/loops.py).

Rules: what is remembered of a finish is the earliest of its (type, instance), so the order in which they are told does not
matter. A type that ends by itself is remembered in its own row for ever; then its sights go.
"""

from __future__ import annotations

import sqlite3

from looseends.wire import NS
from looseends_daemon.core.loops import LIVED_ON_S, may_be_sight
from looseends_daemon.core.view import View

FORGOTTEN_NS = 86_400 * NS
"""A finish in an instance that has been gone for this long is no sight any more: nothing late will tell that it lived on."""
_NOTE = """
INSERT INTO sight (type, instance, finished_at) SELECT :type, :instance, :at FROM type WHERE id = :type AND NOT ends_alone
ON CONFLICT (type, instance) DO UPDATE SET finished_at = min(finished_at, excluded.finished_at)
"""


def note(conn: sqlite3.Connection, view: View, type_: int, instance: int | None) -> None:
    """Remember a finish that may tell, later, that its type ends by itself."""
    if may_be_sight(view):
        conn.execute(_NOTE, {"type": type_, "instance": instance, "at": view.ended_at})


def learn(conn: sqlite3.Connection, now: int) -> None:
    """Mark the types of which a task finished by itself: its instance lived on for long enough."""
    if conn.execute("SELECT 1 FROM sight LIMIT 1").fetchone() is None:
        return
    conn.execute(
        "UPDATE type SET ends_alone = 1 WHERE ends_alone = 0 AND id IN ("
        "SELECT s.type FROM sight s JOIN instance i ON i.no = s.instance WHERE i.lived_at - s.finished_at >= ?)",
        (int(LIVED_ON_S * NS),),
    )
    conn.execute("DELETE FROM sight WHERE type IN (SELECT id FROM type WHERE ends_alone = 1)")
    conn.execute(
        "DELETE FROM sight WHERE instance IN (SELECT no FROM instance WHERE state != 'alive' AND ended_at < ?)",
        (now - FORGOTTEN_NS,),
    )


def ends_alone(conn: sqlite3.Connection, type_: int) -> bool:
    """Whether a task of this type was ever seen to finish by itself."""
    row = conn.execute("SELECT ends_alone FROM type WHERE id = ?", (type_,)).fetchone()
    return bool(row["ends_alone"])
