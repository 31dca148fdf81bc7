"""One delivery attempt to a webhook endpoint: one signed POST of the stored bytes, and a value that says what came of it.

Rules: the body is sent as it was stored, only headers differ between attempts; every configured key signs, newest first, so that
keys can be changed with no moment at which a receiver refuses. The bounds are notify/reach.py's.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from looseends_daemon.core.delivery import Message, Outcome, sign
from looseends_daemon.core.resources import Value
from looseends_daemon.notify.reach import Caller, Reach


class Target(Value, frozen=True, kw_only=True):
    """Where one endpoint's notices go. `secrets` newest first (webhook only); `timeout` in seconds for a whole attempt."""

    name: str
    url: str
    secrets: tuple[str, ...] = ()
    timeout: float = 15.0


class Webhook:
    """A sender for one endpoint with kept connections. `clock` gives unix nanoseconds. Close it with `close()`."""

    def __init__(self, target: Target, reach: Reach, *, version: str, clock: Callable[[], int] = time.time_ns) -> None:
        self._target = target
        self._version = version
        self._clock = clock
        self._caller = Caller(reach, timeout=target.timeout, clock=clock)

    async def close(self) -> None:
        """Close kept connections. Safe to call twice."""
        await self._caller.close()

    async def post(self, message: Message) -> Outcome:
        """Send one notice once. Returns what came of it; never raises, cancellation apart."""
        return await self._caller.request("POST", self._target.url, body=message.body, headers=self._headers(message))

    def _headers(self, message: Message) -> dict[str, str]:
        timestamp = self._clock() // 1_000_000_000
        return {
            "content-type": "application/json",
            "user-agent": f"looseends/{self._version}",
            "webhook-id": message.id,
            "webhook-timestamp": str(timestamp),
            "webhook-signature": sign(self._target.secrets, message.id, timestamp, message.body),
            "looseends-attempt": str(message.attempt),
            "looseends-endpoint": self._target.name,
        }
