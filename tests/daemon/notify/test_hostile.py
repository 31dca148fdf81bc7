"""Nine receivers that misbehave beside one that does not: it is served as before, memory stays flat, each reason can be read."""

from __future__ import annotations

import asyncio
import sys
import time
from pathlib import Path
from typing import Any

from harness import free_port
from receivers import HOSTILE, Books, Door, Hostiles, configuration, endpoint, memory_mib, quantile

INCIDENTS = 60
GROWTH_MIB_MAX = 24.0


class Round:
    """A daemon with these endpoints beside a good one: delays (s) until the good one hears, and memory (MiB)."""

    def __init__(self, folder: Path, processes: Any, tables: list[str]) -> None:
        self.folder, self.processes, self.tables = folder, processes, tables
        self.port = free_port()
        self.door = Door(folder, self.port)
        self.delays: list[float] = []
        self.memory = 0.0

    async def run(self) -> None:
        books = Books()
        self.folder.mkdir()
        file = configuration(self.folder, self.port, *self.tables, endpoint(await books.open(), "good"))
        daemon = await asyncio.to_thread(self._start, file)
        try:
            for n in range(INCIDENTS):
                await self._one(books, n)
            await self._judge()
            self.memory = memory_mib(daemon.pid)
        finally:
            await asyncio.to_thread(daemon.stop)
            await books.close()

    async def _one(self, books: Books, n: int) -> None:
        began = time.monotonic()
        # A daemon may also tell the good one of others that fail: only this incident's notice counts.
        await asyncio.to_thread(self.door.fail, [f"job.{n}"])
        await books.until(lambda books: any(f'"name":"job.{n}"'.encode() in body for _, _, body in books.arrived))
        self.delays.append(time.monotonic() - began)

    def _start(self, file: Path) -> Any:
        process = self.processes.start(sys.executable, "-m", "looseends.cli", "serve", "-c", file)
        process.wait_for("looseends is running", 60)
        return process

    async def _judge(self) -> None:
        """Wait until every hostile one was found out, and hold its reason against what it did."""
        names = [name for name in HOSTILE if self.tables]
        async with asyncio.timeout(60):
            while True:
                shown = await asyncio.to_thread(self.door.endpoints)
                if all(shown[name]["failures"] for name in names) and not shown["good"]["backlog"]:
                    break
                await asyncio.sleep(0.05)
        for name in names:
            assert HOSTILE[name][2] in shown[name]["detail"], (name, shown[name]["detail"])
        assert shown["good"]["state"] == "ok"


async def test_hostile_receivers_hurt_themselves_only(processes: Any, state_dir: Path, capsys: Any) -> None:
    hostiles = Hostiles()
    await hostiles.open()
    alone, beside = Round(state_dir / "a", processes, []), Round(state_dir / "b", processes, hostiles.tables)
    try:
        await alone.run()
        await beside.run()
    finally:
        await hostiles.close()
    with capsys.disabled():
        print()
        for name, one in (("alone", alone), (f"beside {len(HOSTILE)} hostile", beside)):
            print(
                f"good endpoint {name}: p50 {quantile(one.delays, 0.5) * 1000:.0f} ms,"
                f" p99 {quantile(one.delays, 0.99) * 1000:.0f} ms; daemon {one.memory:.0f} MiB"
            )
    assert len(beside.delays) == INCIDENTS
    assert beside.memory - alone.memory < GROWTH_MIB_MAX
