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
from looseends_daemon.core.detect import LOOP_LAG_MS
from looseends_daemon.core.records import unpack
from looseends_daemon.core.replay import Offer
from looseends_daemon.core.resources import Instance, Page, Value
from looseends_daemon.core.words import span
from looseends_daemon.store import blind
from looseends_daemon.store.questions import Question, ask, ask_async, mark_of, page_mark

FUNCTIONS_MAX = 1_000
WINDOWS_SHOWN = 5

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


def is_unwatched(conn: sqlite3.Connection, instance_id: str, since: int) -> bool:
    """Whether this instance counts as alive, no lock tells of it, and nothing was heard of it after `since` (ns)."""
    row = conn.execute("SELECT state, journal, last_heard_at FROM instance WHERE id = ?", (instance_id,)).fetchone()
    return row is not None and row["state"] == "alive" and row["journal"] is None and row["last_heard_at"] <= since


def lying() -> Question[set[str]]:
    """Instances that count as alive although their journal's lock is free: it says nothing about them."""
    rows = yield "SELECT id FROM instance WHERE state != 'gone' AND state = 'alive' AND lock_lies = 1", ()
    return {row["id"] for row in rows}


def disbelieve(conn: sqlite3.Connection, ids: Iterable[str]) -> None:
    """The locks of these instances' journals are not to be believed: a lease speaks for them from now on."""
    conn.executemany("UPDATE instance SET lock_lies = 1, journal = NULL WHERE id = ?", ((who,) for who in ids))


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
    conn.executemany("UPDATE instance SET journal = ? WHERE id = ? AND lock_lies = 0", seen.items())


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


async def instances(conn: aiosqlite.Connection, now: int, limit: int = 50, cursor: str | None = None) -> Page[Instance]:
    """Newest first, without their functions. Raises ValueError for a made-up cursor."""
    return await ask_async(conn, _all(now, limit, cursor))


def behind() -> Question[tuple[int, int]]:
    """How many live instances have records that are not here yet, and how many those are."""
    # `!= 'gone'` is what the index is made for; SQLite does not see that it follows.
    live = "state != 'gone' AND state = 'alive'"
    rows = yield f"SELECT count(*) AS n, ifnull(sum(backlog), 0) AS records FROM instance WHERE {live} AND backlog > 0", ()
    return rows[0]["n"], rows[0]["records"]


def _all(now: int, limit: int, cursor: str | None) -> Question[Page[Instance]]:
    rows = yield "SELECT * FROM instance WHERE no < ? ORDER BY no DESC LIMIT ?", (page_mark(cursor), limit + 1)
    more = mark_of(rows[limit - 1]["no"]) if len(rows) > limit else None
    windows = yield from blind.of_instances([row["no"] for row in rows[:limit]], now)
    opened = yield from _open([row["no"] for row in rows[:limit]])
    items = [_instance(row, [], windows.get(row["no"], []), opened.get(row["no"], 0)) for row in rows[:limit]]
    return Page(items=items, next_cursor=more)


def _open(numbers: list[int]) -> Question[dict[int, int]]:
    """How many tasks of each of these instances are open and in time. What it last counted itself may be long past."""
    rows = yield (
        "SELECT instance, count(*) AS n FROM task WHERE state < 3 AND verdict IS NULL"
        " AND instance IN (SELECT value FROM json_each(?)) GROUP BY instance",
        (json.dumps(numbers),),
    )
    return {row["instance"]: row["n"] for row in rows}


async def instance(conn: aiosqlite.Connection, now: int, instance_id: str) -> Instance | None:
    """One instance with everything it registered (at most FUNCTIONS_MAX)."""
    return await ask_async(conn, _one(now, instance_id))


def _one(now: int, instance_id: str) -> Question[Instance | None]:
    rows = yield "SELECT * FROM instance WHERE id = ?", (instance_id,)
    if not rows:
        return None
    functions = yield (
        "SELECT name, signature, code, replay, caution, via FROM function WHERE instance = ? ORDER BY name",
        (rows[0]["no"],),
    )
    windows = yield from blind.of_instances([rows[0]["no"]], now)
    opened = yield from _open([rows[0]["no"]])
    found, told = windows.get(rows[0]["no"], []), [dict(function) for function in functions]
    return _instance(rows[0], told, found, opened.get(rows[0]["no"], 0))


_SAME_NAME = frozenset(Instance.__struct_fields__) - {"skew", "functions", "missing", "notes", "open"}


def _instance(row: sqlite3.Row, functions: list[dict[str, Any]], windows: list[sqlite3.Row], opened: int) -> Instance:
    missing = unpack(row["records"]).below + sum(one["missing"] for one in windows if one["cause"] == "records")
    same = {name: row[name] for name in _SAME_NAME}
    notes = _notes(row, windows, missing)
    return Instance(**same, skew=row["skew"] / NS, open=opened, functions=functions, missing=missing, notes=notes)


def _notes(row: sqlite3.Row, windows: list[sqlite3.Row], missing: int) -> list[str]:
    """What else to know about what this instance tells, in sentences."""
    notes = []
    if row["skew"]:
        way = "behind" if row["skew"] > 0 else "ahead of"
        notes.append(f"its clock is {span(round(abs(row['skew']) / NS))} {way} ours; its times are corrected by that")
    if missing:
        notes.append(
            "1 record of this instance is missing" if missing == 1 else f"{missing} records of this instance are missing"
        )
    notes += [blind.words(one["cause"], one["missing"], one["from_at"], one["to_at"]) for one in windows[-WINDOWS_SHOWN:]]
    if row["state"] == "alive" and (row["loop_lag_ms"] or 0) >= LOOP_LAG_MS:
        notes.append(f"its event loop was held up for {span(row['loop_lag_ms'] / 1000)} when it spoke last")
    if row["lock_lies"]:
        notes.append("its journal's lock was free while it was connected: its connection and a lease tell whether it lives")
    return notes
