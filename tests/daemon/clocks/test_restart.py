"""A restart with 100,000 open tasks: an answer at once, no verdict before it may be given, then the right ones."""

from __future__ import annotations

import os
import sqlite3
import time
from pathlib import Path
from typing import Any

import pytest
from living import Living

import harness
from looseends.wire import NS, check_batch
from looseends_daemon.core.policy import Policy
from looseends_daemon.core.resources import Actor
from looseends_daemon.store import facts
from looseends_daemon.store.connection import Database

TASKS = 100_000
OVERDUE_EVERY = 10
BATCH = 1_000
INSTANCES = ("web-1", "web-2")
GRACE_S = 3.0


async def fill(path: Path, channel: str) -> None:
    """Two instances with half of the tasks each, all begun two minutes ago; every tenth had a deadline of a minute."""
    actor = Actor(name="filler", role="ingest", channel=channel, uid=os.geteuid())
    database = await Database.open(str(path))
    now = time.time_ns()
    for start in range(0, TASKS, BATCH):
        who = INSTANCES[start // BATCH % 2]
        events = [
            {
                "type": "started",
                "task": f"00000000-0000-8000-8000-{number:012}",
                "name": f"job.{number % 7}",
                "at": now - 120 * NS,
                "deadline": 60 if number % OVERDUE_EVERY == 0 else 86_400,
            }
            for number in range(start, start + BATCH)
        ]
        batch = check_batch({"instance": {"id": who, "service": "shop"}, "events": events}, now)
        await database.write(lambda conn, batch=batch: facts.apply_batch(conn, batch, actor=actor, now=now, policy=Policy()))
    await database.close()


def judged(path: Path) -> dict[str, int]:
    """How many tasks of each instance have which verdict, read beside the running daemon."""
    with sqlite3.connect(f"file:{path}?mode=ro", uri=True) as conn:
        sql = (
            "SELECT i.id || coalesce(' ' || t.verdict, ''), count(*) FROM task t JOIN instance i ON i.no = t.instance"
            " WHERE t.verdict IS NOT NULL GROUP BY 1"
        )
        found = dict(conn.execute(sql).fetchall())
    conn.close()
    return found


def slowest_post(living: Living, until: Any, timeout_s: float) -> tuple[float, int]:
    """Send a batch now and then until `until()`; the slowest answer (s) and how many there were."""
    connection, slowest, posts = living.connect(), 0.0, 0
    deadline = time.monotonic() + timeout_s
    while not until():
        assert time.monotonic() < deadline, "this takes too long"
        began = time.monotonic()
        living.ask("POST", "/api/v1/events", {"instance": {"id": "side", "service": "side"}, "events": []}, by=connection)
        slowest, posts = max(slowest, time.monotonic() - began), posts + 1
        time.sleep(0.05)
    connection.close()
    return slowest, posts


@pytest.mark.filterwarnings("ignore::ResourceWarning")
async def test_a_restart_with_100_000_open_tasks_is_no_storm(processes: harness.Processes, state_dir: Path) -> None:
    living = Living(processes, state_dir, grace=f"{GRACE_S:g}s")
    path = state_dir / "looseends.db"
    await fill(path, living.channel)
    began = time.monotonic()
    answered = living.start()
    stuck = dict.fromkeys(INSTANCES, TASKS // OVERDUE_EVERY // 2)

    slow_grace, _ = slowest_post(living, lambda: time.monotonic() - began > GRACE_S, 30)
    assert judged(path) == {}, "nothing is judged before the grace is over"
    slow_waiting, _ = slowest_post(living, lambda: time.monotonic() - began > GRACE_S + 4, 30)
    assert judged(path) == {}, "nothing is judged before its instance is heard"

    heard = time.monotonic()
    connection = living.connect()
    living.beat("web-1", by=connection)
    slow_judging, posts = slowest_post(living, lambda: judged(path).get("web-1 3", 0) == stuck["web-1"], 60)
    took = time.monotonic() - heard
    assert judged(path) == {"web-1 3": stuck["web-1"]}, "stuck, and only of the instance that was heard"

    living.beat("web-2", by=connection)
    slowest_post(living, lambda: judged(path).get("web-2 3", 0) == stuck["web-2"], 60)
    connection.close()
    incidents = living.ask("GET", "/api/v1/incidents")["items"]
    assert sum(one["counts"]["open"] for one in incidents) == TASKS // OVERDUE_EVERY and len(incidents) == 7
    print(
        f"\n{TASKS:,} open tasks, {TASKS // OVERDUE_EVERY:,} overdue: first answer {answered:.2f} s; {stuck['web-1']:,} verdicts"
        f" {took:.1f} s after their instance was heard; slowest answer meanwhile: {slow_grace * 1000:.0f} ms in grace,"
        f" {slow_waiting * 1000:.0f} ms waiting, {slow_judging * 1000:.0f} ms judging ({posts} posts)"
    )
