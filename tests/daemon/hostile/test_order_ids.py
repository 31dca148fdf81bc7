"""The id of an order settles another task, so only those it was given to may tell of it."""

from __future__ import annotations

import time
import uuid
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from looseends.wire import check_batch
from looseends_daemon.core.policy import Policy
from looseends_daemon.core.resources import Actor
from looseends_daemon.store import facts
from looseends_daemon.store.connection import Database

NOW = time.time_ns()
OURS = Actor(name="shop", role="ingest", channel="token:1", service="shop", token="1")
OTHER = Actor(name="evil", role="ingest", channel="token:2", service="evil", token="2")
LOOPBACK = Actor(name="loopback", role="ingest", channel="loopback")
ORDER = uuid.uuid4()


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    opened = await Database.open(str(tmp_path / "x.db"))
    await tell(opened, OURS, "shop-1", "shop")
    yield opened
    await opened.close()


async def tell(database: Database, actor: Actor, instance: str | None, service: str, *kinds: str) -> Any:
    told = None if instance is None else {"id": instance, "service": service}
    events = [{"type": kind, "task": str(ORDER), "name": "n", "service": service, "at": NOW} for kind in kinds]
    batch = check_batch({"instance": told, "events": events}, NOW)
    return await database.write(lambda conn: facts.apply_batch(conn, batch, actor=actor, now=NOW, policy=Policy()))


async def order(database: Database, *, given: bool, queue: str | None = None) -> None:
    values = {"id": ORDER.bytes, "replay": 1, "task": b"1" * 16, "root": b"1" * 16, "depth": 1, "name": "n", "args": "{}"}
    values |= {"environment": "production", "service": "shop", "queue": queue, "created_at": NOW, "expires_at": NOW}
    values |= {"state": "claimed", "fence": 1, "claimed_at": NOW, "instance": 1} if given else {"state": "waiting"}
    names, marks = ", ".join(values), ", ".join("?" * len(values))
    await database.write(lambda conn: conn.execute(f"INSERT INTO replay_order ({names}) VALUES ({marks})", [*values.values()]))


async def test_nobody_tells_of_an_order_that_was_given_to_nobody(database: Database) -> None:
    await order(database, given=False)
    for actor, instance, service in ((OURS, "shop-1", "shop"), (LOOPBACK, None, "shop"), (OTHER, "evil-1", "evil")):
        told = await tell(database, actor, instance, service, "started", "finished")
        assert (told.accepted, len(told.rejected)) == (0, 2)


async def test_another_service_does_not_tell_of_an_order_it_was_not_given(database: Database) -> None:
    await order(database, given=True)
    assert (await tell(database, OTHER, "evil-1", "evil", "started", "finished")).accepted == 0
    assert (await tell(database, LOOPBACK, "shop-2", "shop", "started", "finished")).accepted == 0
    assert (await tell(database, OURS, "shop-1", "shop", "started")).accepted == 1
    assert (await tell(database, OTHER, "evil-1", "evil", "finished")).accepted == 0
    assert (await tell(database, LOOPBACK, None, "shop", "finished")).accepted == 0
    assert (await tell(database, OURS, "shop-1", "shop", "finished")).accepted == 1


async def test_a_worker_of_a_queue_tells_of_an_order_that_went_through_it(database: Database) -> None:
    await order(database, given=True, queue="mail")
    assert (await tell(database, OTHER, "evil-1", "evil", "started", "finished")).accepted == 2
