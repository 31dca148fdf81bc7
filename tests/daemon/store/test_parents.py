"""`parent:` finds what a task began, by its UUID and by the text its sender calls it by, and nothing else."""

from __future__ import annotations

import time
from pathlib import Path

from looseends.wire import NS, check_batch, uuid8
from looseends_daemon.core.policy import Policy
from looseends_daemon.core.resources import Actor
from looseends_daemon.store import facts
from looseends_daemon.store.connection import Database
from looseends_daemon.store.reads import StoreReader

CALLER = Actor(name="loopback", role="ingest", channel="loopback")


async def test_children_are_found_by_their_parent(tmp_path: Path) -> None:
    database = await Database.open(str(tmp_path / "p.db"))
    now = time.time_ns()
    ids = [uuid8(bytes([n]) * 16) for n in range(1, 5)]
    base = {"type": "started", "service": "shop", "name": "n", "at": now - NS}
    told = [
        base | {"task": ids[0]},
        base | {"task": ids[1], "parent": ids[0]},
        base | {"task": ids[2], "parent": ids[0]},
        base | {"task": ids[3], "parent": ids[1]},
    ]
    batch = check_batch(told, now)
    await database.write(lambda conn: facts.apply_batch(conn, batch, actor=CALLER, now=now, policy=Policy()))
    reader = StoreReader(database)
    assert {task.id for task in (await reader.tasks(f"parent:{ids[0]}")).items} == {ids[1], ids[2]}
    assert {task.id for task in (await reader.tasks(f"-parent:{ids[0]}")).items} == {ids[0], ids[3]}
    assert (await reader.tasks(f"parent:{ids[3]}")).items == []
    assert (await reader.tasks("parent:nobody")).items == []
    await database.close()
