"""Replays and their orders as people make, see and decide them.

Rules:

1. What is replayed is never edited. A replay makes a new task whose id is the order's id, made here.
2. The shown state of an order joins the row of its new task; only what no fact can say is stored (core/orders.py).
3. Every write happens in the caller's transaction, together with the decision that allowed it and its audit row.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Mapping
from typing import Any

import aiosqlite

from looseends.wire import NS, canonical, uuid8
from looseends_daemon.core.orders import UNCLAIMED_S_MAX, counts, replay_state, step
from looseends_daemon.core.resources import Page, Replay, ReplayItem, Value
from looseends_daemon.store.codes import REPLAYED, blob, text
from looseends_daemon.store.questions import Question, ask_async, mark_of, page_mark
from looseends_daemon.store.sources import Source, shown_state
from looseends_daemon.store.standing import RECENT_NS, as_run, released_since, run_of, stand, with_rest

ITEMS_MAX = 500


def new_task_id(now: int) -> str:
    """A new task's id: a UUIDv8 that sorts by the millisecond it was made in, with 74 random bits."""
    return uuid8((now // 1_000_000).to_bytes(6, "big") + os.urandom(10))


def insert_replay(conn: sqlite3.Connection, requested_by: str, note: str, now: int) -> int:
    """A new replay without orders; its row number."""
    replay_id = f"rpl_{new_task_id(now).replace('-', '')[:22]}"
    row = conn.execute(
        "INSERT INTO replay (id, state, requested_by, requested_at, note) VALUES (?, 'running', ?, ?, ?) RETURNING no",
        (replay_id, requested_by, now, note or None),
    ).fetchone()
    return int(row["no"])


def insert_order(
    conn: sqlite3.Connection,
    replay_no: int,
    of: Source,
    args: Mapping[str, Any],
    edited: bool,
    signature: str | None,
    now: int,
    item: int | None = None,
) -> str:
    """One order of a replay, waiting to be taken; its id, which is that of the new task. `item`: the one of its plan."""
    order_id = new_task_id(now)
    task = of.recorded
    conn.execute(
        "INSERT INTO replay_order (id, replay, task, root, depth, name, environment, service, queue, args, edited, signature,"
        " was_done, state, created_at, expires_at, item) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 'waiting', ?, ?, ?)",
        (
            blob(order_id),
            replay_no,
            of.task,
            of.root,
            of.depth + 1,
            task.name,
            task.environment,
            task.service,
            task.queue,
            canonical(args),
            edited,
            signature,
            task.ended_well,
            now,
            now + int(UNCLAIMED_S_MAX * NS),
            item,
        ),
    )
    conn.execute("UPDATE task SET flags = flags | ? WHERE id IN (?, ?)", (REPLAYED, of.task, of.root))
    return order_id


class Undecided(Value, frozen=True):
    """An order as the person sees it who decides it."""

    id: bytes
    replay_no: int
    item: int | None
    task: bytes
    root: bytes
    args: str
    edited: bool
    stored: str
    state: str


def order(conn: sqlite3.Connection, order_id: bytes) -> Undecided | None:
    """One order with its shown state; None: there is none."""
    row = conn.execute(
        "SELECT o.*, t.state AS task_state, t.verdict FROM replay_order o LEFT JOIN task t ON t.id = o.id WHERE o.id = ?",
        (order_id,),
    ).fetchone()
    if row is None:
        return None
    return Undecided(
        id=bytes(row["id"]),
        replay_no=row["replay"],
        item=row["item"],
        task=bytes(row["task"]),
        root=bytes(row["root"]),
        args=row["args"],
        edited=bool(row["edited"]),
        stored=row["state"],
        state=shown_state(row),
    )


def resolve(conn: sqlite3.Connection, of: Undecided, answer: str, detail: str, now: int) -> None:
    """Write down what a person found out, and let the detector look at the recorded task and its root at once."""
    conn.execute(
        "UPDATE replay_order SET state = ?, detail = ? WHERE id = ? AND state = 'outcome_unknown'",
        (step(of.stored, answer), detail, of.id),
    )
    conn.execute("UPDATE task SET check_at = ? WHERE id IN (?, ?)", (now, of.task, of.root))


# --- pages --------------------------------------------------------------------------------------------------------


def replay_one(replay_id: str, base_url: str = "", now: int = 0) -> Question[Replay | None]:
    """A replay with its first ITEMS_MAX orders."""
    rows = yield "SELECT no FROM replay WHERE id = ?", (replay_id,)
    return (yield from replay_of_row(rows[0]["no"], base_url, now)) if rows else None


def replay_of_row(replay_no: int, base_url: str = "", now: int = 0) -> Question[Replay]:
    """A replay by its row number, which exists. Without `now` (ns) no time is estimated."""
    rows = yield "SELECT * FROM replay WHERE no = ?", (replay_no,)
    orders = yield (
        "SELECT o.id, o.task, o.name, o.state, o.detail, o.fence, i.id AS instance, t.state AS task_state, t.verdict"
        " FROM replay_order o LEFT JOIN instance i ON i.no = o.instance LEFT JOIN task t ON t.id = o.id"
        " WHERE o.replay = ? ORDER BY o.item, o.id LIMIT ?",
        (replay_no, ITEMS_MAX),
    )
    return (yield from _replay(rows[0], base_url, [_item(row) for row in orders], now))


def replay_page(limit: int, cursor: str | None, base_url: str = "") -> Question[Page[Replay]]:
    """Newest first, counted but without their orders. Raises ValueError for a made-up cursor."""
    rows = yield "SELECT * FROM replay WHERE no < ? ORDER BY no DESC LIMIT ?", (page_mark(cursor), limit + 1)
    items = []
    for row in rows[:limit]:
        items.append((yield from _replay(row, base_url, [], 0)))
    return Page(items=items, next_cursor=mark_of(rows[limit - 1]["no"]) if len(rows) > limit else None)


def _replay(row: sqlite3.Row, base_url: str, items: list[ReplayItem], now: int) -> Question[Replay]:
    counted = counts((yield from stand(row["no"])))
    run = yield from run_of(row["no"])
    if run is not None:
        counted = with_rest(counted, run, row["state"])
    state = replay_state(row["state"], counted)
    recent = yield from released_since(row["no"], now - RECENT_NS) if run is not None and now else _nothing()
    return Replay(
        id=row["id"],
        state=state,
        requested_by=row["requested_by"],
        requested_at=row["requested_at"],
        note=row["note"],
        counts=counted,
        items=items,
        run=None if run is None else as_run(run, counted, recent, now - row["requested_at"], state),
        url=f"{base_url}/replays/{row['id']}",
    )


def _nothing() -> Question[int]:
    yield "SELECT 1", ()
    return 0


def _item(row: sqlite3.Row) -> ReplayItem:
    return ReplayItem(
        id=text(row["id"]),
        task=text(row["task"]),
        name=row["name"],
        state=shown_state(row),
        detail=row["detail"],
        fence=row["fence"] or None,
        instance=row["instance"],
    )


async def replays(conn: aiosqlite.Connection, limit: int = 50, cursor: str | None = None, base_url: str = "") -> Page[Replay]:
    """For Reader.replays."""
    return await ask_async(conn, replay_page(limit, cursor, base_url))


async def replay(conn: aiosqlite.Connection, replay_id: str, base_url: str = "", now: int = 0) -> Replay | None:
    """For Reader.replay."""
    return await ask_async(conn, replay_one(replay_id, base_url, now))
