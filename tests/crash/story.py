"""A fixed course of events for a database: the same steps, at the same times, whenever it is told; and what it is after each.

Rules:

1. A step is one change that is answered once: a batch, a judge pass, a removal by age. Two kinds change nothing that is stored:
   `copy` copies the log into the file beside the writer, `stop` has the writer copy and cut it.
2. Every step may be taken again: a client sends again what was not answered.
3. Every system call that changes the disk is made by one of two threads, each for itself in a fixed order: the writer, and the
   desk (opening, `copy`, closing). Nothing is done because time passed.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import re
import sqlite3
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

from crash.load import Plan
from looseends.wire import NS, check_batch
from looseends_daemon.core.incidents import AlertRules
from looseends_daemon.core.policy import Policy
from looseends_daemon.core.resources import Actor
from looseends_daemon.core.retention import DAY_NS, Rules
from looseends_daemon.services.detector import Detector
from looseends_daemon.store import checkpoints, facts, retention
from looseends_daemon.store.connection import Database

NOW = 1_795_183_200 * NS
ACTOR = Actor(name="uid 1000", role="ingest", channel="uds:1000", uid=1000)
RULES = Rules(finished=DAY_NS, failed=90 * DAY_NS, size_bytes_max=10 << 30)
ROUND = ("batch", "batch", "judge", "batch", "copy", "batch", "removal", "batch", "stop", "batch")
NEVER_S = 3_600.0
WITH_WALL_TIMES = ("migration",)
RANDOM_ID = re.compile(r"\b(inc|msg)_[0-9a-f]{28}\b")
_BOUND = checkpoints.WAL_BYTES_MAX


class Step(NamedTuple):
    """What happens as number `no` (from 1); `batch`: how many batches came before."""

    no: int
    kind: str
    batch: int


def story(rounds: int) -> list[Step]:
    """The steps of so many rounds."""
    kinds = ROUND * rounds
    return [Step(no, kind, kinds[: no - 1].count("batch")) for no, kind in enumerate(kinds, 1)]


def plan() -> Plan:
    """Its tasks all began three days before it is told, so that those that ended are old enough to be removed."""
    return Plan(7, 0, NOW - 3 * DAY_NS)


def prepare() -> ThreadPoolExecutor:
    """Make this process fit for it, inside its running loop: the desk is the one thread for what would block the loop."""
    checkpoints.EVERY_S = NEVER_S
    desk = ThreadPoolExecutor(1, "desk")
    asyncio.get_running_loop().set_default_executor(desk)
    return desk


async def take(database: Database, step: Step) -> None:
    """Take one step; returns when it is answered. Raises StoreError where it is refused."""
    now = NOW + step.no * NS
    if step.kind == "batch":
        await database.write(lambda conn: _fold(conn, step.batch, now), grows=True)
    elif step.kind == "judge":
        await Detector(database, Policy(), AlertRules, started_at=now - DAY_NS).run_once(now)
    elif step.kind == "removal":
        oldest = [task.id for task in plan().block(max(0, step.batch - 4))]
        await database.write(lambda conn: retention.remove(conn, oldest, RULES, now))
    elif step.kind == "copy":
        await asyncio.get_running_loop().run_in_executor(None, _copy, database)
    else:
        await database.write(lambda conn: _set_bound(0))
        await database.write(lambda conn: _set_bound(_BOUND))  # waits its turn behind the stop


def _fold(conn: sqlite3.Connection, number: int, now: int) -> None:
    batch = check_batch(json.loads(plan().body(number)), now)
    applied = facts.apply_batch(conn, batch, actor=ACTOR, now=now, policy=Policy(), proven=True)
    assert not batch.rejected and not applied.rejected, (batch.rejected, applied.rejected)


def _copy(database: Database) -> None:
    """What the checkpointer's thread does, when we want it."""
    with database.checkpoints._busy:
        database.checkpoints._copy(0)


def _set_bound(size: int) -> None:
    checkpoints.WAL_BYTES_MAX = size


# --- what the database is -----------------------------------------------------------------------------------------


class State(NamedTuple):
    """A database as it was found: a digest of every row, what is damaged, and where the ledger differs from its tasks.

    `alarm`: what the store itself said is missing.
    """

    rows: str
    damage: tuple[str, ...]
    miscounted: tuple[str, ...]
    alarm: str | None = None


def state_of(conn: sqlite3.Connection) -> State:
    """Look at everything. Raises sqlite3.DatabaseError where not even that is possible."""
    damage = tuple(row[0] for row in conn.execute("PRAGMA integrity_check") if row[0] != "ok")
    return State(_digest(conn), damage, tuple(retention.recount(conn)))


def _digest(conn: sqlite3.Connection) -> str:
    digest = hashlib.sha256()
    tables = [row[0] for row in conn.execute("SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name")]
    for table in tables:
        if table not in WITH_WALL_TIMES:
            rows = sorted(RANDOM_ID.sub(r"\1", repr(tuple(row))) for row in conn.execute(f"SELECT * FROM {table}"))
            digest.update("\n".join([table, *rows, ""]).encode())
    return digest.hexdigest()


async def states(path: str, rounds: int) -> list[State]:
    """What the database is before the first step and after each, told to nobody's harm. Index: steps taken."""
    prepare()
    database = await Database.open(path)
    found = [await database.write(state_of)]
    for step in story(rounds):
        await take(database, step)
        found.append(await database.write(state_of))
    await database.close()
    return found


async def reopened(path: str) -> State:
    """What the real daemon's store finds when it opens this file. Raises StoreError, sqlite3.Error: it cannot."""
    prepare()
    database = await Database.open(path)
    try:
        return (await database.write(state_of))._replace(alarm=database.missing)
    finally:
        await database.close()
