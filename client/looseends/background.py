"""Work that outlives its caller: `spawn`, and the end of it: `shutdown`.

Rules: a spawned task is held until it ends, recorded as scheduled before `spawn` returns, started at its first step.
One audited coroutine is one task. A shutdown waits for what was spawned, then reports what is still open as dropped.
"""

from __future__ import annotations

import functools
import sys
import time
from collections.abc import Coroutine, Generator, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from . import record, trouble
from .context import CURRENT, Task
from .lifecycle import PROCESS
from .spec import Spec, name_of
from .task import flush, key_text, named_args, runtime_spec
from .wrappers import is_wrapper

if TYPE_CHECKING:
    import asyncio

R = TypeVar("R")


def spawn(
    coroutine: Coroutine[Any, Any, R],
    *,
    name: str | None = None,
    deadline: float | str | None = None,
    progress_within: float | str | None = None,
    key: object = None,
    tags: Mapping[str, str] | None = None,
) -> asyncio.Task[R]:
    """`asyncio.create_task` that cannot vanish: held until it ends, audited, drained by `shutdown`.

    Raises what `create_task` raises: no running loop (RuntimeError), no coroutine (TypeError).
    """
    import asyncio
    import contextvars

    loop = asyncio.get_running_loop()
    if not asyncio.iscoroutine(coroutine):
        raise TypeError(f"a coroutine was expected, got {coroutine!r:.100}")
    PROCESS.loop = loop
    options = {"deadline": deadline, "progress_within": progress_within, "tags": tags}
    handed, body = _schedule(coroutine, name, key, options)
    context = contextvars.copy_context()
    context.run(CURRENT.set, handed)
    running = loop.create_task(body, name=handed.name, context=context)
    PROCESS.spawned.add(running)
    running.add_done_callback(functools.partial(_ended, handed, coroutine))
    return running


def _schedule(coroutine: Any, name: str | None, key: object, options: dict[str, Any]) -> tuple[Task, Any]:
    """The scheduled record of a coroutine, and the coroutine to run: its own where that is audited, else one around it."""
    extra = None if key is None else {"key": key_text(key)}
    try:
        frame = coroutine.cr_frame if coroutine.cr_await is None else None
        values = dict(frame.f_locals) if frame is not None else {}
        spec = values.get("spec")
        if is_wrapper(coroutine.cr_code) and isinstance(spec, Spec):
            text, problem = spec.shape.encode(values["args"], values["kwargs"])
            handed = record.begin(spec.via("spawn"), text, problem, scheduled=True, extra=extra)
            handed.awaits = spec
            return handed, coroutine
    except Exception as error:  # noqa: BLE001 - a strange coroutine is still to be run
        trouble.note("a coroutine could not be read", error)
        values = {}
    spec = runtime_spec(name or _coroutine_name(coroutine), "spawn", options)
    text, problem = named_args(values, ())
    handed = record.begin(spec, text, problem, scheduled=True, extra=extra)
    return handed, _watched(coroutine, handed)


def _coroutine_name(coroutine: Any) -> str:
    frame = getattr(coroutine, "cr_frame", None)
    module = frame.f_globals.get("__name__", "") if frame is not None else ""
    qualname = getattr(coroutine, "__qualname__", "coroutine")

    class Named:
        __module__ = module
        __qualname__ = qualname

    return name_of(Named)


async def _watched(coroutine: Coroutine[Any, Any, R], task: Task) -> R:
    record.start(task)
    try:
        result = await coroutine
    except BaseException as error:
        record.leave(task, error)
        raise
    record.leave(task, None)
    return result


def _ended(task: Task, coroutine: Coroutine[Any, Any, Any], running: asyncio.Task[Any]) -> None:
    """A spawned task is done. One that was cancelled before its first step never ran our code: say so here."""
    PROCESS.spawned.discard(running)
    if task.state == "scheduled":
        import asyncio

        record.end(task, asyncio.CancelledError())
        coroutine.close()


class _Shutdown:
    """What `shutdown` gives inside a running loop: nothing has happened yet, `await` it."""

    def __init__(self, timeout: float) -> None:
        self._timeout = timeout

    def __await__(self) -> Generator[Any, None, None]:
        return self._run().__await__()

    async def _run(self) -> None:
        import asyncio

        await drain(self._timeout)
        await asyncio.to_thread(_finish, _ancestors())


def shutdown(timeout: float = 10.0) -> Any:
    """Wait for spawned tasks, at most `timeout` seconds; report what is still open as dropped; send; say goodbye.

    In async code: `await looseends.shutdown()`.
    """
    asyncio = sys.modules.get("asyncio")
    if asyncio is not None and asyncio._get_running_loop() is not None:
        return _Shutdown(timeout)
    until = time.monotonic() + timeout
    while time.monotonic() < until and (
        any(t.get_loop().is_running() for t in list(PROCESS.spawned) if not t.done()) or _replaying()
    ):
        time.sleep(0.01)
    _finish(_ancestors())
    return None


def _replaying() -> bool:
    """Whether replays run here. From now on no order is taken."""
    replay = sys.modules.get("looseends.replay")
    if replay is None:
        return False
    replay.RUNS.closed = True
    return bool(replay.RUNS.running)


def _ancestors() -> set[tuple[int, int]]:
    """The place of the task that asks for the shutdown: it still runs, and will end by itself."""
    task = CURRENT.get()
    return {(id(task.segment), task.at)} if task is not None and task.segment is not None else set()


def _finish(keep: set[tuple[int, int]]) -> None:
    try:
        if keep:
            PROCESS.drop_open(keep)
            flush()
        else:
            PROCESS.goodbye()
    except Exception as error:  # noqa: BLE001 - the service is ending; nothing may stand in its way
        trouble.note("shutdown", error)


async def drain(seconds_max: float) -> None:
    """Wait for the spawned tasks of this loop and for replays, at most `seconds_max`. They are not cancelled."""
    import asyncio

    until = time.monotonic() + seconds_max
    while _replaying() and time.monotonic() < until:  # noqa: ASYNC110 - some run in threads, which no event of this loop hears
        await asyncio.sleep(0.01)
    here, me = asyncio.get_running_loop(), asyncio.current_task()
    waiting = [t for t in PROCESS.spawned if t.get_loop() is here and t is not me and not t.done()]
    if waiting:
        await asyncio.wait(waiting, timeout=max(0.0, until - time.monotonic()))
