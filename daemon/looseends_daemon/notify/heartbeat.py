"""One ping to the dead-man's switch outside this machine. Bounded and checked like every request to the outside."""

from __future__ import annotations

from looseends_daemon.core.delivery import Outcome
from looseends_daemon.notify.reach import Caller, Reach

BEAT_S_MAX = 10.0


class Heartbeat:
    """`url` None: there is none. Close it with `close()`."""

    def __init__(self, url: str | None, reach: Reach, *, version: str) -> None:
        self._url = url
        self._headers = {"user-agent": f"looseends/{version}"}
        self._caller = Caller(reach, timeout=BEAT_S_MAX)

    async def beat(self) -> Outcome:
        """Ping once. Returns what came of it; never raises, cancellation apart."""
        if self._url is None:
            return Outcome(detail="no [heartbeat] url is configured")
        return await self._caller.request("GET", self._url, headers=self._headers)

    async def close(self) -> None:
        """Close kept connections. Safe to call twice."""
        await self._caller.close()
