"""asyncio: every task that the service's own code creates, from `create_task` to its end, whatever loop it runs in.

Rules:

1. `create_task` of the loop's class is wrapped, not the loop's task factory: loops that run already, loops made later and
   uvloop are covered alike, and a factory of the service's own is called as ever, with every keyword it was given.
2. Nothing of ours stands around a coroutine: names, stacks, tracebacks and what `get_coro()` gives are the service's. A call put
   into the loop right before the task's first step notes the start, a done callback the end. An eager task's start comes first.
3. `scheduled` is on disk before the task exists. A task is held until it ends, by its loop, so that both can be collected
   together; what is collected unfinished says so.
4. A failure is told together with whether anybody retrieved it (handled.py). `declared` is False: somebody found this work.
5. One piece of work is one task: a coroutine that is audited by itself is started by its own wrapper, and a hook inside a hook
   (a task in hand whose call is still to come) is silent.
6. Whatever goes wrong here is counted; the task is created all the same.
"""

from __future__ import annotations

import asyncio
import functools
import gc
import sys
import time
import weakref
from collections.abc import Callable, Iterable, Iterator
from types import FrameType
from typing import Any

from looseends import handled, record, trouble
from looseends.context import CURRENT, Task
from looseends.integrations import unawaited
from looseends.integrations.callers import caller_of, note_request
from looseends.integrations.coroutines import Call, read
from looseends.integrations.owncode import OWN, caller_package
from looseends.journal import Journal
from looseends.lifecycle import PROCESS
from looseends.plain import dumps
from looseends.slots import CANCELLED

HELD = "_looseends_held"
"""The attribute of a loop that holds its captured tasks, by asyncio's task."""
CHAIN_MAX = 50
_OPEN = ("scheduled", "running")


def install() -> None:
    """Wrap every loop class there is and every one that comes later. A second time is said and changes nothing."""
    OWN.add(caller_package(2))
    if _hooked:
        trouble.say("install('asyncio') was called before in this process; nothing changed")
        return
    _hook(asyncio.BaseEventLoop, _WRAPPED)
    for kind in _subclasses(asyncio.AbstractEventLoop):
        _hook_foreign(kind)
    asyncio.AbstractEventLoop.__init_subclass__ = classmethod(_later)  # type: ignore[assignment, arg-type]
    unawaited.install()


# --- loop classes -------------------------------------------------------------------------------------------------

_hooked: list[type] = []


def _later(cls: type, **kwargs: Any) -> None:
    super(asyncio.AbstractEventLoop, cls).__init_subclass__(**kwargs)  # type: ignore[misc]
    try:
        _hook_foreign(cls)
    except Exception as error:  # noqa: BLE001 - a class of somebody else is being made
        trouble.note("a kind of event loop could not be wrapped", error)


def _subclasses(kind: type) -> Iterator[type]:
    found: type
    for found in kind.__subclasses__():
        yield found
        yield from _subclasses(found)


_WRAPPED = ("create_task", "call_exception_handler", "close")


def _hook_foreign(kind: type) -> None:
    """Wrap a loop class that inherits from none wrapped so far and can create tasks (uvloop's, and whatever else there is), and
    what a class below a wrapped one does in its own way."""
    if kind in _hooked:
        return
    if issubclass(kind, tuple(_hooked)):
        _hook(kind, [name for name in _WRAPPED if name in vars(kind)])
    elif kind.create_task is not asyncio.AbstractEventLoop.create_task:  # type: ignore[attr-defined]
        _hook(kind, _WRAPPED)


def _hook(kind: type, names: Iterable[str]) -> None:
    makers = {"create_task": _creating, "call_exception_handler": _complaining, "close": _closing}
    try:
        for name in names:
            original = getattr(kind, name)
            setattr(kind, name, functools.wraps(original)(makers[name](original)))
    except TypeError as error:  # a class written in C
        trouble.note("a kind of event loop cannot be wrapped; its tasks are not recorded", error)
    _hooked.append(kind)


def _creating(original: Callable[..., Any]) -> Callable[..., Any]:
    def create_task(self: Any, coro: Any, *args: Any, **kwargs: Any) -> Any:
        try:
            work = _begin(self, coro, kwargs)
        except Exception as error:  # noqa: BLE001 - rule 6
            trouble.note("a hook failed: asyncio.create_task", error)
            work = None
        if work is None:
            _passing.add(id(coro))
            try:
                return _without_us(original(self, coro, *args, **kwargs))
            finally:
                _passing.discard(id(coro))
        token = CURRENT.set(work.task)
        try:
            if _begins_at_once(self, kwargs):
                work.begun()
            future = original(self, coro, *args, **kwargs)
        except BaseException as error:
            work.refused(error)
            raise
        finally:
            CURRENT.reset(token)
        work.hold(self, future)
        return _without_us(future)

    return create_task


_EAGER = getattr(getattr(asyncio, "eager_task_factory", None), "__code__", None)
"""What every factory of `create_eager_task_factory` runs (Python 3.12 on)."""


def _begins_at_once(loop: Any, kwargs: dict[str, Any]) -> bool:
    """Whether the task's first step is taken before `create_task` gives it back: its start is to be on disk by then."""
    eager = kwargs.get("eager_start")
    if eager is None and _EAGER is not None:
        eager = getattr(loop.get_task_factory(), "__code__", None) is _EAGER
    return bool(eager) and loop.is_running()


_passing: set[int] = set()
"""Coroutines on their way to be a task that is none of ours: `super().create_task` in a class of the service's own asks again."""


def _without_us(future: Any) -> Any:
    """In asyncio's debug mode a task tells where it was created: take the line of ours out again."""
    steps = getattr(future, "_source_traceback", None)
    if steps and steps[-1].filename == __file__:
        del steps[-1]
    return future


def _complaining(original: Callable[..., Any]) -> Callable[..., Any]:
    def call_exception_handler(self: Any, context: Any) -> Any:
        try:
            if "never retrieved" in context.get("message", ""):
                handled.unretrieved(context.get("future") or context.get("task"))
        except Exception as error:  # noqa: BLE001 - rule 6
            trouble.note("a hook failed: asyncio.call_exception_handler", error)
        return original(self, context)

    return call_exception_handler


def _closing(original: Callable[..., Any]) -> Callable[..., Any]:
    def close(self: Any) -> Any:
        result = original(self)
        try:
            for work in list(_held(self).values()):
                work.left()
            _held(self).clear()
            handled.loop_closed(self)
        except Exception as error:  # noqa: BLE001 - rule 6
            trouble.note("a hook failed: asyncio.close", error)
        return result

    return close


_loops: weakref.WeakSet[Any] = weakref.WeakSet()


def _held(loop: Any) -> dict[Any, Work]:
    found: dict[Any, Work] | None = getattr(loop, HELD, None)
    if found is None:
        found = {}
        setattr(loop, HELD, found)
        _loops.add(loop)
    return found


def loops() -> list[Any]:
    """Every loop that holds captured tasks, or did."""
    return _copied(_loops)


def frames() -> list[tuple[Task, FrameType]]:
    """Every captured task that has not ended, with the frame of its coroutine: where it hangs. From any thread."""
    found = []
    for work in [work for loop in _copied(_loops) for work in _copied(_held(loop).values())]:
        future = work.future
        frame = getattr(future.get_coro(), "cr_frame", None) if future is not None else None
        if isinstance(frame, FrameType):
            found.append((work.task, frame))
    return found


def _copied(changing: Iterable[Any]) -> list[Any]:
    """A copy of what other threads change; a few tries, since each may meet a change."""
    for _ in range(50):
        try:
            return list(changing)
        except RuntimeError:
            continue
    return []


# --- one task -----------------------------------------------------------------------------------------------------


class Work:
    """A captured task between its creation and its end. `inner`: the coroutine is audited, and tells its start and end itself."""

    __slots__ = ("__weakref__", "creator", "future", "inner", "number", "spec", "task")

    def __init__(self, task: Task, call: Call, number: int, creator: Any) -> None:
        self.task, self.spec, self.inner, self.number = task, call.spec, call.inner, number
        self.creator = weakref.ref(creator) if creator is not None else None
        self.future: Any = None

    def begun(self) -> None:
        """The loop is about to take the task's first step. One cancelled before it never begins."""
        future = self.future
        if self.task.state == "scheduled" and self.inner is None and not (future is not None and future._must_cancel):
            record.start(self.task)

    def hold(self, loop: Any, future: Any) -> None:
        """asyncio has made its task. Never raises."""
        try:
            self.future = future
            if future.done():  # an eager task that never had to wait: its coroutine is gone, and its id free for another
                unawaited.forget(self.number, self.task)
            future.add_done_callback(self.ended)
            _held(loop)[future] = self
        except Exception as error:  # noqa: BLE001 - rule 6
            trouble.note("a task could not be followed to its end", error)

    def refused(self, error: BaseException) -> None:
        """asyncio made no task, and told the caller why."""
        unawaited.forget(self.number, self.task)
        record.end(self.task, error)

    def ended(self, future: Any) -> None:
        """The task is done: the first of its done callbacks. Never raises."""
        try:
            _held(future.get_loop()).pop(future, None)
            unawaited.forget(self.number, self.task)
            self.future = None
            if self.task.state in _OPEN:
                self._end(future)
        except Exception as error:  # noqa: BLE001 - rule 6
            trouble.note("a hook failed: the end of an asyncio task", error)

    def _end(self, future: Any) -> None:
        if future.cancelled():
            _cancelled(self, future)
            return
        if self.task.state == "scheduled":  # an eager task that never had to wait
            record.start(self.task)
        error = future._exception
        if error is None or self.inner is not None:
            record.end(self.task, error)
        elif not future._log_traceback:
            handled.retrieved(self.task, error)
        else:
            handled.failed(self.task, self.spec, future, error)

    def left(self) -> None:
        """Its loop is closed, and it has not ended."""
        if self.task.state == "running":  # else the coroutine itself is about to say that it was never awaited
            unawaited.forget(self.number, self.task)
        if self.task.state in _OPEN:
            record.drop(self.task, "loop_shutdown")

    def __del__(self) -> None:
        """Collected with its loop, or after it: what has not ended by now never will."""
        task = self.task
        if task.state not in _OPEN or PROCESS.journal is None or sys.is_finalizing():
            return
        try:
            if task.state == "running":  # as in `left`
                unawaited.forget(self.number, self.task)
            if task.segment is not None and not task.segment.map.closed:
                record.drop(task, "collected")
        except Exception as error:  # noqa: BLE001 - a finaliser
            trouble.note("a hook failed: a task that was collected", error)


def _begin(loop: Any, coroutine: Any, kwargs: dict[str, Any]) -> Work | None:
    """The record of a coroutine that becomes a task; None: it is no work of the service, or told by another hook."""
    if loop.is_closed() or id(coroutine) in unawaited.MINE or id(coroutine) in _passing:
        return None
    current = CURRENT.get()
    if current is not None and current.awaits is not None:
        return None
    caller = caller_of(loop, sys._getframe(2))
    if caller is None:
        return None
    call = read(coroutine)
    if call is None or not (call.own or OWN.has(caller.f_code.co_filename)):
        note_request(coroutine, kwargs)
        return None
    if call.inner is not None and kwargs.get("context") is not None:
        return None  # `spawn`, or a context of the caller's own: we cannot hand the record in, and its wrapper makes one
    task = record.begin(call.spec, call.text, call.problem, scheduled=True)
    task.awaits = call.inner
    if call.thread is not None:
        task.__dict__["thread"] = call.thread
    work = Work(task, call, id(coroutine), asyncio.current_task(loop) if loop.is_running() else None)
    unawaited.MINE[id(coroutine)] = task
    loop.call_soon(work.begun)
    return work


# --- why it was cancelled -----------------------------------------------------------------------------------------


def _cancelled(work: Work, future: Any) -> None:
    task = work.task
    if record.loop_is_ending():
        record.drop(task, "loop_shutdown")
    elif task.segment is not None:
        reason = "timeout" if _ran_out(work, future) else "requested"
        Journal.end(task.segment, task.at, time.monotonic_ns(), CANCELLED, dumps({"reason": reason}).encode())
        task.state = "ended"
        if PROCESS.idle:
            PROCESS.wake()


def _ran_out(work: Work, future: Any) -> bool:
    """Whether who created this task waits for it in `wait_for`, and its time is over."""
    creator = work.creator() if work.creator is not None else None
    body = creator.get_coro() if creator is not None else None
    for _ in range(CHAIN_MAX):
        frame = getattr(body, "cr_frame", None)
        if frame is None:
            return False
        if frame.f_code is asyncio.wait_for.__code__:
            values = frame.f_locals
            if values.get("fut") is not future:
                return False
            timer = values.get("timeout_handle")
            if timer is not None:
                return bool(timer.when() <= future.get_loop().time())
            return any(timeout.expired() for timeout in _timeouts(body))
        body = getattr(body, "cr_await", None)
    return False


def _timeouts(body: Any) -> Iterator[asyncio.Timeout]:
    """The `asyncio.timeout` blocks that a waiting coroutine is in: what `async with` has yet to leave lies on its stack. From
    Python 3.12 on `wait_for` is made of one."""
    for held in gc.get_referents(body):
        found = getattr(held, "__self__", held)
        if isinstance(found, asyncio.Timeout):
            yield found
