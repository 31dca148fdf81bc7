"""A database with a recorded past: instances that live or not, functions they offer, tasks that were lost."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from daemon.replay.behind_doors import Served, serving
from looseends import wire
from looseends.wire import NS, check_batch
from looseends_daemon.core.policy import Policy
from looseends_daemon.core.resources import Actor
from looseends_daemon.services.replayer import ReplayCommands, Replayer
from looseends_daemon.store import facts, instances
from looseends_daemon.store.connection import Database

START = 1_780_000_000 * NS
OPERATOR = Actor(name="ada", role="operator", channel="session")
SERVICE = Actor(name="uid 1000", role="ingest", channel="uds:1000", uid=1000)


class World:
    """A daemon's store and a clock that the test moves. `now` in ns."""

    def __init__(self, database: Database) -> None:
        self.database, self.now = database, START
        self.commands = ReplayCommands(database, lambda: self.now)
        self.replayer = Replayer(database)
        self.operator, self.service = OPERATOR, SERVICE
        self._numbers = itertools.count(1)

    def later(self, seconds: float) -> int:
        """Move the clock."""
        self.now += int(seconds * NS)
        return self.now

    async def tell(
        self, instance: dict[str, Any] | None, *events: dict[str, Any], actor: Actor = SERVICE, proven: bool = True
    ) -> Any:
        """One batch of an instance, folded for real."""
        batch = check_batch({"instance": instance, "events": list(events)}, self.now)
        assert not batch.rejected, batch.rejected
        return await self.database.write(
            lambda conn: facts.apply_batch(conn, batch, actor=actor, now=self.now, policy=Policy(), proven=proven)
        )

    async def instance(
        self, *functions: dict[str, Any], service: str = "shop", proven: bool = True, **more: Any
    ) -> dict[str, Any]:
        """A live instance that offers these functions."""
        number = next(self._numbers)
        told = {"id": wire.uuid8(number.to_bytes(16, "big")), "service": service, "host": f"web-{number}", "pid": number, **more}
        await self.tell(told, proven=proven)
        await self.offer(told, *functions)
        return told

    async def offer(self, instance: dict[str, Any], *functions: dict[str, Any]) -> None:
        """What this instance registers from now on."""
        empty = {"signature": None, "code": None, "replay": "yes", "caution": None, "via": None}

        def work(conn: Any) -> None:
            row = conn.execute("SELECT no FROM instance WHERE id = ?", (instance["id"],)).fetchone()
            instances.put_functions(conn, row["no"], [{**empty, **function} for function in functions])

        await self.database.write(work)

    async def started(self, instance: dict[str, Any] | None, name: str = "mail.send", **fields: Any) -> str:
        """A task that began; its id."""
        task = wire.uuid8(next(self._numbers).to_bytes(16, "big"))
        event = {"type": "started", "task": task, "name": name, "at": self.now, "args": {"order_id": 7}, **fields}
        await self.tell(instance, event)
        return task

    async def ended(self, instance: dict[str, Any] | None, task: str, kind: str = "finished", **fields: Any) -> None:
        """An end for a task."""
        await self.tell(instance, {"type": kind, "task": task, "at": self.now, **fields})

    async def adopted(self, instance: dict[str, Any], task: str) -> None:
        """The journal of a dead instance says that this task of it had ended well."""
        batch = check_batch({"instance": instance, "events": [{"type": "finished", "task": task, "at": self.now}]}, self.now)
        await self.database.write(
            lambda conn: facts.apply_batch(conn, batch, actor=SERVICE, now=self.now, policy=Policy(), proven=True, heard=False)
        )

    async def gone(self, instance: dict[str, Any], state: str = "gone") -> None:
        """The process of this instance is no more."""
        await self.database.write(
            lambda conn: facts.end_instance(conn, instance["id"], state=state, reason="killed", now=self.now)
        )

    async def lost(self, *functions: dict[str, Any], **fields: Any) -> str:
        """A task whose process was killed, after it had registered these functions."""
        dead = await self.instance(*functions)
        task = await self.started(dead, **fields)
        await self.gone(dead)
        return task

    async def rows(self, sql: str, *params: Any) -> list[Any]:
        """A look at the tables."""
        return await self.database.write(lambda conn: conn.execute(sql, params).fetchall())


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    database = await Database.open(str(tmp_path / "looseends.db"))
    yield World(database)
    await database.close()


@pytest.fixture
async def served(world: World, state_dir: Path) -> AsyncIterator[Served]:
    async with serving(world, str(state_dir)) as house:
        yield house
