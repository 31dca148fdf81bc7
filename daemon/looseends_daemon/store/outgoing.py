"""What is to be exported over OTLP: rows written with the facts they tell of, removed when a collector has taken them.

Rules:

1. A row is written in the transaction of the end or the verdict that it tells of, so neither a crash nor a collector that is
   down loses one. It is removed after the collector's yes: a crash in between sends what was in flight once more, at most
   BATCH_MAX rows of each signal.
2. A task is exported once for each attempt, when it ended for good or is lost; the bit EXPORTED of its row says so. An end after
   that is a log record, no second span. Work that has a span of its own (source "opentelemetry") is not exported.
3. An end whose start is not known yet waits START_S for it, so that a finish that overtook its start has both.
4. At most WAITING_MAX rows of a signal wait; beyond it the oldest go, and are counted.
"""

from __future__ import annotations

import sqlite3

from looseends.wire import NS
from looseends_daemon.core.policy import Policy
from looseends_daemon.core.view import View
from looseends_daemon.store.codes import EXPORTED
from looseends_daemon.store.counters import tally

OWN_SPAN = "opentelemetry"
BATCH_MAX = 32
WAITING_MAX = 1_000_000
START_S = 10
SIGNALS = ("span", "log")
_ADD = "INSERT INTO outgoing (signal, due_at, task, attempt, kind, at, detail) VALUES (?, ?, ?, ?, ?, ?, ?)"
Row = tuple[str, int, bytes, int, str, int, str]


class Outgoing:
    """The rows of one unit of work, gathered and written once. Where nothing is exported it does nothing."""

    def __init__(self, policy: Policy, now: int) -> None:
        self._on, self._now = policy.exports, now
        self._rows: list[Row] = []

    def facts(self, task: bytes, view: View, old: sqlite3.Row | None) -> int:
        """Note what a task's facts say now; the bit its row must bear. `old`: its row before."""
        known = old["flags"] & EXPORTED if old is not None and old["attempt"] == view.attempt else 0
        if not self._on or not view.ended or view.opening.get("source") == OWN_SPAN:
            return known
        if known:
            if old is not None and old["ended_at"] is None:
                self._log(task, view, "finished_late", view.ended_at or self._now, view.state)
            return known
        self._span(task, view)
        return EXPORTED

    def judged(self, row: sqlite3.Row, view: View, verdict: str | None, reason: str) -> int:
        """Note a verdict that was just given (None: none was); the bit to add to the row."""
        if not self._on or view.opening.get("source") == OWN_SPAN:
            return 0
        if verdict is not None:
            self._log(row["id"], view, verdict, self._now, reason)
        if row["flags"] & EXPORTED or not (view.ended or verdict == "lost"):
            return 0
        self._span(row["id"], view, reason)
        return EXPORTED

    def _span(self, task: bytes, view: View, detail: str = "") -> None:
        due = self._now + (START_S * NS if view.started_at is None and view.ended else 0)
        at = view.ended_at or self._now
        self._rows.append(("span", due, task, view.attempt, view.state, at, detail))
        if view.state == "failed":
            self._rows.append(("log", due, task, view.attempt, "exception", at, ""))

    def _log(self, task: bytes, view: View, kind: str, at: int, detail: str) -> None:
        self._rows.append(("log", self._now, task, view.attempt, kind, at, detail))

    def write(self, conn: sqlite3.Connection) -> None:
        """Write what was gathered."""
        if self._rows:
            conn.executemany(_ADD, [row for row in self._rows if row[0] in self._on])
            self._rows = []


def taken(conn: sqlite3.Connection, signal: str, rows: list[int], outcome: str = "exported") -> None:
    """Remove rows that a collector has (or that cannot be told any more), and count them."""
    conn.executemany("DELETE FROM outgoing WHERE n = ?", [(n,) for n in rows])
    tally(conn, "otlp", {f"{outcome} {signal}": len(rows)})


def relieve(conn: sqlite3.Connection, signal: str, waiting_max: int = WAITING_MAX) -> int:
    """Let the oldest rows go that are too many; returns how many those were."""
    row = conn.execute(
        "SELECT n FROM outgoing WHERE signal = ? ORDER BY n DESC LIMIT 1 OFFSET ?", (signal, waiting_max)
    ).fetchone()
    if row is None:
        return 0
    gone = conn.execute("DELETE FROM outgoing WHERE signal = ? AND n <= ?", (signal, row[0])).rowcount
    tally(conn, "otlp", {f"given_up {signal}": gone})
    return gone
