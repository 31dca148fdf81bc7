"""What stands around an audited function: one wrapper for each kind of function, so that a function stays the kind it was.

Rules:

1. `functools.wraps` keeps name, signature, annotations and `__wrapped__`; a generator function, an `async def` and an async
   generator stay what `inspect` and frameworks know them as.
2. A generator is one task from its first step to its end. Between its steps its consumer runs, and the consumer's own task is
   the current one there. Ended early by its consumer (`break`, `close`), it is cancelled as requested: nothing was lost.
3. A wrapper's code is named `looseends_task` and holds its Task in the local `task`: by that, stacks find where a task is.
"""

from __future__ import annotations

import functools
import json.encoder
import sys
import time
import zlib
from collections.abc import AsyncGenerator, Callable, Generator
from types import CodeType
from typing import Any

from . import context, plain, record, slots, trouble
from .lifecycle import PROCESS
from .spec import CO_ASYNC_GENERATOR, CO_COROUTINE, CO_GENERATOR, Spec, code_flags

_OURS = __file__.rsplit("/", 1)[0] + "/"
enter, leave = record.enter, record.leave

# What the code of tailored.py, which runs as a wrapper's, works with beside these: it looks names up here.
CODEC, PACKERS, INLINE_BYTES_MAX, NO_ID = plain.CODEC, slots.PACKERS, slots.INLINE_BYTES_MAX, slots.NO_ID
TRACE, Task, end, note = record.TRACE, context.Task, record.end, trouble.note
observers, tell = record._observers, record._tell
hides, quote, crc32 = plain.hide_something, json.encoder.encode_basestring_ascii, zlib.crc32
current, make_current, reset = context.CURRENT.get, context.CURRENT.set, context.CURRENT.reset
modules, new, now = sys.modules, object.__new__, time.monotonic_ns


def wrap(function: Callable[..., Any], spec: Spec) -> Callable[..., Any]:
    """The audited form of a function, of the same kind."""
    flags = code_flags(function)
    if flags & CO_COROUTINE:
        return _async_wrapper(function, spec)
    if flags & CO_ASYNC_GENERATOR:
        return _async_generator_wrapper(function, spec)
    if flags & CO_GENERATOR:
        return _generator_wrapper(function, spec)
    return _sync_wrapper(function, spec)


def _sync_wrapper(function: Callable[..., Any], spec: Spec) -> Callable[..., Any]:
    @functools.wraps(function)
    def looseends_task(*args: Any, **kwargs: Any) -> Any:
        task = enter(spec, args, kwargs)
        try:
            result = function(*args, **kwargs)
        except BaseException as error:
            leave(task, error)
            raise
        leave(task, None)
        return result

    spec.wrapper = looseends_task
    return looseends_task


def _async_wrapper(function: Callable[..., Any], spec: Spec) -> Callable[..., Any]:
    """The audited form of an `async def`."""

    @functools.wraps(function)
    async def looseends_task(*args: Any, **kwargs: Any) -> Any:
        task = enter(spec, args, kwargs)
        loop = PROCESS.loop
        if loop is None or loop.is_closed():
            remember_loop()
        try:
            result = await function(*args, **kwargs)
        except BaseException as error:
            leave(task, error)
            raise
        leave(task, None)
        return result

    spec.wrapper = looseends_task
    return looseends_task


def is_wrapper(code: CodeType) -> bool:
    """Whether a coroutine with this code is a call of an audited `async def`: it has `spec`, `args` and `kwargs` as locals."""
    return code.co_name == "looseends_task" and code.co_filename.startswith(_OURS)


def _generator_wrapper(function: Callable[..., Generator[Any, Any, Any]], spec: Spec) -> Callable[..., Any]:
    @functools.wraps(function)
    def looseends_task(*args: Any, **kwargs: Any) -> Generator[Any, Any, Any]:
        task = record.enter(spec, args, kwargs)
        try:
            inner = function(*args, **kwargs)
            step, value = inner.send, None
            while True:
                given = step(value)
                record.pause(task)
                try:
                    value = yield given
                    step = inner.send
                except GeneratorExit:
                    record.resume(task)
                    inner.close()
                    record.close(task)
                    raise
                except BaseException as error:  # noqa: BLE001 - thrown in by the consumer, and meant for the body
                    step, value = inner.throw, error
                record.resume(task)
        except StopIteration as end:
            record.leave(task, None)
            return end.value
        except BaseException as error:
            record.leave(task, error)
            raise

    return looseends_task


def _async_generator_wrapper(function: Callable[..., AsyncGenerator[Any, Any]], spec: Spec) -> Callable[..., Any]:
    @functools.wraps(function)
    async def looseends_task(*args: Any, **kwargs: Any) -> AsyncGenerator[Any, Any]:
        task = record.enter(spec, args, kwargs)
        try:
            inner = function(*args, **kwargs)
            step, value = inner.asend, None
            while True:
                given = await step(value)
                record.pause(task)
                try:
                    value = yield given
                    step = inner.asend
                except GeneratorExit:
                    record.resume(task)
                    await inner.aclose()
                    record.close(task)
                    raise
                except BaseException as error:  # noqa: BLE001 - thrown in by the consumer, and meant for the body
                    step, value = inner.athrow, error
                record.resume(task)
        except StopAsyncIteration:
            record.leave(task, None)
        except BaseException as error:
            record.leave(task, error)
            raise

    return looseends_task


def remember_loop() -> None:
    """Note the loop that runs here: replays of `async def` functions run on it."""
    asyncio = sys.modules.get("asyncio")
    if asyncio is not None:
        PROCESS.loop = asyncio._get_running_loop() or PROCESS.loop
