"""What is expected, and the tasks that could meet it: kept as they are told, in any order; who met whom is store/pairing.py.

Rules:

1. An expectation's facts fold like those of a task and lie apart from the tasks: it becomes one only when it is missed.
2. Tasks are noted (`seen`) only where their name is expected. The first expectation of a name notes those that came before it.
3. Whatever moves (a time, a key, a name) lets go of its partner and is paired anew; nothing is decided here.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from typing import Any

from looseends_daemon.core.expect import (
    EARLY_NS,
    CronRule,
    after_started,
    at_minute,
    expectation_of,
    marks_of,
    rule_digest,
)
from looseends_daemon.core.facts import Cells, Fact, fold
from looseends_daemon.core.judgements import ended_well
from looseends_daemon.core.policy import Policy
from looseends_daemon.core.resources import Actor
from looseends_daemon.core.view import View, view_of
from looseends_daemon.store.cells import InstanceIds, PayloadWrites, pack, payload_rows, unpack, with_payloads
from looseends_daemon.store.codes import EXPECTED, ORDER, blob, interned, text

SLOT = "expected"
NEVER_NS = 1 << 62
"""`since` of a name that nobody expects any more: no task began so late."""
OWN_ID = "this is the id of a task; an expectation needs an id of its own"
NOT_A_TASK = "this is the id of an expectation; a task that meets it needs an id of its own"
NOT_YOURS = "this expectation was told by another service or another way in"


class Expecting:
    """One batch's dealings with expectations. `expect` for each `expected` event, `note` for each task that is stored."""

    def __init__(self, conn: sqlite3.Connection, ids: InstanceIds, policy: Policy, now: int) -> None:
        self._conn, self._ids, self._policy, self._now = conn, ids, policy, now
        self._names: dict[tuple[str, str], sqlite3.Row | None] = {}
        self._none: bool | None = None
        self._causes = {(rule.environment, rule.after) for rule in policy.after}

    # --- expectations ---

    def holds(self, task: bytes) -> bool:
        """Whether this id is that of an expectation. Where nobody ever expected anything this costs nothing."""
        if self._none is None:
            self._none = self._conn.execute("SELECT 1 FROM expectation LIMIT 1").fetchone() is None
        return not self._none and self._conn.execute("SELECT 1 FROM expectation WHERE id = ?", (task,)).fetchone() is not None

    def expect(
        self, event: Mapping[str, Any], instance: str, actor: Actor, channel: int, *, task_told: bool = False
    ) -> tuple[bool, str | None]:
        """(whether it said something new, why it was refused or None). `task_told`: this batch told of a task with this id."""
        task = blob(event["task"])
        if actor.service is not None and event.get("service", actor.service) != actor.service:
            return False, f"this token speaks for {actor.service}, not for {event['service']}"
        tasks = f"SELECT 1 FROM task WHERE id = ? AND flags & {EXPECTED} = 0"
        if task_told or self._conn.execute(tasks, (task,)).fetchone():
            return False, OWN_ID
        row = self._row(task)
        if row is not None and row["channel"] != channel and actor.role != "operator":
            return False, NOT_YOURS
        cells = self._cells(row)
        before = cells.get((event["attempt"], instance), {}).get(SLOT)
        new, self._none = fold(cells, event, instance or None), False
        if cells[event["attempt"], instance][SLOT] != before:
            self._put(task, row, cells, channel)
            payloads = PayloadWrites()
            payloads.keep(task, cells, self._ids, [(event["attempt"], instance, SLOT)])
            payloads.write(self._conn)
        return new, None

    def state(self, expectation: str, body: dict[str, Any], at: int, *, cause: bytes | None = None, instance: str = "") -> None:
        """Keep what this daemon itself expects, by a rule. Saying it again with another time or patience moves it."""
        task = blob(expectation)
        row = self._row(task)
        cells: Cells = {(1, instance): {SLOT: Fact(at=at, said_at=at, body=body)}}
        if row is None or row["void"] or row["facts"] != pack(cells, self._ids):
            self._put(task, row, cells, interned(self._conn, "channel", "rule"), cause)

    def _row(self, task: bytes) -> sqlite3.Row | None:
        row: sqlite3.Row | None = self._conn.execute("SELECT * FROM expectation WHERE id = ?", (task,)).fetchone()
        return row

    def _cells(self, row: sqlite3.Row | None) -> Cells:
        if row is None:
            return {}
        cells = unpack(row["facts"], self._ids)
        return with_payloads(cells, self._ids, payload_rows(self._conn, row["id"]))

    def _put(self, task: bytes, row: sqlite3.Row | None, cells: Cells, channel: int, cause: bytes | None = None) -> None:
        view = view_of(cells)
        one = expectation_of(text(task), view)
        named = self._expect_name(view.environment, view.name, one.at - EARLY_NS, one.within)
        if row is not None:
            channel, cause = row["channel"], row["cause"]
            _let_go_of_task(self._conn, row)
        self._conn.execute(
            "INSERT OR REPLACE INTO expectation (id, named, mark, at, within, channel, cause, check_at, facts)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (task, named, one.mark, one.at, one.within, channel, cause, self._now, pack(cells, self._ids)),
        )

    # --- names ---

    def _expect_name(self, environment: str, name: str, since: int, within: int) -> int:
        """The number of an expected name; its tasks from `since` on are noted."""
        place = interned(self._conn, "environment", environment)
        row = self._name(environment, name)
        if row is None:
            self._conn.execute(
                "INSERT INTO expected_name (environment, name, since, within_max) VALUES (?, ?, ?, ?)",
                (place, name, since, within),
            )
        elif since < row["since"] or within > row["within_max"]:
            self._conn.execute(
                "UPDATE expected_name SET since = min(since, ?), within_max = max(within_max, ?) WHERE id = ?",
                (since, within, row["id"]),
            )
        else:
            return int(row["id"])
        del self._names[environment, name]
        now = self._name(environment, name)
        assert now is not None
        if row is None or since < row["since"]:
            self._note_earlier(name, place, since, None if row is None else row["since"])
        return int(now["id"])

    def _name(self, environment: str, name: str) -> sqlite3.Row | None:
        key = (environment, name)
        if key not in self._names:
            self._names[key] = self._conn.execute(
                "SELECT n.* FROM expected_name n JOIN environment e ON e.id = n.environment WHERE e.name = ? AND n.name = ?", key
            ).fetchone()
        return self._names[key]

    def _note_earlier(self, name: str, environment: int, since: int, until: int | None) -> None:
        """Note the tasks that were stored before anybody expected them. Reads the tasks of that time only, once."""
        rows = self._conn.execute(
            "SELECT task.* FROM task INDEXED BY task_newest JOIN type ON type.id = task.type"
            " WHERE task.began_at >= ? AND task.began_at < ? AND type.name = ? AND task.environment = ?"
            f" AND task.flags & {EXPECTED | ORDER} = 0",
            (since, NEVER_NS if until is None else until, name, environment),
        ).fetchall()
        for row in rows:
            self._see(row["id"], view_of(unpack(row["facts"], self._ids)))

    # --- tasks ---

    def note(self, task: bytes, view: View, cells: Cells, *, order: bool, moved: bool) -> None:
        """A task was stored. `order`: it is a replay, which meets and makes no expectation; `moved`: it has a new name."""
        if order:
            return
        self._see(task, view, moved=moved)
        if moved:
            self._void(task, view)
        if (view.environment, view.name) in self._causes:
            self._follow(task, view, cells)

    def _see(self, task: bytes, view: View, *, moved: bool = False) -> None:
        name = self._name(view.environment, view.name)
        if name is None or view.began_at < name["since"]:
            if moved or name is not None:
                _forget(self._conn, task, self._now)
            return
        marks = marks_of(text(task), view)
        row = self._conn.execute("SELECT * FROM seen WHERE task = ?", (task,)).fetchone()
        if row is not None and (row["named"], row["began_at"]) == (name["id"], view.began_at) and marks == self._marks(task):
            if row["well"] != ended_well(view):
                self._conn.execute("UPDATE seen SET well = ?, dirty = 1 WHERE task = ?", (ended_well(view), task))
            return
        if row is not None:
            _forget(self._conn, task, self._now)
        self._conn.execute(
            "INSERT INTO seen (task, named, began_at, well) VALUES (?, ?, ?, ?)",
            (task, name["id"], view.began_at, ended_well(view)),
        )
        self._conn.executemany(
            "INSERT INTO seen_mark (named, mark, began_at, task) VALUES (?, ?, ?, ?)",
            [(name["id"], mark, view.began_at, task) for mark in sorted(marks)],
        )

    def _marks(self, task: bytes) -> set[str]:
        return {row["mark"] for row in self._conn.execute("SELECT mark FROM seen_mark WHERE task = ?", (task,))}

    # --- rules: after this task, that one ---

    def _follow(self, task: bytes, view: View, cells: Cells) -> None:
        for rule in self._policy.after:
            made = after_started(rule, text(task), view, cells)
            if made is not None:
                expectation, body, at = made
                self.state(expectation, body, at, cause=task, instance=view.instance or "")

    def _void(self, task: bytes, view: View) -> None:
        """It has another name than it was known by: what was to follow the old one is not expected (a rule says anew what is)."""
        for row in self._conn.execute("SELECT * FROM expectation WHERE cause = ? AND void = 0", (task,)).fetchall():
            _let_go_of_task(self._conn, row)
            self._conn.execute(
                "UPDATE expectation SET void = 1, met = NULL, late = 0, check_at = ? WHERE id = ?", (self._now, row["id"])
            )


def _let_go_of_task(conn: sqlite3.Connection, row: sqlite3.Row) -> None:
    """The task that met this expectation is free again, and paired anew."""
    if row["met"] is not None:
        conn.execute("UPDATE seen SET met = NULL, late = 0, dirty = 1 WHERE task = ? AND met = ?", (row["met"], row["id"]))
        conn.execute("UPDATE seen_mark SET taken = 0 WHERE task = ?", (row["met"],))


def _forget(conn: sqlite3.Connection, task: bytes, now: int) -> None:
    """The task is noted no longer as it was; what it met is paired anew."""
    row = conn.execute("DELETE FROM seen WHERE task = ? RETURNING met", (task,)).fetchone()
    if row is None:
        return
    conn.execute("DELETE FROM seen_mark WHERE task = ?", (task,))
    if row["met"] is not None:
        conn.execute(
            "UPDATE expectation SET met = NULL, late = 0, check_at = ? WHERE id = ? AND met = ?", (now, row["met"], task)
        )


# --- cron ---------------------------------------------------------------------------------------------------------


def made_until(conn: sqlite3.Connection, rules: tuple[CronRule, ...], now: int) -> dict[str, int]:
    """By digest, how far each rule's minutes were made (ns). A new rule begins now; a rule that is gone is forgotten."""
    wanted = {rule_digest(rule) for rule in rules}
    for row in conn.execute("SELECT id FROM expect_rule").fetchall():
        if text(row["id"]) not in wanted:
            conn.execute("DELETE FROM expect_rule WHERE id = ?", (row["id"],))
    new = [(blob(one), now) for one in sorted(wanted)]
    conn.executemany("INSERT OR IGNORE INTO expect_rule (id, made_until) VALUES (?, ?)", new)
    return {text(row["id"]): int(row["made_until"]) for row in conn.execute("SELECT * FROM expect_rule")}


def make_minutes(conn: sqlite3.Connection, rule: CronRule, minutes: list[int], until: int, policy: Policy, now: int) -> None:
    """Expect `rule`'s task at each of these due minutes (ns); all up to `until` are made now."""
    expecting = Expecting(conn, InstanceIds(conn), policy, now)
    for at in minutes:
        expectation, body = at_minute(rule, at)
        expecting.state(expectation, body, at)
    conn.execute("UPDATE expect_rule SET made_until = ? WHERE id = ?", (until, blob(rule_digest(rule))))


# --- forgetting ---------------------------------------------------------------------------------------------------


def sweep(conn: sqlite3.Connection, before: int, limit: int) -> int:
    """Forget at most `limit` expectations, and as many noted tasks, from before `before` (ns): nobody may tell of them any more.

    Returns how many rows went. A missed one's task row stays for as long as other tasks do.
    """
    expectations = "SELECT id FROM expectation WHERE at < ?1 AND at + within < ?1 LIMIT ?2"
    old = [row["id"] for row in conn.execute(expectations, (before, limit))]
    for task in old:
        conn.execute("DELETE FROM expectation WHERE id = ?", (task,))
        conn.execute(f"DELETE FROM task WHERE id = ? AND flags & {EXPECTED} AND verdict IS NULL", (task,))
        if conn.execute("SELECT 1 FROM task WHERE id = ?", (task,)).fetchone() is None:
            conn.execute("DELETE FROM payload WHERE task = ?", (task,))
            conn.execute("DELETE FROM judgement WHERE task = ?", (task,))
    tasks = (
        "SELECT task FROM seen WHERE began_at < ? AND NOT EXISTS (SELECT 1 FROM expectation e WHERE e.id = seen.met)"
        " ORDER BY began_at LIMIT ?"
    )
    gone = [row["task"] for row in conn.execute(tasks, (before, limit))] + _of_forgotten_names(conn, before, limit)
    for task in gone:
        conn.execute("DELETE FROM seen WHERE task = ?", (task,))
        conn.execute("DELETE FROM seen_mark WHERE task = ?", (task,))
    overlaps = conn.execute(
        "DELETE FROM overlapping WHERE task IN (SELECT task FROM overlapping WHERE started_at < ? LIMIT ?)", (before, limit)
    )
    return len(old) + len(gone) + overlaps.rowcount


def _of_forgotten_names(conn: sqlite3.Connection, before: int, limit: int) -> list[bytes]:
    """Noted tasks of names that nobody expects any more. Such a name notes nothing new, and goes when its last task has gone."""
    conn.execute(
        "UPDATE expected_name SET since = ? WHERE since < ?"
        " AND NOT EXISTS (SELECT 1 FROM expectation e WHERE e.named = expected_name.id)",
        (NEVER_NS, before),
    )
    found: list[bytes] = []
    for name in conn.execute("SELECT id FROM expected_name WHERE since = ?", (NEVER_NS,)).fetchall():
        of_it = "SELECT task FROM seen_mark WHERE named = ? AND mark = '' LIMIT ?"
        rows = conn.execute(of_it, (name["id"], limit - len(found))).fetchall()
        if not rows and len(found) < limit:
            conn.execute("DELETE FROM expected_name WHERE id = ?", (name["id"],))
        found += [row["task"] for row in rows]
    return found
