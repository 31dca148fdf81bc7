"""The sums of the ledger: by minute over all types and by hour, equal to the minutes after every commit."""

from __future__ import annotations

import random
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from looseends.wire import NS, check_batch, uuid8
from looseends_daemon.core.policy import Policy
from looseends_daemon.core.resources import Actor
from looseends_daemon.core.retention import ANY_AGE
from looseends_daemon.store import facts, ledger, retention
from looseends_daemon.store.connection import Database
from looseends_daemon.store.front import StoreFront
from looseends_daemon.store.ledger import COLUMNS
from looseends_daemon.store.reads import StoreReader
from looseends_daemon.store.task_types import StoreTypes

START = 1_795_000_000 * NS // (3600 * NS) * 3600 * NS
CALLER = Actor(name="loopback", role="ingest", channel="loopback")
SUMS = ", ".join(f"sum({column})" for column in COLUMNS)


async def tell(database: Database, *events: dict[str, Any], service: str = "shop") -> None:
    at = START + 86_400 * NS
    about = {"id": f"i-{service}", "service": service, "environment": "production", "host": "h", "pid": 1}
    batch = check_batch({"instance": about, "events": list(events)}, at)
    assert not batch.rejected
    await database.write(lambda conn: facts.apply_batch(conn, batch, actor=CALLER, now=at, policy=Policy()))


def event(kind: str, number: int, at: float, name: str = "mail.send", **more: Any) -> dict[str, Any]:
    return {"type": kind, "task": uuid8(number.to_bytes(16, "big")), "name": name, "at": START + round(at * NS), **more}


def apart(conn: sqlite3.Connection) -> list[str]:
    """Where a sum is not what its minutes add up to, asked of SQLite alone."""
    asked = {
        "ledger_all": (f"SELECT minute, environment, {SUMS} FROM ledger GROUP BY 1, 2", "minute, environment"),
        "ledger_hour": (f"SELECT minute / 60, environment, type, {SUMS} FROM ledger GROUP BY 1, 2, 3", "hour, environment, type"),
    }
    found = []
    for table, (minutes, keys) in asked.items():
        stored = f"SELECT {keys}, {', '.join(COLUMNS)} FROM {table}"
        for one, other in ((minutes, stored), (stored, minutes)):
            rows = conn.execute(f"{one} EXCEPT {other}").fetchall()
            found += [f"{table}: {tuple(row)}" for row in rows if any(row[-len(COLUMNS) :])]
    return found


async def test_the_sums_are_those_of_the_minutes_after_every_commit(tmp_path: Path) -> None:
    database = await Database.open(str(tmp_path / "d.db"))
    chance = random.Random(3)
    told = []
    for number in range(150):
        begin = chance.uniform(0, 5 * 3600)
        name = chance.choice(("mail.send", "report", "sync"))
        told.append(event("started", number, begin, name))
        told.append(event(chance.choice(("finished", "failed", "cancelled")), number, begin + chance.uniform(0, 4000), name))
        told.append(event("scheduled", number, begin - chance.uniform(0, 4000), name))  # moves the minute of begin
    chance.shuffle(told)
    for n in range(0, len(told), 25):
        await tell(database, *told[n : n + 25])
        assert await database.write(apart) == []
        assert await database.write(retention.recount) == []
    ids = await database.write(lambda conn: [row["id"] for row in conn.execute("SELECT id FROM task WHERE state != 4")])
    for n in range(0, len(ids), 20):
        part = ids[n : n + 20]
        await database.write(lambda conn, part=part: retention.remove(conn, part, ANY_AGE, START + 90 * 86_400 * NS))
        assert await database.write(apart) == []
        assert await database.write(retention.recount) == []
    await database.close()


@pytest.mark.parametrize(
    "fault",
    [
        "UPDATE ledger_hour SET succeeded = succeeded + 1",
        "DELETE FROM ledger_hour",
        "UPDATE ledger_all SET gap = gap + 1",
        "DELETE FROM ledger_all",
        "UPDATE ledger SET failed = failed + 1",
    ],
)
async def test_a_sum_that_is_off_by_one_is_found(tmp_path: Path, fault: str) -> None:
    database = await Database.open(str(tmp_path / "d.db"))
    await tell(database, event("started", 1, 10), event("finished", 1, 11))
    assert await database.write(apart) == [] and await database.write(retention.recount) == []
    await database.write(lambda conn: conn.execute(fault))
    assert await database.write(apart) != []
    assert await database.write(retention.recount) != []
    await database.close()


async def test_nothing_stays_of_what_was_swept(tmp_path: Path) -> None:
    database = await Database.open(str(tmp_path / "d.db"))
    await tell(database, event("started", 1, 10), event("finished", 1, 11))
    task = await database.write(lambda conn: conn.execute("SELECT id FROM task").fetchone()["id"])
    await database.write(lambda conn: retention.remove(conn, [task], ANY_AGE, START + 90 * 86_400 * NS))
    for table in ("ledger", "ledger_all", "ledger_hour"):
        assert await database.write(lambda conn, table=table: conn.execute(f"SELECT count(*) FROM {table}").fetchone()[0]) == 0
    await database.close()


async def test_a_window_is_the_same_by_hours_as_by_minutes_wherever_it_begins(tmp_path: Path) -> None:
    database = await Database.open(str(tmp_path / "d.db"))
    chance = random.Random(5)
    for n in range(0, 200, 20):
        begun = [event("started", n + i, chance.uniform(0, 6 * 3600), f"t{chance.randrange(4)}") for i in range(20)]
        await tell(database, *begun, service=f"s{n % 40}")
    for _ in range(60):
        first = START // (60 * NS) + chance.randrange(-30, 400)
        last = first + chance.randrange(0, 400)
        table, bounds = ledger.window(first, last)
        by_hours = await database.write(
            lambda conn, t=table, b=bounds: [
                tuple(row) for row in conn.execute(f"SELECT type, {SUMS} FROM {t} GROUP BY 1 ORDER BY 1", b)
            ]
        )
        by_minutes = await database.write(
            lambda conn, b=(first, last): [
                tuple(row)
                for row in conn.execute(
                    f"SELECT type, {SUMS} FROM ledger WHERE minute >= ? AND minute < ? GROUP BY 1 ORDER BY 1", b
                )
            ]
        )
        assert by_hours == by_minutes
    await database.close()


async def test_pages_types_and_the_ledger_agree_over_any_window(tmp_path: Path) -> None:
    database = await Database.open(str(tmp_path / "d.db"))
    chance = random.Random(9)
    for n in range(0, 300, 50):
        told = []
        for i in range(n, n + 50):
            at = chance.uniform(0, 40 * 3600)
            told += [event("started", i, at, f"t{i % 3}"), event(chance.choice(("finished", "failed")), i, at + 1, f"t{i % 3}")]
        await tell(database, *[one for one in told if one["at"] < START + 86_400 * NS])
    reader, front, types = StoreReader(database), StoreFront(database), StoreTypes(database, Policy)
    for hours in (1, 5.5, 24, 30.25):
        window = (START + 17 * 60 * NS, START + 17 * 60 * NS + round(hours * 3600) * NS)
        whole = await reader.ledger(*window)
        by_hour = await reader.ledger(*window, bucket=3600, service="shop")
        page = await types.types(*window)
        first = await front.types(*window, limit=50)
        assert whole.tasks == by_hour.tasks == sum(one.tasks for one in page.items) == sum(one.tasks for one in first) > 0
        assert whole.failed == sum(one.failed for one in page.items) == sum(one.failed for one in first)
        for one in page.items:
            assert sum(part.tasks for part in one.slices) == one.tasks
            story = await types.type_of(one.service, one.name, *window)
            assert story is not None and story.type.tasks == one.tasks and story.type.slices == one.slices
            newest = await reader.tasks(f"name:{one.name}", from_=window[0], to=window[1], limit=1)
            assert newest.items[0].began_at is not None
            assert one.last_began_at == story.type.last_began_at == newest.items[0].began_at // (60 * NS) * 60 * NS
    await database.close()
