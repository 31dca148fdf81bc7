"""No page and no question of the API reads a table that grows from end to end: every statement they ask is explained."""

from __future__ import annotations

import asyncio
import re
import sqlite3
import time
import uuid
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

import aiohttp
import pytest

from looseends.wire import NS, format_time
from looseends_daemon import config
from looseends_daemon.app import Daemon, running
from looseends_daemon.store.connection import READERS

GROWING = (
    *("task", "payload", "child", "external", "judgement", "ledger", "duration", "replay_order", "replay_plan_item", "notice"),
    *("delivery_attempt", "outgoing", "seen", "seen_mark", "expectation", "incident_why"),
)
SMALL_INDEXES = (
    *("task_loose", "task_check", "task_open", "task_loop", "task_failed", "task_unsure"),
    *("replay_order_watched", "outgoing_next"),
)
"""Indexes over what is open, loose or waits: read whole, they are as large as the trouble is, not as the file is."""
SWEEP = "SELECT no FROM instance WHERE state = 'gone' AND ended_at <"
"""The janitor asks this on the same connections, once a minute at most: it is no page."""
NEWEST = "INDEX task_newest"
PAGES = (
    *("/", "/tasks", "/types", "/incidents", "/replays", "/instances", "/silences", "/endpoints", "/status", "/audit", "/setup"),
    *("/?{week}", "/types?window=7d", "/types/shop/mail.send?window=7d", "/tasks/{task}", "/instances/i-1", "/tasks?{week}"),
    *(
        "/api/v1/ledger?{week}&bucket=1h",
        "/api/v1/ledger?{week}&bucket=1h&service=shop",
        "/api/v1/ledger?{hour}&bucket=1m&service=shop",
    ),
    *("/api/v1/types?{week}", "/api/v1/tasks/{task}", "/api/v1/tasks/{task}/history", "/api/v1/storage", "/api/v1/blind-windows"),
    *("/api/v1/incidents", "/api/v1/notices", "/api/v1/replays", "/api/v1/instances", "/api/v1/audit", "/metrics"),
)
QUERIES = (
    *("is:loose", "is:gap", "is:open", "state:failed", "verdict:stuck", "name:mail.*", "service:shop", "-state:succeeded"),
    *(
        "key:k-1",
        "key:k*",
        "id:{task}",
        "parent:{task}",
        "instance:i-1",
        "host:h",
        "release:r",
        "took:>5s",
        "attempt:>1",
        "older:1h",
    ),
    *("source:cron", "queue:mail", "tag.tier:gold", "error:Boom", "args.n:7", "word", "is:overlap", "is:ran_twice", "is:orphan"),
)


@dataclass
class Watched:
    """A running daemon whose readers tell every statement they run."""

    daemon: Daemon
    client: aiohttp.ClientSession
    base: str
    statements: set[str] = field(default_factory=set)

    async def get(self, path: str) -> None:
        async with self.client.get(self.base + path) as answer:
            assert answer.status == 200, (path, await answer.text())

    async def plans(self) -> dict[str, list[str]]:
        """The plan of each statement that was run, lines of the explanation."""

        def explain(conn: sqlite3.Connection) -> dict[str, list[str]]:
            told = (one for one in self.statements if not one.startswith(SWEEP))
            asked = sorted(one for one in told if one.lstrip().upper().startswith(("SELECT", "WITH")))
            return {one: [row[3] for row in conn.execute(f"EXPLAIN QUERY PLAN {one}")] for one in asked}

        return await self.daemon.database.write(explain)


@pytest.fixture
async def watched(tmp_path: Path, state_dir: Path) -> AsyncIterator[Watched]:
    path = str(tmp_path / "x.db")
    settings = config.with_flags(config.load(None, {"HOME": str(state_dir)}), listen=("127.0.0.1:0",), path=path)
    async with running(settings) as daemon:
        token = (await asyncio.to_thread(Path(f"{path}.token").read_text)).strip()
        base = daemon.listener.addresses[0] if daemon.listener else ""
        async with aiohttp.ClientSession(headers={"Authorization": f"Bearer {token}"}) as client:
            found = Watched(daemon, client, base)
            readers = [await daemon.database._readers.get() for _ in range(READERS)]
            for reader in readers:
                await reader.set_trace_callback(found.statements.add)
                daemon.database._readers.put_nowait(reader)
            yield found


async def fill(watched: Watched) -> str:
    """A few tasks of every kind; the id of one."""
    about = {"id": "i-1", "service": "shop", "host": "h", "release": "r", "pid": 1}
    now, task = time.time_ns(), str(uuid.uuid4())
    events: list[dict[str, Any]] = [
        {"type": "started", "task": task, "name": "mail.send", "at": format_time(now - 60 * NS), "key": "k-1", "args": {"n": 7}},
        {"type": "failed", "task": task, "at": format_time(now - 50 * NS), "error": {"type": "Boom", "message": "m"}},
        {
            "type": "started",
            "task": str(uuid.uuid4()),
            "name": "mail.read",
            "at": format_time(now - 3 * 86_400 * NS),
            "parent": task,
        },
    ]
    body = {"instance": about, "events": events}
    async with aiohttp.ClientSession() as service, service.post(f"{watched.base}/api/v1/events", json=body) as answer:
        assert (await answer.json())["rejected"] == []
    return task


def asked_for(task: str) -> list[str]:
    now = time.time_ns()
    week = f"from={format_time(now - 7 * 86_400 * NS)}&to={format_time(now)}"
    hour = f"from={format_time(now - 3_600 * NS)}&to={format_time(now)}"
    pages = [page.format(week=week, hour=hour, task=task) for page in PAGES]
    return pages + [f"/tasks?q={quote(query.format(task=task))}" for query in QUERIES]


def tables_of(statement: str) -> dict[str, str]:
    """What each name that a plan may use stands for."""
    found = re.findall(
        r"(?:FROM|JOIN)\s+(\w+)(?:\s+AS)?(?:\s+(?!WHERE|JOIN|ON|GROUP|ORDER|LIMIT|LEFT|INDEXED|UNION)(\w+))?", statement
    )
    return {alias or table: table for table, alias in found}


def too_wide(statement: str, plan: list[str]) -> list[str]:
    """The lines of a plan that read a growing table from end to end. `IN ()` is never true, and nothing is read for it."""
    tables, wrong = tables_of(statement), []
    for line in plan:
        scanned = re.match(r"SCAN (\w+)(.*)", line)
        if scanned is None or tables.get(scanned[1], scanned[1]) not in GROWING or " IN ()" in statement:
            continue
        if any(index in scanned[2] for index in SMALL_INDEXES):
            continue
        if NEWEST in scanned[2] and " LIMIT " in statement.upper() and "USE TEMP B-TREE" not in " ".join(plan):
            continue  # from the newest on, and no further than the limit
        wrong.append(line)
    return wrong


async def test_no_page_reads_what_grows_from_end_to_end(watched: Watched) -> None:
    task = await fill(watched)
    for path in asked_for(task):
        await watched.get(path)
    plans = await watched.plans()
    assert len(plans) > 80
    wide = {statement: lines for statement, plan in plans.items() if (lines := too_wide(statement, plan))}
    assert not wide, "\n".join(f"{lines} {statement}" for statement, lines in wide.items())


async def test_a_page_without_its_index_would_be_found(watched: Watched) -> None:
    task = await fill(watched)
    await watched.daemon.database.write(lambda conn: conn.execute("DROP INDEX task_loose"))
    await watched.get("/tasks?q=is%3Aloose")
    await watched.get(f"/tasks/{task}")
    plans = await watched.plans()
    assert any(too_wide(statement, plan) for statement, plan in plans.items())
