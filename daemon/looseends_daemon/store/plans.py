"""Replay plans as rows: chosen and judged in steps, frozen with a digest, read by page, forgotten in time.

Rules:

1. A plan is made in steps of STEP_TASKS, so that neither the writer nor a reader is held for long by 100,000 tasks; it can be
   seen and run only when its digest is there.
2. What is said of many tasks is stored once (`replay_plan_why`); a task's row is small.
3. The words of a verdict are those of the moment in which the plan was made. They are never brought up to date: a new plan is.
"""

from __future__ import annotations

import json
import os
import sqlite3
from collections import Counter
from collections.abc import Sequence
from typing import Any

import msgspec

from looseends.wire import NS, canonical, is_uuid
from looseends_daemon.core.plans import (
    PLAN_TASKS_MAX,
    Digest,
    Judged,
    Plan,
    PlanItem,
    PlanReason,
    Selection,
    Tally,
    expires,
    judged,
)
from looseends_daemon.core.query import parse
from looseends_daemon.core.replay import Reason
from looseends_daemon.core.resources import Actor, CommandRefused, Page, Value
from looseends_daemon.core.view import view_of
from looseends_daemon.store.access import audit
from looseends_daemon.store.cells import InstanceIds, numbers, unpack, with_payloads
from looseends_daemon.store.codes import blob, text
from looseends_daemon.store.packed import learnt
from looseends_daemon.store.query_sql import TEXT_TASKS_MAX, where
from looseends_daemon.store.questions import NO_CURSOR, Question, mark_of, page_mark
from looseends_daemon.store.sources import Around, replayable, sources

STEP_TASKS = 200
PLANS_MAX, ITEMS_MAX = 100, 1_000_000
"""Plans that were made and not run, and the items of all of them; the oldest go when there is one more."""
KEPT_NS = 86_400 * NS
"""How long a plan that was not run can still be looked at after its time."""
SEARCHED = "searched"
WHYS_MAX = 2_000
"""Different verdicts remembered while a plan is made; beyond them a verdict is stored as often as it is met."""


class Place(Value, frozen=True):
    """How far a selection was read: everything up to and with this task."""

    began_at: int = -1
    task: bytes = b""


# --- choosing and judging -----------------------------------------------------------------------------------------


def check_named(asked: Selection) -> Question[None]:
    """Raises CommandRefused 404 for an incident, or a task named one by one, that is not there."""
    if asked.incident is not None:
        if not (yield "SELECT 1 FROM incident WHERE id = ?", (asked.incident,)):
            raise CommandRefused(404, "No such incident", [f"there is no incident {asked.incident[:100]!r}"])
        return
    for task in asked.tasks:
        if not is_uuid(task) or not (yield "SELECT 1 FROM task WHERE id = ?", (blob(task),)):
            raise CommandRefused(404, "No such task", [f"there is no task {task[:100]!r}; the id of a task is a UUID"])


def chosen(asked: Selection, after: Place, now: int) -> Question[list[sqlite3.Row]]:
    """The next STEP_TASKS tasks of a selection, in the order in which they began. Raises QueryError."""
    sql, params = _chosen_sql(asked, now)
    for column, value in (("task.began_at >= ?", asked.from_), ("task.began_at < ?", asked.to)):
        if value is not None:
            sql, params = f"{sql} AND {column}", [*params, value]
    rows = yield (
        f"SELECT task.* FROM task WHERE {sql} AND (task.began_at, task.id) > (?, ?) ORDER BY task.began_at, task.id LIMIT ?",
        [*params, after.began_at, after.task, STEP_TASKS],
    )
    return rows


def _chosen_sql(asked: Selection, now: int) -> tuple[str, list[object]]:
    if asked.tasks:
        ids = sorted({blob(task) for task in asked.tasks})
        return f"task.id IN ({', '.join('?' * len(ids))})", list(ids)
    q = f'incident:"{asked.incident}" is:loose' if asked.incident is not None else asked.q or ""
    return where(parse(q), now=now, to=asked.to)


def step(asked: Selection, after: Place, now: int, around: Around) -> Question[tuple[list[sqlite3.Row], list[Judged]]]:
    """The next tasks of a selection, and what is to be said of each. Raises QueryError."""
    rows = yield from chosen(asked, after, now)
    return rows, (yield from judge(rows, asked.edit, around))


def judge(rows: Sequence[sqlite3.Row], edit: dict[str, Any] | None, around: Around) -> Question[list[Judged]]:
    """What is to be said of these tasks (at most 500) now, in their order."""
    if not rows:
        return []
    ids = yield from learnt(InstanceIds(), (row["facts"] for row in rows))
    numbered = sorted({no for row in rows for no in numbers(row["facts"])})
    for one in (yield f"SELECT no, id FROM instance WHERE no IN ({', '.join('?' * len(numbered))})", numbered):
        ids.learn(one["no"], one["id"])
    tasks = [row["id"] for row in rows]
    payloads: dict[bytes, list[tuple[str, bytes]]] = {}
    asked = f"SELECT task, slot, data FROM payload WHERE task IN ({', '.join('?' * len(tasks))})"
    for one in (yield asked, tasks):
        payloads.setdefault(one["task"], []).append((one["slot"], one["data"]))
    views = {row["id"]: view_of(with_payloads(unpack(row["facts"], ids), ids, payloads.get(row["id"], []))) for row in rows}
    found = yield from sources(views, around)
    said = []
    for task in tasks:
        if task in found:
            verdict = yield from replayable(found[task], edit, around=around)
            said.append(judged(task, verdict, found[task].recorded.args if edit is None else edit))
    return said


# --- making -------------------------------------------------------------------------------------------------------


class Making:
    """A plan while it is being made: its row number, and what was met so far."""

    def __init__(self, no: int) -> None:
        self.no, self.total, self.whys = no, 0, 0
        self.digest, self.tally = Digest(), Tally()
        self.known: dict[tuple[str, tuple[Reason, ...]], int] = {}


def begin_plan(conn: sqlite3.Connection, asked: Selection, actor: Actor, now: int) -> Making:
    """A plan that nobody can see yet. Makes room: at most PLANS_MAX plans and ITEMS_MAX items of plans wait."""
    forget_plans(conn, now)
    unrun = conn.execute(
        "SELECT no, row_number() OVER newest AS place, sum(total) OVER newest AS items FROM replay_plan WHERE replay IS NULL"
        " WINDOW newest AS (ORDER BY no DESC)"
    ).fetchall()
    _take_out(conn, [row["no"] for row in unrun if row["place"] >= PLANS_MAX or row["items"] > ITEMS_MAX - PLAN_TASKS_MAX])
    row = conn.execute(
        "INSERT INTO replay_plan (id, made_by, made_at, expires_at, selection, edit) VALUES (?, ?, ?, ?, ?, ?) RETURNING no",
        (
            f"plan_{os.urandom(11).hex()}",
            actor.name,
            now,
            expires(now),
            canonical(asked.described() | _how_far(asked)),
            None if asked.edit is None else canonical(asked.edit),
        ),
    ).fetchone()
    return Making(int(row["no"]))


def _how_far(asked: Selection) -> dict[str, str]:
    """What is to be known of a query that does not look into every task, kept with the selection."""
    if not parse(asked.q or "").searches_text:
        return {}
    return {
        SEARCHED: f"arguments and errors were searched in the newest {TEXT_TASKS_MAX:,} tasks of the window, not in older ones"
    }


def add_items(conn: sqlite3.Connection, made: Making, said: Sequence[Judged]) -> None:
    """Take the next tasks in."""
    rows: list[tuple[int, int, bytes, int, bytes]] = []
    for item in said:
        made.digest.add(item)
        made.tally.add(item)
        rows.append((made.no, made.total, item.task, _why(conn, made, item), item.seal))
        made.total += 1
    conn.executemany("INSERT INTO replay_plan_item (plan, n, task, why, seal) VALUES (?, ?, ?, ?, ?)", rows)
    met = Counter(why for _, _, _, why, _ in rows)
    conn.executemany(
        "UPDATE replay_plan_why SET n = n + ? WHERE plan = ? AND no = ?", [(n, made.no, why) for why, n in met.items()]
    )


def _why(conn: sqlite3.Connection, made: Making, item: Judged) -> int:
    key = (item.answer, item.reasons)
    no = made.known.get(key)
    if no is None:
        no, made.whys = made.whys, made.whys + 1
        if len(made.known) < WHYS_MAX:
            made.known[key] = no
        reasons = canonical([[reason.name, reason.words] for reason in item.reasons])
        conn.execute(
            "INSERT INTO replay_plan_why (plan, no, answer, reasons) VALUES (?, ?, ?, ?)", (made.no, no, item.answer, reasons)
        )
    return no


def finish_plan(conn: sqlite3.Connection, made: Making, actor: Actor, now: int) -> str:
    """From now on it can be seen and run; its id."""
    reasons = canonical(msgspec.to_builtins(made.tally.reasons()))
    row = conn.execute(
        "UPDATE replay_plan SET digest = ?, total = ?, reasons = ? WHERE no = ? RETURNING id",
        (made.digest.text, made.total, reasons, made.no),
    ).fetchone()
    audit(conn, now, actor.name, "make_plan", row["id"], f"{made.total} tasks")
    return str(row["id"])


def drop_plan(conn: sqlite3.Connection, made: Making) -> None:
    """A plan that came to nothing."""
    _take_out(conn, [made.no])


def forget_plans(conn: sqlite3.Connection, now: int) -> None:
    """Take out plans whose time has passed for KEPT_NS, runs whose replay is gone, and replays that never made an order."""
    old = conn.execute("SELECT no FROM replay_plan WHERE replay IS NULL AND expires_at < ?", (now - KEPT_NS,)).fetchall()
    orphans = conn.execute(
        "SELECT no FROM replay_plan WHERE replay IS NOT NULL AND replay NOT IN (SELECT no FROM replay)"
    ).fetchall()
    _take_out(conn, [row["no"] for row in (*old, *orphans)])
    conn.execute("DELETE FROM replay_run WHERE replay NOT IN (SELECT no FROM replay)")


def _take_out(conn: sqlite3.Connection, plans: Sequence[int]) -> None:
    for table, column in (("replay_plan_item", "plan"), ("replay_plan_why", "plan"), ("replay_plan", "no")):
        conn.executemany(f"DELETE FROM {table} WHERE {column} = ?", [(no,) for no in plans])


# --- reading ------------------------------------------------------------------------------------------------------


def plan_row(plan_id: str) -> Question[sqlite3.Row | None]:
    """The row of a plan that is made, with the id of its run's replay."""
    rows = yield (
        "SELECT p.*, r.id AS replay_id FROM replay_plan p LEFT JOIN replay r ON r.no = p.replay"
        " WHERE p.id = ? AND p.digest IS NOT NULL",
        (plan_id,),
    )
    return rows[0] if rows else None


def plan_one(plan_id: str, now: int, base_url: str = "") -> Question[Plan | None]:
    """A plan as people see it."""
    row = yield from plan_row(plan_id)
    if row is None:
        return None
    whys = yield "SELECT answer, sum(n) AS n FROM replay_plan_why WHERE plan = ? GROUP BY 1", (row["no"],)
    counted = {"total": row["total"], "ready": 0, "confirm": 0, "blocked": 0} | {one["answer"]: one["n"] for one in whys}
    state = "run" if row["replay"] is not None else "expired" if row["expires_at"] <= now else "open"
    selection = json.loads(row["selection"])
    searched = selection.pop(SEARCHED, None)
    return Plan(
        id=row["id"],
        state=state,
        made_by=row["made_by"],
        made_at=row["made_at"],
        expires_at=row["expires_at"],
        digest=row["digest"],
        selection=selection,
        counts=counted,
        edited=row["edit"] is not None,
        args=None if row["edit"] is None else json.loads(row["edit"]),
        reasons=[PlanReason(**reason) for reason in json.loads(row["reasons"])],
        searched=searched,
        replay=row["replay_id"],
        url=f"{base_url}/plans/{row['id']}",
    )


def plan_items(
    plan_id: str, answer: str | None, reason: str | None, limit: int, cursor: str | None
) -> Question[Page[PlanItem] | None]:
    """The items of a plan in the order in which they began. Raises ValueError for a made-up cursor."""
    plan = yield from plan_row(plan_id)
    if plan is None:
        return None
    after = -1 if cursor is None else page_mark(cursor)
    if after > plan["total"]:
        raise ValueError(NO_CURSOR)
    named = f'%["{reason}",%' if reason is not None else None
    rows = yield (
        "SELECT i.n, i.task, w.answer, w.reasons, t.key, t.began_at, y.name FROM replay_plan_item i"
        " JOIN replay_plan_why w ON w.plan = i.plan AND w.no = i.why"
        " LEFT JOIN task t ON t.id = i.task LEFT JOIN type y ON y.id = t.type"
        " WHERE i.plan = ?1 AND i.n > ?2 AND (?3 IS NULL OR w.answer = ?3) AND (?4 IS NULL OR w.reasons LIKE ?4)"
        " ORDER BY i.n LIMIT ?5",
        (plan["no"], after, answer, named, limit + 1),
    )
    items = [_item(row) for row in rows[:limit]]
    return Page(items=items, next_cursor=mark_of(items[-1].n) if len(rows) > limit else None)


def _item(row: sqlite3.Row) -> PlanItem:
    return PlanItem(
        n=row["n"],
        task=text(row["task"]),
        name=row["name"],
        key=row["key"],
        began_at=row["began_at"],
        answer=row["answer"],
        reasons=reasons_of(row["reasons"]),
    )


def reasons_of(stored: str) -> list[Reason]:
    """The reasons of a row of `replay_plan_why`."""
    return [Reason(name=name, words=words) for name, words in json.loads(stored)]
