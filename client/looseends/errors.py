"""What looseends raises on purpose.

    LooseEndsError
    ├── UsageError          the caller asked for something that does not exist; the message names the way out
    └── RefusedError        a daemon said no for good (bad body, wrong token)

Nothing of this ever reaches a task's own code: the client counts and logs instead (see task.py).
"""

from __future__ import annotations


class LooseEndsError(Exception):
    """Base of all errors of this project. `hint` says what to do next, where that is known."""

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


class UsageError(LooseEndsError):
    """A wrong argument, option or setting: the message names the place and the allowed values."""


class RefusedError(LooseEndsError):
    """A daemon refused what was sent, and would refuse it again."""
