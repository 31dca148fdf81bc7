"""What a developer writes: `task`, `track`, `register`, `init`, `flush`, `install`. (`spawn` is in background.py.)

Rules: a wrong option where a function is *declared* is a UsageError at import, naming the place and the allowed values.
Once the program runs, nothing here raises: `track` counts what it cannot use and carries on.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Iterable, Mapping
from types import TracebackType
from typing import Any, ParamSpec, TypeVar, overload

from . import record, trouble
from .capture import encode_named
from .context import CURRENT, Task
from .errors import UsageError
from .lifecycle import PROCESS
from .plain import plain_for
from .slots import clean
from .spec import CO_ASYNC_GENERATOR, CO_GENERATOR, REGISTRY, Spec, code_flags, name_of
from .wrappers import remember_loop as remember_loop
from .wrappers import wrap

P = ParamSpec("P")
R = TypeVar("R")
SPECS_MAX = 1_000
MARK = "__looseends__"
"""The attribute of an audited function that holds its Spec."""


@overload
def task(function: Callable[P, R], /) -> Callable[P, R]: ...
@overload
def task(
    *,
    name: str | None = None,
    deadline: float | str | None = None,
    progress_within: float | str | None = None,
    key: str | None = None,
    replay: bool | str | None = None,
    caution: str | None = None,
    redact: Iterable[str] = (),
    tags: Mapping[str, str] | None = None,
) -> Callable[[Callable[P, R]], Callable[P, R]]: ...
def task(function: Callable[..., Any] | None = None, /, *, name: str | None = None, **options: Any) -> Any:
    """Audit every call of a function as one task. Bare or with options; `def` and `async def`.

    name: default `module.qualname`. deadline, progress_within: "30s", "2h", seconds, or "never". key: the parameter that
    names the piece of work, or "order-{order_id}". replay: True, or "ask" to have operators confirm (with `caution` as the
    question). redact: names to hide beside the usual ones. tags: short texts. Raises UsageError for a wrong option.
    """

    def decorate(function: Any) -> Any:
        if isinstance(function, staticmethod | classmethod):  # what it does to a function comes after what we do
            return type(function)(decorate(function.__func__))
        return _audited(function, _declare(function, name, "task", options))

    return decorate if function is None else decorate(function)


def _declare(function: Any, name: str | None, source: str, options: dict[str, Any]) -> Spec:
    if not callable(function):
        raise UsageError(f"looseends.{source} takes a function, not {type(function).__name__}: {function!r:.100}")
    if code_flags(function) & (CO_GENERATOR | CO_ASYNC_GENERATOR) and options.get("replay"):
        raise UsageError(f"looseends.{source} {name_of(function)}: a generator runs while somebody iterates over it: no replay")
    if isinstance(function, type) and source == "task":
        raise UsageError(f"looseends.task {name_of(function)}: takes def and async def, not a class")
    name = name if name is not None else name_of(function)
    bound = source == "task" and hasattr(function, "__func__")  # its calls come without `self`, as a partial's do
    return Spec(name, functools.partial(function) if bound else function, source=source, **options)


def _audited(function: Callable[..., Any], spec: Spec) -> Callable[..., Any]:
    wrapper = wrap(function, spec)
    setattr(wrapper, MARK, spec)
    spec.function = wrapper
    if spec.replay is not None:
        _offer(spec)
    return wrapper


def audited(function: Any) -> Spec | None:
    """The Spec of an audited function (or of its bound method), or None."""
    found = getattr(function, MARK, None)
    return found if isinstance(found, Spec) else None


def register(
    function: Callable[..., Any],
    *,
    name: str | None = None,
    replay: bool | str = True,
    caution: str | None = None,
    redact: Iterable[str] = (),
) -> None:
    """Allow replays of a function that cannot be decorated; given a class, allow arguments to be rebuilt as it.

    Raises UsageError for a wrong option.
    """
    if isinstance(function, type) and name is None:
        REGISTRY.add_type(function)
        return
    spec = audited(function)
    if spec is None or name not in (None, spec.name):
        options = {"replay": replay, "caution": caution, "redact": redact}
        spec = _declare(function, name, "register", options)
    elif replay:
        spec.replay, spec.caution = ("ask" if replay == "ask" else "yes"), caution
    _offer(spec)


def _offer(spec: Spec) -> None:
    """Make a function known to the daemon now, if this process is already known to it."""
    REGISTRY.add(spec)
    if PROCESS.sender is not None:
        PROCESS.wake()


_specs: dict[Any, Spec] = {}
_bare: dict[str, Spec] = {}
"""Those of `track` with a name and nothing else."""
_PLAIN = plain_for(())
_NONE: tuple[str, ...] = ()  # the empty tuple is one object: a default that was left alone is known without asking what was given


def runtime_spec(name: object, source: str, options: dict[str, Any]) -> Spec:
    """The Spec of a name met while the program runs; options that cannot be used are counted and left out."""
    try:
        known = (name, source, *((k, str(v)) for k, v in sorted(options.items()) if v is not None))
        spec = _specs.get(known)
        if spec is None:
            spec = Spec(str(name), None, source=source, **options)
            if len(_specs) < SPECS_MAX:
                _specs[known] = spec
        return spec
    except Exception as error:  # noqa: BLE001 - an option must not stop the work it describes
        trouble.note("an option was left out", error)
        return Spec("".join(c for c in str(name) if c.isprintable()).strip()[:200] or "unnamed", None, source=source)


class track:
    """`with` (or `async with`) this block as one task. `args` are its recorded arguments, `key` its key as text."""

    def __init__(
        self,
        name: str,
        args: Mapping[str, Any] | None = None,
        *,
        deadline: float | str | None = None,
        progress_within: float | str | None = None,
        key: object = None,
        redact: Iterable[str] = (),
        tags: Mapping[str, str] | None = None,
    ) -> None:
        bare = deadline is None and progress_within is None and tags is None and redact is _NONE and type(name) is str
        spec = _bare.get(name) if bare else None
        if spec is None:
            options = {"deadline": deadline, "progress_within": progress_within, "redact": redact, "tags": tags}
            spec = runtime_spec(name, "track", options)
            if bare and len(_bare) < SPECS_MAX:
                _bare[name] = spec
        self._spec = spec
        self._args, self._key, self._redact = args, key, redact
        self._task: Task | None = None

    def __enter__(self) -> Task:
        task = self._quickly() if self._key is None and self._redact is _NONE else None
        if task is None:
            text, problem = named_args(self._args, self._redact)
            task = record.begin(self._spec, text, problem, extra=None if self._key is None else {"key": key_text(self._key)})
        task.token = CURRENT.set(task)
        self._task = task
        PROCESS.blocks[task] = sys._getframe(1)  # stacks.begins_here, without a call
        return task

    def _quickly(self) -> Task | None:
        """The task of a block with plain arguments and nothing else to say; None: it takes the long way. Never raises."""
        args = self._args
        try:
            data = b"{}" if not args else _PLAIN.encode(args) if type(args) is dict else None
            return record.enter_block(self._spec, data) if data is not None else None
        except Exception as error:  # noqa: BLE001 - as everywhere on this path
            trouble.note("a block took the long way", error)
            return None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._task is not None:
            PROCESS.blocks.pop(self._task, None)
            record.leave(self._task, error)

    async def __aenter__(self) -> Task:
        task = self.__enter__()
        PROCESS.blocks[task] = sys._getframe(1)
        return task

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.__exit__(kind, error, trace)


def named_args(args: Mapping[str, Any] | None, redact: Iterable[str]) -> tuple[str, str | None]:
    """Arguments given by name as JSON text, and why no replay, if so. Never raises."""
    if not args:
        return "{}", None
    try:
        return encode_named(args, tuple(redact))
    except Exception as error:  # noqa: BLE001 - as everywhere on this path
        trouble.note("arguments could not be captured", error)
        return "{}", "its arguments could not be captured"


def key_text(key: object) -> str | None:
    """A key given at a call as text; None for what is neither text nor a whole number."""
    return clean(str(key)) or None if isinstance(key, str | int) else None


def init(
    *,
    service: str | None = None,
    environment: str | None = None,
    release: str | None = None,
    url: str | None = None,
    token: str | None = None,
    spool_dir: str | None = None,
) -> None:
    """Say who this service is (environment variables come first) and make it known to the daemon. Never raises, never waits."""
    given = {
        "service": service,
        "environment": environment,
        "release": release,
        "url": url,
        "token": token,
        "spool_dir": spool_dir,
    }
    if PROCESS.journal is not None and given != PROCESS.given:
        trouble.note("init came after the first task", "call looseends.init(...) before any task; this one was ignored")
        return
    PROCESS.given = given
    remember_loop()
    PROCESS.open()


def flush(timeout: float = 2.0) -> int:
    """Wait until everything recorded so far has been taken by the daemon. -> records still unsent after `timeout` seconds."""
    sender = PROCESS.sender
    return sender.flush(timeout) if sender is not None else 0


def install(*systems: str) -> None:
    """Capture the work of these systems, such as "asyncio", "starlette". Raises UsageError for an unknown name."""
    for system in systems:
        if system not in INTEGRATIONS:
            raise UsageError(f"looseends.install({system!r}): allowed are {', '.join(INTEGRATIONS)}")
        if system in AHEAD:
            AHEAD.discard(system)
            continue
        __import__(INTEGRATIONS[system], fromlist=["install"]).install()
        INSTALLED.add(system)


INSTALLED: set[str] = set()
"""Systems that were installed in this process."""
AHEAD: set[str] = set()
"""Those that `looseends instrument` installed before the program asked for them: its own call is no second one."""
INTEGRATIONS = {
    "asyncio": "looseends.integrations.asyncio",
    "threading": "looseends.integrations.threading",
    "futures": "looseends.integrations.futures",
    "multiprocessing": "looseends.integrations.multiprocessing",
    "starlette": "looseends.integrations.starlette",
    "celery": "looseends.integrations.celery",
    "arq": "looseends.integrations.arq",
    "rq": "looseends.integrations.rq",
    "dramatiq": "looseends.integrations.dramatiq",
    "huey": "looseends.integrations.huey",
}
