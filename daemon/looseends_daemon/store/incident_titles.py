"""The title of an incident from its rows: what is open, the process that died, the release before and after."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping

from msgspec import structs

from looseends.wire import NS
from looseends_daemon.core.incidents import OpenGroup
from looseends_daemon.core.titles import Scene, scene_of, settled_title, title_of
from looseends_daemon.store.questions import Question, ask

NAMED_MAX = 50
"""Loose ends among which a title looks for its words. A title with more of them counts, and needs none."""
SUCCESSOR_S_MAX = 900
"""Who came on a host this long before or after an instance ended there may have taken its place. Later ones did not."""


def open_title(conn: sqlite3.Connection, row: sqlite3.Row, problem: str, groups: list[OpenGroup]) -> str:
    """What it is called while something is open, in the words of a loose end that is open now."""
    few = sum(group.count for group in groups) <= NAMED_MAX
    why = conn.execute(_REASON, (row["no"], problem)).fetchone() if few else None
    scene = scene_of(problem, row["service"], groups, row["detail"] if why is None else why["reason"])
    return title_of(_with_instance(conn, scene, row["instance"]))


_REASON = """
    SELECT j.reason FROM task t JOIN judgement j ON j.task = t.id
    WHERE t.incident = ? AND t.loose = 1 AND j.verdict = ? AND j.what IN ('verdict', 'loose') ORDER BY j.at DESC LIMIT 1"""
"""The one that was worst before may be settled."""


def over_title(conn: sqlite3.Connection, row: sqlite3.Row, settled: Mapping[str, int]) -> str:
    """What it is called once nothing is open: what there was, and what became of it."""
    count = max(1, sum(settled.values()))
    only = conn.execute(_ONLY, (row["no"],)).fetchone() if row["name"] is None and count == 1 else row
    name = None if only is None else only["name"]
    scene = Scene(problem=row["problem"], service=row["service"], count=count, name=name)
    return settled_title(_with_instance(conn, scene, row["instance"]), settled)


_ONLY = """
    SELECT ty.name FROM task t JOIN type ty ON ty.id = t.type
    WHERE t.incident = ? AND t.loose = 0 AND t.settled IS NOT NULL LIMIT 1"""


def _with_instance(conn: sqlite3.Connection, scene: Scene, instance: str | None) -> Scene:
    """The same with what is known of the instance whose work was lost; None: the cause is no instance."""
    found = conn.execute("SELECT host, state, ended_at FROM instance WHERE id = ?", (instance,)).fetchone()
    if found is None:
        return scene
    releases = ask(conn, releases_of(instance))
    return structs.replace(
        scene,
        host=found["host"],
        instance_state=found["state"],
        died_at=found["ended_at"],
        releases=(releases["before"], releases["after"]) if releases and releases["after"] else None,
    )


def releases_of(instance: str | None) -> Question[dict[str, str | None] | None]:
    """`before`: the release of an instance that ended, `after`: the other one that took its place on that host, if any did.

    None: it has none, or lives.
    """
    if instance is None:
        return None
    rows = yield "SELECT * FROM instance WHERE id = ? AND state != 'alive' AND release IS NOT NULL", (instance,)
    if not rows:
        return None
    one = rows[0]
    ended = one["ended_at"] if one["ended_at"] is not None else one["last_heard_at"]
    span = SUCCESSOR_S_MAX * NS
    begin = max(one["first_heard_at"] + 1, ended - span)
    later = yield _AFTER, (one["service"], one["host"], begin, ended + span, one["environment"], one["release"])
    return {"before": one["release"], "after": later[0]["release"] if later else None}


_AFTER = """
    SELECT release FROM instance
    WHERE service = ? AND host = ? AND first_heard_at BETWEEN ? AND ? AND environment = ? AND release != ?
    ORDER BY first_heard_at LIMIT 1"""
