"""Keeps the daemon's own time honest: looks at the clocks, and writes down that it lives and when it did not.

Rules: looking (`tick`) waits for nothing, so that a slow disk is not taken for a freeze. Writing down (`keep`) may wait; what
could not be written is kept for the next time.
"""

from __future__ import annotations

from typing import Protocol

from looseends.wire import NS
from looseends_daemon.services.vigil import TICK_S, Vigil
from looseends_daemon.store import blind
from looseends_daemon.store.connection import Database


class Clocks(Protocol):
    """What it reads: both in ns; `which_boot` names the boot that `boot_ns` counts from, 0 where nothing tells."""

    def wall_ns(self) -> int: ...
    def boot_ns(self) -> int: ...
    def which_boot(self) -> int: ...


class Watch:
    """`begin` once before the doors open, `tick` and `keep` for the supervised loops, `end` as the last thing."""

    def __init__(self, database: Database, vigil: Vigil, clocks: Clocks) -> None:
        self._database, self._vigil, self._clocks = database, vigil, clocks

    async def begin(self, now: int) -> None:
        """Find out what happened while we were away."""
        boot, which_boot = self._clocks.boot_ns(), self._clocks.which_boot()

        def work(conn: blind.Connection) -> None:
            breaks = blind.resume(conn, now, boot, which_boot)
            if self._database.cut is not None:
                blind.log_was_cut(conn, self._database.cut.commits, now)
            blind.record(conn, breaks)
            blind.stay_alive(conn, now, boot, which_boot)
            self._vigil.resume(breaks, blind.jumps(conn))

        await self._database.write(work)

    async def tick(self, now: int) -> int:
        """Look at the clocks."""
        self._vigil.look(now)
        return now + int(TICK_S * NS)

    async def keep(self, now: int) -> int:
        """Write down that we live, and what breaks were noticed."""
        breaks = self._vigil.take()
        try:
            await self._write(now, self._clocks.boot_ns(), breaks)
        except BaseException:
            self._vigil.give_back(breaks)
            raise
        return now + int(blind.ALIVE_EVERY_S * NS)

    async def _write(self, now: int, boot: int, breaks: list[blind.Break]) -> None:
        which_boot = self._clocks.which_boot()

        def work(conn: blind.Connection) -> None:
            blind.record(conn, breaks)
            blind.stay_alive(conn, now, boot, which_boot)

        await self._database.write(work)

    async def end(self) -> None:
        """Write down how long we lived, to the moment."""
        await self.keep(self._clocks.wall_ns())
