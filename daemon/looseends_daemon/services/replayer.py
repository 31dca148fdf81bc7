"""Replays: the acts of people on them, and the clock that expires orders or says that nobody knows what became of one.

Rules:

1. An act returns after its commit; then those who wait for orders are woken.
2. The clock never runs anything again. It only says what is known: nobody took it; or somebody did, and nothing was heard.
3. `run_once` reads first and writes only when something is due, so an idle daemon commits nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from looseends.wire import NS
from looseends_daemon.core.resources import Actor, Replay
from looseends_daemon.store import orders, replay_acts
from looseends_daemon.store.connection import Database
from looseends_daemon.store.questions import ask_async

WATCH_NS = NS
"""How often an order is looked at that was taken and not yet heard of."""


def _nobody() -> None:
    """There is nobody to wake."""


class ReplayCommands:
    """The acts on replays, on a database. `now`: wall clock (ns); `wake`: called after every act; `base_url` begins links."""

    def __init__(
        self, database: Database, now: Callable[[], int], wake: Callable[[], None] = _nobody, base_url: str = ""
    ) -> None:
        self._database, self._now, self._wake, self._base = database, now, wake, base_url

    async def replay_task(
        self, task_id: str, actor: Actor, *, note: str = "", args: Any = None, confirm: Sequence[str] = ()
    ) -> Replay:
        """Make one order for one recorded task. Raises CommandRefused (404, 409 with the reasons, 422)."""
        at = self._now()
        replay = await self._database.write(
            lambda conn: replay_acts.press(conn, task_id, actor, at, note=note, args=args, confirm=confirm, base_url=self._base)
        )
        self._wake()
        return replay

    async def resolve_order(self, order_id: str, actor: Actor, *, answer: str, note: str) -> Replay:
        """A person decides an `outcome_unknown`: `ran`, `did_not_run` or `run_again`. Raises CommandRefused (404, 409, 422)."""
        at = self._now()
        replay = await self._database.write(
            lambda conn: replay_acts.decide_order(conn, order_id, actor, at, answer=answer, note=note, base_url=self._base)
        )
        self._wake()
        return replay


class Replayer:
    """The clock of orders: `run_once(now)` for the supervised loop."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def run_once(self, now: int) -> int | None:
        """Expire what nobody took, give up on what nobody heard of; when to look again (ns), None: nothing is under way."""
        expiry = await self._database.read(lambda conn: ask_async(conn, orders.next_expiry()))
        taken = await self._database.read(lambda conn: ask_async(conn, orders.unmet()))
        if taken or (expiry is not None and expiry <= now):
            return await self._database.write(lambda conn: orders.look(conn, now, WATCH_NS))
        return expiry
