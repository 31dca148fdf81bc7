"""Who met whom, pair by pair in the detector's transaction, and the task rows that missed expectations become.

Rules:

1. Whatever moved is paired anew together with everything that it could change: the expectations and tasks that reach each
   other in time. The decision is core/expect.py's; here are rows only.
2. One such neighbourhood holds NODES_MAX members at most. In a larger one (expectations without a key, many at a time) nobody
   is asked to change partners: who has none takes the first that is free. That is as good where all are equally patient.
3. An expectation that nothing met has a task row with its own id from the moment it is missed. The row stays when a late
   fact takes the verdict back: the ledger does not count it then, lists leave it out, its page and history tell why.
"""

from __future__ import annotations

import sqlite3
from collections import deque
from collections.abc import Callable

import msgspec

from looseends_daemon.core.detect import Finding, World
from looseends_daemon.core.expect import EARLY_NS, Begun, Expectation, Meeting, expectation_of, find, pair_in_time, pair_late
from looseends_daemon.core.resources import STATES
from looseends_daemon.core.view import View, view_of
from looseends_daemon.store.cells import InstanceIds, unpack
from looseends_daemon.store.codes import EXPECTED, blob, text
from looseends_daemon.store.facts import place_of_row
from looseends_daemon.store.ledger import Moves

PASS_MAX = 500
NODES_MAX = 500
LATE_MAX = 100
"""Unmet expectations of a name that late tasks are sought for, the newest first; and tasks looked at for each of them."""
WorldOf = Callable[[str], World]


def next_due(conn: sqlite3.Connection) -> int | None:
    """When expectations want to be looked at (ns); None: nothing waits."""
    if conn.execute("SELECT 1 FROM seen WHERE dirty = 1 LIMIT 1").fetchone():
        return 0
    row = conn.execute("SELECT min(check_at) FROM expectation WHERE check_at IS NOT NULL").fetchone()
    return None if row[0] is None else int(row[0])


def pair_due(conn: sqlite3.Connection, now: int, world_of: WorldOf, moves: Moves) -> tuple[list[bytes], bool]:
    """Pair what moved, look at what is due. Returns the task rows that have to be judged now, and whether more is waiting."""
    due = [row["id"] for row in conn.execute(_DUE, (now, PASS_MAX))]
    dirty = {row["task"]: row["met"] for row in conn.execute("SELECT task, met FROM seen WHERE dirty = 1 LIMIT ?", (PASS_MAX,))}
    changed = {*due, *(one for one in dirty.values() if one is not None)}
    named: set[int] = set()
    done: set[bytes] = set()
    crowds: set[tuple[int, str]] = set()
    for seed in (*due, *dirty):
        if seed not in done:
            near = _Neighbourhood(conn, seed, crowds)
            changed |= near.pair()
            named |= near.named
            done |= near.members()
    for one in named:
        changed |= _pair_late(conn, one, now)
    conn.executemany("UPDATE seen SET dirty = 0 WHERE task = ?", [(task,) for task in dirty])
    rows = [task for task in sorted(changed) if _look(conn, task, world_of, moves)]
    return rows, len(due) == PASS_MAX or len(dirty) == PASS_MAX


_DUE = "SELECT id FROM expectation WHERE check_at IS NOT NULL AND check_at <= ? ORDER BY check_at LIMIT ?"


class _Neighbourhood:
    """The expectations and tasks that reach each other in time, from one of them outwards."""

    def __init__(self, conn: sqlite3.Connection, seed: bytes, crowds: set[tuple[int, str]]) -> None:
        """`crowds`: (expected name, mark) where this pass has met too many; more of them are added."""
        self._conn, self._crowds = conn, crowds
        self._expectations: dict[bytes, sqlite3.Row] = {}
        self._tasks: dict[bytes, sqlite3.Row] = {}
        self._marks: dict[bytes, frozenset[str]] = {}
        self._waiting: deque[sqlite3.Row] = deque()
        self.named: set[int] = set()
        """The expected name (its number) that was touched."""
        self._seed_id, self._whole = seed, self._gather(seed)
        if not self._whole:
            self._gather_unpaired(seed)

    def members(self) -> set[bytes]:
        """Everybody who needs no other look in this pass."""
        return {*self._expectations, *self._tasks} if self._whole else {self._seed_id}

    def _seed(self, seed: bytes) -> None:
        self._expectations, self._tasks, self._waiting = {}, {}, deque()
        self._add("id", self._conn.execute("SELECT * FROM expectation WHERE id = ?", (seed,)).fetchall())
        self._add("task", self._conn.execute("SELECT * FROM seen WHERE task = ?", (seed,)).fetchall())

    def _gather(self, seed: bytes) -> bool:
        """Take in everything within reach of the seed, and of that, and so on. False: there are too many."""
        self._seed(seed)
        crowds = {(row["named"], mark) for row in self._waiting for mark in self._marks_of(row)} & self._crowds
        while self._waiting and not crowds:
            if not self._add_neighbours(self._waiting.popleft(), _TASKS_NEAR, _EXPECTATIONS_NEAR, NODES_MAX):
                return False
        return not crowds

    def _marks_of(self, row: sqlite3.Row) -> frozenset[str]:
        return self._marks[row["task"]] if "task" in row.keys() else frozenset((row["mark"],))  # noqa: SIM118

    def _gather_unpaired(self, seed: bytes) -> None:
        """The seed and those within its reach that have no partner in time: all that can be done for it in a crowd."""
        self._seed(seed)
        row = self._waiting.popleft()
        if row["met"] is None or row["late"]:
            self._add_neighbours(row, _TASKS_FREE, _EXPECTATIONS_UNMET, NODES_MAX // 8)

    def _add_neighbours(self, row: sqlite3.Row, tasks: str, expectations: str, limit: int) -> bool:
        for mark in sorted(self._marks_of(row)):
            if "task" in row.keys():  # noqa: SIM118 - a row iterates over its values
                since = (row["began_at"], EARLY_NS, row["named"], mark, limit)
                whole = self._add("id", self._conn.execute(expectations, since).fetchall())
            else:
                reach = (row["named"], mark, row["at"] - EARLY_NS, row["at"] + row["within"], limit)
                whole = self._add("task", self._conn.execute(tasks, reach).fetchall())
            if not whole:
                self._crowds.add((row["named"], mark))
                return False
        return True

    def _add(self, kind: str, rows: list[sqlite3.Row]) -> bool:
        """Take these in; False where they are too many."""
        known = self._expectations if kind == "id" else self._tasks
        new = [row for row in rows if row[kind] not in known and (kind == "task" or not row["void"])]
        self.named |= {row["named"] for row in rows}
        if len(self._expectations) + len(self._tasks) + len(new) > NODES_MAX:
            return False
        for row in new:
            known[row[kind]] = row
            if kind == "task":
                marks = self._conn.execute("SELECT mark FROM seen_mark WHERE task = ?", (row["task"],))
                self._marks[row["task"]] = frozenset(mark["mark"] for mark in marks)
        self._waiting.extend(new)
        return True

    def pair(self) -> set[bytes]:
        """Pair in time; returns the expectations whose partner changed. Who is met in time has no late partner any more."""
        pairs = pair_in_time(map(_expectation, self._expectations.values()), map(self._begun, self._tasks.values()))
        partners = {blob(one): blob(task) for one, task in pairs.items()}
        wanted = {task: one for one, task in partners.items()}
        changed: set[bytes] = set()
        links = [(one, row["met"], row["late"], partners.get(one)) for one, row in self._expectations.items()]
        links += [(row["met"], task, row["late"], wanted.get(task)) for task, row in self._tasks.items()]
        for one, task, late, new in links:
            stays = partners.get(one) == task if not late else new is None
            if one is not None and task is not None and not stays:
                _part(self._conn, one, task)
                changed.add(one)
        for one, task in partners.items():
            row = self._expectations[one]
            if row["met"] != task or row["late"]:
                _join(self._conn, one, task, late=False)
                changed.add(one)
        return changed

    def _begun(self, row: sqlite3.Row) -> Begun:
        return Begun(id=text(row["task"]), began_at=row["began_at"], marks=self._marks[row["task"]])


_TASKS = (
    "SELECT s.* FROM seen_mark m JOIN seen s ON s.task = m.task"
    " WHERE m.named = ? AND m.mark = ? AND m.began_at BETWEEN ? AND ?{free} ORDER BY m.began_at LIMIT ?"
)
_EXPECTATIONS = (
    "SELECT e.* FROM expected_name n JOIN expectation e ON e.named = n.id AND e.at >= ?1 - n.within_max AND e.at <= ?1 + ?2"
    " WHERE n.id = ?3 AND e.mark = ?4 AND e.at + e.within >= ?1{unmet} ORDER BY e.at LIMIT ?5"
)
_TASKS_NEAR, _TASKS_FREE = _TASKS.format(free=""), _TASKS.format(free=" AND m.taken = 0")
_EXPECTATIONS_NEAR = _EXPECTATIONS.format(unmet="")
_EXPECTATIONS_UNMET = _EXPECTATIONS.format(unmet=" AND (e.met IS NULL OR e.late = 1)")


def _expectation(row: sqlite3.Row) -> Expectation:
    return Expectation(id=text(row["id"]), at=row["at"], within=row["within"], mark=row["mark"])


def _part(conn: sqlite3.Connection, one: bytes, task: bytes) -> None:
    conn.execute("UPDATE expectation SET met = NULL, late = 0 WHERE id = ? AND met = ?", (one, task))
    if conn.execute("UPDATE seen SET met = NULL, late = 0 WHERE task = ? AND met = ?", (task, one)).rowcount:
        conn.execute("UPDATE seen_mark SET taken = 0 WHERE task = ?", (task,))


def _join(conn: sqlite3.Connection, one: bytes, task: bytes, *, late: bool) -> None:
    conn.execute("UPDATE expectation SET met = ?, late = ? WHERE id = ?", (task, late, one))
    conn.execute("UPDATE seen SET met = ?, late = ? WHERE task = ?", (one, late, task))
    conn.execute("UPDATE seen_mark SET taken = ? WHERE task = ?", (not late, task))


# --- met late -----------------------------------------------------------------------------------------------------

_UNMET = """
SELECT e.* FROM expectation e LEFT JOIN task t ON t.id = e.id
WHERE e.named = ? AND (e.met IS NULL OR e.late = 1) AND e.void = 0 AND e.at + e.within < ? AND t.settled IS NULL
ORDER BY e.at DESC LIMIT ?
"""
_LEFT_OVER = """
SELECT m.task, m.began_at, s.met FROM seen_mark m JOIN seen s ON s.task = m.task
WHERE m.named = ? AND m.mark = ? AND m.taken = 0 AND m.began_at > ? ORDER BY m.began_at LIMIT ?
"""


def _pair_late(conn: sqlite3.Connection, named: int, now: int) -> set[bytes]:
    """Pair the expectations of a name that nothing met with what came after their time; returns those that changed."""
    unmet = {row["id"]: row for row in conn.execute(_UNMET, (named, now, LATE_MAX))}
    begun: dict[bytes, int] = {}
    marks: dict[bytes, set[str]] = {}
    for row in unmet.values():
        for task in conn.execute(_LEFT_OVER, (named, row["mark"], row["at"] + row["within"], LATE_MAX)):
            if task["met"] is None or task["met"] in unmet:
                begun[task["task"]] = task["began_at"]
                marks.setdefault(task["task"], set()).add(row["mark"])
    tasks = [Begun(id=text(task), began_at=at, marks=frozenset(marks[task])) for task, at in begun.items()]
    pairs = {blob(one): blob(task) for one, task in pair_late(map(_expectation, unmet.values()), tasks).items()}
    changed = {one for one, row in unmet.items() if row["met"] != pairs.get(one)}
    for one in changed:
        if unmet[one]["met"] is not None:
            _part(conn, one, unmet[one]["met"])
    for one in changed & set(pairs):
        _join(conn, one, pairs[one], late=True)
    return changed


# --- the task that a missed expectation is -------------------------------------------------------------------------


def finding_of(conn: sqlite3.Connection, task: bytes, view: View, world: World) -> Finding:
    """What is to be said of an expectation now. One that is forgotten already keeps what was said last."""
    row = conn.execute("SELECT * FROM expectation WHERE id = ?", (task,)).fetchone()
    return Finding(known=False) if row is None else _find(conn, row, view, world)


def _find(conn: sqlite3.Connection, row: sqlite3.Row, view: View, world: World) -> Finding:
    meeting = None
    if row["met"] is not None:
        met = conn.execute("SELECT began_at, well FROM seen WHERE task = ?", (row["met"],)).fetchone()
        meeting = Meeting(task=text(row["met"]), began_at=met["began_at"], late=bool(row["late"]), well=bool(met["well"]))
    one = expectation_of(text(row["id"]), view)
    recorded = conn.execute(_BLIND, (one.at - EARLY_NS, world.now)).fetchall()
    blind = sorted({*world.blind, *((window["from_at"], window["to_at"]) for window in recorded)})
    world = msgspec.structs.replace(world, blind=tuple(blind))
    return find(one, view, meeting, world, void=_void(conn, row, view))


def _void(conn: sqlite3.Connection, row: sqlite3.Row, view: View) -> str:
    """Why nothing was expected after all, or nothing."""
    if row["void"]:
        return "the task that it was to follow turned out to have another name"
    skipped = "SELECT 1 FROM blind_window WHERE instance IS NULL AND cause = 'clock' AND to_at >= ?1 AND from_at < ?1 LIMIT 1"
    if "cron" in view.opening and conn.execute(skipped, (row["at"],)).fetchone():
        return "this minute never was, since the clock of this machine was set forward past it"
    return ""


_BLIND = (
    "SELECT from_at, to_at FROM blind_window WHERE instance IS NULL AND cause IN ('down', 'frozen')"
    " AND to_at >= ? AND from_at <= ? ORDER BY from_at"
)


def _look(conn: sqlite3.Connection, one: bytes, world_of: WorldOf, moves: Moves) -> bool:
    """Whether this expectation has a task row that must be judged now; made here where it is missed for the first time."""
    row = conn.execute("SELECT * FROM expectation WHERE id = ?", (one,)).fetchone()
    if row is None:
        return False
    ids = InstanceIds(conn)
    view = view_of(unpack(row["facts"], ids))
    finding = _find(conn, row, view, world_of(view.environment))
    conn.execute("UPDATE expectation SET check_at = ? WHERE id = ?", (finding.check_at, one))
    task = conn.execute("SELECT * FROM task WHERE id = ?", (one,)).fetchone()
    if task is None and finding.verdict is None:
        return False
    if task is None or task["facts"] != row["facts"]:
        _keep(conn, row, view, ids, task, moves)
    return True


_KEEP = """
INSERT INTO task (id, type, environment, channel, state, flags, attempt, instance, began_at, due_at, key, facts)
VALUES (?, ?, ?, ?, ?, ?, 1, ?, ?, ?, ?, ?)
ON CONFLICT (id) DO UPDATE SET type = excluded.type, environment = excluded.environment, instance = excluded.instance,
    began_at = excluded.began_at, due_at = excluded.due_at, key = excluded.key, facts = excluded.facts
"""


def _keep(
    conn: sqlite3.Connection, row: sqlite3.Row, view: View, ids: InstanceIds, task: sqlite3.Row | None, moves: Moves
) -> None:
    """Write the task row as the facts say; the judgement that stands over it, if any, moves with it in the ledger."""
    environment = conn.execute("SELECT environment FROM expected_name WHERE id = ?", (row["named"],)).fetchone()[0]
    conn.execute("INSERT OR IGNORE INTO type (service, name) VALUES (?, ?)", (view.service, view.name))
    type_ = conn.execute("SELECT id FROM type WHERE service = ? AND name = ?", (view.service, view.name)).fetchone()[0]
    instance = None if view.instance is None else ids.no(view.instance)
    facts = (instance, row["at"], row["at"] + row["within"], view.opening.get("key"), row["facts"])
    conn.execute(_KEEP, (row["id"], type_, environment, row["channel"], STATES.index(view.state), EXPECTED, *facts))
    if task is not None:
        moves.add(place_of_row(task), task["environment"], task["type"], -1)
        now = conn.execute("SELECT * FROM task WHERE id = ?", (row["id"],)).fetchone()
        moves.add(place_of_row(now), now["environment"], now["type"])
