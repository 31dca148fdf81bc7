"""Whether anybody asked a concurrent Future for its exception: the other half of handled.py, which knows asyncio's futures.

Rules:

1. The failure is on disk at once and told when this is known: handled, when `result()` or `exception()` gave it to somebody;
   not handled, when its Future was collected before that, at the goodbye, or after UNSURE_S.
2. asyncio asks for every exception of `run_in_executor` and `to_thread` only to hand it on: from then on it is the asyncio
   future that is followed, by its loop. A loop says of a future that nobody asked it; we listen there too.
"""

from __future__ import annotations

import functools
import os
import sys
import time
import weakref
from collections.abc import Callable
from types import FrameType
from typing import Any

from looseends import handled, record, trouble
from looseends.context import Task
from looseends.integrations.calls import quiet
from looseends.journal import Journal
from looseends.plain import dumps
from looseends.slots import UNSURE
from looseends.spec import Spec

ATTRIBUTE = "_looseends"
HANDS_ON = "_copy_future_state"
"""asyncio's function that takes an exception out of a concurrent Future and puts it into one of its own, `dest`."""
_ASYNCIO = os.path.dirname(os.path.abspath(os.__file__)) + "/asyncio/"


class Unasked(handled.Failure):
    """One exception that lies in a concurrent Future."""

    __slots__ = ()

    def __init__(self, task: Task, spec: Spec, future: Any, detail: bytes) -> None:
        self.task, self.spec, self.detail = task, spec, detail
        self.ended = time.monotonic_ns() & ~7
        self.key = id(future)
        self.died_at = 0.0
        self.loop = weakref.ref(Unasked)  # no loop: none that closes settles this one
        self.future = weakref.ref(future, self._died)
        self.kept = None
        self.told = False

    def _died(self, _: Any) -> None:
        if handled._failures.get(self.key) is self:
            handled._decide(self.key, False)

    def is_retrieved(self, final: bool) -> bool | None:
        """Whether the exception was asked for: then it would not stand here any more."""
        return False if final or self.future() is None else None


def failed(task: Task, spec: Spec, future: Any, error: BaseException) -> None:
    """The exception of a captured call is about to be put into its Future. Called before anybody can ask for it."""
    if task.segment is None or task.state not in ("scheduled", "running"):
        return
    task.state = "ended"
    detail = dumps({"error": record.describe(error, task.hidden), "handled": False}).encode()
    failure = Unasked(task, spec, future, detail)
    Journal.end(task.segment, task.at, failure.ended, UNSURE, detail)
    handled.follow(failure)
    handled._keep(failure)  # nobody looks at it from time to time: what is to be said again must be known now


def listen() -> None:
    """Be asked before this process says goodbye. Safe to repeat."""
    handled._listen()


def asking(original: Callable[..., Any]) -> Callable[..., Any]:
    """`Future.exception`, that notes who was given one."""

    def exception(self: Any, timeout: float | None = None) -> Any:
        found = original(self, timeout)
        if found is not None and ATTRIBUTE in vars(self):
            _asked(self, sys._getframe(1))
        return found

    return exception


def resulting(original: Callable[..., Any]) -> Callable[..., Any]:
    """`Future.result`, that notes who was given an exception by it."""

    def result(self: Any, timeout: float | None = None) -> Any:
        try:
            return original(self, timeout)
        finally:
            if ATTRIBUTE in vars(self) and self.done() and self._exception is not None:
                _asked(self, None)
            self = None  # as the original does: the exception holds this frame, and must not hold its Future by it

    return result


@quiet
def _asked(future: Any, asker: FrameType | None) -> None:
    failure = handled._failures.get(id(future))
    if not isinstance(failure, Unasked) or failure.future() is not future:
        return
    dest = _handed_on(asker)
    if dest is None:
        handled._decide(failure.key, True)
        return
    handled._failures.pop(failure.key, None)
    _hear(type(dest.get_loop()))
    later = handled.Failure(failure.task, failure.spec, dest, failure.detail)
    later.ended, later.kept, later.told = failure.ended, failure.kept, failure.told
    handled.follow(later)


def _handed_on(asker: FrameType | None) -> Any:
    """The asyncio future that gets this exception; None: somebody else asked."""
    if asker is None or asker.f_code.co_name != HANDS_ON or not asker.f_code.co_filename.startswith(_ASYNCIO):
        return None
    found = asker.f_locals.get("dest")
    return found if hasattr(found, "_log_traceback") and hasattr(found, "get_loop") else None


_heard: set[type] = set()


def _hear(kind: type) -> None:
    """Hear what loops of this kind say of futures that nobody asked, once; the asyncio hook may do the same."""
    if kind in _heard:
        return
    _heard.add(kind)
    original = kind.call_exception_handler  # type: ignore[attr-defined]

    @functools.wraps(original)
    def call_exception_handler(self: Any, context: Any) -> Any:
        try:
            if "never retrieved" in context.get("message", ""):
                handled.unretrieved(context.get("future") or context.get("task"))
        except Exception as error:  # noqa: BLE001 - the loop is saying something to the service
            trouble.note("a hook failed: asyncio.call_exception_handler", error)
        return original(self, context)

    try:
        kind.call_exception_handler = call_exception_handler  # type: ignore[attr-defined]
    except TypeError as error:  # a class written in C
        trouble.note("a kind of event loop cannot be heard; failures in its threads may count as handled", error)
