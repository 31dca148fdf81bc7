"""looseends: every task that was started is accounted for, and if we cannot account for it, we say so."""

from .background import shutdown, spawn
from .context import Task, current
from .errors import LooseEndsError, RefusedError, UsageError
from .expect import expect
from .lifecycle import VERSION as __version__
from .task import flush, init, install, register, task, track

__all__ = [
    "LooseEndsError",
    "RefusedError",
    "Task",
    "UsageError",
    "__version__",
    "current",
    "expect",
    "flush",
    "init",
    "install",
    "register",
    "shutdown",
    "spawn",
    "task",
    "track",
]
