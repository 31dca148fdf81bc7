"""What instances offer to run again and how they stand: registered functions, leases, watched journals, and their pages.

Rules: a PUT of functions replaces all that this instance registered. An offer counts only while its instance is alive, but its
rows outlive it: they tell with which signature and code a recorded task ran.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Collection, Iterable, Mapping
from typing import Any

import aiosqlite

from looseends.wire import NS
from looseends_daemon.core.replay import Offer
from looseends_daemon.core.resources import Instance, Page, Value
from looseends_daemon.store.questions import Question, ask, ask_async, mark_of, page_mark

FUNCTIONS_MAX = 1_000

OFFER_COLUMNS = (
    "i.id AS instance, i.service, i.environment, i.state = 'alive' AS alive, i.proven,"
    " f.signature, f.code, f.replay, f.caution, f.via"
)


# --- functions and offers -----------------------------------------------------------------------------------------


def put_functions(conn: sqlite3.Connection, instance_no: int, functions: Iterable[Mapping[str, Any]]) -> None:
    """Replace everything this instance registered. Each has name, signature, code, replay, caution and via (checked before)."""
    conn.execute("DELETE FROM function WHERE instance = ?", (instance_no,))
    conn.executemany(
        "INSERT OR REPLACE INTO function (instance, name, signature, code, replay, caution, via)"
        " VALUES (:instance, :name, :signature, :code, :replay, :caution, :via)",
        ({"instance": instance_no, **function} for function in functions),
    )


def offers(name: str, environment: str) -> Question[list[Offer]]:
    """All live registrations of a name in an environment, newest instance first, proven or not."""
    # `state != 'gone'` repeats the condition of the partial index: the planner uses it only where it reads its very words.
    rows = yield (
        f"SELECT {OFFER_COLUMNS} FROM instance i JOIN function f ON f.instance = i.no AND f.name = ?"
        " WHERE i.state != 'gone' AND i.state = 'alive' AND i.environment = ? ORDER BY i.no DESC",
        (name, environment),
    )
    return [offer_of(row) for row in rows]


def offer_of(row: sqlite3.Row) -> Offer:
    """A row with OFFER_COLUMNS as the value that core/replay.py judges."""
    return Offer(
        instance=row["instance"],
        service=row["service"],
        environment=row["environment"],
        alive=bool(row["alive"]),
        proven=bool(row["proven"]),
        signature=row["signature"],
        code=row["code"],
        replay=row["replay"],
        caution=row["caution"],
        via=row["via"],
    )


def live_instances(service: str, environment: str) -> Question[int]:
    """How many instances of a service are alive in an environment."""
    rows = yield (
        "SELECT count(*) AS n FROM instance WHERE state != 'gone' AND state = 'alive' AND service = ? AND environment = ?",
        (service, environment),
    )
    return int(rows[0]["n"])


# --- leases and watched journals ----------------------------------------------------------------------------------


def silent(heard_before: int, limit: int) -> Question[list[tuple[str, int]]]:
    """(id, last heard, ns) of live instances that nobody watches and that were last heard before that time, longest first."""
    rows = yield (
        "SELECT id, last_heard_at FROM instance WHERE state != 'gone' AND state = 'alive' AND journal IS NULL"
        " AND last_heard_at < ? ORDER BY last_heard_at LIMIT ?",
        (heard_before, limit),
    )
    return [(row["id"], row["last_heard_at"]) for row in rows]


def still_silent(conn: sqlite3.Connection, ids: Iterable[str], heard_before: int) -> list[tuple[str, int]]:
    """Which of these are silent still: a heartbeat may have come in between the look and the write."""
    return [row for row in ask(conn, silent(heard_before, -1)) if row[0] in set(ids)]


def watched() -> Question[dict[str, str]]:
    """Folder -> instance id of everything that is marked as locally watched and not gone."""
    rows = yield "SELECT journal, id FROM instance WHERE state != 'gone' AND journal IS NOT NULL", ()
    return {row["journal"]: row["id"] for row in rows}


def known(ids: Collection[str]) -> Question[set[str]]:
    """Which of these instance ids have been heard of."""
    rows = yield (
        "SELECT id FROM instance WHERE id IN (SELECT value FROM json_each(?))",
        (json.dumps(list(ids)),),
    )
    return {row["id"] for row in rows}


def rewatch(conn: sqlite3.Connection, seen: Mapping[str, str], vanished: Iterable[str]) -> None:
    """Note whose journals we see (folder -> instance id): their locks, not a lease, say whether they live.

    Where a folder vanished, the lease speaks for its instance again.
    """
    conn.executemany("UPDATE instance SET journal = NULL WHERE journal = ? AND state != 'gone'", ((f,) for f in vanished))
    conn.executemany("UPDATE instance SET journal = ? WHERE id = ?", seen.items())


class Standing(Value, frozen=True):
    """How an instance stands before its journal ends it. `goodbye`: why it is gone, if that is known already."""

    last_heard_at: int
    goodbye: str | None


def standing(conn: sqlite3.Connection, instance_id: str) -> Standing | None:
    """None: never heard of."""
    row = conn.execute("SELECT last_heard_at, state, reason FROM instance WHERE id = ?", (instance_id,)).fetchone()
    if row is None:
        return None
    return Standing(last_heard_at=row["last_heard_at"], goodbye=row["reason"] if row["state"] == "gone" else None)


# --- pages --------------------------------------------------------------------------------------------------------


async def instances(conn: aiosqlite.Connection, limit: int = 50, cursor: str | None = None) -> Page[Instance]:
    """Newest first, without their functions. Raises ValueError for a made-up cursor."""
    rows = list(
        await conn.execute_fetchall(
            "SELECT * FROM instance WHERE no < ? ORDER BY no DESC LIMIT ?", (page_mark(cursor), limit + 1)
        )
    )
    more = mark_of(rows[limit - 1]["no"]) if len(rows) > limit else None
    return Page(items=[_instance(row, []) for row in rows[:limit]], next_cursor=more)


async def instance(conn: aiosqlite.Connection, instance_id: str) -> Instance | None:
    """One instance with everything it registered (at most FUNCTIONS_MAX)."""
    return await ask_async(conn, _one(instance_id))


def _one(instance_id: str) -> Question[Instance | None]:
    rows = yield "SELECT * FROM instance WHERE id = ?", (instance_id,)
    if not rows:
        return None
    functions = yield (
        "SELECT name, signature, code, replay, caution, via FROM function WHERE instance = ? ORDER BY name",
        (rows[0]["no"],),
    )
    return _instance(rows[0], [dict(function) for function in functions])


_SAME_NAME = frozenset(Instance.__struct_fields__) - {"skew", "functions"}


def _instance(row: sqlite3.Row, functions: list[dict[str, Any]]) -> Instance:
    return Instance(**{name: row[name] for name in _SAME_NAME}, skew=row["skew"] / NS, functions=functions)
