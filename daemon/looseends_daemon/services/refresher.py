"""Sends again what stands, every minute, to a receiver that forgets (Alertmanager).

Rules: what is sent is the latest notice about each incident that this endpoint took, so it never says more than the outbox has
delivered; a refusal counts for the endpoint's health as a failed notice does, since alerts that are not refreshed expire. A
disabled endpoint is left alone. At most REFRESHED_MAX incidents, the newest.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

from looseends.wire import NS
from looseends_daemon.core.alerts import RESEND_S, RESOLVED_FOR_S
from looseends_daemon.core.delivery import Outcome
from looseends_daemon.store import endpoints
from looseends_daemon.store.connection import Database

REFRESHED_MAX = 2_000


class Refresher:
    """The loop body for one endpoint. `refresh` sends bodies and never raises; None: there was nothing to send."""

    def __init__(
        self,
        database: Database,
        endpoint: str,
        refresh: Callable[[Sequence[bytes]], Awaitable[Outcome | None]],
        clock: Callable[[], int],
    ) -> None:
        self.name = f"refresher {endpoint}"
        self._database = database
        self._endpoint = endpoint
        self._refresh = refresh
        self._clock = clock

    async def run_once(self, now: int) -> int | None:
        """Send what stands. Returns when to do it again (ns). Raises StoreError."""
        name = self._endpoint
        bodies = await self._database.write(lambda conn: _standing(conn, now, name))
        outcome = await self._refresh(bodies) if bodies else None
        if outcome is not None:
            at, said = self._clock(), outcome
            await self._database.write(
                lambda conn: endpoints.succeeded(conn, at, name) if said.delivered else endpoints.failed(conn, at, name, said)
            )
        return now + round(RESEND_S * NS)


def _standing(conn: endpoints.Connection, now: int, name: str) -> list[bytes]:
    if endpoints.state_of(conn, name) == "disabled":
        return []
    return endpoints.standing(conn, now, name, round(RESOLVED_FOR_S * NS), REFRESHED_MAX)
