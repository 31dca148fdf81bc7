"""A replay of a queue's work goes back into that queue: which message would run a function, and how it is sent as an order.

Rules:

1. The message bears the order's id as its own, so the worker's task is the order's task, in whichever process and service that
   is.
2. Only a function that its author registered for replay is sent, by its name in the queue system, with its arguments by name.
3. Nothing is connected here: what is sent goes through the app, broker or pool that this process already uses.
4. Whoever sends may be killed or cut off in the middle. Then nobody knows whether the broker has it, and nobody says so: the
   order stays claimed until its task is heard of, or is `outcome_unknown`.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from looseends.integrations import orders
from looseends.spec import REGISTRY, Spec
from looseends.task import audited

KEPT_MAX = 100
SEND_S_MAX = 5.0
_kept: dict[tuple[str, str], Any] = {}
"""(system, queue) -> what this process sends to that queue with, where the function itself does not lead there."""


class Way(NamedTuple):
    """How a function is reached through a queue: the system, whether that fills in the first parameter, and the sending."""

    system: str
    own_first: bool
    send: Callable[[str, str | None, dict[str, Any]], None]
    """(order id, queue or None, arguments by name). Raises what the library raises."""


def send(way: Way, order: dict[str, Any], queue: str | None, values: dict[str, Any]) -> None:
    """Send an order into its queue, with the words by which its worker knows it for a replay. Raises what the library does."""
    orders.going(order)
    way.send(order["id"], queue, values)


def keep(system: str, queue: str, through: Any) -> None:
    """Remember what this process sends to a queue with. The first of a system makes its functions known anew."""
    if (system, queue) not in _kept:
        if len(_kept) >= KEPT_MAX:
            _kept.pop(next(iter(_kept)))
        _kept[system, queue] = through
        REGISTRY.version += 1
    else:
        _kept[system, queue] = through


def through(system: str, queue: str | None) -> Any:
    """What to send to this queue with, or to any of the system's where it is not known; None: this process sends to none."""
    named = _kept.get((system, queue or ""))
    return named if named is not None else next((it for (kind, _), it in _kept.items() if kind == system), None)


def way_of(spec: Spec) -> Way | None:
    """How this function is reached through a queue that this process uses; None: it runs where it stands."""
    for system, find in _FINDERS.items():
        if f"looseends.integrations.{system}" in sys.modules:
            way = find(spec)
            if way is not None:
                return way
    return None


def signature(spec: Spec, way: Way) -> str | None:
    """What callers see of it: without the parameter that the library fills in."""
    text = spec.signature()
    if text is None or not way.own_first or spec.function is None:
        return text
    whole = inspect.signature(spec.function)
    return str(whole.replace(parameters=list(whole.parameters.values())[1:]))


def _is(spec: Spec, function: Any, name: object) -> bool:
    return audited(function) is spec or (spec.function is function) or (str(name) == spec.name and audited(function) is None)


# --- one finder for each system -----------------------------------------------------------------------------------


def _celery(spec: Spec) -> Way | None:
    from celery import _state

    for app in list(_state._get_active_apps()):
        for name, task in list(getattr(app, "_tasks", {}).items()):
            function = getattr(task, "_orig_run", None) or getattr(task, "run", None)
            if not str(name).startswith("celery.") and _is(spec, function, name):
                return Way("celery", hasattr(function, "__self__"), _celery_send(task))
    return None


def _celery_send(task: Any) -> Callable[[str, str | None, dict[str, Any]], None]:
    def send(order: str, queue: str | None, values: dict[str, Any]) -> None:
        where = {"queue": queue} if queue in getattr(task.app.amqp, "queues", {}) else {}
        task.apply_async((), values, task_id=order, retry=False, **where)

    return send


def _dramatiq(spec: Spec) -> Way | None:
    broker = getattr(sys.modules.get("dramatiq.broker"), "global_broker", None)
    for name, actor in list(getattr(broker, "actors", {}).items()):
        if _is(spec, actor.fn, name):

            def send(order: str, queue: str | None, values: dict[str, Any], actor: Any = actor) -> None:
                actor.broker.enqueue(actor.message_with_options(kwargs=values).copy(message_id=order))

            return Way("dramatiq", False, send)
    return None


def _huey(spec: Spec) -> Way | None:
    for task in _beside(spec, "TaskWrapper"):
        if _is(spec, task.func, task.func.__name__):

            def send(order: str, queue: str | None, values: dict[str, Any], task: Any = task) -> None:
                task.huey.enqueue(task.task_class((), values, id=order))

            return Way("huey", bool(getattr(task, "context", False)), send)
    return None


def _beside(spec: Spec, kind: str) -> Iterator[Any]:
    """What of this class stands in the module of the function: the library put it in the place of the function itself."""
    module = sys.modules.get(getattr(spec.function, "__module__", "") or "")
    return (value for value in list(vars(module or sys).values()) if type(value).__name__ == kind)


def _rq(spec: Spec) -> Way | None:
    function = spec.function
    module, name = getattr(function, "__module__", ""), getattr(function, "__qualname__", "")
    if through("rq", None) is None or "." in name:
        return None
    named = getattr(sys.modules.get(module), name, None)
    if named is not function and audited(named) is not spec:
        return None

    def send(order: str, queue: str | None, values: dict[str, Any]) -> None:
        through("rq", queue).enqueue(named, kwargs=values, job_id=order)

    return Way("rq", False, send)


def _arq(spec: Spec) -> Way | None:
    arq = sys.modules["looseends.integrations.arq"]
    if through("arq", None) is None:
        return None
    for name, kind in list(arq._known.items()):
        if kind.inner is spec or (kind.inner is None and name == spec.name):

            def send(order: str, queue: str | None, values: dict[str, Any], name: str = name) -> None:
                import asyncio

                pool, loop = through("arq", queue)
                pool = getattr(pool, "pool", pool)  # a worker has one of its own
                sending = pool.enqueue_job(name, _job_id=order, _queue_name=queue, **values)
                asyncio.run_coroutine_threadsafe(sending, loop).result(SEND_S_MAX)

            return Way("arq", True, send)
    return None


_FINDERS: dict[str, Callable[[Spec], Way | None]] = {
    "celery": _celery,
    "dramatiq": _dramatiq,
    "huey": _huey,
    "rq": _rq,
    "arq": _arq,
}
