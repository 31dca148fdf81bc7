"""Finding the newest tasks of a query among ten million, and saying how far it looked.

Rules:

1. A query that names its tasks (is:loose, key:, id:, parent:, incident:) is answered from their index, in one go.
2. Any other walks the order of begin from the newest back, in bounded steps. Where the ledger knows in which minutes there is any
   such task (its type, its environment, its state), only those minutes are walked: an hour without one costs one look at a sum.
3. A walk ends when it has enough, when it is through, or when its time is over. Then it says from when on it has seen everything,
   and the place to go on from: an answer that stopped never looks like one that found no more.
4. How fast it goes is the machine's affair; whoever follows the cursor sees the same tasks in the same order.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Sequence
from typing import Any

from looseends.wire import INT_MAX
from looseends_daemon.core.query import Query, Term
from looseends_daemon.core.resources import Value
from looseends_daemon.core.stats import MINUTE_NS
from looseends_daemon.store.ledger import HOUR_MINUTES
from looseends_daemon.store.query_sql import term_sql
from looseends_daemon.store.questions import Question

STEP_TASKS = 2_000
"""Tasks walked in one statement where the ledger says nothing."""
RUN_MINUTES = 5
"""Neighbouring minutes walked in one statement where it does."""
_NAMED = ("key", "id", "parent", "incident")
_COUNTED = {
    ("state", "succeeded"): "succeeded",
    ("state", "failed"): "failed",
    ("state", "cancelled"): "cancelled",
    ("state", "scheduled"): "in_time + gap",
    ("state", "running"): "in_time + gap",
    ("state", "retrying"): "in_time + gap",
    ("is", "open"): "in_time + gap",
    ("is", "gap"): "gap",
}
"""The terms of the ledger in which a task with this mark is counted."""
_ANY = "succeeded + failed + cancelled + in_time + gap"
_WHERE = ("instance", "host", "release")


class Bounds(Value, frozen=True):
    """Which tasks are asked for: begun in [from_, to), ns, and before `below` (began_at, id) in the order of begin."""

    from_: int | None = None
    to: int | None = None
    below: tuple[int, bytes] | None = None

    @property
    def ceiling(self) -> int:
        """No task asked for began at this time or later."""
        tops = [INT_MAX if self.to is None else self.to]
        if self.below is not None:
            began_at, task = self.below
            tops.append(began_at + 1 if task else began_at)  # without a task it is a time that everything was seen from
        return min(tops)

    def sql(self) -> tuple[str, list[object]]:
        """The condition and its values."""
        parts, values = ["1"], list[object]()
        for column, value in (("task.began_at >= ?", self.from_), ("task.began_at < ?", self.to)):
            if value is not None:
                parts.append(column)
                values.append(value)
        if self.below is not None:
            parts.append("(task.began_at, task.id) < (?, ?)")
            values += self.below
        return " AND ".join(parts), values


class Walk:
    """One walk from the newest back. `rows`: found so far; `seen_from`: what began then or later was looked at, 0: everything."""

    def __init__(self, query: Query, sql: tuple[str, list[object]], bounds: Bounds, columns: str, seconds: float) -> None:
        self._query, self._sql, self._bounds, self._columns = query, sql, bounds, columns
        self._until = time.monotonic() + seconds
        self.rows: list[sqlite3.Row] = []
        self.seen_from = 0
        self._steps = 0

    @property
    def stopped(self) -> bool:
        """Whether there may be more before `seen_from`."""
        return self.seen_from > 0

    def take(self, limit: int) -> Question[None]:
        """Find up to `limit` rows, newest first."""
        if any(_is_named(term) for term in self._query.terms):
            where, values = self._bounds.sql()
            self.rows = yield (
                f"SELECT {self._columns} FROM task WHERE {self._sql[0]} AND {where}"
                " ORDER BY task.began_at DESC, task.id DESC LIMIT ?",
                [*self._sql[1], *values, limit],
            )
            return
        conditions, known = self._counted()
        top = yield from self._top()
        if known:
            yield from self._by_minutes(conditions, top, limit)
        else:
            yield from self._by_steps(top, limit)

    def _late(self) -> bool:
        """Whether its time is over. One step is always taken: who follows the cursor gets on, however slow the machine is."""
        return self._steps > 0 and time.monotonic() > self._until

    def _top(self) -> Question[int]:
        """No task asked for began then or later: nothing begins in an instance that had been heard for the last time."""
        top = self._bounds.ceiling
        for term in self._query.terms:
            if term.word in _WHERE and not term.negated:
                sql, values = term_sql(term)
                asked = sql.replace("task.instance IN (SELECT no", "no IN (SELECT no")
                rows = yield f"SELECT max(last_heard_at) AS at FROM instance WHERE {asked}", values
                top = min(top, 0 if rows[0]["at"] is None else rows[0]["at"] + 1)
        return top

    def _counted(self) -> tuple[tuple[str, list[object]], bool]:
        """(what must hold of a row of the ledger, its values), and whether that says anything."""
        parts, values, known = ["1"], list[object](), False
        for term in self._query.terms:
            if term.negated:
                continue
            if term.word in ("name", "service", "environment"):
                sql, more = term_sql(term)
                parts.append(f"({sql})")
                values += more
                known = True
            columns = ["gap" if term.word == "verdict" else _COUNTED.get((term.word, match.text)) for match in term.matches]
            if columns and all(columns):
                parts.append(f"({' + '.join(column for column in columns if column)} > 0)")
                known = True
        parts.append(f"{_ANY} > 0")
        return (" AND ".join(parts), values), known

    def _by_minutes(self, conditions: tuple[str, list[object]], top: int, limit: int) -> Question[None]:
        sql, values = conditions
        first = (self._bounds.from_ or 0) // MINUTE_NS
        minute = -(-top // MINUTE_NS)
        while minute > first and len(self.rows) < limit:
            if self._late():
                self.seen_from = minute * MINUTE_NS
                return
            hours = yield (
                f"SELECT hour FROM ledger_hour AS task WHERE hour < ? AND hour >= ? AND {sql} ORDER BY hour DESC LIMIT 1",
                [-(-minute // HOUR_MINUTES), first // HOUR_MINUTES, *values],
            )
            if not hours:
                return
            begin = hours[0]["hour"] * HOUR_MINUTES
            found = yield (
                f"SELECT DISTINCT minute FROM ledger AS task WHERE minute < ? AND minute >= ? AND {sql} ORDER BY minute DESC",
                [min(minute, begin + HOUR_MINUTES), max(first, begin), *values],
            )
            for low, high in _runs([row["minute"] for row in found]):
                yield from self._look(low * MINUTE_NS, high * MINUTE_NS, limit)
                if len(self.rows) >= limit:
                    return
                if self._late():
                    self.seen_from = low * MINUTE_NS
                    return
            minute = begin

    def _by_steps(self, top: int, limit: int) -> Question[None]:
        floor = self._bounds.from_ or 0
        while top > floor and len(self.rows) < limit:
            if self._late():
                self.seen_from = top
                return
            edge = yield (
                "SELECT began_at FROM task INDEXED BY task_newest WHERE began_at < ? ORDER BY began_at DESC LIMIT 1 OFFSET ?",
                [top, STEP_TASKS],
            )
            low = max(floor, edge[0]["began_at"]) if edge else floor
            yield from self._look(low, top, limit)
            top = low

    def _look(self, low: int, high: int, limit: int) -> Question[None]:
        self._steps += 1
        where, values = self._bounds.sql()
        rows = yield (
            f"SELECT {self._columns} FROM task INDEXED BY task_newest WHERE task.began_at >= ? AND task.began_at < ?"
            f" AND {self._sql[0]} AND {where} ORDER BY task.began_at DESC, task.id DESC LIMIT ?",
            [low, high, *self._sql[1], *values, limit - len(self.rows)],
        )
        self.rows += rows


def _is_named(term: Term) -> bool:
    if term.negated:
        return False
    if term.word == "is":
        return [match.text for match in term.matches] == ["loose"]
    return term.word in _NAMED and not any(match.prefix for match in term.matches)


def _runs(minutes: Sequence[int]) -> list[tuple[int, int]]:
    """Minutes, newest first, as [low, high) of at most RUN_MINUTES neighbours."""
    runs: list[tuple[int, int]] = []
    for minute in minutes:
        if runs and runs[-1][0] == minute + 1 and runs[-1][1] - minute <= RUN_MINUTES:
            runs[-1] = (minute, runs[-1][1])
        else:
            runs.append((minute, minute + 1))
    return runs


def place_after(row: Any) -> str:
    """The cursor that goes on after this row."""
    return f"{row['began_at']:x}.{row['id'].hex()}"


def place_before(began_at: int) -> str:
    """The cursor that goes on with what began before (ns)."""
    return f"{began_at:x}."
