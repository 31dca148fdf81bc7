"""Celery: what was sent, what began, and how each attempt ended, by Celery's own signals in producer, worker and pool child.

Rules:

1. `scheduled` is written by `before_task_publish`; `send_task` is wrapped to see whether the broker took the message.
2. A retry is the next attempt: Celery publishes it again under the same id, with its count in the headers.
3. Starts and ends are written in the pool's child. What only the worker's main process sees (a revocation, a hard time
   limit, a child that died, a name that nobody registered) is reported from there. One end seen by both is one fact.
4. When a task is lost and who gave it up is known by liveness, not by signals: each pool child is an instance of its own.
"""

from __future__ import annotations

import datetime
import sys
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any

from looseends.context import Task
from looseends.integrations import orders, queues
from looseends.integrations.queues import Kind, Running, quiet
from looseends.lifecycle import PROCESS
from looseends.slots import CANCELLED, FAILED
from looseends.wire import NS

LEAST, BELOW = (5, 4), (6,)
HEADER = "looseends"
"""Rides with a message and its retries: when it was first sent (unix ns), and its parent's id where it has one."""
ATTRIBUTE = "_looseends"
GOODBYE_S = 0.5
"""How long a pool child may stay for its goodbye; what it could not send is in the spool."""


class Sending:
    """One call of `send_task`: the app that sends, and the record made on its way to the broker."""

    __slots__ = ("app", "task")

    def __init__(self, app: Any) -> None:
        self.app = app
        self.task: Task | None = None


SENDING: ContextVar[Sending | None] = ContextVar("looseends_celery_sending", default=None)
HELD: ContextVar[Any] = ContextVar("looseends_celery_request", default=None)
"""The worker's own request object, while its main process tells what became of it."""


def install() -> None:
    """Connect to Celery's signals, once per process. Raises UsageError where Celery is not installed."""
    if not queues.install("celery", LEAST, BELOW, _hooks):
        return
    from celery import signals

    for name, receiver in _RECEIVERS.items():
        getattr(signals, name).connect(receiver, weak=False, dispatch_uid=f"looseends.{name}")


def _hooks() -> list[queues.Hook]:
    from celery import Celery, signals
    from celery.worker.request import Request

    for name in _RECEIVERS:
        getattr(signals, name)
    return [
        (Celery, "send_task", _sending),
        (Request, "on_timeout", _holding),
        (Request, "on_failure", _holding),
        (Request, "terminate", _terminating),
    ]


# --- the producer -------------------------------------------------------------------------------------------------


def _sending(original: Callable[..., Any]) -> Callable[..., Any]:
    def send_task(self: Any, *args: Any, **kwargs: Any) -> Any:
        sending = Sending(self)
        token = SENDING.set(sending)
        try:
            return original(self, *args, **kwargs)
        except BaseException:
            quiet(queues.refused)(sending.task)
            raise
        finally:
            SENDING.reset(token)

    return send_task


@quiet
def _before_publish(sender: Any = None, headers: Any = None, body: Any = None, routing_key: Any = None, **_: Any) -> None:
    if not isinstance(headers, dict) or "id" not in headers or not isinstance(body, tuple):
        return  # protocol 1, which Celery gave up as its default in 2016, has no headers to look at
    sending, queue = SENDING.get(), str(routing_key or "")
    created, parent = _carried(headers)
    if not created:
        created, parent = str(queues.wall_ns()), queues.parent_id()
        headers[HEADER] = f"{created} {parent or ''}".strip()
    made = queues.schedule(
        _kind(sending.app if sending is not None else None, str(headers.get("task") or sender)),
        body[0],
        body[1],
        task=queues.raw_id("celery", queue, headers["id"], created),
        queue=queue,
        attempt=(headers.get("retries") or 0) + 1,
        eta=_ns(headers.get("eta")),
        parent=parent,
    )
    carried = orders.words(made.raw_id)
    if carried is not None:
        headers[orders.FIELD] = carried
    _hand_on(made)
    if sending is not None:
        sending.task = made
    else:
        queues.handed(made)  # sent past the app: nobody will tell us what the broker said


def _after_publish(**_: Any) -> None:
    sending = SENDING.get()
    if sending is not None:
        quiet(queues.handed)(sending.task)


def _carried(headers: Any) -> tuple[str, str | None]:
    """When a message was first sent, and its parent; "" where it was sent without us."""
    found = headers.get(HEADER) if isinstance(headers, dict) else getattr(headers, HEADER, None)
    created, _, parent = str(found or "").partition(" ")
    return created, parent or None


def _ns(when: Any) -> int | None:
    """A time of Celery's as unix ns; None for none. Numbers are seconds from now."""
    if isinstance(when, str):
        when = datetime.datetime.fromisoformat(when)
    if isinstance(when, datetime.datetime):
        if when.tzinfo is None:
            when = when.replace(tzinfo=datetime.UTC)
        return int(when.timestamp() * NS)
    return queues.wall_ns(when) if isinstance(when, int | float) else None


def _hand_on(made: Task) -> None:
    """A task that replaces itself sends another message under its own id: what runs now is not what will end."""
    from celery import current_task

    running = getattr(getattr(current_task, "request", None), ATTRIBUTE, None)
    if isinstance(running, Running) and running.raw_id == made.raw_id and running.attempt == made.attempt:
        current_task.request.__dict__[f"{ATTRIBUTE}_replaced"] = True


# --- the worker ---------------------------------------------------------------------------------------------------


def _kind(app: Any, name: str, task: Any = None) -> Kind:
    """The Kind of a task by its name; the function as its author wrote it, where this process has it."""
    if task is None:
        task = getattr(app, "_tasks", {}).get(name) if app is not None else None
    function = getattr(task, "_orig_run", None) or getattr(task, "run", None)
    late = bool(getattr(task, "acks_late", False))
    return queues.kind_of("celery", name, function, own_first=hasattr(function, "__self__"), redelivers=late)


class Place:
    """Which task and attempt a request of Celery's is: by its headers, in whichever process."""

    __slots__ = ("attempt", "id", "parent", "queue")

    def __init__(self, request: Any) -> None:
        info = getattr(request, "delivery_info", None) or {}
        created, parent = _carried(request)
        self.queue = str(info.get("routing_key") or "")
        self.id = queues.raw_id("celery", self.queue, request.id, created)
        self.attempt = (getattr(request, "retries", 0) or 0) + 1
        known = getattr(request, "parent_id", None)  # of a retry this is the task itself
        self.parent = parent or (queues.id_of("celery", self.queue, known) if known and known != request.id else None)


@quiet
def _began(task_id: Any = None, task: Any = None, args: Any = None, kwargs: Any = None, **_: Any) -> None:
    request = task.request
    place = Place(request)
    hard, soft = request.timelimit or (None, None)
    limit = hard or soft or task.time_limit or task.soft_time_limit
    running = queues.start(
        _kind(None, task.name, task),
        args,
        kwargs,
        task=place.id,
        queue=place.queue,
        attempt=place.attempt,
        parent=place.parent,
        limit_s=limit,
    )
    orders.tell(running, getattr(request, orders.FIELD, None))
    setattr(request, ATTRIBUTE, running)
    queues.stands_in(running, "trace_task")


def _running(request: Any) -> Running | None:
    found = getattr(request, ATTRIBUTE, None)
    return found if isinstance(found, Running) else None


@quiet
def _succeeded(sender: Any = None, **_: Any) -> None:
    queues.finish(_running(sender.request))


@quiet
def _failed(sender: Any = None, exception: Any = None, **_: Any) -> None:
    held = HELD.get()
    if held is None:
        queues.fail(_running(sender.request), exception)
        return
    place = Place(held._context)
    detail = queues.failure(exception)
    queues.report(_kind(None, sender.name, sender), FAILED, detail, task=place.id, queue=place.queue, attempt=place.attempt)


@quiet
def _retried(request: Any = None, reason: Any = None, **_: Any) -> None:
    error = reason.exc if isinstance(getattr(reason, "exc", None), BaseException) else reason
    retry_at = _ns(getattr(reason, "when", None)) or queues.wall_ns()
    queues.fail(_running(request), error, retry_at=retry_at, will_retry=True)


@quiet
def _ended(task_id: Any = None, task: Any = None, state: Any = None, retval: Any = None, **_: Any) -> None:
    """Whatever no other signal told of: ignored, rejected, and what left the tracer as an exception."""
    request = task.request
    running, error = _running(request), sys.exc_info()[1]
    if running is None or running._closing:
        return
    if state == "REJECTED" and getattr(retval, "requeue", False):
        queues.leave_open(running)
    elif state == "REJECTED" and isinstance(retval, BaseException):
        queues.fail(running, retval)
    elif state == "IGNORED" and getattr(request, f"{ATTRIBUTE}_replaced", False):
        queues.leave_open(running)
    elif state in ("SUCCESS", "IGNORED"):
        queues.finish(running)
    elif isinstance(error, Exception) or (error is not None and not _is_pool_child()):
        queues.fail(running, error)
    else:
        queues.leave_open(running)  # the main process ends this child, and tells why
        _ended_from_outside.append(task_id)


def _is_pool_child() -> bool:
    """Whether a main process watches over this one: it turns a SystemExit into a revocation, a time limit or a lost worker."""
    from billiard.process import current_process

    return str(current_process().name) != "MainProcess"


def _holding(original: Callable[..., Any]) -> Callable[..., Any]:
    def told(self: Any, *args: Any, **kwargs: Any) -> Any:
        token = HELD.set(self)
        try:
            return original(self, *args, **kwargs)
        finally:
            HELD.reset(token)

    return told


def _terminating(original: Callable[..., Any]) -> Callable[..., Any]:
    """Told before the child is killed: its death may be heard of within milliseconds."""

    def terminate(self: Any, *args: Any, **kwargs: Any) -> Any:
        if self.time_start:
            _revoked(sender=self.task, request=self._context)
        return original(self, *args, **kwargs)

    return terminate


@quiet
def _revoked(sender: Any = None, request: Any = None, expired: Any = False, **_: Any) -> None:
    place, detail = Place(request), {"reason": "timeout" if expired else "revoked"}
    queues.report(_kind(None, sender.name, sender), CANCELLED, detail, task=place.id, queue=place.queue, attempt=place.attempt)


@quiet
def _unknown(message: Any = None, name: Any = None, **_: Any) -> None:
    _refuse(message, str(name), f"no worker of this queue knows a task of this name: {name}")


@quiet
def _rejected(message: Any = None, exc: Any = None, **_: Any) -> None:
    headers = getattr(message, "headers", None) or {}
    _refuse(
        message, str(headers.get("task") or "unknown"), f"its message could not be read by a worker: {exc or 'unknown format'}"
    )


def _refuse(message: Any, name: str, why: str) -> None:
    headers, info = message.headers or {}, message.delivery_info or {}
    if not headers.get("id"):
        return  # whose it was, nobody can say
    queue, (created, _) = str(info.get("routing_key") or ""), _carried(headers)
    task = queues.raw_id("celery", queue, headers["id"], created)
    attempt = (headers.get("retries") or 0) + 1
    queues.report(_kind(None, name), FAILED, queues.failure(why), task=task, queue=queue, attempt=attempt)


@quiet
def _main_begins(**_: Any) -> None:
    """Be known to the daemon before there is anything to tell: when a child is killed, there is no time for that."""
    PROCESS.open()


@quiet
def _child_ends(**_: Any) -> None:
    """A pool child ends by `os._exit`, past every other place where a goodbye could be said.

    One that was ended in mid-task says none: it would be heard before the main process has told why, and the task be lost.
    """
    if not _ended_from_outside:
        PROCESS.service_ended(GOODBYE_S)


_ended_from_outside: list[str] = []
"""The task in whose midst this pool child was ended; at most one, since it ends the child."""


_RECEIVERS: dict[str, Callable[..., None]] = {
    "before_task_publish": _before_publish,
    "after_task_publish": _after_publish,
    "task_prerun": _began,
    "task_success": _succeeded,
    "task_failure": _failed,
    "task_retry": _retried,
    "task_postrun": _ended,
    "task_revoked": _revoked,
    "task_unknown": _unknown,
    "task_rejected": _rejected,
    "worker_ready": _main_begins,
    "worker_process_shutdown": _child_ends,
}
