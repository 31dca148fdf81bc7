"""concurrent.futures: every call that the service's own code gives to a thread pool or a process pool, asyncio's included.

Rules:

1. `scheduled` is on disk before the call is queued; it waits its turn for as long as it takes. `started` is written where it
   begins: in the pool's thread, or in the pool's process, which is an instance of its own (children.py).
2. What a pool says to its Future is what we hear: begun, result, exception, cancelled. In a thread pool nothing of ours stands
   around the function; what a process pool runs is wrapped, since it has to be told in the other process.
3. A failure is told together with whether anybody asked the Future for it (retrieval.py).
4. A pool that breaks marks what it had not finished as `dropped`, reason `pool_broken`.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from concurrent import futures
from concurrent.futures import process as processes
from concurrent.futures import thread as threads
from types import FrameType
from typing import Any

from looseends import record
from looseends.context import CURRENT
from looseends.integrations import calls, children, retrieval
from looseends.integrations.calls import Work, quiet
from looseends.integrations.owncode import OWN, caller_package
from looseends.integrations.queues import Hook
from looseends.slots import HANDED

SOURCE = "futures"
ATTRIBUTE = retrieval.ATTRIBUTE
_waiting = threading.local()
"""The work whose Future this thread is about to make."""


class Pooled(Work):
    """A call in a pool. `sent`: what is queued in its place, where it runs in another process."""

    __slots__ = ("sent",)

    sent: children.Sent | None

    def failed(self, future: Any, error: BaseException) -> None:
        """The pool gives this exception to the Future."""
        if isinstance(error, futures.BrokenExecutor) and self.task.state == "scheduled":
            record.drop(self.task, "pool_broken")
        elif self.inner is None:
            retrieval.failed(self.task, self.spec, future, error)
        else:
            record.end(self.task, error)

    def finished(self) -> None:
        """The pool gives a result to the Future. What another process ran was told by it."""
        if self.sent is None:
            self.over()
        else:
            self.close(HANDED)


def install() -> None:
    """Patch the pools and their Future, once. A second time is said and changes nothing."""
    OWN.add(caller_package(2))
    hooks: list[Hook] = [
        (threads._WorkItem, "__init__", _making),
        (threads._WorkItem, "run", _running),
        (processes._WorkItem, "__init__", _making),
        (futures.Future, "set_running_or_notify_cancel", _beginning),
        (futures.Future, "set_result", _finishing),
        (futures.Future, "set_exception", _failing),
        (futures.Future, "cancel", _cancelling),
        (futures.Future, "exception", retrieval.asking),
        (futures.Future, "result", retrieval.resulting),
        (threads.ThreadPoolExecutor, "submit", _submitting),
        (processes.ProcessPoolExecutor, "submit", _submitting),
    ]
    if calls.install(SOURCE, hooks):
        retrieval.listen()


# --- handing over -------------------------------------------------------------------------------------------------


def _submitting(original: Callable[..., Any]) -> Callable[..., Any]:
    def submit(self: Any, fn: Any, /, *args: Any, **kwargs: Any) -> Any:
        work = _begin(self, fn, args, kwargs, sys._getframe(1))
        if work is None:
            return original(self, fn, *args, **kwargs)
        _waiting.work = work
        try:
            return original(self, work.sent or fn, *args, **kwargs)
        except BaseException as error:
            _refused(work, error)
            raise
        finally:
            _waiting.work = None

    return submit


@quiet
def _begin(pool: Any, function: Any, args: Any, kwargs: Any, frame: FrameType) -> Pooled | None:
    """The record of a call that is about to be queued; None: no work of the service's, or told by another hook."""
    if not callable(function) or getattr(_waiting, "work", None) is not None:
        return None
    call = calls.read(SOURCE, function, args, kwargs, frame, start_within="never")
    if call is None or _is_told(call.function):
        return None
    work = Pooled(call)
    work.sent = children.Sent(function, children.words(call, work)) if isinstance(pool, futures.ProcessPoolExecutor) else None
    return work


def _is_told(function: Any) -> bool:
    """Whether this is the thread of a `create_task(to_thread(function))`, which the asyncio hook tells of."""
    current = CURRENT.get()
    return current is not None and current.__dict__.pop("thread", None) == function


@quiet
def _refused(work: Pooled, error: BaseException) -> None:
    """The pool did not take it, and the caller was told why."""
    if isinstance(error, futures.BrokenExecutor):
        record.drop(work.task, "pool_broken")
    else:
        record.end(work.task, error)


def _making(original: Callable[..., None]) -> Callable[..., None]:
    def __init__(self: Any, future: Any, *args: Any, **kwargs: Any) -> None:
        original(self, future, *args, **kwargs)
        work = getattr(_waiting, "work", None)
        if work is not None:
            _waiting.work = None
            vars(future)[ATTRIBUTE] = work

    return __init__


# --- in the pool's thread -----------------------------------------------------------------------------------------


def _running(original: Callable[..., None]) -> Callable[..., None]:
    def run(self: Any, *args: Any) -> None:
        work = vars(self.future).get(ATTRIBUTE)
        leave = _enter(work) if work is not None else None
        if leave is None:
            original(self, *args)
            return
        task = work.task  # by this name stacks.py finds where it hangs
        try:
            original(self, *args)
        finally:
            _leave(leave)
            # An exception holds the frames of its way, this one among them: it must not hold its own Future by that.
            del task
            self = work = leave = None

    return run


@quiet
def _enter(work: Pooled) -> Callable[[], None]:
    return work.enter()


@quiet
def _leave(leave: Callable[[], None]) -> None:
    leave()


# --- what a pool says to its Future -------------------------------------------------------------------------------


def _beginning(original: Callable[..., bool]) -> Callable[..., bool]:
    def set_running_or_notify_cancel(self: Any) -> bool:
        begins = original(self)
        work = vars(self).get(ATTRIBUTE)
        if begins and work is not None and work.sent is None:
            _begun(work)
        return begins

    return set_running_or_notify_cancel


@quiet
def _begun(work: Pooled) -> None:
    work.begun()


def _finishing(original: Callable[..., None]) -> Callable[..., None]:
    def set_result(self: Any, result: Any) -> None:
        work = vars(self).get(ATTRIBUTE)
        if work is not None:
            _finished(work)
        original(self, result)

    return set_result


@quiet
def _finished(work: Pooled) -> None:
    work.finished()


def _failing(original: Callable[..., None]) -> Callable[..., None]:
    def set_exception(self: Any, exception: Any) -> None:
        work = vars(self).get(ATTRIBUTE)
        if work is not None and exception is not None:
            _failed(work, self, exception)
        original(self, exception)

    return set_exception


@quiet
def _failed(work: Pooled, future: Any, error: BaseException) -> None:
    work.failed(future, error)


def _cancelling(original: Callable[..., bool]) -> Callable[..., bool]:
    def cancel(self: Any) -> bool:
        done = original(self)
        work = vars(self).get(ATTRIBUTE)
        if done and work is not None:
            _cancelled(work)
        return done

    return cancel


@quiet
def _cancelled(work: Pooled) -> None:
    work.cancelled()
