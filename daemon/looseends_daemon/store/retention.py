"""Taking out what may be forgotten: walks in order of begin, removals of a bounded number of tasks with all that is theirs.

Rules:

1. A walk reads (on a reading connection, `Walk` is its place); a removal writes, and decides again in its own transaction.
2. The ledger moves with the tasks, so that at any commit it is the count over the tasks that are there.
3. `OWNERS` names every table and who takes its rows out; a new table without a line there fails the suite.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Collection, Iterable, Sequence

from looseends.wire import is_uuid
from looseends_daemon.core.facts import OPENINGS
from looseends_daemon.core.resources import STATES, Value
from looseends_daemon.core.retention import DAY_NS, FORECAST_NS_MIN, Growth, Kept, Rules, Sizes, may_go
from looseends_daemon.core.stats import MINUTE_NS, TERMS
from looseends_daemon.store.cells import numbers
from looseends_daemon.store.checkpoints import wal_bytes
from looseends_daemon.store.codes import JUDGED, ORDER, blob
from looseends_daemon.store.durations import Durations
from looseends_daemon.store.facts import place_of_row
from looseends_daemon.store.ledger import COLUMNS, Moves, differences, sweep
from looseends_daemon.store.packed import told_in
from looseends_daemon.store.plans import forget_plans
from looseends_daemon.store.questions import Question

STEP_TASKS_MAX = 200
"""Tasks looked at or removed in one step. Measured with commits of 20 tasks: p99 of ingest 10.9 ms alone, 11.3 ms beside
removal; with 500 it doubles."""
GONE_MAX = 2_000
"""Gone instances and resolved incidents considered in one sweep."""
_OPEN_ORDERS = ("waiting", "claimed", "handed_over", "outcome_unknown")

WITH_TASK = (("payload", "task"), ("external", "task"), ("judgement", "task"), ("child", "parent"), ("expectation", "id"))
OWNERS = {
    "task": "its age, the size, or a purge",
    **dict.fromkeys((table for table, _ in WITH_TASK), "the task"),
    "replay_order": "the chain of tasks it belongs to",
    "replay": "its last order",
    "replay_plan": "its time, or the replay that was made of it: store/plans.py",
    **dict.fromkeys(("replay_plan_why", "replay_plan_item"), "the plan"),
    "replay_run": "the replay",
    **dict.fromkeys(("expected_name", "seen", "seen_mark", "overlapping"), "its time: store/expectations.py"),
    "expect_rule": "the configuration",
    **dict.fromkeys(("ledger", "ledger_all", "ledger_hour"), "the tasks it counts"),
    **dict.fromkeys(("duration", "duration_day"), "the tasks it counts"),
    "incident": "its last task, retain_failed after it resolved",
    "acknowledgement": "the incident",
    "silence": "store/silences.py: retain_failed after its end",
    "dismissal": "store/dismissals.py: retain_failed after it",
    **dict.fromkeys(("dismissal_list", "dismissed"), "store/dismissals.py: when it cannot be taken back any more"),
    "incident_why": "the incident",
    "incident_open": "the incident",
    "incident_settled": "the incident",
    "notice": "the incident",
    "delivery_attempt": "the notice",
    "instance": "its end, when no task names it any more",
    "function": "the instance",
    **dict.fromkeys(("expectation", "expected_name", "seen", "seen_mark", "expect_rule", "overlapping"), "store/expectations.py"),
    "counter": "kept for ever: a reset counter would look like lost work",
    "outgoing": "store/outgoing.py: when a collector has it, or a million newer ones wait",
    "ping_run": "store/pings.py: the end of the run, or a hundred newer ones",
    "blind_window": "its end, after retain_failed",
    "clock_jump": "store/blind.py: the newest few are kept",
    "sight": "store/loops.py",
    "session": "its time",
    "signin_link": "its time",
    "idempotency": "its time",
    "type": "kept for ever: whether its tasks were ever seen to end by themselves",
    "environment": "kept for ever: a few words",
    "channel": "kept for ever: a few words",
    "mark": "kept for ever: single numbers",
    "migration": "kept for ever",
    "endpoint": "the configuration",
    "token": "kept for ever: who had access when",
    "audit": "kept for ever: every act of a person",
}


class Walk(Value, frozen=True):
    """A place in the order of begin: everything up to and with this task was looked at."""

    began_at: int = -1
    task: bytes = b""


class Look(Value, frozen=True):
    """What one step of a walk saw. `named`: instances that tasks which stay speak of; `done`: the walk is at its end."""

    walk: Walk
    going: tuple[bytes, ...] = ()
    named: frozenset[int] = frozenset()
    done: bool = False


class Removed(Value, frozen=True):
    """What a removal took out. `named`: instances that those speak of which were asked for and stay."""

    tasks: int = 0
    orders: int = 0
    named: frozenset[int] = frozenset()


_JUDGED_AT = f"CASE WHEN t.flags & {JUDGED} THEN (SELECT max(j.at) FROM judgement j WHERE j.task = t.id) END AS judged_at"
_STEP = f"""
    SELECT t.id, t.began_at, t.state, t.verdict, t.settled, t.loose, t.flags, t.ended_at, t.facts, {_JUDGED_AT}
    FROM task t WHERE (t.began_at, t.id) > (?, ?) AND t.began_at < ? ORDER BY t.began_at, t.id LIMIT ?"""


def kept(row: sqlite3.Row) -> Kept:
    """A row with `judged_at` as the value that core/retention.py judges."""
    return Kept(
        state=row["state"],
        loose=bool(row["loose"]),
        settled=row["settled"] is not None,
        verdict=row["verdict"] is not None,
        ended_at=row["ended_at"],
        judged_at=row["judged_at"],
    )


def step(walk: Walk, until: int, rules: Rules, now: int) -> Question[Look]:
    """Look at the next STEP_TASKS_MAX tasks begun before `until` (ns): which may go? Replays go with the first of their chain."""
    rows = yield _STEP, (walk.began_at, walk.task, until, STEP_TASKS_MAX)
    going = [row for row in rows if not row["flags"] & ORDER and may_go(kept(row), rules, now)]
    gone = {row["id"] for row in going}
    named = frozenset(no for row in rows if row["id"] not in gone for no in numbers(row["facts"]))
    place = Walk(began_at=rows[-1]["began_at"], task=rows[-1]["id"]) if rows else walk
    return Look(walk=place, going=tuple(row["id"] for row in going), named=named, done=len(rows) < STEP_TASKS_MAX)


# --- removing -----------------------------------------------------------------------------------------------------


def remove(conn: sqlite3.Connection, tasks: Sequence[bytes], rules: Rules, now: int) -> Removed:
    """Take out those of these tasks (at most STEP_TASKS_MAX) that still may go, with their replays and everything of theirs."""
    chosen: dict[bytes, sqlite3.Row] = {}
    orders: list[bytes] = []
    named: set[int] = set()
    chains = _chains(conn, tasks)
    for row in _rows(conn, tasks):
        links = chains.get(row["id"], [])
        followers = _rows(conn, [link["id"] for link in links])
        if may_go(kept(row), rules, now) and _chain_may_go(links, followers, rules, now):
            chosen |= {one["id"]: one for one in (row, *followers)}
            orders += [link["id"] for link in links]
        else:
            named |= numbers(row["facts"])
    _take_out(conn, list(chosen.values()))
    _take_out_orders(conn, orders)
    return Removed(tasks=len(chosen), orders=len(orders), named=frozenset(named))


def _rows(conn: sqlite3.Connection, tasks: Sequence[bytes]) -> list[sqlite3.Row]:
    marks = ", ".join("?" * len(tasks))
    return conn.execute(f"SELECT t.*, {_JUDGED_AT} FROM task t WHERE t.id IN ({marks})", list(tasks)).fetchall()


def _chains(conn: sqlite3.Connection, roots: Sequence[bytes]) -> dict[bytes, list[sqlite3.Row]]:
    """The orders of each root that has any."""
    marks = ", ".join("?" * len(roots))
    found: dict[bytes, list[sqlite3.Row]] = {}
    for row in conn.execute(f"SELECT id, root, state FROM replay_order WHERE root IN ({marks})", list(roots)):
        found.setdefault(row["root"], []).append(row)
    return found


def _chain_may_go(links: Sequence[sqlite3.Row], followers: Sequence[sqlite3.Row], rules: Rules, now: int) -> bool:
    there = {row["id"] for row in followers}
    if any(link["state"] in _OPEN_ORDERS and link["id"] not in there for link in links):
        return False
    return all(may_go(kept(row), rules, now) for row in followers)


def _take_out(conn: sqlite3.Connection, rows: Sequence[sqlite3.Row]) -> None:
    moves, took, cells = Moves(), Durations(), set()
    for row in rows:
        place = place_of_row(row)
        took.add(row, -1)
        moves.add(place, row["environment"], row["type"], -1)
        cells.add((place.minute, row["environment"], row["type"]))
    ids = [(row["id"],) for row in rows]
    for table, column in WITH_TASK:
        conn.executemany(f"DELETE FROM {table} WHERE {column} = ?", ids)
    conn.executemany("DELETE FROM child WHERE parent = ? AND task = ?", _as_child(rows))
    conn.executemany("DELETE FROM task WHERE id = ?", ids)
    moves.write(conn)
    took.write(conn)
    sweep(conn, cells)


def _as_child(rows: Iterable[sqlite3.Row]) -> list[tuple[bytes, bytes]]:
    """(parent, task) of those that name a parent."""
    found = []
    for row in rows:
        parents = (parent for parent in told_in(row["facts"], "parent", OPENINGS) if is_uuid(parent))
        found += [(blob(parent), row["id"]) for parent in parents]
    return found


def _take_out_orders(conn: sqlite3.Connection, orders: Sequence[bytes]) -> None:
    replays: set[int] = set()
    for order in orders:
        replays.update(
            row[0] for row in conn.execute("DELETE FROM replay_order WHERE id = ? RETURNING replay", (order,)).fetchall()
        )
    conn.executemany(
        "DELETE FROM replay WHERE no = ?1 AND NOT EXISTS (SELECT 1 FROM replay_order WHERE replay = ?1)",
        ((no,) for no in replays),
    )


def strip(conn: sqlite3.Connection, tasks: Sequence[bytes], rules: Rules, now: int) -> int:
    """Give up arguments, results, errors and stacks of those of these tasks that may go; how many had any.

    What was given up is remembered by the begin of its newest task (the mark `payloads_given_up_before`).
    """
    rows = [row for row in _rows(conn, tasks) if may_go(kept(row), rules, now)]
    cut = sum(conn.execute("DELETE FROM payload WHERE task = ?", (row["id"],)).rowcount > 0 for row in rows)
    if cut:
        newest = max(row["began_at"] for row in rows)
        conn.execute(
            "INSERT INTO mark (name, value) VALUES ('payloads_given_up_before', ?)"
            " ON CONFLICT (name) DO UPDATE SET value = max(value, excluded.value)",
            (newest + 1,),
        )
    return cut


# --- what is left behind ------------------------------------------------------------------------------------------


def gone_instances(until: int) -> Question[frozenset[int]]:
    """Instances that ended before `until` (ns) with everything they wrote in here: candidates for `forget_instances`."""
    rows = yield (
        "SELECT no FROM instance WHERE state = 'gone' AND ended_at < ? AND journal IS NULL AND (adopted = 1 OR backlog = 0)"
        " AND no NOT IN (SELECT instance FROM replay_order WHERE instance IS NOT NULL)"
        " AND no NOT IN (SELECT instance FROM blind_window WHERE instance IS NOT NULL) ORDER BY no LIMIT ?",
        (until, GONE_MAX),
    )
    return frozenset(row["no"] for row in rows)


def forget_instances(conn: sqlite3.Connection, instances: Collection[int], until: int) -> int:
    """Take out instances (still gone since before `until`) with their functions; how many.

    What waits to be missed may speak of one too: it would become a task of an instance that nobody knows.
    """
    waiting = conn.execute("SELECT facts FROM expectation WHERE check_at IS NOT NULL") if instances else ()
    spoken = {no for row in waiting for no in numbers(row["facts"])}
    removed = 0
    for no in sorted(set(instances) - spoken):
        done = conn.execute(
            "DELETE FROM instance WHERE no = ? AND state = 'gone' AND ended_at < ? AND journal IS NULL", (no, until)
        ).rowcount
        if done:
            conn.execute("DELETE FROM function WHERE instance = ?", (no,))
        removed += done
    return removed


_OVER_INCIDENTS = """
    SELECT i.no FROM incident i WHERE i.state = 'resolved' AND i.resolved_at < ?
        AND NOT EXISTS (SELECT 1 FROM task t WHERE t.incident = i.no)
        AND NOT EXISTS (SELECT 1 FROM notice n WHERE n.incident = i.no AND n.state IN ('pending', 'delivering'))
    ORDER BY i.no LIMIT ?"""


_OF_INCIDENTS = ("acknowledgement", "notice", "incident_why", "incident_open", "incident_settled")


def forget_incidents(conn: sqlite3.Connection, until: int) -> int:
    """Take out incidents that resolved before `until` (ns) and have no task left, with their notices; how many."""
    found = [(row["no"],) for row in conn.execute(_OVER_INCIDENTS, (until, STEP_TASKS_MAX)).fetchall()]
    notices = "SELECT no FROM notice WHERE incident = ?"
    conn.executemany(f"DELETE FROM delivery_attempt WHERE notice IN ({notices})", found)
    for table, column in (*((table, "incident") for table in _OF_INCIDENTS), ("incident", "no")):
        conn.executemany(f"DELETE FROM {table} WHERE {column} = ?", found)
    return len(found)


def forget_blind_windows(conn: sqlite3.Connection, until: int) -> None:
    """Take out what says that something may be missing from before `until` (ns), where nothing is kept any more either."""
    conn.execute("DELETE FROM blind_window WHERE to_at < ? AND sure_at < ?", (until, until))


def forget_visits(conn: sqlite3.Connection, now: int, answers_before: int) -> None:
    """Take out sessions, links and plans whose time has passed, and first answers of acts from before `answers_before` (ns)."""
    forget_plans(conn, now)
    conn.execute("DELETE FROM session WHERE expires_at <= ?", (now,))
    conn.execute("DELETE FROM signin_link WHERE expires_at <= ?", (now,))
    conn.execute("DELETE FROM idempotency WHERE at <= ?", (answers_before,))


# --- size ---------------------------------------------------------------------------------------------------------


def pages() -> Question[tuple[int, int, int]]:
    """(bytes of a page, pages in the file, pages that are free in it)."""
    size = yield "PRAGMA page_size", ()
    count = yield "PRAGMA page_count", ()
    free = yield "PRAGMA freelist_count", ()
    return size[0][0], count[0][0], free[0][0]


def sizes_of(path: str, page: int, count: int, free: int) -> Sizes:
    """What the storage takes on its disk. Raises OSError."""
    disk = os.statvfs(path)
    return Sizes(
        used=(count - free) * page,
        file=count * page + wal_bytes(path),
        disk_free=disk.f_bavail * disk.f_frsize,
        disk_total=disk.f_blocks * disk.f_frsize,
        free=free * page,
    )


def shrink(conn: sqlite3.Connection, pages_max: int) -> None:
    """Give at most so many free pages back to the disk."""
    conn.execute(f"PRAGMA incremental_vacuum({int(pages_max)})").fetchall()


def growth(now: int) -> Question[Growth]:
    """How many tasks there are, and how many of them began in the last day: from the ledger's sums, which are small."""
    terms = " + ".join(f"sum({term})" for term in TERMS)
    rows = yield f"SELECT coalesce({terms}, 0) AS tasks, min(minute) AS first FROM ledger_all", ()
    since = max(now - DAY_NS, (rows[0]["first"] or 0) * MINUTE_NS)
    recent = yield f"SELECT coalesce({terms}, 0) AS tasks FROM ledger_all WHERE minute >= ?", (since // MINUTE_NS,)
    return Growth(tasks=rows[0]["tasks"], recent=recent[0]["tasks"], span=max(FORECAST_NS_MIN, now - since))


def given_up_before() -> Question[int]:
    """The begin (ns) up to which payloads were given up for space; 0: none ever were."""
    rows = yield "SELECT value FROM mark WHERE name = 'payloads_given_up_before'", ()
    return int(rows[0]["value"]) if rows else 0


def recount(conn: sqlite3.Connection) -> list[str]:
    """Where the ledger or its sums differ from the tasks, in words; an empty list is how it must be."""
    counted: dict[tuple[int, ...], dict[str, int]] = {}
    for row in conn.execute("SELECT began_at, state, verdict, settled, loose, environment, type, flags FROM task"):
        place = place_of_row(row)
        if not place.term:  # an expectation that was met in the end: a row, and no task
            continue
        cell = counted.setdefault((place.minute, row["environment"], row["type"]), dict.fromkeys(COLUMNS, 0))
        for column, n in place.marks().items():
            cell[column] += n
    return differences(conn, counted)


assert STATES[3:] == ("succeeded", "failed", "cancelled"), "what is over is found by these states"
