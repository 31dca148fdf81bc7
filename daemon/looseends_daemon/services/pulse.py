"""Tells a dead-man's switch outside this machine that the daemon lives, and stops telling when any of its loops stops.

Rules:

1. Silence is the alarm. A ping goes out only when nothing keeps this daemon from its work: every loop has run through lately and
   the storage can be written. So it stops with a hung detector as it does with a dead machine.
2. A ping that fails is not repeated before the next is due; it is logged once a minute and stands in the readiness notes.
3. The address is a secret (who has it can keep the switch quiet) and is never logged.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Sequence

from looseends_daemon.core.delivery import Outcome
from looseends_daemon.services.shell import LOG_EVERY_S, NS

log = logging.getLogger("looseends")


class Pulse:
    """The loop body. `beat` makes one ping and never raises; `every` in seconds; `troubled` says in words what does not work."""

    def __init__(self, beat: Callable[[], Awaitable[Outcome]], every: float, troubled: Callable[[], Sequence[str]]) -> None:
        self._beat = beat
        self._every = every
        self._troubled = troubled
        self._logged_at: int | None = None
        self.notes: list[str] = []

    async def run_once(self, now: int) -> int | None:
        """Ping, or keep silent. Returns when the next ping is due (ns)."""
        wrong = list(self._troubled())
        if wrong:
            self._say(now, f"heartbeat withheld: {wrong[0]}")
        else:
            outcome = await self._beat()
            if outcome.delivered:
                self.notes, self._logged_at = [], None
            else:
                self._say(now, f"the heartbeat did not arrive: {outcome.words}")
        return now + round(self._every * NS)

    def _say(self, now: int, words: str) -> None:
        self.notes = [words]
        if self._logged_at is None or now - self._logged_at >= LOG_EVERY_S * NS:
            self._logged_at = now
            log.warning("%s", words)
