"""Everything that people do to tasks, as pages and routes reach it: replays, decisions about orders, dismissals.

Rules: an act returns after its commit; then whoever waits for its effect is woken.
"""

from __future__ import annotations

from collections.abc import Callable

from looseends_daemon.core.incidents import AlertRules
from looseends_daemon.core.resources import Actor, Task
from looseends_daemon.services.replayer import ReplayCommands
from looseends_daemon.store import dismissals
from looseends_daemon.store.connection import Database


class Acts(ReplayCommands):
    """resources.Commands on a database. `rules` gives the alert rules in force; the rest as for ReplayCommands."""

    def __init__(
        self,
        database: Database,
        now: Callable[[], int],
        wake: Callable[[], None],
        rules: Callable[[], AlertRules],
        base_url: str = "",
    ) -> None:
        super().__init__(database, now, wake, base_url)
        self._rules = rules

    async def dismiss_task(self, task_id: str, actor: Actor, *, note: str) -> Task:
        """Settle an open loose end as dismissed. Raises CommandRefused (404, 409 with the reason, 422)."""
        at, rules = self._now(), self._rules()
        task = await self._database.write(
            lambda conn: dismissals.dismiss(conn, task_id, actor, at, note=note, rules=rules, base_url=self._base)
        )
        self._wake()
        return task
