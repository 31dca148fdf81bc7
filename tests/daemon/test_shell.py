"""The shell around a loop: when it runs, and that being told early does not make it run more often than it must."""

from __future__ import annotations

import asyncio

from looseends_daemon.services.shell import Loop

NS = 1_000_000_000


class Body:
    """Notes its passes; says when it is due next (ns), and lets a test go on after each pass."""

    def __init__(self, due: int | None) -> None:
        self.passes = 0
        self.due = due
        self._ran = asyncio.Event()

    async def run_once(self, now: int) -> int | None:
        self.passes += 1
        self._ran.set()
        return self.due

    async def ran(self) -> None:
        async with asyncio.timeout(10):
            await self._ran.wait()
        self._ran.clear()


async def test_news_that_is_due_later_than_the_next_pass_wakes_nobody() -> None:
    body = Body(due=None)
    loop = Loop("test", body.run_once, idle_s_max=3_000.0, wall_ns=lambda: 1_000 * NS)
    loop.start()
    await body.ran()
    for _ in range(50):
        loop.wake_by(9_000 * NS)
        await asyncio.sleep(0)
    assert body.passes == 1
    loop.wake_by(1_000 * NS)
    await body.ran()
    assert body.passes == 2
    await loop.stop()


async def test_what_is_wanted_while_a_pass_is_under_way_is_not_forgotten() -> None:
    entered, go_on, times = asyncio.Event(), asyncio.Event(), []

    async def run_once(now: int) -> int | None:
        times.append(now)
        entered.set()
        await go_on.wait()
        return None

    loop = Loop("test", run_once, idle_s_max=3_000.0, wall_ns=lambda: 1_000 * NS)
    loop.start()
    async with asyncio.timeout(10):
        await entered.wait()
        entered.clear()
        loop.wake_by(500 * NS)  # a time that has passed: this pass began before it was known
        go_on.set()
        await entered.wait()
    assert len(times) == 2
    await loop.stop()
