"""The one shell around every background loop: it alone knows sleeping, errors and stopping.

A loop is `run_once(now) -> next due (ns) or None`. The shell runs it when that time comes, when somebody calls `wake()`, and
at the latest after `idle_s_max`. An error is logged once a minute per loop and tried again with growing pauses; it never
ends the loop and never goes unsaid. Sole owner of `asyncio.create_task` in the daemon.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable

NS = 1_000_000_000
BACKOFF_S = (0.2, 1.0, 5.0, 15.0)
LOG_EVERY_S = 60.0
TURN_S = 3 * BACKOFF_S[-1]
FAR_NS = 1 << 62
log = logging.getLogger("looseends")


class Loop:
    """One supervised loop. `last_ok` is when it last ran through (monotonic s), `last_turn` when a pass last ended, well or not;

    `errors` counts its failures in a row.
    """

    def __init__(
        self,
        name: str,
        run_once: Callable[[int], Awaitable[int | None]],
        *,
        idle_s_max: float,
        wall_ns: Callable[[], int] = time.time_ns,
    ) -> None:
        self.name = name
        self._run_once = run_once
        self._idle_s_max = idle_s_max
        self._wall_ns = wall_ns
        self._woken = asyncio.Event()
        self._until, self._wanted = 0, FAR_NS
        self._task: asyncio.Task[None] | None = None
        self._stopping = False
        self._logged_at = -LOG_EVERY_S
        self.errors = 0
        self.last_ok = self.last_turn = time.monotonic()

    def start(self) -> None:
        """Begin. Once only."""
        self._task = asyncio.create_task(self._loop(), name=f"looseends-{self.name}")

    def wake(self) -> None:
        """Run as soon as possible: something changed."""
        self._woken.set()

    def wake_by(self, at: int) -> None:
        """Run at `at` (wall clock, ns) at the latest. Where it would have run by then anyway this does nothing."""
        self._wanted = min(self._wanted, at)
        if at < self._until:
            self._woken.set()

    async def stop(self) -> None:
        """Let the pass that is under way end, then stop. Idempotent."""
        self._stopping = True
        self._woken.set()
        if self._task is not None:
            await asyncio.wait([self._task], timeout=10.0)
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None

    def healthy(self) -> bool:
        """Whether it ran through lately: within three of its longest pauses, at least 15 s."""
        return time.monotonic() - self.last_ok < max(3 * self._idle_s_max, 15.0)

    def turning(self) -> bool:
        """Whether a pass ended lately, well or not: within three of its longest pauses, at least TURN_S. Else it hangs."""
        return self._task is None or time.monotonic() - self.last_turn < max(3 * self._idle_s_max, TURN_S)

    async def _loop(self) -> None:
        while not self._stopping:
            self._woken.clear()
            self._wanted = FAR_NS
            pause = await self._pass()
            self.last_turn = time.monotonic()
            # What was wanted while the pass was under way may have come too late for it.
            pause = min(pause, (self._wanted - self._wall_ns()) / NS)
            if pause > 0 and not self._stopping:
                self._until = self._wall_ns() + int(pause * NS)
                await self._sleep(pause)
                self._until = 0

    async def _sleep(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._woken.wait()
        except TimeoutError:
            return

    async def _pass(self) -> float:
        """One run; how long to sleep after it (s)."""
        try:
            due = await self._run_once(self._wall_ns())
        except Exception as error:  # noqa: BLE001 - a loop must outlive any failure; it is counted, logged and shown
            return self._failed(error)
        self.errors = 0
        self.last_ok = time.monotonic()
        if due is None:
            return self._idle_s_max
        return min(self._idle_s_max, max(0.0, (due - self._wall_ns()) / NS))

    def _failed(self, error: Exception) -> float:
        self.errors += 1
        if time.monotonic() - self._logged_at >= LOG_EVERY_S:
            self._logged_at = time.monotonic()
            log.error("%s failed (%d in a row), trying again", self.name, self.errors, exc_info=error)
        return BACKOFF_S[min(self.errors, len(BACKOFF_S)) - 1]
