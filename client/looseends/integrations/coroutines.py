"""What a coroutine is about: its name, its arguments before its first step, and whether it is work at all.

Rules:

1. Work is a coroutine of the service's own code, or one of a library that the service's own code made a task of. What a
   library does for itself, and the waits of asyncio (`sleep`, `Queue.get`, `Event.wait`), are none.
2. Arguments are read from the frame of a coroutine that has not begun: there they are still what the caller passed. What was
   read is let go at once: `f_locals` would keep every argument alive as long as the task.
3. A coroutine around another is that other one: `wait_for(send(7), 5)`, `to_thread(render, 7)`, anyio's own wrapper.
4. What is learned about a function is kept by its code object, KINDS_MAX of them; more share one name, "asyncio.task".
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable
from types import CodeType, CoroutineType
from typing import Any

from looseends import trouble
from looseends.capture import encode_named
from looseends.integrations.owncode import OWN
from looseends.slots import clean
from looseends.spec import REGISTRY, Spec, name_of
from looseends.task import audited
from looseends.wrappers import is_wrapper

KINDS_MAX = 5_000
SOURCE = "asyncio"
_CO_VARARGS, _CO_VARKEYWORDS = 4, 8
_TO_THREAD = asyncio.to_thread.__code__
_WAIT_FOR = asyncio.wait_for.__code__


class Made:
    """What stands behind a coroutine, as far as a Spec asks: name, module, code."""

    def __init__(self, qualname: str, module: str, code: CodeType) -> None:
        self.__qualname__, self.__module__, self.__code__ = qualname, module, code


class Kind:
    """All coroutines of one function. `own`: the service's own code."""

    __slots__ = ("code", "own", "simple", "spec", "version")

    def __init__(self, spec: Spec, code: CodeType | None, own: bool) -> None:
        self.spec, self.code, self.own = spec, code, own
        self.version = REGISTRY.version
        flags = _CO_VARARGS | _CO_VARKEYWORDS
        self.simple = code is not None and not code.co_flags & flags and not code.co_kwonlyargcount


class Call:
    """One coroutine read before its first step: whose Spec, its arguments as JSON text, why no replay. `inner`: it is audited.

    `thread`: the function that it will have a thread run, which futures.py then does not tell of once more.
    """

    __slots__ = ("inner", "own", "problem", "spec", "text", "thread")

    def __init__(self, spec: Spec, text: str, problem: str | None, own: bool, inner: Spec | None = None) -> None:
        self.spec, self.text, self.problem, self.own, self.inner = spec, text, problem, own, inner
        self.thread: Any = None


_kinds: dict[CodeType, Kind] = {}
_functions: dict[Any, Spec] = {}


def read(coroutine: Any) -> Call | None:
    """What this coroutine is about, or None: no work, or begun already."""
    for _ in range(5):
        if type(coroutine) is not CoroutineType:
            return _foreign(coroutine)
        code = coroutine.cr_code
        if is_wrapper(code):
            return _of_audited(coroutine)
        if code is _TO_THREAD:
            return _of_thread(coroutine)
        inside = _INSIDE.get(code.co_qualname)
        found = inside(coroutine) if inside is not None else None
        if found is None:
            return _of_function(coroutine, code)
        coroutine = found
    return None


def _of_function(coroutine: CoroutineType[Any, Any, Any], code: CodeType) -> Call | None:
    frame = coroutine.cr_frame
    if frame is None:
        return None
    kind = _kinds.get(code)
    if kind is None or kind.version != REGISTRY.version:
        kind = _kind(coroutine, code, str(frame.f_globals.get("__name__") or ""))
    if not kind.own and code.co_filename.startswith(_ASYNCIO):
        return None
    values = frame.f_locals
    try:
        if kind.simple:
            text, problem = kind.spec.shape.encode(tuple([values[name] for name in kind.spec.shape.params]), {})
        else:
            text, problem = encode_named(_named(code, values), kind.spec.shape._redact)
    except Exception as error:  # noqa: BLE001 - work whose arguments cannot be read is work
        trouble.note("arguments could not be captured", error)
        text, problem = "{}", "its arguments could not be captured"
    finally:
        if type(values) is dict:  # before Python 3.13 it is a copy that lives as long as the frame
            values.clear()
    return Call(kind.spec, text, problem, kind.own)


def _named(code: CodeType, values: Any) -> dict[str, Any]:
    """Arguments by name; `**kwargs` among the others, as a call writes them."""
    count = code.co_argcount + code.co_kwonlyargcount + bool(code.co_flags & _CO_VARARGS)
    found = {name: values[name] for name in code.co_varnames[:count] if name in values}
    if code.co_flags & _CO_VARKEYWORDS:
        more = values.get(code.co_varnames[count])
        found.update({name: value for name, value in more.items() if name not in found} if isinstance(more, dict) else {})
    return found


def _kind(coroutine: Any, code: CodeType, module: str) -> Kind:
    made = Made(coroutine.__qualname__, module, code)
    if len(_kinds) >= KINDS_MAX and code not in _kinds:
        made, code_of = Made("task", SOURCE, _shared.__code__), None
        spec = _functions.get(SOURCE) or _functions.setdefault(SOURCE, _spec(made))
        return Kind(spec, code_of, OWN.has(code.co_filename))
    kind = _kinds[code] = Kind(_spec(made), code, OWN.has(code.co_filename))
    return kind


def _shared(*args: Any, **kwargs: Any) -> None: ...


def _spec(function: Any) -> Spec:
    """The Spec of captured work. What its author registered under this name hides the same arguments here."""
    name = name_of(function)
    known = REGISTRY.functions.get(name)
    spec = Spec(name, function, source=SOURCE, declared=False, redact=known.shape._redact if known is not None else ())
    spec.function = None
    return spec


def _of_audited(coroutine: Any) -> Call | None:
    """A coroutine of a decorated function: its wrapper will start what is scheduled here."""
    frame = coroutine.cr_frame
    if frame is None:
        return None
    values = frame.f_locals
    try:
        inner = values["spec"]
        text, problem = inner.shape.encode(values["args"], values["kwargs"])
    finally:
        if type(values) is dict:
            values.clear()
    return Call(inner.via(SOURCE), text, problem, True, inner)


def _of_thread(coroutine: Any) -> Call | None:
    """`asyncio.to_thread(render, 7)` made a task: the work is `render(7)`."""
    values = coroutine.cr_frame.f_locals
    function: Any = values["func"]
    args, kwargs = values["args"], values["kwargs"]
    if type(values) is dict:
        values.clear()
    while isinstance(function, functools.partial):
        function, args, kwargs = function.func, function.args + args, {**function.keywords, **kwargs}
    inner = audited(function)
    if inner is not None:
        return Call(inner.via(SOURCE), *inner.shape.encode(args, kwargs), True, inner)
    code = getattr(function, "__code__", None)
    key = code if code is not None else type(function)
    spec = _functions.get(key)
    if spec is None:
        spec = _spec(function)
        if len(_functions) < KINDS_MAX:
            _functions[key] = spec
    bound = getattr(function, "__self__", None)
    if bound is not None and hasattr(function, "__func__"):
        args = (bound, *args)
    call = Call(spec, *spec.shape.encode(args, kwargs), OWN.has(code.co_filename) if code is not None else False)
    call.thread = function
    return call


def _foreign(coroutine: Any) -> Call | None:
    """A coroutine that no `async def` made (Cython, a class with `send`): its name is all there is to see."""
    qualname = getattr(coroutine, "__qualname__", None)
    if not isinstance(qualname, str) or not isinstance(coroutine, asyncio.coroutines.Coroutine):  # type: ignore[attr-defined]
        return None
    module = str(getattr(type(coroutine), "__module__", "") or "")
    spec = _functions.get(qualname)
    if spec is None:
        spec = _spec(Made(clean(qualname), module, _shared.__code__))
        if len(_functions) < KINDS_MAX:
            _functions[qualname] = spec
    return Call(spec, "{}", "its arguments cannot be seen", False)


# --- coroutines around others -------------------------------------------------------------------------------------


def _in_wait_for(coroutine: Any) -> Any:
    if coroutine.cr_code is not _WAIT_FOR or coroutine.cr_frame is None:
        return None
    values = coroutine.cr_frame.f_locals
    found = values.get("fut")
    if type(values) is dict:
        values.clear()
    return found if asyncio.iscoroutine(found) else None


def _in_anyio(coroutine: Any) -> Any:
    if "/anyio/" not in coroutine.cr_code.co_filename or coroutine.cr_frame is None:
        return None
    values = coroutine.cr_frame.f_locals
    found = getattr(values.get("self"), "_coro", None)
    if type(values) is dict:
        values.clear()
    return found if asyncio.iscoroutine(found) else None


_INSIDE: dict[str, Callable[[Any], Any]] = {"wait_for": _in_wait_for, "TaskHandle._run_coro": _in_anyio}
_ASYNCIO = asyncio.__file__.rpartition("/")[0] + "/"
