"""threading: every Thread and Timer that the service's own code starts, from `start()` to the end of its `run`.

Rules:

1. `scheduled` is on disk before the thread exists, `started` before its first line. Nothing of ours stands in its traceback:
   the start is written around `Thread._bootstrap_inner`, a failure by what the thread calls its excepthook with.
2. A Timer has its `eta` and starts when its time has come; one that was cancelled is `cancelled`.
3. An exception that leaves a thread is a failure at once: nobody can retrieve it. `threading.excepthook` is called as ever.
4. A daemon thread that the exit ends is `dropped`, reason `exit`, as everything is that this process leaves open.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any

from looseends import record
from looseends.integrations import calls
from looseends.integrations.calls import Work, quiet
from looseends.integrations.owncode import OWN, caller_package
from looseends.integrations.queues import Hook, wall_ns

SOURCE = "threading"
ATTRIBUTE = "_looseends"
_RUN = threading.Thread.run


def install() -> None:
    """Patch `Thread` and `Timer`, once. A second time is said and changes nothing."""
    OWN.add(caller_package(2))
    hooks: list[Hook] = [
        (threading.Thread, "_bootstrap_inner", _bootstrapping),
        (threading.Thread, "start", _starting),
        (threading.Timer, "run", _timing),
    ]
    calls.install(SOURCE, hooks)


def _starting(original: Callable[..., None]) -> Callable[..., None]:
    def start(self: threading.Thread) -> None:
        work = _begin(self, sys._getframe(1))
        if work is None:
            original(self)
            return
        try:
            original(self)
        except BaseException as error:
            _refused(self, work, error)
            raise

    return start


@quiet
def _begin(thread: threading.Thread, frame: FrameType) -> Work | None:
    """The record of a thread that is about to be started; None: no work of the service's."""
    if not getattr(thread, "_initialized", False) or thread._started.is_set() or ATTRIBUTE in vars(thread):  # type: ignore[attr-defined]
        return None  # the caller is about to be told what is wrong
    function, args, kwargs, wait_s = _body(thread)
    call = calls.read(SOURCE, function, args, kwargs, frame) if function is not None else None
    if call is None:
        return None
    work = Work(call, {"eta": wall_ns(wait_s)} if wait_s is not None else None)
    vars(thread)[ATTRIBUTE] = work
    return work


def _body(thread: Any) -> tuple[Any, Any, Any, float | None]:
    """What a thread will run, with which arguments; for a Timer also how long it waits before."""
    own = getattr(thread.run, "__func__", None)
    if isinstance(thread, threading.Timer) and own is threading.Timer.run:
        return thread.function, thread.args, thread.kwargs, max(0.0, float(thread.interval))
    if own is _RUN:
        return thread._target, thread._args, thread._kwargs, None
    return thread.run, (), {}, None


@quiet
def _refused(thread: threading.Thread, work: Work, error: BaseException) -> None:
    """The thread could not be started, and the caller was told why."""
    vars(thread).pop(ATTRIBUTE, None)
    record.end(work.task, error)


# --- in the thread ------------------------------------------------------------------------------------------------


def _bootstrapping(original: Callable[..., None]) -> Callable[..., None]:
    def _bootstrap_inner(self: threading.Thread) -> None:
        work = vars(self).get(ATTRIBUTE)
        if not isinstance(work, Work):
            original(self)
            return
        task = work.task  # by this name stacks.py finds where it hangs
        _enter(self, work)
        original(self)
        _left(self, work)
        del task

    return _bootstrap_inner


@quiet
def _enter(thread: Any, work: Work) -> None:
    work.enter()  # this thread's context ends with it
    if getattr(thread.run, "__func__", None) is not threading.Timer.run:
        work.begun()
    report = thread._invoke_excepthook

    def _invoke_excepthook(thread: Any) -> Any:
        _failed(work, sys.exc_info()[1])
        return report(thread)

    thread._invoke_excepthook = _invoke_excepthook


@quiet
def _failed(work: Work, error: BaseException | None) -> None:
    if error is not None and work.task.state in ("scheduled", "running"):
        record.end(work.task, error)


@quiet
def _left(thread: threading.Thread, work: Work) -> None:
    vars(thread).pop(ATTRIBUTE, None)
    if work.came:
        work.over()
    else:
        work.cancelled()


def _timing(original: Callable[..., None]) -> Callable[..., None]:
    """`Timer.run` as the standard library has it, with the start written when its time has come."""

    def run(self: threading.Timer) -> None:
        work = vars(self).get(ATTRIBUTE)
        if not isinstance(work, Work):
            original(self)
            return
        self.finished.wait(self.interval)
        if not self.finished.is_set():
            _due(work)
            self.function(*self.args, **self.kwargs)
        self.finished.set()

    return run


@quiet
def _due(work: Work) -> None:
    work.begun()
