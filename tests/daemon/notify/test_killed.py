"""A thousand notices through a daemon that is killed again and again: all arrive, and what arrives twice is the same."""

from __future__ import annotations

import asyncio
import json
import sys
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import pytest

from harness import Process, free_port
from looseends_daemon.services.dispatcher import IN_FLIGHT_MAX
from receivers import Books, Door, configuration, endpoint

NOTICES = 1_000
KILLS = 10
DISMISSED = 100


async def start(processes: Any, file: Path) -> Process:
    def work() -> Process:
        process: Process = processes.start(sys.executable, "-m", "looseends.cli", "serve", "-c", file)
        process.wait_for("looseends is running", 60)
        return process

    return await asyncio.to_thread(work)


async def test_a_thousand_notices_survive_ten_kills(processes: Any, state_dir: Path, capsys: Any) -> None:
    books, port = Books(pause_s=0.005), free_port()
    file = configuration(state_dir, port, endpoint(await books.open()))
    door = Door(state_dir, port)
    daemon = await start(processes, file)
    names = [f"job.{n}" for n in range(NOTICES)]
    posting = asyncio.create_task(asyncio.to_thread(door.fail, names))
    tasks: dict[str, str] = {}
    for kill in range(1, KILLS + 1):
        most = NOTICES * kill // (KILLS + 2)
        await books.until(lambda books, most=most: len(books.ids) >= most)
        if not tasks:
            tasks = await posting  # what was answered is on disk; a request cut off by a kill would be the client's to repeat
        await asyncio.to_thread(daemon.kill)
        daemon = await start(processes, file)
    await books.until(lambda books: len(books.ids) >= NOTICES)
    opened = len(books.ids)
    for name in names[:DISMISSED]:
        await asyncio.to_thread(door.ask, "POST", f"/api/v1/tasks/{tasks[name]}/dismiss", {"note": "known"})
    await books.until(lambda books: len(books.ids) >= NOTICES + DISMISSED)
    await asyncio.to_thread(daemon.stop)
    await books.close()

    times = Counter(ident for _, ident, _ in books.arrived)
    duplicates = sum(count - 1 for count in times.values())
    bodies = defaultdict(set)
    for _, ident, body in books.arrived:
        bodies[ident].add(body)
    with capsys.disabled():
        print(
            f"\n{NOTICES} notices, {KILLS} SIGKILLs: {opened} arrived, {duplicates} duplicates"
            f" (bound {KILLS} x {IN_FLIGHT_MAX} = {KILLS * IN_FLIGHT_MAX}); then {DISMISSED} ends, in order"
        )
    assert (opened, len(times)) == (NOTICES, NOTICES + DISMISSED)
    assert duplicates <= KILLS * IN_FLIGHT_MAX
    assert all(len(different) == 1 for different in bodies.values()), "the same id always had the same bytes"
    assert_in_order([json.loads(body) for _, _, body in books.arrived])


def assert_in_order(events: list[dict[str, Any]]) -> None:
    """What is new about an incident never lies before what came already; a repetition is the same again."""
    heard: dict[str, int] = {}
    seen: set[str] = set()
    for event in events:
        sequence = event["data"]["sequence"]
        if event["id"] not in seen:
            assert sequence > heard.get(event["subject"], 0)
            heard[event["subject"]] = sequence
            seen.add(event["id"])


@pytest.mark.parametrize("order", [(2, 1), (1, 1)])
def test_the_check_of_the_order_finds_news_that_came_too_late(order: tuple[int, int]) -> None:
    """Planted faults."""
    events = [{"id": f"msg_{n}", "subject": "inc_1", "data": {"sequence": sequence}} for n, sequence in enumerate(order)]
    with pytest.raises(AssertionError):
        assert_in_order(events)
