"""What the pages of instances count: from the tasks, not from what a process last said of itself."""

from __future__ import annotations

from typing import Any

import pytest

from looseends_daemon.core.policy import Policy
from looseends_daemon.store.judgements import Times, judge_due
from looseends_daemon.store.reads import StoreReader


@pytest.fixture
def reader(world: Any) -> StoreReader:
    return StoreReader(world.database, wall_ns=lambda: world.now)


async def counted(reader: StoreReader, instance: dict[str, Any]) -> int:
    """The number on both pages."""
    one = await reader.instance(instance["id"])
    listed = next(item for item in (await reader.instances()).items if item.id == instance["id"])
    assert one is not None and one.open == listed.open
    return one.open


async def test_open_tasks_are_counted_from_the_tasks_and_not_from_the_last_heartbeat(world: Any, reader: StoreReader) -> None:
    alive, idle = await world.instance(), await world.instance()
    await world.database.write(lambda conn: conn.execute("UPDATE instance SET open = 9"))
    first = await world.started(alive)
    await world.started(alive)
    assert (await counted(reader, alive), await counted(reader, idle)) == (2, 0)
    await world.ended(alive, first)
    assert await counted(reader, alive) == 1


async def test_what_died_with_its_process_is_not_open_in_it(world: Any, reader: StoreReader) -> None:
    dead = await world.instance()
    await world.started(dead)
    await world.gone(dead)
    times = Times(now=world.later(60), heard_since=0, ready_at=0)
    await world.database.write(lambda conn: judge_due(conn, times, Policy()))
    assert await counted(reader, dead) == 0
