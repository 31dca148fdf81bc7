"""One pass of judging: the tasks whose time has come, what the core says about them, and the ledger moved with it.

Rules:

1. Everything happens in the caller's one transaction; what the pass returns (`changes`) belongs to incidents in the same one.
2. A task is read from its narrow row; judgements, payloads and replays are fetched only for those that have any.
3. The end of an order's task has its root judged next, since a success settles it.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable

from looseends.wire import NS
from looseends_daemon.core.detect import InstanceNow, World, judge
from looseends_daemon.core.facts import View, view_of
from looseends_daemon.core.judgements import Conclusion, Judgement, LooseChange, Replayed, Standing, conclude, standing_of
from looseends_daemon.core.policy import Policy
from looseends_daemon.core.resources import FLAGS, SETTLEMENTS, STATES, VERDICTS, Value
from looseends_daemon.core.stats import place_of
from looseends_daemon.store.cells import InstanceIds
from looseends_daemon.store.codes import JUDGED, ORDER, code, text
from looseends_daemon.store.facts import LATE, TWICE, cells_of, place_of_row
from looseends_daemon.store.ledger import Moves

PASS_TASKS_MAX = 500
HEARTBEAT_SLACK = 1.5
SUCCEEDED = STATES.index("succeeded")


class Judged(Value, frozen=True):
    """What a pass did: how many tasks it looked at, what incidents must hear, and whether more are waiting."""

    looked_at: int
    changes: tuple[LooseChange, ...] = ()
    more: bool = False


class Times(Value, frozen=True):
    """What verdicts rest on besides the tasks: since when the daemon hears (ns), and when it may judge."""

    now: int
    heard_since: int
    ready_at: int


def judge_due(conn: sqlite3.Connection, times: Times, policy: Policy) -> Judged:
    """Judge up to PASS_TASKS_MAX tasks whose `check_at` has come, the longest due first."""
    rows = conn.execute(
        "SELECT * FROM task WHERE check_at IS NOT NULL AND check_at <= ? ORDER BY check_at LIMIT ?",
        (times.now, PASS_TASKS_MAX),
    ).fetchall()
    judging = _Judging(conn, times, policy)
    for row in rows:
        judging.task(row)
    judging.moves.write(conn)
    return Judged(looked_at=len(rows), changes=tuple(judging.changes), more=len(rows) == PASS_TASKS_MAX or judging.again)


def next_check(conn: sqlite3.Connection) -> int | None:
    """When the next task wants to be looked at (ns); None: no task does."""
    row = conn.execute("SELECT min(check_at) FROM task WHERE check_at IS NOT NULL").fetchone()
    return None if row[0] is None else int(row[0])


class _Judging:
    """One pass over a handful of tasks, with what they share fetched once."""

    def __init__(self, conn: sqlite3.Connection, times: Times, policy: Policy) -> None:
        self.conn, self.times, self.policy = conn, times, policy
        self.ids = InstanceIds(conn)
        self.moves = Moves()
        self.changes: list[LooseChange] = []
        self.again = False
        self._instances: dict[str, InstanceNow] = {}
        self._queues: dict[str, bool] = {}

    def task(self, row: sqlite3.Row) -> None:
        """Judge one task and write what has to be said."""
        cells = cells_of(self.conn, row, self.ids, full=row["state"] == STATES.index("failed"))
        view = view_of(cells)
        standing = self._standing(row)
        root = self._root(row)
        replayed = self._replayed(row) if standing.loose or row["flags"] & JUDGED else None
        finding = judge(view, self._world(view), self.policy)
        done = conclude(
            text(row["id"]),
            view,
            finding,
            standing,
            self.policy,
            self.times.now,
            replayed=replayed,
            root_is_loose=bool(root is not None and root["loose"]),
        )
        twice = replayed is not None and replayed.began_at is not None and (view.ended_at or -1) >= replayed.began_at
        self._write(row, view, done, finding.check_at, TWICE if twice else 0)
        if twice:
            self._mark_replays(row["id"])
        if root is not None and view.state != "running":
            self._look_at_root(root)

    # --- what it rests on ---

    def _world(self, view: View) -> World:
        instances = {}
        if view.instance is not None:
            if view.instance not in self._instances:
                self._instances[view.instance] = self._instance(view.instance)
            instances[view.instance] = self._instances[view.instance]
        caught_up = self._queue_caught_up(view.environment) if view.opening.get("queue") is not None else True
        return World(now=self.times.now, ready_at=self.times.ready_at, instances=instances, queue_caught_up=caught_up)

    def _instance(self, instance: str) -> InstanceNow:
        row = self.conn.execute("SELECT * FROM instance WHERE id = ?", (instance,)).fetchone()
        return InstanceNow(
            id=instance,
            state=row["state"],
            reason=row["reason"] or "",
            last_heard_at=row["last_heard_at"],
            caught_up=self._caught_up(row),
            behind_since=max(row["last_heard_at"], self.times.heard_since),
            missing=row["backlog"],
        )

    def _caught_up(self, row: sqlite3.Row) -> bool:
        """Nothing it knows is still on its way: see core/detect.InstanceNow."""
        if row["state"] != "alive":
            return bool(row["adopted"]) or row["backlog"] == 0
        silent = self.times.now - row["last_heard_at"]
        on_time = silent <= self.policy.heartbeat_every * HEARTBEAT_SLACK * NS
        return bool(row["backlog"] == 0 and row["last_heard_at"] >= self.times.heard_since and on_time)

    def _queue_caught_up(self, environment: str) -> bool:
        if environment not in self._queues:
            rows = self.conn.execute(
                "SELECT * FROM instance WHERE state != 'gone' AND state = 'alive' AND environment = ?", (environment,)
            )
            self._queues[environment] = all(self._caught_up(row) for row in rows)
        return self._queues[environment]

    def _standing(self, row: sqlite3.Row) -> Standing:
        if not row["flags"] & JUDGED:
            return Standing()
        return standing_of(judgements_of(self.conn, row["id"]))

    def _root(self, row: sqlite3.Row) -> sqlite3.Row | None:
        if not row["flags"] & ORDER:
            return None
        found: sqlite3.Row | None = self.conn.execute(
            "SELECT t.id, t.loose FROM replay_order o JOIN task t ON t.id = o.root WHERE o.id = ?", (row["id"],)
        ).fetchone()
        return found

    def _replayed(self, row: sqlite3.Row) -> Replayed | None:
        orders = self.conn.execute(
            "SELECT o.state AS said, t.state, t.began_at FROM replay_order o LEFT JOIN task t ON t.id = o.id"
            " WHERE o.task = ?1 OR o.root = ?1",
            (row["id"],),
        ).fetchall()
        if not orders:
            return None
        return Replayed(
            succeeded=any(o["state"] == SUCCEEDED or o["said"] == "ran" for o in orders),
            began_at=min((o["began_at"] for o in orders if o["began_at"] is not None), default=None),
        )

    # --- what comes of it ---

    def _write(self, row: sqlite3.Row, view: View, done: Conclusion, check_at: int | None, marks: int) -> None:
        now = done.standing
        verdict = None if view.ended else code(VERDICTS, now.verdict)
        flags = row["flags"] | marks | (JUDGED if done.judgements else 0) | (LATE if now.late else 0)
        if not now.late:
            flags &= ~LATE
        self.moves.add(place_of_row(row), row["environment"], row["type"], -1)
        place = place_of(
            row["began_at"],
            STATES[row["state"]],
            None if verdict is None else now.verdict,
            settled=bool(now.settled),
            loose=now.loose,
        )
        self.moves.add(place, row["environment"], row["type"])
        self.conn.execute(
            "UPDATE task SET verdict = ?, settled = ?, loose = ?, flags = ?, check_at = ? WHERE id = ?",
            (verdict, code(SETTLEMENTS, now.settled), int(now.loose), flags, check_at, row["id"]),
        )
        append(self.conn, row["id"], done.judgements)
        self.changes.extend(done.changes)

    def _mark_replays(self, root: bytes) -> None:
        self.conn.execute(
            "UPDATE task SET flags = flags | ? WHERE id IN (SELECT id FROM replay_order WHERE task = ?2 OR root = ?2)",
            (TWICE, root),
        )

    def _look_at_root(self, root: sqlite3.Row) -> None:
        self.conn.execute("UPDATE task SET check_at = ? WHERE id = ?", (self.times.now, root["id"]))
        self.again = True


def judgements_of(conn: sqlite3.Connection, task: bytes) -> list[Judgement]:
    """A task's judgements in the order they were made."""
    rows = conn.execute("SELECT at, what, verdict, attempt, reason, by FROM judgement WHERE task = ? ORDER BY n", (task,))
    return [Judgement(**dict(row)) for row in rows]


def append(conn: sqlite3.Connection, task: bytes, judgements: Iterable[Judgement]) -> None:
    """Add judgements behind those a task has."""
    for row in judgements:
        conn.execute(
            "INSERT INTO judgement (task, n, at, what, verdict, attempt, reason, by)"
            " SELECT ?1, coalesce(max(n), 0) + 1, ?2, ?3, ?4, ?5, ?6, ?7 FROM judgement WHERE task = ?1",
            (task, row.at, row.what, row.verdict, row.attempt, row.reason, row.by),
        )


assert len(FLAGS) == 6, "the flags of a row are bits over FLAGS; new ones go to the end"
