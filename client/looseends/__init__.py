"""looseends: every task that was started is accounted for, and if we cannot account for it, we say so."""

from .background import shutdown, spawn
from .context import Task, current
from .errors import LooseEndsError, RefusedError, UsageError
from .expect import expect, expects
from .lifecycle import VERSION as __version__
from .logs import logging_filter
from .task import flush, init, install, register, task, track

__all__ = [
    "LooseEndsError",
    "RefusedError",
    "Task",
    "UsageError",
    "__version__",
    "current",
    "expect",
    "expects",
    "flush",
    "init",
    "install",
    "logging_filter",
    "register",
    "shutdown",
    "spawn",
    "task",
    "track",
]
