"""The request that work is begun in: its name, the tasks it promised, what its endpoint says must begin.

Rules: a contextvar carries it, so it follows `await`, `create_task` and the threadpool. What it began is noted only where some
endpoint says `expects`: nobody else pays for it. A request that answered with an error promised nothing.
"""

from __future__ import annotations

import os
from typing import Any

from looseends import record, trouble
from looseends.context import REQUEST, Task
from looseends.expect import EXPECTED_OF, expect
from looseends.slots import clean

TASKS_MAX = 10_000
WITHIN_S = 1.0


class Request:
    """One request and the tasks it scheduled. `label` is what a task shows as the request it was begun in."""

    __slots__ = ("begun", "endpoint", "label", "status", "tasks")

    def __init__(self, label: str) -> None:
        self.label = label
        self.status = 0
        self.tasks: list[Task] = []
        self.begun: set[str] = set()
        self.endpoint: Any = None

    def routed(self, endpoint: Any) -> None:
        """It came to this endpoint. Of several (an app mounted in an app is one) the one counts that says what it expects."""
        if getattr(endpoint, EXPECTED_OF, None):
            self.endpoint = endpoint

    def ended(self, failed: bool) -> None:
        """The response is over: what has not begun by now never will."""
        reason = "request_failed" if failed or self.status >= 400 else "response_replaced"
        if failed and record.loop_is_ending():
            reason = "loop_shutdown"
        for task in self.tasks:
            if task.state == "scheduled":
                record.drop(task, reason)
        if reason == "response_replaced":
            self._miss()

    def _miss(self) -> None:
        """What this request's endpoint says must begin and did not: an expectation that nothing else can meet."""
        for name in getattr(self.endpoint, EXPECTED_OF, ()):
            if name not in self.begun:
                expect(name, within=WITHIN_S, key=f"{self.label} {os.urandom(4).hex()}")


def label_of(scope: Any) -> str:
    """A request as people name it: "POST /register". Takes an ASGI scope."""
    return clean(f"{scope.get('method', '')} {scope.get('path', '')}").strip() or "request"


def note(name: str) -> None:
    """A task of this name begins here: in which request, if in any. For `record.observe`."""
    request = REQUEST.get()
    if request is None:
        return
    if len(request.begun) < TASKS_MAX:
        request.begun.add(name)
    else:
        trouble.note("a request began too many kinds of tasks to remember", request.label)
