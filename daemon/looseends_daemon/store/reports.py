"""The report of a replay: everything that was chosen, each recorded task beside the new one.

Rules: what was left out is in it, with its reason; a planned replay is read by its items, any other by its orders; a page reads
at most 500 and asks for each thing once.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence

from looseends_daemon.core.orders import COUNTED
from looseends_daemon.core.plans import UNHEARD, RunItem, Side
from looseends_daemon.core.resources import Page, Task
from looseends_daemon.store import shown
from looseends_daemon.store.codes import text
from looseends_daemon.store.plans import reasons_of
from looseends_daemon.store.questions import NO_CURSOR, Question, mark_of, page_mark
from looseends_daemon.store.sources import shown_state
from looseends_daemon.store.standing import run_of

_ORDER = "o.id AS order_id, o.state, o.detail AS said, o.edited, o.args, n.state AS task_state, n.verdict"
_PLANNED = f"""
    SELECT i.n, i.task, i.state AS item_state, i.detail, w.taken, w.reasons, {_ORDER}
    FROM replay_plan_item i JOIN replay_plan_why w ON w.plan = i.plan AND w.no = i.why
        LEFT JOIN replay_order o ON o.replay = ?1 AND o.item = i.n LEFT JOIN task n ON n.id = o.id
    WHERE i.plan = ?2 AND i.n > ?3 AND {{fits}} ORDER BY i.n, o.created_at LIMIT ?4"""
# The items that may have the wanted state (?5), so that a page is full of it wherever it stands; what has it, `_state` says.
_ORDERED = """SELECT item FROM replay_order WHERE replay = ?1 AND over = ?5
    UNION ALL SELECT item FROM replay_order WHERE replay = ?1 AND over IS NULL"""
_LEFT = "SELECT x.n FROM replay_plan_item x WHERE x.plan = ?2 AND x.state IS NULL"
_BLOCKED = """SELECT x.n FROM replay_plan_item x JOIN replay_plan_why y ON y.plan = x.plan AND y.no = x.why
    WHERE x.plan = ?2 AND (x.state = 'blocked' OR y.taken = 0)"""
_PRESSED = f"""
    SELECT o.item AS n, o.task, NULL AS item_state, NULL AS detail, 1 AS taken, '[]' AS reasons, {_ORDER}
    FROM replay_order o LEFT JOIN task n ON n.id = o.id WHERE o.replay = ?1 ORDER BY o.id LIMIT ?2"""
PRESSED_MAX = 500
LOOKED_AT_MAX = 1_000
"""Rows that one page looks at for items of one state; what it did not find among these is on the next page."""


def run_items(replay_id: str, state: str | None, limit: int, cursor: str | None) -> Question[Page[RunItem] | None]:
    """The items of a replay, all or those of one shown state. Raises ValueError for a made-up cursor."""
    rows = yield "SELECT no, state FROM replay WHERE id = ?", (replay_id,)
    if not rows:
        return None
    replay = rows[0]
    run = yield from run_of(replay["no"])
    after = -1 if cursor is None else page_mark(cursor)
    if run is None:
        found = yield _PRESSED, (replay["no"], PRESSED_MAX)
        more = None
    else:
        if after > run["total"]:
            raise ValueError(NO_CURSOR)
        looked_at = limit + 1 if state is None else LOOKED_AT_MAX
        sql = _PLANNED.format(fits=_fits(state, replay["state"]))
        found = yield sql, (replay["no"], run["plan"], after, looked_at, state)
        found, more = _cut(found, replay["state"], state, limit, looked_at)
    mine = [row for row in found if state is None or _state(row, replay["state"]) == state]
    return Page(items=(yield from _items(mine, replay["state"])), next_cursor=more)


def _fits(state: str | None, stored: str) -> str:
    """The condition on the items of one shown state."""
    if state is None:
        return "?5 IS NULL"
    beside = {_rest(stored): _LEFT, "blocked": _BLOCKED}.get(state)
    return f"i.n IN ({_ORDERED}{f' UNION ALL {beside}' if beside else ''})"


def _cut(
    rows: Sequence[sqlite3.Row], stored: str, state: str | None, limit: int, looked_at: int
) -> tuple[list[sqlite3.Row], str | None]:
    """The rows of one page, and where the next one begins. Two orders of one item are never parted."""
    kept: list[sqlite3.Row] = []
    for row in rows:
        if state is None or _state(row, stored) == state:
            if len(kept) >= limit and row["n"] != kept[-1]["n"]:
                return kept, mark_of(kept[-1]["n"])
            kept.append(row)
    return kept, mark_of(rows[-1]["n"]) if len(rows) == looked_at else None


def _state(row: sqlite3.Row, stored: str) -> str:
    """The state people see of an item."""
    if row["order_id"] is not None:
        return shown_state(row)
    if row["item_state"] == "blocked" or not row["taken"]:
        return "blocked"
    return _rest(stored)


def _rest(stored: str) -> str:
    """The state of what has no order yet."""
    return "cancelled" if stored == "cancelled" else "waiting"


def _items(rows: Sequence[sqlite3.Row], stored: str) -> Question[list[RunItem]]:
    sides = yield from _tasks([*(row["task"] for row in rows), *(row["order_id"] for row in rows if row["order_id"])])
    items = []
    for n, row in enumerate(rows):
        old, new = sides.get(row["task"]), sides.get(row["order_id"])
        left_out = "; ".join(reason.words for reason in reasons_of(row["reasons"])) if not row["taken"] else None
        items.append(
            RunItem(
                n=row["n"] if row["n"] is not None else n,
                task=text(row["task"]),
                name=old.name if old else None,
                key=old.key if old else None,
                state=_state(row, stored),
                detail=left_out or row["detail"] or row["said"],
                edited=bool(row["edited"]),
                old=_side(old, text(row["task"])),
                new=None if row["order_id"] is None else _new(new, row),
            )
        )
    return items


def _tasks(ids: Sequence[bytes]) -> Question[dict[bytes, Task]]:
    marks = ", ".join("?" * len(ids))
    rows = yield f"SELECT * FROM task WHERE id IN ({marks})", list(ids)
    found = yield from shown.neighbours(rows)
    return {row["id"]: shown.resource(row, found) for row in rows}


def _side(task: Task | None, task_id: str) -> Side | None:
    if task is None:
        return None
    error = None if task.error is None else {"type": task.error.type, "message": task.error.message}
    return Side(id=task_id, state=task.state, verdict=task.verdict, args=task.args, result=task.result, error=error)


def _new(task: Task | None, row: sqlite3.Row) -> Side:
    """The new task; before anything is heard of it, what its order holds."""
    seen = _side(task, text(row["order_id"]))
    return seen if seen is not None else Side(id=text(row["order_id"]), state=UNHEARD, args=json.loads(row["args"]))


STATES = (*COUNTED,)
"""What `state` of a list of items may be."""
