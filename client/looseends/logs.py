"""The task id in the service's own log lines: a filter for `logging` that puts it on every record.

Rules: no record is ever held back or changed otherwise; what a record has already, it keeps; nothing is raised into a line
that somebody logs. Outside a task the texts are "-" and the attempt is 0, so that a format may name them everywhere.
`logging` itself is not imported: a filter is whatever has a method of that name.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .context import CURRENT

if TYPE_CHECKING:
    from logging import LogRecord

OUTSIDE = "-"


class TaskFilter:
    """Sets `task_id`, `task_name` and `task_attempt` (with another prefix, other names) on every record."""

    def __init__(self, prefix: str = "task_") -> None:
        self._id, self._name, self._attempt = f"{prefix}id", f"{prefix}name", f"{prefix}attempt"

    def filter(self, record: LogRecord) -> bool:
        """Always True: the record passes, with the task it was logged in."""
        task = CURRENT.get()
        said = vars(record)
        said.setdefault(self._id, OUTSIDE if task is None else task.id)
        said.setdefault(self._name, OUTSIDE if task is None else task.name)
        said.setdefault(self._attempt, 0 if task is None else task.attempt)
        return True

    __call__ = filter


def logging_filter(prefix: str = "task_") -> TaskFilter:
    """A filter for handlers of `logging` that puts the current task's id, name and attempt on every record.

    `handler.addFilter(looseends.logging_filter())`, then `%(task_id)s`, `%(task_name)s`, `%(task_attempt)s` in its format; in a
    dictConfig: `"filters": {"task": {"()": "looseends.logging_filter"}}`. On a logger it would miss those below it.
    """
    return TaskFilter(prefix)
