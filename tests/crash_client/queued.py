"""The planted fault: a client that puts what it has to tell on a queue, which a thread empties. It is what most would write."""

from __future__ import annotations

import functools
import uuid
from collections.abc import Callable
from typing import Any

from crash.in_memory import CURRENT, Task, _tell, current, init

__all__ = ["current", "init", "task"]


def task(*, name: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Tell start and end of every call of a function of worker, number and text."""

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def told(*args: Any) -> Any:
            token = CURRENT.set(Task(str(uuid.uuid4())))
            _tell("started", name=name, args=dict(zip(("worker", "number", "text"), args, strict=True)))
            try:
                value = function(*args)
            except Exception as error:
                _tell("failed", error={"type": type(error).__name__, "message": str(error)})
                raise
            else:
                _tell("finished")
                return value
            finally:
                CURRENT.reset(token)

        return told

    return decorate
