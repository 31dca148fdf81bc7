"""From a call that somebody hands to a thread, a pool or a process to its record: whose code, which name, which arguments.

Rules:

1. Work is a call of the service's own code, or one that the service's own code hands over. What libraries do for themselves
   (a server's workers, a pool's own threads, a lookup of a host name) is none.
2. A function around another is that other one: `partial`, `Context.run`, a chunk of `ProcessPoolExecutor.map`.
3. One piece of work is one task: of an audited function only `scheduled` is written here, its wrapper starts the same record,
   and while a record waits for its function every other hook is silent.
4. What goes across is ours alone: the current task and the request. A service's own context variables are left as they are,
   since code that reads a decimal context or a session from them would otherwise behave differently with us than without.
5. Everything raised in here is counted and goes no further (`quiet`).
"""

from __future__ import annotations

import contextvars
import functools
import os
import time
from collections.abc import Callable
from types import FrameType
from typing import Any, NamedTuple

from looseends import record, trouble
from looseends.context import CURRENT, REQUEST, Task
from looseends.integrations.owncode import OWN
from looseends.integrations.queues import Hook
from looseends.integrations.queues import quiet as quiet
from looseends.journal import Journal
from looseends.lifecycle import PROCESS
from looseends.slots import CANCELLED
from looseends.spec import REGISTRY, Spec, name_of
from looseends.task import audited

SPECS_MAX = 5_000
HOPS_MAX = 12
WRAPPED_MAX = 20
_STDLIB = os.path.dirname(os.path.abspath(os.__file__)) + "/"
_THROUGH = {
    f"{_STDLIB}asyncio/": ("to_thread", "run_in_executor"),
    f"{_STDLIB}concurrent/futures/": ("map", "<listcomp>", "submit"),
}
"""Functions of the standard library that hand work over for whoever called them, by folder."""


class Call(NamedTuple):
    """One call, read before it begins. `inner`: it is audited. `context`: it will run in that one, not in its thread's own."""

    spec: Spec
    inner: Spec | None
    text: str
    problem: str | None
    function: Any
    context: contextvars.Context | None


# --- installing ---------------------------------------------------------------------------------------------------

_installed: set[str] = set()


def install(system: str, hooks: list[Hook]) -> bool:
    """Hook into a part of the standard library, all of it or nothing, once per process. -> whether that was done now."""
    if system in _installed:
        trouble.say(f"install({system!r}) was called before in this process; nothing changed")
        return False
    try:
        wanted = [(owner, name, make, getattr(owner, name)) for owner, name, make in hooks]
    except AttributeError as error:  # a Python that is not known yet: the service goes on without us
        trouble.say(f"install({system!r}): this Python has nothing to hook into ({error}); its work is not recorded")
        return False
    _installed.add(system)
    for owner, name, make, original in wanted:
        setattr(owner, name, functools.wraps(original)(make(original)))
    return True


# --- whose work ---------------------------------------------------------------------------------------------------


def asked_by_own(frame: FrameType | None) -> bool:
    """Whether the service's own code asked for this, perhaps through asyncio or a pool's `map`."""
    for _ in range(HOPS_MAX):
        if frame is None:
            return False
        code = frame.f_code
        if not any(code.co_name in names and code.co_filename.startswith(folder) for folder, names in _THROUGH.items()):
            return OWN.has(code.co_filename)
        frame = frame.f_back
    return False


def code_of(function: Any) -> Any:
    """The code that a call runs in the end, seen through wrappers, methods, classes and objects; None: none of Python's."""
    seen = 0
    while hasattr(function, "__wrapped__") and seen < WRAPPED_MAX:
        function, seen = function.__wrapped__, seen + 1
    function = getattr(function, "__func__", function)
    if not hasattr(function, "__code__"):
        function = getattr(function, "__init__" if isinstance(function, type) else "__call__", None)
    return getattr(function, "__code__", None)


# --- reading ------------------------------------------------------------------------------------------------------

_specs: dict[Any, Spec] = {}


def read(source: str, function: Any, args: Any, kwargs: Any, frame: FrameType | None, **fields: Any) -> Call | None:
    """What this call is about; None: no work, or told by another hook. `frame`: who hands it over. `fields`: of its Spec."""
    current = CURRENT.get()
    if current is not None and current.awaits is not None:
        return None
    given = function
    function, args, kwargs, context = unwrapped(function, tuple(args or ()), dict(kwargs or {}))
    inner = audited(function)
    if inner is None:
        code = code_of(function)
        if not (code is not None and OWN.has(code.co_filename)) and not asked_by_own(frame):
            return None
    elif "chunk" in kwargs and is_chunk(given):  # several calls at once: each is told by its own wrapper
        return None
    spec = spec_of(source, function, inner, **fields)
    bound = getattr(function, "__self__", None)
    if bound is not None and hasattr(function, "__func__"):
        args = (bound, *args)
    try:
        text, problem = spec.shape.encode(args, kwargs)
    except Exception as error:  # noqa: BLE001 - work whose arguments cannot be read is work
        trouble.note("arguments could not be captured", error)
        text, problem = "{}", "its arguments could not be captured"
    return Call(spec, inner, text, problem, function, context)


def is_chunk(function: Any) -> bool:
    """Whether this is what a process pool's `map` sends: a function, for several calls of it."""
    made = getattr(function, "func", None)
    return getattr(made, "__name__", "") == "_process_chunk" and made.__module__ == "concurrent.futures.process"


def unwrapped(
    function: Any, args: Any, kwargs: dict[str, Any]
) -> tuple[Any, tuple[Any, ...], dict[str, Any], contextvars.Context | None]:
    """The call inside `partial` and `Context.run`, and the innermost context that it will run in."""
    context = None
    for _ in range(WRAPPED_MAX):
        owner = getattr(function, "__self__", None)
        if isinstance(function, functools.partial):
            if is_chunk(function):
                return _of_chunk(function, args)
            args, kwargs, function = function.args + args, {**function.keywords, **kwargs}, function.func
        elif isinstance(owner, contextvars.Context) and getattr(function, "__name__", "") == "run" and args:
            context, function, args = owner, args[0], args[1:]
        else:
            break
    return function, args, kwargs, context


def _of_chunk(function: Any, args: Any) -> tuple[Any, tuple[Any, ...], dict[str, Any], None]:
    """`map` of a process pool: a chunk of one call is that call, a larger one is a task of the function with all of them."""
    chunk: Any = args[0] if args else ()
    inner = function.args[0]
    if len(chunk) == 1:
        return inner, tuple(chunk[0]), {}, None
    return inner, (), {"chunk": list(chunk)}, None


def spec_of(source: str, function: Any, inner: Spec | None = None, name: str | None = None, **fields: Any) -> Spec:
    """The Spec of a function's work as this hook sees it, kept by name and code: a closure must not be kept alive by us."""
    if inner is not None:
        return inner.via(source, **fields)
    name = name or name_of(function)
    code = code_of(function)
    key = (source, name, code if code is not None else type(function))
    spec = _specs.get(key)
    if spec is None:
        known = REGISTRY.functions.get(name)
        hidden = known.shape._redact if known is not None else ()
        spec = Spec(name, function, source=source, declared=False, redact=hidden, **fields)
        spec.function = None
        if len(_specs) < SPECS_MAX:
            _specs[key] = spec
    return spec


# --- one task -----------------------------------------------------------------------------------------------------


class Work:
    """A call between its being handed over and its end: its record, and what it takes along into the thread that runs it."""

    __slots__ = ("came", "context", "inner", "request", "spec", "task")

    def __init__(self, call: Call, extra: dict[str, Any] | None = None) -> None:
        # Of the call no more than this: a function and its arguments must not live longer than without us.
        self.spec, self.inner, self.context, self.request = call.spec, call.inner, call.context, REQUEST.get()
        self.came = False  # to the point where its body is called
        self.task: Task = record.begin(call.spec, call.text, call.problem, scheduled=True, extra=extra)
        self.task.awaits = call.inner

    def enter(self) -> Callable[[], None]:
        """This thread is about to run the call: make it the current task here. -> what gives the place back. Never raises."""
        current, request = CURRENT.set(self.task), REQUEST.set(self.request)
        inside = _enter(self.context, self.task) if self.context is not None else None

        def leave() -> None:
            if inside is not None:
                inside()
            REQUEST.reset(request)
            CURRENT.reset(current)

        return leave

    def begun(self) -> None:
        """Its body begins; one that is audited says so itself."""
        self.came = True
        if self.task.awaits is None and self.task.state == "scheduled":
            record.start(self.task)

    def over(self) -> None:
        """Nothing was raised, and its body is over. An audited `async def` only gave back a coroutine, which nobody awaits."""
        if self.task.state == "running":
            record.end(self.task, None)
        elif self.task.state == "scheduled":
            record.drop(self.task, "collected")

    def close(self, status: int, detail: bytes = b"") -> None:
        """End the record in this way, unless it has ended."""
        task = self.task
        if task.segment is not None and task.state in ("scheduled", "running"):
            task.state = "ended"
            Journal.end(task.segment, task.at, time.monotonic_ns(), status, detail)
            if PROCESS.idle:
                PROCESS.wake()

    def cancelled(self) -> None:
        """Somebody called it off."""
        self.close(CANCELLED, b'{"reason":"requested"}')


def _enter(context: contextvars.Context, task: Task) -> Callable[[], None] | None:
    """Make this the current task of a context that the call will be run in; it is given back as it was."""
    try:
        before = context.get(CURRENT)
        context.run(CURRENT.set, task)
    except RuntimeError:  # it is entered at this moment, and so the call itself is about to fail
        return None
    return lambda: context.run(_give_back, before)


def _give_back(before: Task | None) -> None:
    CURRENT.set(before)
