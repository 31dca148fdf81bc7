"""A database with the real store on it, driven second by second."""

from __future__ import annotations

import sqlite3
from typing import Any
from uuid import UUID, uuid5

from looseends.wire import check_batch
from looseends_daemon.core.judgements import LooseChange
from looseends_daemon.core.policy import AfterRule, Policy
from looseends_daemon.core.resources import FLAGS, VERDICTS, Actor
from looseends_daemon.core.stats import TERMS
from looseends_daemon.store.cells import InstanceIds
from looseends_daemon.store.codes import blob, word
from looseends_daemon.store.expectations import Expecting
from looseends_daemon.store.facts import Applied, apply_batch
from looseends_daemon.store.judgements import Times, judge_due, judgements_of, next_check
from looseends_daemon.store.schema import migrate

S = 1_000_000_000
T0 = 1_795_183_200 * S
HERE = Actor(name="web", role="ingest", channel="uds:0", uid=0)


def uid(name: str) -> str:
    return str(uuid5(UUID(int=0), name))


class Ground:
    """Times are seconds after T0."""

    def __init__(self, *after: AfterRule, **policy: Any) -> None:
        self.conn = sqlite3.connect(":memory:", isolation_level=None)
        self.conn.row_factory = sqlite3.Row
        migrate(self.conn)
        self.policy = Policy(after=after, **policy)
        self.changes: list[LooseChange] = []

    def tell(self, now: float, *events: dict[str, Any], who: str | None = "web-1", actor: Actor = HERE) -> Applied:
        """Post these events; `at` of each is `now` unless it says when."""
        made = [{**event, "task": uid(event["task"]), "at": T0 + int(event.get("at", now) * S)} for event in events]
        for event in made:
            if "parent" in event:
                event["parent"] = uid(event["parent"])
        body: dict[str, Any] = {"events": made}
        if who is not None:
            body["instance"] = {"id": who, "service": "shop-web"}
        batch = check_batch(body, T0 + int(now * S))
        assert not batch.rejected, batch.rejected
        return apply_batch(self.conn, batch, actor=actor, now=T0 + int(now * S), policy=self.policy)

    def state(self, name: str, at: float, **body: Any) -> None:
        """A rule expects something."""
        told = {"environment": "production", "service": "cron", "name": "backup", "within": 60.0, **body}
        Expecting(self.conn, InstanceIds(self.conn), self.policy, T0 + int(at * S)).state(uid(name), told, T0 + int(at * S))

    def judge(self, now: float, *, heard_since: float = -1000, ready: float = -1000, alive: bool = True) -> None:
        """The detector runs. `alive`: every instance has just been heard."""
        if alive:
            self.conn.execute("UPDATE instance SET last_heard_at = ?1, said_at = ?1 WHERE state = 'alive'", (T0 + int(now * S),))
        times = Times(now=T0 + int(now * S), heard_since=T0 + int(heard_since * S), ready_at=T0 + int(ready * S))
        more = True
        while more:
            judged = judge_due(self.conn, times, self.policy)
            self.changes += judged.changes
            more = judged.more

    def next(self) -> float | None:
        """When the detector wants to run next."""
        at = next_check(self.conn)
        return None if at is None else (at - T0) / S

    def verdict(self, name: str) -> str | None:
        """The verdict that stands over a task or expectation."""
        row = self.conn.execute("SELECT verdict FROM task WHERE id = ?", (blob(uid(name)),)).fetchone()
        return None if row is None else word(VERDICTS, row["verdict"])

    def said(self, name: str) -> list[str]:
        return [f"{row.what} {row.verdict}" for row in judgements_of(self.conn, blob(uid(name)))]

    def why(self, name: str) -> str:
        return judgements_of(self.conn, blob(uid(name)))[-1].reason

    def flags(self, name: str) -> set[str]:
        bits = self.conn.execute("SELECT flags FROM task WHERE id = ?", (blob(uid(name)),)).fetchone()["flags"]
        return {flag for n, flag in enumerate(FLAGS) if bits >> n & 1}

    def ledger(self) -> dict[str, int]:
        """The terms that are not zero."""
        row = self.conn.execute(f"SELECT {', '.join(f'sum({term}) AS {term}' for term in TERMS)} FROM ledger").fetchone()
        return {term: row[term] for term in TERMS if row[term]}


def expected(task: str, name: str = "mail.send_receipt", within: float = 60, **fields: Any) -> dict[str, Any]:
    return {"type": "expected", "task": task, "name": name, "within": within, **fields}


def started(task: str, name: str = "mail.send_receipt", **fields: Any) -> dict[str, Any]:
    return {"type": "started", "task": task, "name": name, **fields}


def finished(task: str, **fields: Any) -> dict[str, Any]:
    return {"type": "finished", "task": task, **fields}
