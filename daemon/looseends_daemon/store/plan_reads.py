"""The read side of plans and runs: core/plans.PlanReader over the read-only connections, each method one consistent read."""

from __future__ import annotations

from collections.abc import Callable

from looseends_daemon.core.plans import Plan, PlanItem, RunItem
from looseends_daemon.core.resources import Page
from looseends_daemon.store import plans, reports
from looseends_daemon.store.connection import Database
from looseends_daemon.store.questions import ask_async


class StorePlans:
    """Implements core/plans.PlanReader. `base_url` begins links; `wall_ns` is the wall clock."""

    def __init__(self, database: Database, wall_ns: Callable[[], int], base_url: str = "") -> None:
        self._database, self._now, self._base = database, wall_ns, base_url

    async def plan(self, plan_id: str) -> Plan | None:
        """One plan; None: no such plan."""
        return await self._database.read(lambda conn: ask_async(conn, plans.plan_one(plan_id, self._now(), self._base)))

    async def plan_items(
        self, plan_id: str, *, answer: str | None = None, reason: str | None = None, limit: int = 50, cursor: str | None = None
    ) -> Page[PlanItem] | None:
        """What was said of each task, in the order they began. Raises ValueError for a made-up cursor."""
        return await self._database.read(lambda conn: ask_async(conn, plans.plan_items(plan_id, answer, reason, limit, cursor)))

    async def run_items(
        self, replay_id: str, *, state: str | None = None, limit: int = 50, cursor: str | None = None
    ) -> Page[RunItem] | None:
        """Everything that was chosen, old beside new. Raises ValueError for a made-up cursor."""
        return await self._database.read(lambda conn: ask_async(conn, reports.run_items(replay_id, state, limit, cursor)))
