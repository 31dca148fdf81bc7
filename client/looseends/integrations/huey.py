"""Huey: tasks as they are queued, the run of each, and what Huey's signals say became of it.

Rules:

1. `enqueue`, `execute`'s inner step and the one place where Huey emits its signals are patched on the class: that holds for
   every Huey, on every storage, made before or after.
2. Huey's message has no room for anything of ours: the words of a replay lie in Huey's own store while it runs. The parent is
   known from the producer's record, and the attempt from the retries that are left and from what this process saw of the task. A
   `RetryTask` leaves as many as before: where the next try is in another process, it is told as the same attempt again.
3. What becomes of a run is known when Huey has done with it: a failed try that was put back is a retry, any other is for good.
4. A task whose worker is killed is gone for good: Huey delivers nothing twice.
"""

from __future__ import annotations

import datetime
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any

from looseends.context import Task
from looseends.integrations import orders, queues
from looseends.integrations.queues import Kind, Running, quiet
from looseends.slots import CANCELLED
from looseends.wire import NS, is_uuid

LEAST, BELOW = (2, 5), (4,)
TRIED_MAX = 10_000
ORDER_VERSION = 8


class Run:
    """One execution of a task: what Huey said of it so far."""

    __slots__ = ("again", "error", "huey", "retry_at", "said", "task", "work")

    def __init__(self, huey: Any, work: Any, task: Running | None) -> None:
        self.huey, self.work, self.task = huey, work, task
        self.error: BaseException | None = None
        self.said: set[str] = set()
        self.again, self.retry_at = False, 0


RUN: ContextVar[Run | None] = ContextVar("looseends_huey_run", default=None)
_tried: dict[str, int] = {}
"""Attempts of tasks that this process put back, by Huey's id: the oldest is forgotten beyond TRIED_MAX."""


def install() -> None:
    """Patch Huey's class, once per process. Raises UsageError where Huey is not installed."""
    queues.install("huey", LEAST, BELOW, _hooks)


def _hooks() -> list[queues.Hook]:
    from huey.api import Huey

    return [
        (Huey, "enqueue", _enqueuing),
        (Huey, "add_schedule", _scheduling),
        (Huey, "_execute", _executing),
        (Huey, "_run_post_execute", _hearing),
        (Huey, "_emit", _emitting),
    ]


# --- what a task is -----------------------------------------------------------------------------------------------


def _kind(work: Any) -> Kind:
    """Huey keeps the function in the closure of the task's own class."""
    execute = getattr(type(work), "execute", None)
    cells = getattr(execute, "__closure__", None) or ()
    function = next((cell.cell_contents for cell in cells if callable(cell.cell_contents)), None)
    return queues.kind_of("huey", f"{type(work).__module__}.{work.name}", function)


def _id(huey: Any, work: Any) -> bytes:
    return queues.raw_id("huey", str(huey.name), work.id)


def _attempt(work: Any) -> int:
    """The try that this message is: by the retries it has used, and never one that was seen here before."""
    used = int(getattr(type(work), "default_retries", 0) or 0) - int(work.retries or 0)
    return queues.attempt_of(max(used, _tried.get(work.id, 0)) + 1)


def _eta(huey: Any, work: Any) -> int | None:
    """Huey's times have no zone: they are UTC, or local where it was told so."""
    if not isinstance(work.eta, datetime.datetime):
        return None
    zone = datetime.UTC if huey.utc else None
    return int(work.eta.replace(tzinfo=zone).timestamp() * NS)


# --- the producer -------------------------------------------------------------------------------------------------


def _enqueuing(original: Callable[..., Any]) -> Callable[..., Any]:
    def enqueue(self: Any, task: Any) -> Any:
        made = _schedule(self, task)
        try:
            result = original(self, task)
        except BaseException:
            quiet(queues.refused)(made)
            raise
        quiet(queues.handed)(made)
        return result

    return enqueue


@quiet
def _schedule(huey: Any, work: Any) -> Task | None:
    if not hasattr(work, "retries") or huey.immediate:  # a group or chord, whose members pass here one by one; or run at once
        return None
    eta = _eta(huey, work)
    _note_again(work, eta)
    carried = orders.words(_id(huey, work))
    if carried is not None:
        huey.put(_place(work), carried)
    return queues.schedule(
        _kind(work), work.args, work.kwargs, task=_id(huey, work), queue=str(huey.name), attempt=_attempt(work), eta=eta
    )


def _scheduling(original: Callable[..., Any]) -> Callable[..., Any]:
    """A try that comes later is put on the schedule, past the queue; so is a task whose time has not come, which is no news."""

    def add_schedule(self: Any, task: Any) -> Any:
        made = _put_off(self, task)
        try:
            result = original(self, task)
        except BaseException:
            quiet(queues.refused)(made)
            raise
        quiet(queues.handed)(made)
        return result

    return add_schedule


@quiet
def _put_off(huey: Any, work: Any) -> Task | None:
    run = RUN.get()
    return _schedule(huey, work) if run is not None and run.work is work else None


def _note_again(work: Any, eta: int | None) -> None:
    run = RUN.get()
    if run is None or run.work is not work or run.task is None:
        return
    run.again, run.retry_at = True, eta or queues.wall_ns()
    _tried.pop(work.id, None)
    _tried[work.id] = run.task.attempt
    if len(_tried) > TRIED_MAX:
        _tried.pop(next(iter(_tried)), None)


# --- the worker ---------------------------------------------------------------------------------------------------


def _executing(original: Callable[..., Any]) -> Callable[..., Any]:
    def _execute(self: Any, task: Any, timestamp: Any) -> Any:
        run = _start(self, task)
        token = RUN.set(run)
        hold = run.task if run is not None else None  # under this name it is found when somebody asks where the task is
        try:
            return original(self, task, timestamp)
        except BaseException as error:
            quiet(queues.fail)(hold, error)
            raise
        finally:
            RUN.reset(token)
            if run is not None:
                quiet(_ended)(run)

    return _execute


@quiet
def _start(huey: Any, work: Any) -> Run:
    limit = getattr(work, "timeout", None)
    running = queues.start(
        _kind(work),
        work.args,
        work.kwargs,
        task=_id(huey, work),
        queue=str(huey.name),
        attempt=_attempt(work),
        limit_s=limit if isinstance(limit, int | float) else None,
    )
    _tell(huey, work, running)
    return Run(huey, work, running)


@quiet
def _tell(huey: Any, work: Any, running: Running) -> None:
    """Order ids are UUIDs of version 8, which Huey's own are not: nobody else's task costs a look into the store."""
    if running.raw_id[6] >> 4 == ORDER_VERSION and is_uuid(str(work.id)):
        orders.tell(running, huey.get(_place(work), peek=True))


def _place(work: Any) -> str:
    return f"{orders.FIELD}:{work.id}"


@quiet
def _forget(run: Run) -> None:
    if run.task is not None and run.task.is_replay:
        run.huey.get(_place(run.work))


def _hearing(original: Callable[..., Any]) -> Callable[..., Any]:
    """The one place that is told of every exception, Huey's own among them."""

    def _run_post_execute(self: Any, task: Any, task_value: Any, exception: Any) -> Any:
        run = RUN.get()
        if run is not None and run.work is task and isinstance(exception, BaseException):
            run.error = exception
        return original(self, task, task_value, exception)

    return _run_post_execute


def _emitting(original: Callable[..., Any]) -> Callable[..., Any]:
    def _emit(self: Any, signal: str, task: Any, *args: Any, **kwargs: Any) -> Any:
        _told(self, signal, task)
        return original(self, signal, task, *args, **kwargs)

    return _emit


@quiet
def _told(huey: Any, signal: str, work: Any) -> None:
    run = RUN.get()
    if run is not None and run.work is work:
        run.said.add(signal)
        if signal == "complete":
            queues.finish(run.task)
    elif signal in ("revoked", "expired"):
        detail = {"reason": "timeout" if signal == "expired" else "revoked"}
        queues.report(_kind(work), CANCELLED, detail, task=_id(huey, work), queue=str(huey.name), attempt=_attempt(work))


def _ended(run: Run) -> None:
    task, error = run.task, run.error
    if not run.again:
        _forget(run)
    if task is None or task._closing:
        return
    if run.again:
        why = error or RuntimeError("it was put back to be run again")
        queues.fail(task, why, will_retry=True, retry_at=run.retry_at)
        return
    _tried.pop(run.work.id, None)
    if "canceled" in run.said:
        queues.cancel(task, "requested")
    elif "interrupted" in run.said:
        queues.drop(task, "exit")  # Huey was told to stop in its midst, and does not put it back
    elif error is not None:
        queues.fail(task, error)
    else:
        queues.finish(task)
