"""Who lives, where no lock can be seen: by their connection, else by a lease; and whether locks are to be believed at all.

Rules:

1. A direct connection on which an instance sent heartbeats, ended by its peer with no request unanswered and not opened again
   (core/presence.py): `gone`. Otherwise nothing heard for `unreachable_after`: `unreachable`, which is what we know and no more.
2. The lease begins anew when the daemon starts and after a break: our own absence is no sign of theirs.
3. A journal's lock that is free while its instance is connected and goes on speaking lies, as locks of some shared file systems
   do. From then on connection and lease speak for this instance, and its journal is left alone until they say it is dead.
"""

from __future__ import annotations

import logging
import os
from typing import Any

from looseends.wire import NS
from looseends_daemon.core.policy import Policy
from looseends_daemon.core.presence import Presence
from looseends_daemon.core.words import clock, span
from looseends_daemon.services.vigil import Vigil
from looseends_daemon.store import facts, instances
from looseends_daemon.store.connection import Database
from looseends_daemon.store.questions import ask_async

log = logging.getLogger(__name__)

SILENT_MAX = 200
DOUBT_BEATS = 1.5
"""How many heartbeats to wait for a word of an instance whose lock is free and whose connection is open."""


class Leases:
    """`run_once(now)` ends whom we do not hear; `believed(folders)` leaves out journals whose locks lie."""

    def __init__(self, database: Database, policy: Policy, vigil: Vigil, presence: Presence) -> None:
        self._database, self.policy, self._vigil, self._presence = database, policy, vigil, presence
        self._doubted: dict[str, int] = {}
        vigil.on_break.append(presence.forget)

    async def run_once(self, now: int) -> bool:
        """Whether anybody was ended."""
        return await self._end_departed(now) | await self._end_silent(now)

    async def _end_departed(self, now: int) -> bool:
        departed = self._presence.departed(now)
        if not departed:
            return False

        def end(conn: Any) -> int:
            ended = 0
            for who, at in departed:
                if instances.is_unwatched(conn, who, at):
                    words = f"its connection ended at {clock(at)} and was not opened again: killed, crashed or cut off"
                    facts.end_instance(conn, who, state="gone", reason=words, now=now)
                    ended += 1
            return ended

        return await self._database.write(end) > 0

    async def _end_silent(self, now: int) -> bool:
        """Call unreachable who has been silent for longer than the lease, counted from when we were there to hear it."""
        before = now - int(self.policy.unreachable_after * NS)
        if self._vigil.heard_since > before:
            return False
        silent = await self._database.read(lambda conn: ask_async(conn, instances.silent(before, SILENT_MAX)))
        if not silent:
            return False
        words = f"not heard for {span(self.policy.unreachable_after)}: its process, host or network may be down"

        def end(conn: Any) -> None:
            for who in instances.still_silent(conn, [who for who, _ in silent], before):
                facts.end_instance(conn, who[0], state="unreachable", reason=f"{words}; last heard {clock(who[1])}", now=now)

        await self._database.write(end)
        return True

    # --- the honesty of locks ---

    async def believed(self, free: set[str], now: int) -> set[str]:
        """Of the folders whose lock is free, those whose processes are dead as far as their connections tell."""
        if not free:
            self._doubted.clear()
            return free
        lying = await self._database.read(lambda conn: ask_async(conn, instances.lying()))
        believed = {folder for folder in free if os.path.basename(folder) not in lying}
        here = {folder for folder in believed if self._presence.is_here(os.path.basename(folder))}
        self._doubted = {folder: self._doubted.get(folder, now) for folder in here}
        caught = [folder for folder, since in self._doubted.items() if self._speaks(folder, since)]
        if caught:
            await self._disbelieve(caught)
        patience = int(self.policy.heartbeat_every * DOUBT_BEATS * NS)
        return {f for f in believed if f not in here or (f not in caught and now - self._doubted[f] >= patience)}

    def _speaks(self, folder: str, since: int) -> bool:
        return self._presence.spoke_at(os.path.basename(folder)) > since

    async def _disbelieve(self, folders: list[str]) -> None:
        ids = [os.path.basename(folder) for folder in folders]
        await self._database.write(lambda conn: instances.disbelieve(conn, ids))
        for folder in folders:
            log.warning("the lock of the journal %s is free although its process lives: locks are not believed there", folder)
