"""Dramatiq: messages as they are queued, the actor that runs each, and what its middleware then decided.

Rules:

1. The two functions of a broker that call middleware are patched, and not a middleware added: that holds for every broker,
   made before or after, and we look when all middleware is through. Only then does a message say whether it failed for good.
2. A retry is queued again under the same id with its count in the options: the next attempt. A delayed message is queued
   twice, which is one fact.
3. RabbitMQ and Redis deliver the messages of a killed worker again; Redis does so when a command happens to look for them.
"""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar
from typing import Any

from looseends.context import Task
from looseends.integrations import orders, queues
from looseends.integrations.queues import Kind, Running, quiet
from looseends.lifecycle import PROCESS
from looseends.slots import CANCELLED, FAILED

LEAST, BELOW = (1, 16), (3,)
OPTION = "looseends"
"""The message option that carries the id of the task which sent it."""
MARK = "__looseends_enqueue__"
GOODBYE_S = 0.5
"""How long a worker process may stay for its goodbye; what it could not send is in the spool."""


class Work:
    """One message in the hands of a worker thread: its record, and when it was queued again, if it was."""

    __slots__ = ("again", "retry_at", "task")

    def __init__(self, task: Running) -> None:
        self.task = task
        self.again, self.retry_at = False, 0


WORK: ContextVar[Work | None] = ContextVar("looseends_dramatiq_work", default=None)
QUEUED: ContextVar[Task | None] = ContextVar("looseends_dramatiq_queued", default=None)


def install() -> None:
    """Patch Dramatiq's broker, once per process. Raises UsageError where Dramatiq is not installed."""
    queues.install("dramatiq", LEAST, BELOW, _hooks)


def _hooks() -> list[queues.Hook]:
    from dramatiq.broker import Broker

    return [(Broker, "emit_before", _before), (Broker, "emit_after", _after), (Broker, "__init__", _made)]


# --- the broker's two doors ---------------------------------------------------------------------------------------


def _made(original: Callable[..., Any]) -> Callable[..., Any]:
    def __init__(self: Any, *args: Any, **kwargs: Any) -> None:
        quiet(_watch_enqueue)(type(self))
        original(self, *args, **kwargs)

    return __init__


def _watch_enqueue(broker: Any) -> None:
    """Each kind of broker has an `enqueue` of its own, which alone knows that the server did not take a message."""
    if MARK not in vars(broker):
        setattr(broker, MARK, True)
        queues.patch(broker, "enqueue", _enqueuing)


def _enqueuing(original: Callable[..., Any]) -> Callable[..., Any]:
    def enqueue(self: Any, message: Any, *args: Any, **kwargs: Any) -> Any:
        token = QUEUED.set(None)
        try:
            return original(self, message, *args, **kwargs)
        except BaseException:
            quiet(queues.refused)(QUEUED.get())
            raise
        finally:
            QUEUED.reset(token)

    return enqueue


def _before(original: Callable[..., Any]) -> Callable[..., Any]:
    def emit_before(self: Any, signal: str, *args: Any, **kwargs: Any) -> None:
        quiet(_watch_enqueue)(type(self))
        if signal == "enqueue":  # before the middleware: what it changes in a message is its own affair
            _queueing(self, *args, **kwargs)
        original(self, signal, *args, **kwargs)
        if signal == "process_message":  # after it: some middleware decides that a message is not run
            _starting(self, *args)

    return emit_before


def _after(original: Callable[..., Any]) -> Callable[..., Any]:
    def emit_after(self: Any, signal: str, *args: Any, **kwargs: Any) -> None:
        original(self, signal, *args, **kwargs)
        if signal == "enqueue":
            quiet(queues.handed)(QUEUED.get())
        elif signal == "process_message":
            _ended(self, *args, **kwargs)
        elif signal == "skip_message":
            _skipped(self, *args)
        elif signal == "nack":
            _unknown(self, *args)
        elif signal == "worker_shutdown":
            quiet(PROCESS.service_ended)(GOODBYE_S)

    return emit_after


# --- what a message is --------------------------------------------------------------------------------------------


def _kind(broker: Any, message: Any) -> Kind:
    actor = broker.actors.get(message.actor_name)
    keeps = type(broker).__name__ != "StubBroker"
    return queues.kind_of("dramatiq", message.actor_name, getattr(actor, "fn", None), redelivers=keeps)


def _queue(message: Any) -> str:
    return str(message.queue_name).removesuffix(".DQ").removesuffix(".XQ")


def _id(message: Any) -> bytes:
    return queues.raw_id("dramatiq", _queue(message), message.message_id, message.message_timestamp)


def _attempt(message: Any) -> int:
    return int(message.options.get("retries") or 0) + 1


@quiet
def _queueing(broker: Any, message: Any, delay: Any = None) -> None:
    eta = queues.wall_ns(delay / 1000) if delay else None
    work, task = WORK.get(), _id(message)
    own = work is not None and work.task.raw_id == task  # a retry, sent from within itself
    if work is not None and own:
        work.again, work.retry_at = True, eta or queues.wall_ns()
    parent = message.options.get(OPTION) or (None if own else queues.parent_id())
    if parent is not None:
        message.options[OPTION] = parent
    carried = orders.words(task)
    if carried is not None:
        message.options[orders.FIELD] = carried
    made = queues.schedule(
        _kind(broker, message),
        message.args,
        message.kwargs,
        task=task,
        queue=_queue(message),
        attempt=_attempt(message),
        eta=eta,
        parent=parent,
    )
    QUEUED.set(made)


# --- the worker ---------------------------------------------------------------------------------------------------


@quiet
def _starting(broker: Any, message: Any) -> None:
    WORK.set(None)
    if getattr(message, "failed", False):
        return
    running = queues.start(
        _kind(broker, message),
        message.args,
        message.kwargs,
        task=_id(message),
        queue=_queue(message),
        attempt=_attempt(message),
        parent=message.options.get(OPTION),
        limit_s=_limit_s(broker, message),
    )
    orders.tell(running, message.options.get(orders.FIELD))
    WORK.set(Work(running))
    queues.stands_in(running, "process_message")


def _limit_s(broker: Any, message: Any) -> float | None:
    """The limit that Dramatiq's own middleware would take."""
    actor = broker.actors.get(message.actor_name)
    for middleware in broker.middleware:
        if type(middleware).__name__ == "TimeLimit":
            options = getattr(actor, "options", {})
            limit = message.options.get("time_limit") or options.get("time_limit", middleware.time_limit)
            return float(limit) / 1000 if isinstance(limit, int | float) else None
    return None


@quiet
def _ended(broker: Any, message: Any, result: Any = None, exception: BaseException | None = None) -> None:
    work = WORK.get()
    WORK.set(None)
    if work is None:
        if exception is not None:  # some middleware raised before the actor ran
            _report(broker, message, FAILED, queues.failure(exception))
        return
    if exception is None:
        queues.finish(work.task)
    else:
        again = work.again and not message.failed
        queues.fail(work.task, exception, will_retry=again, retry_at=work.retry_at if again else None)


@quiet
def _skipped(broker: Any, message: Any) -> None:
    """Some middleware said no, or the actor did in its midst."""
    work = WORK.get()
    WORK.set(None)
    why = getattr(message, "_exception", None) or RuntimeError("it was skipped by a middleware, and marked as failed")
    if work is not None:
        queues.fail(work.task, why) if message.failed else queues.cancel(work.task, "requested")
    elif message.failed:
        _report(broker, message, FAILED, queues.failure(why))
    else:
        _report(broker, message, CANCELLED, {"reason": "requested"})


@quiet
def _unknown(broker: Any, message: Any) -> None:
    """A message for an actor that this worker does not have never reaches a worker thread."""
    if message.actor_name not in broker.actors:
        _report(broker, message, FAILED, queues.failure(f"no worker of this queue has this actor: {message.actor_name}"))


def _report(broker: Any, message: Any, status: int, detail: dict[str, Any]) -> None:
    kind = _kind(broker, message)
    queues.report(kind, status, detail, task=_id(message), queue=_queue(message), attempt=_attempt(message))
