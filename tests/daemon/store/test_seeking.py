"""Finding tasks by walking back: the same tasks as one statement over all would find, and no page that hides where it stopped."""

from __future__ import annotations

import random
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from looseends.wire import NS, check_batch, format_time, uuid8
from looseends_daemon.core.policy import Policy
from looseends_daemon.core.query import parse
from looseends_daemon.core.resources import Actor
from looseends_daemon.store import facts, reads, seeking
from looseends_daemon.store import front as front_store
from looseends_daemon.store.connection import Database
from looseends_daemon.store.front import StoreFront
from looseends_daemon.store.query_sql import where
from looseends_daemon.store.reads import StoreReader

START = 1_795_000_000 * NS
NOW = START + 20 * 3600 * NS
CALLER = Actor(name="loopback", role="ingest", channel="loopback")
QUERIES = (
    *("", "is:loose", "is:gap", "is:open", "state:failed", "state:succeeded,cancelled", "-state:succeeded", "verdict:stuck"),
    *("name:mail.send", "name:mail.*", "name:nobody", "service:shop name:report", "environment:production", "-name:mail.send"),
    *("key:k-7", "key:k-1*", "instance:i-shop", "host:host-shop", "host:elsewhere", "state:failed instance:i-shop,i-bank"),
    *(
        "took:>1s",
        "attempt:>1",
        "older:10h",
        "source:cron",
        "error:Boom",
        "args.n:7",
        "mail",
        "is:open state:failed",
        "name:report is:open",
    ),
)


async def tell(database: Database, service: str, events: list[dict[str, Any]]) -> None:
    about = {"id": f"i-{service}", "service": service, "environment": "production", "host": f"host-{service}", "pid": 1}
    batch = check_batch({"instance": about, "events": events}, NOW)
    assert not batch.rejected
    await database.write(lambda conn: facts.apply_batch(conn, batch, actor=CALLER, now=NOW, policy=Policy()))


async def fill(database: Database) -> None:
    """300 tasks of three services over 15 hours, some minutes crowded, some hours empty; a few with a verdict or loose."""
    chance = random.Random(11)
    for service in ("shop", "bank", "post"):
        events = []
        for n in range(100):
            hour = chance.choice((0, 1, 1, 4, 9, 14))
            at = START + hour * 3600 * NS + chance.choice((5, 5, 5, chance.randrange(3600))) * NS + chance.randrange(NS)
            name = chance.choice(("mail.send", "mail.send", "mail.read", "report"))
            task = uuid8(f"{service[:2]}{n:014}".encode())
            more = {"source": "cron"} if n % 9 == 0 else {}
            events.append({"type": "started", "task": task, "name": name, "at": at, "key": f"k-{n}", "args": {"n": n}, **more})
            kind = chance.choice(("finished", "finished", "finished", "failed", "cancelled", None))
            if kind is not None:
                error = {"error": {"type": "Boom", "message": "m"}} if kind == "failed" else {}
                events.append({"type": kind, "task": task, "at": at + chance.randrange(2 * NS), **error})
        await tell(database, service, events)
    await database.write(judge)


def judge(conn: sqlite3.Connection) -> None:
    """Some open tasks get a verdict, as the detector would write it: the row, the ledger and its sums."""
    rows = conn.execute(
        "SELECT id, began_at / 60000000000 AS minute, environment, type FROM task WHERE state < 3 LIMIT 12"
    ).fetchall()
    for row in rows:
        conn.execute("UPDATE task SET verdict = 3, loose = 1 WHERE id = ?", (row["id"],))
        for table, key in (("ledger", row["minute"]), ("ledger_all", row["minute"]), ("ledger_hour", row["minute"] // 60)):
            at = "hour" if table == "ledger_hour" else "minute"
            only = "" if table == "ledger_all" else f" AND type = {row['type']}"
            conn.execute(
                f"UPDATE {table} SET in_time = in_time - 1, gap = gap + 1, loose = loose + 1 WHERE {at} = ?{only}", (key,)
            )


def straight(conn: sqlite3.Connection, q: str, from_: int | None, to: int | None) -> list[bytes]:
    """What one statement over the whole table finds."""
    sql, params = where(parse(q), now=NOW, to=to)
    window = " AND task.began_at >= ? AND task.began_at < ?"
    rows = conn.execute(
        f"SELECT id FROM task WHERE {sql}{window} ORDER BY began_at DESC, id DESC", [*params, from_ or 0, to or 1 << 62]
    )
    return [bytes(row["id"]) for row in rows]


async def walked(reader: StoreReader, q: str, from_: int | None, to: int | None, limit: int) -> tuple[list[bytes], int]:
    """What following the cursor finds, and how many pages stopped before they were full."""
    found, stopped, cursor = [], 0, None
    while True:
        page = await reader.tasks(q, from_=from_, to=to, limit=limit, cursor=cursor)
        found += [bytes.fromhex(task.id.replace("-", "")) for task in page.items]
        if page.next_cursor is None:
            return found, stopped
        if len(page.items) < limit:
            stopped += 1
            assert page.searched is not None and "the next page goes on" in page.searched
        cursor = page.next_cursor


@pytest.fixture
async def database(tmp_path: Path) -> Any:
    database = await Database.open(str(tmp_path / "d.db"))
    await fill(database)
    yield database
    await database.close()


@pytest.mark.parametrize("seconds", [60.0, -1.0, 0.0])
async def test_a_walk_finds_what_one_statement_over_everything_finds(
    database: Database, monkeypatch: pytest.MonkeyPatch, seconds: float
) -> None:
    monkeypatch.setattr(reads, "SEEK_S_MAX", seconds)
    monkeypatch.setattr(seeking, "STEP_TASKS", 17)
    reader = StoreReader(database, wall_ns=lambda: NOW)
    windows = [(None, None), (START + 3600 * NS, START + 9 * 3600 * NS + 7 * NS), (START + 9 * 3600 * NS + 1, None)]
    stops = 0
    for q in QUERIES:
        for from_, to in windows:
            wanted = await database.write(lambda conn, q=q, a=from_, b=to: straight(conn, q, a, b))
            found, stopped = await walked(reader, q, from_, to, limit=7)
            assert found == wanted, (q, from_, to)
            stops += stopped
    assert (stops > 0) == (seconds <= 0)


async def test_a_walk_that_skipped_a_minute_would_be_noticed(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    reader = StoreReader(database, wall_ns=lambda: NOW)
    wanted = await database.write(lambda conn: straight(conn, "name:mail.send", None, None))
    assert (await walked(reader, "name:mail.send", None, None, 7))[0] == wanted
    whole = seeking._runs
    monkeypatch.setattr(seeking, "_runs", lambda minutes: whole(minutes)[1:])
    assert (await walked(reader, "name:mail.send", None, None, 7))[0] != wanted


async def test_a_page_that_stopped_says_from_when_on_it_looked(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    reader = StoreReader(database, wall_ns=lambda: NOW)
    whole = await reader.tasks("took:>1h", limit=5)
    assert (whole.items, whole.next_cursor, whole.searched) == ([], None, None)
    monkeypatch.setattr(reads, "SEEK_S_MAX", 0.0)
    monkeypatch.setattr(seeking, "STEP_TASKS", 17)
    began = await database.write(
        lambda conn: [row[0] for row in conn.execute("SELECT began_at FROM task ORDER BY 1 DESC LIMIT 18")]
    )
    ticks = iter([0.0, -1.0])
    monkeypatch.setattr(seeking.time, "monotonic", lambda: next(ticks, 1.0))
    page = await reader.tasks("took:>1h", limit=5)
    assert page.items == [] and page.next_cursor is not None
    assert page.searched == f"so far only what began at {format_time(began[17])} or later was looked at; the next page goes on"


async def test_counts_beside_a_list_say_more_than_where_they_stopped(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(front_store, "SEEN_S_MAX", 60.0)
    front = StoreFront(database, wall_ns=lambda: NOW)
    found = await front.found("name:mail.*")
    wanted = await database.write(lambda conn: straight(conn, "name:mail.*", None, None))
    assert found is not None and not found.more and found.matching == len(wanted)
    names = {choice.value: choice.count for facet in found.facets if facet.word == "name" for choice in facet.choices}
    assert sum(names.values()) == len(wanted) and set(names) == {"mail.send", "mail.read"}
    monkeypatch.setattr(seeking, "STEP_TASKS", 17)
    monkeypatch.setattr(seeking.Walk, "_late", lambda walk: len(walk.rows) > 20)
    some = await front.found("took:>0s")
    assert some is not None and some.more and 20 < some.matching < 200
