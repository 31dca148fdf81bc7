"""Whose stacks somebody wants to see: asked for when a running task's page is opened, handed to its instance with a heartbeat.

Holds no clock: every method takes `now` in ns. A wish that its instance did not fetch within WISH_S is forgotten; at most
WISHES_MAX are kept, the oldest go first.
"""

from __future__ import annotations

from looseends.wire import NS
from looseends_daemon.core.resources import Task

WISH_S = 60.0
WISHES_MAX = 1_000


class Wishes:
    """Tasks whose stacks are wanted, by instance."""

    def __init__(self) -> None:
        self._wished: dict[tuple[str, str], int] = {}

    def opened(self, task: Task, now: int) -> None:
        """Somebody looks at this task: where it hangs is of interest if it runs in a live instance."""
        if task.state != "running" or task.instance is None or not task.instance.alive:
            return
        self._wished.pop((task.instance.id, task.id), None)
        self._wished[task.instance.id, task.id] = now
        while len(self._wished) > WISHES_MAX:
            del self._wished[next(iter(self._wished))]

    def fetched(self, instance: str, now: int) -> list[str]:
        """The ids of the tasks that this instance is asked about; each is told once."""
        mine = [key for key in self._wished if key[0] == instance] if self._wished else []
        at = {task: self._wished.pop((who, task)) for who, task in mine}
        return [task for task, asked in at.items() if 0 <= now - asked <= int(WISH_S * NS)]
