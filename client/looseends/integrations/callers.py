"""Who asked asyncio for a task, and which request a server is about to serve.

Rules:

1. asyncio's own frames are looked through: `create_task`, `gather`, `TaskGroup`, `shield`, `ensure_future` ask for somebody.
2. What is awaited on the spot is no work left to itself: `wait_for` (a task of its own before Python 3.12), the program's main
   coroutine, a connection handed to its handler.
3. A server's task that serves a request is no work either; what is begun inside it shows the request.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from types import FrameType
from typing import Any

from looseends.context import REQUEST
from looseends.integrations.requests import Request, label_of
from looseends.slots import clean

HOPS_MAX = 12


def _codes(*names: str) -> frozenset[Any]:
    """The code objects of these functions of asyncio, those of them that this Python has."""
    found = set()
    for name in names:
        target: Any = asyncio
        for part in name.split("."):
            target = getattr(target, part, None)
        code = getattr(target, "__code__", None)
        if code is not None:
            found.add(code)
    return frozenset(found)


_THROUGH = _codes("create_task", "TaskGroup.create_task", "gather", "shield", "ensure_future", "tasks._ensure_future")
_ENSURE = _codes("ensure_future", "tasks._ensure_future")
# A coroutine awaited on the spot, the program itself, a connection: no work that was left to itself.
_NO_WORK = _codes(
    *("wait_for", "Runner.run", "run", "BaseEventLoop.run_until_complete", "StreamReaderProtocol.connection_made"),
    *("streams.StreamReaderProtocol.connection_made", "base_events.BaseEventLoop._asyncgen_finalizer_hook"),
)


def caller_of(loop: Any, frame: FrameType | None) -> FrameType | None:
    """The frame that asked for a task, past asyncio's own; None: it is no work."""
    ensured = False
    for _ in range(HOPS_MAX):
        if frame is None or frame.f_code in _NO_WORK:
            return None
        if frame.f_code not in _THROUGH:
            break
        ensured = ensured or frame.f_code in _ENSURE
        frame = frame.f_back
    # `run_until_complete` of a loop written in C leaves no frame: what it runs is the program itself
    return None if ensured and not loop.is_running() else frame


def note_request(coroutine: Any, kwargs: dict[str, Any]) -> None:
    """A server's own task: where it serves a request, what is begun inside shows which."""
    name = getattr(coroutine, "__qualname__", "")
    if name not in _SERVED or getattr(coroutine, "cr_frame", None) is None:
        return
    values = coroutine.cr_frame.f_locals
    label = _SERVED[name](values)
    if type(values) is dict:
        values.clear()
    if label:
        context = kwargs.get("context")
        (context.run if context is not None else _call)(REQUEST.set, Request(label))


def _call(function: Callable[..., Any], *args: Any) -> None:
    function(*args)


def _asgi(values: Any) -> str | None:
    scope = getattr(values.get("self"), "scope", None)
    return label_of(scope) if isinstance(scope, dict) else None


def _aiohttp(values: Any) -> str | None:
    request = values.get("request")
    return clean(f"{getattr(request, 'method', '')} {getattr(request, 'path', '')}".strip()) or None


_SERVED: dict[str, Callable[[Any], str | None]] = {
    "RequestResponseCycle.run_asgi": _asgi,
    "RequestHandler._handle_request": _aiohttp,
}
