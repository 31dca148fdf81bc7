"""A real database with a clock of its own, filled by real events and judged by the real detector."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from looseends import wire
from looseends.wire import NS, check_batch
from looseends_daemon.core.incidents import AlertRules
from looseends_daemon.core.policy import Policy
from looseends_daemon.core.resources import Actor
from looseends_daemon.core.retention import DAY_NS, Rules
from looseends_daemon.services.detector import Detector
from looseends_daemon.services.janitor import Janitor
from looseends_daemon.services.replayer import ReplayCommands
from looseends_daemon.store import facts, retention
from looseends_daemon.store.codes import blob
from looseends_daemon.store.connection import Database

START = 1_795_183_200 * NS
SERVICE = Actor(name="uid 1000", role="ingest", channel="uds:1000", uid=1000)
OPERATOR = Actor(name="ada", role="operator", channel="session")
RULES = Rules(finished=7 * DAY_NS, failed=90 * DAY_NS, size_bytes_max=10 << 30)


class Yard:
    """A store with a past. `now` in ns; `audit()` is called after every janitor step: the ledger must add up at each."""

    def __init__(self, database: Database) -> None:
        self.database, self.now, self.rules = database, START, RULES
        self.policy = Policy()
        self.janitor = Janitor(database, lambda: self.rules)
        self.commands = ReplayCommands(database, lambda: self.now)
        self._numbers = itertools.count(1)

    def later(self, days: float) -> int:
        """Move the clock on."""
        self.now += int(days * DAY_NS)
        return self.now

    def new_id(self) -> str:
        """A task or instance id, ordered by time of making."""
        return wire.uuid8((self.now // 1_000_000).to_bytes(6, "big") + next(self._numbers).to_bytes(10, "big"))

    async def tell(self, instance: dict[str, Any] | None, *events: dict[str, Any]) -> None:
        """One batch, folded for real."""
        batch = check_batch({"instance": instance, "events": list(events)}, self.now)
        assert not batch.rejected, batch.rejected
        applied = await self.database.write(
            lambda conn: facts.apply_batch(conn, batch, actor=SERVICE, now=self.now, policy=self.policy, proven=True), grows=True
        )
        assert not applied.rejected, applied.rejected

    async def instance(self, **more: Any) -> dict[str, Any]:
        """A live instance."""
        told = {"id": self.new_id(), "service": "shop", "host": "web-1", "pid": 7, **more}
        await self.tell(told)
        return told

    async def gone(self, instance: dict[str, Any], adopted: bool = True) -> None:
        """Its process is no more."""
        await self.database.write(
            lambda conn: facts.end_instance(conn, instance["id"], state="gone", reason="killed", now=self.now, adopted=adopted)
        )

    async def started(self, instance: dict[str, Any] | None = None, **fields: Any) -> str:
        """A task that began now; its id."""
        task = self.new_id()
        body = {"name": "mail.send", "args": {"order_id": 7, "text": "x" * 50}, "at": self.now, "deadline": 60, **fields}
        await self.tell(instance, {"type": "started", "task": task, **({} if instance else {"service": "shop"}), **body})
        return task

    async def ended(self, task: str, kind: str = "finished", instance: dict[str, Any] | None = None, **fields: Any) -> str:
        """An end for a task, now."""
        more = {"error": {"type": "ValueError", "message": "no"}} if kind == "failed" else {}
        await self.tell(instance, {"type": kind, "task": task, "at": self.now, **more, **fields})
        return task

    async def done(self, kind: str = "finished", **fields: Any) -> str:
        """A task that began and ended now."""
        return await self.ended(await self.started(**fields), kind)

    async def detect(self) -> None:
        """Judge everything that is due, as a daemon that has been up for a day."""
        await Detector(self.database, self.policy, AlertRules, started_at=self.now - DAY_NS).run_once(self.now)

    async def rows(self, sql: str, *params: Any) -> list[Any]:
        """A look at the tables."""
        return await self.database.write(lambda conn: conn.execute(sql, params).fetchall())

    async def count(self, table: str) -> int:
        """How many rows a table has."""
        return int((await self.rows(f"SELECT count(*) FROM {table}"))[0][0])

    async def there(self, *tasks: str) -> list[bool]:
        """Which of these tasks are stored."""
        return [bool(await self.rows("SELECT 1 FROM task WHERE id = ?", blob(task))) for task in tasks]

    async def audit(self) -> None:
        """The ledger is the count over the tasks that are there."""
        wrong = await self.database.write(retention.recount)
        assert not wrong, wrong

    async def clean(self, steps_max: int = 2_000) -> None:
        """Let the janitor work until it has nothing left to do; the ledger is recounted after each step."""
        for _ in range(steps_max):
            due = await self.janitor.run_once(self.now)
            await self.audit()
            if due is None:
                return
        raise AssertionError(f"the janitor was not done after {steps_max} steps")

    async def sweep(self) -> None:
        """A whole sweep now, even if the last one was a moment ago."""
        self.janitor = Janitor(self.database, lambda: self.rules)
        await self.clean()


@pytest.fixture
async def make_yard(tmp_path: Path) -> AsyncIterator[Callable[..., Awaitable[Yard]]]:
    """`await make_yard(path)`: a store at a place of the test's choice, closed with the test."""
    made: list[Yard] = []

    async def make(path: Path | None = None) -> Yard:
        made.append(Yard(await Database.open(str(path or tmp_path / "looseends.db"))))
        return made[-1]

    yield make
    for yard in made:
        await yard.database.close()


@pytest.fixture
async def yard(make_yard: Callable[..., Awaitable[Yard]]) -> Yard:
    """A store in a folder of the test's own."""
    return await make_yard()
