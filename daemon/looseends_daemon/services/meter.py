"""The figures of the metrics, read when somebody asks, and kept for a moment so that many scrapers cost no more than one.

Rules: reading is one read on a reading connection, rendering happens in a thread; the event loop does neither. What was made is
kept for 1 s, and ten times as long as it took to make: however large the figures are, scraping takes a tenth of one core.
"""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

from looseends_daemon.core.metrics import Family, Figures, Process, families
from looseends_daemon.store.connection import Database
from looseends_daemon.store.figures import figures
from looseends_daemon.store.questions import ask_apart

KEPT_S_MIN = 1.0
KEPT_TIMES = 10.0
SWITCH_S = 0.0005
P = TypeVar("P")


def share_interpreter() -> None:
    """Have a thread that computes give way after SWITCH_S. With Python's 5 ms, a request that meets one waits as long at each of
    the half a dozen changes of threads on its way to the disk and back."""
    sys.setswitchinterval(min(SWITCH_S, sys.getswitchinterval()))


class Meter(Generic[P]):
    """`render(families, accept, zipped)` makes a page; it is called in a thread."""

    def __init__(
        self,
        database: Database,
        render: Callable[[Sequence[Family], str, bool], P],
        names_max: int,
        version: str,
        not_ready: Callable[[], Sequence[str]],
        wall_ns: Callable[[], int],
    ) -> None:
        self._database, self._render, self._names_max = database, render, names_max
        self._version, self._not_ready, self._wall_ns = version, not_ready, wall_ns
        self._making = asyncio.Lock()
        self._pages: dict[tuple[str, bool], P] = {}
        self._until = 0.0
        self.made = 0
        """How often figures were read for a page."""

    async def page(self, accept: str, *, zipped: bool) -> P:
        """The metrics as a page in the format of `accept`: each of the few has its own. Raises StoreError."""
        async with self._making:
            if time.monotonic() >= self._until:
                self._pages.clear()
            if (accept, zipped) not in self._pages:
                began = time.monotonic()
                found = await self._read()
                process, now = self._process(), self._wall_ns()
                share_interpreter()
                page = await asyncio.to_thread(lambda: self._render(families(found, process, now), accept, zipped))
                took = time.monotonic() - began
                self._until = time.monotonic() + max(KEPT_S_MIN, KEPT_TIMES * took)
                self._pages[accept, zipped] = page
                self.made += 1
            return self._pages[accept, zipped]

    async def families(self, now: int) -> tuple[list[Family], int]:
        """The metrics themselves, and since when they are counted (ns)."""
        found = await self._read()
        process = self._process()
        return await asyncio.to_thread(lambda: families(found, process, now)), found.since

    async def _read(self) -> Figures:
        return await self._database.read(lambda conn: ask_apart(conn, figures(self._names_max)))

    def _process(self) -> Process:
        path = self._database.path
        size = sum(os.stat(name).st_size for name in (path, f"{path}-wal") if os.path.exists(name))
        ready = not self._not_ready()
        return Process(version=self._version, ready=ready, file_bytes=size, queued_bytes=self._database.queued_bytes)
