"""One pass of judging: the tasks whose time has come, what the core says about them, and the ledger moved with it.

Rules:

1. Everything happens in the caller's one transaction; what the pass returns (`changes`) belongs to incidents in the same one.
2. A task is read from its narrow row; judgements, payloads and replays are fetched only for those that have any.
3. News of an order's task has the tasks judged next that it runs again, since a success settles them.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable

import msgspec

from looseends.wire import NS
from looseends_daemon.core.clocks import Jump
from looseends_daemon.core.detect import Finding, InstanceNow, World, judge, overdue_after
from looseends_daemon.core.judgements import Conclusion, Judgement, LooseChange, Replayed, Standing, conclude, standing_of
from looseends_daemon.core.policy import Policy
from looseends_daemon.core.resources import FLAGS, SETTLEMENTS, STATES, VERDICTS, Value
from looseends_daemon.core.stats import place_of
from looseends_daemon.core.view import View, view_of
from looseends_daemon.store import loops, overlap, sights
from looseends_daemon.store.cells import InstanceIds
from looseends_daemon.store.codes import EXPECTED, JUDGED, ORDER, REPLAYED, code, text
from looseends_daemon.store.facts import LATE, TWICE, cells_of, place_of_row
from looseends_daemon.store.instances_owned import has_functions
from looseends_daemon.store.ledger import Moves
from looseends_daemon.store.outgoing import Outgoing
from looseends_daemon.store.pairing import finding_of, next_due, pair_due

PASS_TASKS_MAX = 500
SUCCEEDED = STATES.index("succeeded")


class Judged(Value, frozen=True):
    """What a pass did: how many tasks it looked at, what incidents must hear, and whether more are waiting."""

    looked_at: int
    changes: tuple[LooseChange, ...] = ()
    more: bool = False


class Times(Value, frozen=True):
    """What verdicts rest on besides the tasks: since when the daemon hears (ns), and when it may judge.

    `blind`: from and to when it did not hear the last time; `jumps`: when its wall clock was set.
    """

    now: int
    heard_since: int
    ready_at: int
    blind: tuple[int, int] | None = None
    jumps: tuple[Jump, ...] = ()
    held_up: tuple[int, int] | None = None


def judge_due(conn: sqlite3.Connection, times: Times, policy: Policy) -> Judged:
    """Judge up to PASS_TASKS_MAX tasks whose `check_at` has come, the longest due first."""
    # Before it may judge, what was dropped or failed just now goes before all that only waits for its time.
    first = "check_at DESC" if times.now < times.ready_at else "check_at"
    rows = conn.execute(
        f"SELECT * FROM task WHERE check_at IS NOT NULL AND check_at <= ? ORDER BY {first} LIMIT ?",
        (times.now, PASS_TASKS_MAX),
    ).fetchall()
    sights.learn(conn, times.now)
    judging = _Judging(conn, times, policy)
    for row in rows:
        judging.task(row)
    missed, more = pair_due(conn, times.now, judging.world_of, judging.moves)
    for task in missed:
        judging.task(conn.execute("SELECT * FROM task WHERE id = ?", (task,)).fetchone())
    judging.moves.write(conn)
    judging.outgoing.write(conn)
    more = more or len(rows) == PASS_TASKS_MAX or judging.again
    return Judged(looked_at=len(rows) + len(missed), changes=tuple(judging.changes), more=more)


def next_check(conn: sqlite3.Connection) -> int | None:
    """When the next task or expectation wants to be looked at (ns); None: none does."""
    row = conn.execute("SELECT min(check_at) FROM task WHERE check_at IS NOT NULL").fetchone()
    return min((int(at) for at in (row[0], next_due(conn)) if at is not None), default=None)


class _Judging:
    """One pass over a handful of tasks, with what they share fetched once."""

    def __init__(self, conn: sqlite3.Connection, times: Times, policy: Policy) -> None:
        self.conn, self.times, self.policy = conn, times, policy
        self.ids = InstanceIds(conn)
        self.moves, self.outgoing = Moves(), Outgoing(policy, times.now)
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
        replayed = self._replayed(row) if standing.loose or row["flags"] & (JUDGED | REPLAYED) else None
        finding = self._find(row, view)
        if finding.ends_at is not None or finding.lives_on:
            row, view = loops.rewrite(self.conn, row, cells, self.ids, self.moves, self.policy, finding.ends_at)
            finding = self._find(row, view)
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
        if root is not None:
            self._look_at_originals(row["id"])

    # --- what it rests on ---

    def _find(self, row: sqlite3.Row, view: View) -> Finding:
        if row["flags"] & EXPECTED:
            return msgspec.structs.replace(finding_of(self.conn, row["id"], view, self.world_of(view.environment)), check_at=None)
        return judge(view, self._world(row, view), self.policy)

    def world_of(self, environment: str) -> World:
        """What an expectation of this environment rests on. When to look at it again stands with the expectation itself."""
        times, caught_up = self.times, self._queue_caught_up(environment)
        blind = () if times.blind is None else (times.blind,)
        return World(now=times.now, ready_at=times.ready_at, queue_caught_up=caught_up, blind=blind, jumps=times.jumps)

    def _world(self, row: sqlite3.Row, view: View) -> World:
        instances = {}
        if view.instance is not None:
            if view.instance not in self._instances:
                self._instances[view.instance] = self._instance(view.instance)
            instances[view.instance] = self._instances[view.instance]
        caught_up = self._queue_caught_up(view.environment) if view.opening.get("queue") is not None else True
        return World(
            now=self.times.now,
            ready_at=self.times.ready_at,
            instances=instances,
            queue_caught_up=caught_up,
            jumps=self.times.jumps,
            held_up=self.times.held_up,
            ends_alone=view.declared or sights.ends_alone(self.conn, row["type"]),
        )

    def _instance(self, instance: str) -> InstanceNow:
        row = self.conn.execute("SELECT * FROM instance WHERE id = ?", (instance,)).fetchone()
        return InstanceNow(
            id=instance,
            state=row["state"],
            reason=row["reason"] or "",
            last_heard_at=row["last_heard_at"],
            started_at=row["started_at"],
            ended_at=row["ended_at"],
            caught_up=self._caught_up(row),
            back_at=row["back_at"],
            behind_since=self._behind_since(row),
            missing=row["backlog"],
            loop_lag_ms=row["loop_lag_ms"],
        )

    def _caught_up(self, row: sqlite3.Row) -> bool:
        """Nothing it knows is still on its way: see core/detect.InstanceNow."""
        if row["state"] != "alive":
            return bool(row["adopted"]) or row["backlog"] == 0
        patience = overdue_after(has_functions(self.conn, row["no"]), self.policy.heartbeat_every)
        on_time = self.times.now - row["said_at"] <= patience
        return bool(row["backlog"] == 0 and row["said_at"] >= self.times.heard_since and on_time)

    def _behind_since(self, row: sqlite3.Row) -> int:
        """Since when it has been behind without getting on. While its backlog falls it has `draining_for` in all."""
        if row["state"] != "alive" or row["behind_since"] is None:
            return max(int(row["said_at"]), self.times.heard_since)
        allowance = int((self.policy.draining_for - self.policy.behind_after) * NS)
        return max(min(int(row["lowest_at"]), int(row["behind_since"]) + allowance), self.times.heard_since)

    def _queue_caught_up(self, environment: str) -> bool:
        """Every live instance has told all it knows about this environment's queues, or is waited for no longer."""
        if environment not in self._queues:
            rows = self.conn.execute(
                "SELECT * FROM instance WHERE state != 'gone' AND state = 'alive' AND environment = ?", (environment,)
            )
            patience = int(self.policy.behind_after * NS)
            self._queues[environment] = all(
                self._caught_up(row) or self.times.now - self._behind_since(row) >= patience for row in rows
            )
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
        orders = self.conn.execute(_REPLAYS, (row["id"],)).fetchall()
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
        flags = marks | (JUDGED if done.judgements else 0) | (LATE if now.late else 0)
        given = next((one for one in reversed(done.judgements) if one.what == "verdict"), None)
        flags |= self.outgoing.judged(row, view, given.verdict if given else None, given.reason if given else "")
        self.moves.add(place_of_row(row), row["environment"], row["type"], -1)
        place = place_of(
            row["began_at"],
            STATES[row["state"]],
            None if verdict is None else now.verdict,
            settled=bool(now.settled),
            loose=now.loose,
            expected=bool(row["flags"] & EXPECTED),
        )
        self.moves.add(place, row["environment"], row["type"])
        # Flags are added to what stands there now: another task of this pass may have marked this one since it was read.
        self.conn.execute(
            "UPDATE task SET verdict = ?, settled = ?, loose = ?, flags = (flags & ~?) | ?, check_at = ? WHERE id = ?",
            (verdict, code(SETTLEMENTS, now.settled), int(now.loose), LATE, flags, check_at, row["id"]),
        )
        append(self.conn, row["id"], done.judgements)
        if now.verdict == "lost":
            overlap.lost(self.conn, row["id"])
        self.changes.extend(done.changes)

    def _mark_replays(self, root: bytes) -> None:
        self.conn.execute(
            "UPDATE task SET flags = flags | ? WHERE id IN (SELECT id FROM replay_order WHERE task = ?2 OR root = ?2)",
            (TWICE, root),
        )

    def _look_at_originals(self, replay: bytes) -> None:
        """What this task runs again, up to the root: its good end may settle each, its begin says that one ran twice."""
        self.conn.execute(f"{_ORIGINALS} UPDATE task SET check_at = ? WHERE id IN (SELECT id FROM up)", (replay, self.times.now))
        self.again = True


_ORIGINALS = """
    WITH RECURSIVE up (id) AS (
        SELECT task FROM replay_order WHERE id = ?
        UNION SELECT o.task FROM up JOIN replay_order o ON o.id = up.id)"""
_REPLAYS = """
    WITH RECURSIVE down (id) AS (
        SELECT id FROM replay_order WHERE task = ?
        UNION SELECT o.id FROM down JOIN replay_order o ON o.task = down.id)
    SELECT o.state AS said, t.state, t.began_at FROM down JOIN replay_order o ON o.id = down.id LEFT JOIN task t ON t.id = o.id"""
"""Every order of the chain below a task: at most core/replay.DEPTH_MAX deep."""


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
