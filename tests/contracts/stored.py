"""Plays a history against the real store on real SQLite: batches folded, tasks judged, the ledger moved, step by step."""

from __future__ import annotations

import sqlite3
from typing import Any

from expecting import policy_of, stated, symbol_id
from model import task_id, wire_batch

from looseends.wire import NS, check_batch, parse_time
from looseends_daemon.core.detect import due_of
from looseends_daemon.core.judgements import LooseChange
from looseends_daemon.core.resources import SETTLEMENTS, STATES, VERDICTS, Actor
from looseends_daemon.core.stats import TERMS
from looseends_daemon.core.view import view_of
from looseends_daemon.store.cells import InstanceIds
from looseends_daemon.store.codes import blob, flag_words, word
from looseends_daemon.store.expectations import Expecting
from looseends_daemon.store.facts import apply_batch, cells_of, end_instance, place_of_row
from looseends_daemon.store.judgements import Times, judge_due, judgements_of
from looseends_daemon.store.ledger import COLUMNS
from looseends_daemon.store.schema import migrate

ACTOR = Actor(name="history", role="ingest", channel="uds:0", uid=0)


class Stored:
    """A database, and a clock that the history sets."""

    def __init__(self, history: dict[str, Any]) -> None:
        self.history = history
        self.clock = parse_time(history["clock"])
        self.policy = policy_of(history)
        self.conn = sqlite3.connect(":memory:", isolation_level=None)
        self.conn.row_factory = sqlite3.Row
        migrate(self.conn)
        self.changes: list[LooseChange] = []
        self.duplicates = 0
        self.audited = 0

    def play(self) -> None:
        """Take every step; the ledger is recounted from the tasks after each."""
        for step in self.history["steps"]:
            self.take(step)
            self.audit_ledger()

    def take(self, step: dict[str, Any]) -> None:
        """One step, in one transaction, as the daemon does it."""
        now = self.clock + int(step["at"] * NS)
        self.conn.execute("BEGIN")
        if "event" in step:
            self._post(step, now)
        elif "instance" in step:
            self._news(step, now)
        elif "replay" in step:
            self._order(step["replay"], now)
        elif "expect" in step:
            expecting = Expecting(self.conn, InstanceIds(self.conn), self.policy, now)
            for one, body, at in stated(self.history, step):
                expecting.state(one, body, at)
        elif step.get("judge"):
            self.detect(now)
        self.conn.execute("COMMIT")

    def _post(self, step: dict[str, Any], now: int) -> None:
        batch = check_batch(wire_batch(self.history, step), now)
        applied = apply_batch(self.conn, batch, actor=ACTOR, now=now, policy=self.policy)
        assert not applied.rejected, applied.rejected
        self.duplicates += applied.duplicates

    def _news(self, step: dict[str, Any], now: int) -> None:
        who = step["instance"]
        told = {"id": who, "service": self.history["instances"][who], "environment": "production"}
        hello = check_batch({"instance": told, "events": []}, now)
        row = self.conn.execute("SELECT state FROM instance WHERE id = ?", (who,)).fetchone()
        if row is None or step["is"] == "alive":
            apply_batch(self.conn, hello, actor=ACTOR, now=now, policy=self.policy)
        if step["is"] != "alive":
            self.conn.execute("UPDATE instance SET backlog = ? WHERE id = ?", (0 if step["caught_up"] else 3, who))
            end_instance(self.conn, who, state=step["is"], reason=step["reason"], now=now, adopted=step["caught_up"])

    def _order(self, replay: dict[str, str], now: int) -> None:
        new, old = blob(task_id(replay["as"])), blob(task_id(replay["of"]))
        columns = {row["name"] for row in self.conn.execute("PRAGMA table_info(replay_order)")}
        values = {"id": new, "replay": 1, "task": old, "root": old, "name": "n", "environment": "production"}
        values |= {"service": "s", "args": "{}", "state": "claimed", "created_at": now, "expires_at": now, "fence": 1}
        values |= {"depth": 1, "edited": 0, "was_done": 0}
        kept = {name: value for name, value in values.items() if name in columns}
        marks = ", ".join("?" * len(kept))
        self.conn.execute(f"INSERT INTO replay_order ({', '.join(kept)}) VALUES ({marks})", list(kept.values()))

    def detect(self, now: int) -> None:
        """Judge until nothing is due."""
        # Instances are heard when they speak; between two steps of a history they are quietly alive.
        self.conn.execute("UPDATE instance SET last_heard_at = ?1, said_at = ?1 WHERE state = 'alive'", (now,))
        times = Times(now=now, heard_since=self.clock - 100_000 * NS, ready_at=self.clock - NS)
        more = True
        while more:
            judged = judge_due(self.conn, times, self.policy)
            self.changes.extend(judged.changes)
            more = judged.more

    def audit_ledger(self) -> None:
        """The ledger is the count over tasks, after every commit."""
        counted: dict[tuple[int, int, int], dict[str, int]] = {}
        for row in self.conn.execute("SELECT * FROM task"):
            place = place_of_row(row)
            if not place.marks():
                continue
            cell = counted.setdefault((place.minute, row["environment"], row["type"]), dict.fromkeys(COLUMNS, 0))
            for column, n in place.marks().items():
                cell[column] += n
        kept = {
            (row["minute"], row["environment"], row["type"]): {column: row[column] for column in COLUMNS}
            for row in self.conn.execute("SELECT * FROM ledger")
            if any(row[column] for column in COLUMNS)
        }
        assert kept == counted
        self.audited += 1

    # --- what came out ---

    def row(self, symbol: str) -> sqlite3.Row:
        row: sqlite3.Row = self.conn.execute(
            "SELECT * FROM task WHERE id = ?", (blob(symbol_id(self.history, symbol)),)
        ).fetchone()
        return row

    def task(self, symbol: str) -> dict[str, Any]:
        """A stored task as the expectation names its fields."""
        row = self.row(symbol)
        view = view_of(cells_of(self.conn, row, InstanceIds(self.conn), full=True))
        times = {name: row[name] for name in ("began_at", "started_at", "ended_at")}
        return {
            "state": STATES[row["state"]],
            "verdict": word(VERDICTS, row["verdict"]),
            "loose": bool(row["loose"]),
            "settled": word(SETTLEMENTS, row["settled"]),
            "attempt": row["attempt"],
            "duration": view.duration,
            "flags": sorted(flag_words(row["flags"])),
            **{name: None if at is None else (at - self.clock) / NS for name, at in times.items()},
            "scheduled_at": None if view.scheduled_at is None else (view.scheduled_at - self.clock) / NS,
            "due_at": due_of(view, self.policy),
        }

    def said(self, symbol: str) -> list[list[str | None]]:
        """The judgements of a task."""
        return [[row.what, row.verdict] for row in judgements_of(self.conn, blob(symbol_id(self.history, symbol)))]

    def ledger(self) -> dict[str, int]:
        """The five terms as the ledger has them."""
        row = self.conn.execute(f"SELECT {', '.join(f'coalesce(sum({term}), 0)' for term in TERMS)} FROM ledger").fetchone()
        counted = dict(zip(TERMS, row, strict=True))
        return {"tasks": sum(counted.values()), **counted}
