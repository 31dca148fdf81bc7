"""A task that is lost on purpose, so that a person sees what happens: it begins, it has five seconds, and nobody ends it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from looseends.wire import check_batch, external_task_id
from looseends_daemon.core.policy import Policy
from looseends_daemon.core.resources import Actor
from looseends_daemon.store.access import audit
from looseends_daemon.store.connection import Database
from looseends_daemon.store.facts import apply_batch

if TYPE_CHECKING:
    import sqlite3

SERVICE, NAME, ENVIRONMENT = "looseends-demo", "demo.lost_on_purpose", "demo"
DEADLINE_S = 5


class Demo:
    """Makes such tasks. `now`: wall clock (ns); `wake`: called after each."""

    def __init__(
        self, database: Database, now: Callable[[], int], policy: Callable[[], Policy], wake: Callable[[], None]
    ) -> None:
        self._database, self._now, self._policy, self._wake = database, now, policy, wake

    async def lose_one(self, actor: Actor) -> str:
        """Begin one; its id. Raises StoreBusy, StoreError."""
        now = self._now()
        text = f"lost-on-purpose-{now}"
        told = {
            "type": "started",
            "task": text,
            "service": SERVICE,
            "environment": ENVIRONMENT,
            "name": NAME,
            "at": now,
            "deadline": DEADLINE_S,
            "args": {"asked_by": actor.name[:100]},
            "tags": {"demo": "yes"},
        }
        batch = check_batch([told], now)

        def begin(conn: sqlite3.Connection) -> None:
            apply_batch(conn, batch, actor=actor, now=now, policy=self._policy())
            audit(conn, now, actor.name, "lose_on_purpose", external_task_id(ENVIRONMENT, SERVICE, text))

        await self._database.write(begin, grows=True)
        self._wake()
        return external_task_id(ENVIRONMENT, SERVICE, text)
