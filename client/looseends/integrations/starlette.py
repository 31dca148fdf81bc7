"""Starlette's and FastAPI's BackgroundTasks: what was promised with a response, and what became of it.

Rules:

1. `scheduled` is written when a task is added, with the request that added it: three of the ways in which such work is
   lost never reach its start. `started` is written where the body begins, in the threadpool's thread for `def`.
2. A task that will not run is reported as `dropped` before anything else happens: an earlier one of its list raised
   (`neighbour_raised`), the request failed (`request_failed`), its response was replaced (`response_replaced`).
3. A function audited by itself is one task: only `scheduled` is written here, its wrapper starts the same record.
4. What an endpoint says it `expects` and a request did not begin is missed, at the end of the request (requests.py).
5. Starlette's single `BackgroundTask` is patched, since FastAPI's list has a `__call__` of its own.
"""

from __future__ import annotations

import asyncio
import functools
import weakref
from collections.abc import Callable
from typing import Any

from looseends import record, trouble
from looseends.background import drain
from looseends.context import CURRENT, REQUEST, Task
from looseends.integrations import queues
from looseends.integrations.requests import TASKS_MAX, Request, label_of
from looseends.lifecycle import PROCESS
from looseends.spec import Spec, name_of
from looseends.task import audited
from looseends.wrappers import remember_loop

ATTRIBUTE = "_looseends"
SCOPE_KEY = "looseends.request"
LEAST, BELOW = (0, 40), (2,)
SPECS_MAX = 5_000
DRAIN_S = 10.0


class Hold:
    """What we keep on a BackgroundTask: its record, how to write it again, and the list it stands in."""

    __slots__ = ("listed", "said", "spec", "task")

    def __init__(self, task: Task, spec: Spec | None, said: tuple[Spec, str, str | None, dict[str, Any] | None]) -> None:
        self.task, self.spec, self.said = task, spec, said
        self.listed: weakref.ref[Any] | None = None


_specs: dict[Any, Spec] = {}


def install() -> None:
    """Patch Starlette, once. A second time is said and changes nothing. Raises UsageError where it is not installed."""
    queues.install("starlette", LEAST, BELOW, _hooks)


def _hooks() -> list[queues.Hook]:
    from starlette.applications import Starlette
    from starlette.background import BackgroundTask, BackgroundTasks
    from starlette.requests import HTTPConnection

    call = _patched_call(BackgroundTask.__call__)
    return [
        (BackgroundTask, "__init__", lambda original: _patched_init(original, call)),
        (BackgroundTask, "__call__", lambda original: call),
        (BackgroundTasks, "__init__", _patched_list),
        (BackgroundTasks, "add_task", _patched_add),
        (Starlette, "__call__", _patched_app),
        (HTTPConnection, "__init__", _patched_connection),
    ]


# --- adding -------------------------------------------------------------------------------------------------------


def _patched_init(original: Callable[..., None], call: Callable[..., Any]) -> Callable[..., None]:
    @functools.wraps(original)
    def __init__(self: Any, func: Any, *args: Any, **kwargs: Any) -> None:
        original(self, func, *args, **kwargs)
        try:
            if type(self).__call__ is call:  # a subclass with a way of its own to run is left alone
                setattr(self, ATTRIBUTE, _schedule(func, args, kwargs))
        except Exception as error:  # noqa: BLE001 - never into the endpoint that adds a task
            trouble.note("a background task could not be recorded", error)

    return __init__


def _schedule(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Hold:
    while isinstance(func, functools.partial):
        args, kwargs, func = func.args + args, {**func.keywords, **kwargs}, func.func
    inner, bound = audited(func), getattr(func, "__self__", None)
    spec = _spec(inner, func)
    if bound is not None and hasattr(func, "__func__"):
        args = (bound, *args)
    text, problem = spec.shape.encode(args, kwargs)
    request = REQUEST.get()
    extra = {"request": request.label} if request is not None else None  # kept in case the list is run outside its request
    task = record.begin(spec, text, problem, scheduled=True, extra=extra)
    if request is not None and len(request.tasks) < TASKS_MAX:
        request.tasks.append(task)
    return Hold(task, inner, (spec, text, problem, extra))


def _spec(inner: Spec | None, func: Any) -> Spec:
    """The Spec of a function's background tasks; they wait their turn, so their start is never overdue by itself.

    Kept by name and code, not by function: a closure made for each request must not be kept alive with what it holds.
    """
    known: Any = inner
    if inner is None:
        body = inspect_code(func)
        known = (name_of(func), body if body is not None else type(func))
    spec = _specs.get(known)
    if spec is None:
        if inner is not None:
            spec = inner.via("starlette", start_within="never")
        else:
            spec = Spec(name_of(func), func, source="starlette", start_within="never")
            spec.function = None
        if len(_specs) < SPECS_MAX:
            _specs[known] = spec
    return spec


def inspect_code(func: Any) -> Any:
    """The code object of a function, seen through wrappers and methods; None for other callables."""
    while hasattr(func, "__wrapped__"):
        func = func.__wrapped__
    return getattr(getattr(func, "__func__", func), "__code__", None)


def _patched_list(original: Callable[..., None]) -> Callable[..., None]:
    @functools.wraps(original)
    def __init__(self: Any, tasks: Any = None) -> None:
        original(self, tasks)
        for task in self.tasks:
            _list(task, self)

    return __init__


def _patched_add(original: Callable[..., None]) -> Callable[..., None]:
    @functools.wraps(original)
    def add_task(self: Any, func: Any, *args: Any, **kwargs: Any) -> None:
        original(self, func, *args, **kwargs)
        if self.tasks:
            _list(self.tasks[-1], self)

    return add_task


def _list(task: Any, tasks: Any) -> None:
    hold = getattr(task, ATTRIBUTE, None)
    if isinstance(hold, Hold):
        hold.listed = weakref.ref(tasks)


# --- running ------------------------------------------------------------------------------------------------------


def _patched_call(original: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(original)
    async def __call__(self: Any) -> None:
        hold = getattr(self, ATTRIBUTE, None)
        if isinstance(hold, Hold) and hold.task.state == "dropped":
            hold.task = _again(hold)
        if not isinstance(hold, Hold) or hold.task.state != "scheduled":
            await original(self)
            return
        token = CURRENT.set(hold.task)
        try:
            await _run(self, hold, original)
        except BaseException as error:
            record.end(hold.task, error)
            _drop_neighbours(self, hold, "loop_shutdown" if record.loop_is_ending() else "neighbour_raised")
            raise
        finally:
            CURRENT.reset(token)
        record.end(hold.task, None)

    return __call__


def _again(hold: Hold) -> Task:
    """Somebody runs by hand what its request left behind: a second record of the same task overrules the drop."""
    spec, text, problem, extra = hold.said
    return record.begin(spec, text, problem, scheduled=True, extra=extra, raw_id=hold.task.raw_id)


async def _run(self: Any, hold: Hold, original: Callable[..., Any]) -> None:
    """Run one background task; its start is written by its own wrapper, in its thread, or here."""
    if hold.spec is not None:
        hold.task.awaits = hold.spec
        await original(self)
    elif self.is_async:
        record.start(hold.task)
        await original(self)
    else:
        func = self.func
        self.func = _starting(hold.task, func)
        try:
            await original(self)
        finally:
            self.func = func


def _starting(task: Task, func: Callable[..., Any]) -> Callable[..., Any]:
    """`func`, with its start written where it begins: in the thread, after its wait for one."""

    @functools.wraps(func, assigned=("__module__", "__name__", "__qualname__", "__doc__"), updated=())
    def run(*args: Any, **kwargs: Any) -> Any:
        record.start(task)
        return func(*args, **kwargs)

    return run


def _drop_neighbours(self: Any, hold: Hold, reason: str) -> None:
    """The list ends here: what stands after this task in it will not run."""
    tasks = hold.listed() if hold.listed is not None else None
    for other in getattr(tasks, "tasks", ()):
        held = getattr(other, ATTRIBUTE, None)
        if other is not self and isinstance(held, Hold) and held.task.state == "scheduled":
            record.drop(held.task, reason)


# --- requests -----------------------------------------------------------------------------------------------------


def _patched_app(original: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(original)
    async def __call__(self: Any, scope: Any, receive: Any, send: Any) -> None:
        kind = scope.get("type")
        if kind == "lifespan":
            await original(self, scope, receive, _lifespan_send(send))
        elif kind != "http" or SCOPE_KEY in scope:  # an app mounted in an app: the same request
            await original(self, scope, receive, send)
        else:
            await _request(functools.partial(original, self), scope, receive, send)

    return __call__


async def _request(app: Any, scope: Any, receive: Any, send: Any) -> None:
    request = scope[SCOPE_KEY] = Request(label_of(scope))
    token = REQUEST.set(request)
    failed = True
    try:
        await app(scope, receive, _status_send(request, send))
        failed = False
    finally:
        REQUEST.reset(token)
        request.routed(scope.get("endpoint"))
        request.ended(failed)


def _patched_connection(original: Callable[..., None]) -> Callable[..., None]:
    """Middleware may hand on a copy of the scope, and then the route's endpoint stands in the copy alone. Whoever calls an
    endpoint makes a connection of the very scope it was routed by; what middleware makes has no endpoint yet."""

    @functools.wraps(original)
    def __init__(self: Any, scope: Any, *args: Any, **kwargs: Any) -> None:
        original(self, scope, *args, **kwargs)
        try:
            request = scope.get(SCOPE_KEY)
            if request is not None:
                request.routed(scope.get("endpoint"))
        except Exception as error:  # noqa: BLE001 - never into a request
            trouble.note("a request's endpoint could not be seen", error)

    return __init__


def _status_send(request: Request, send: Any) -> Any:
    async def watched(message: Any) -> None:
        if message.get("type") == "http.response.start":
            request.status = int(message.get("status") or 0)
        await send(message)

    return watched


def _lifespan_send(send: Any) -> Any:
    """The service begins: be known to the daemon before the first task. It ends: let spawned tasks finish first."""

    async def watched(message: Any) -> None:
        kind = message.get("type")
        if kind == "lifespan.startup.complete":
            remember_loop()
            PROCESS.open()
        elif kind in ("lifespan.shutdown.complete", "lifespan.shutdown.failed"):
            # uvicorn ends by raising its SIGTERM again: nothing of ours runs after this message
            await drain(DRAIN_S)
            await asyncio.to_thread(PROCESS.service_ended)
        await send(message)

    return watched
