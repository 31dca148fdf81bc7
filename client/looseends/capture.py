"""Arguments -> bounded, typed JSON. Pure; `plain.py` is the short way, `values.py` writes the rest, `rebuild.py` goes back.

Rules:

1. JSON with one reserved key, `$t`, for what JSON has no word for. Nothing is guessed on the way back: what was a tuple
   comes back as one.
2. What cannot be written down (a session, a lock, a lambda, something too big, a secret) leaves its class and a reason,
   and the task is not replayable, with the path and the reason in words.
3. No user code runs here while a task waits: no `__repr__`, no property; only what lies in the object's own dict or slots.
4. Bounds: 16 KiB a text, 10,000 values, 12 levels, 60,000 bytes in all.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any

from .plain import ARGS_BYTES_MAX, CODEC, SCALARS_MAX, dumps, plain_for
from .redact import is_secret
from .values import Bounds, Names, Reason, Walk

TEXT_CHARS_MAX = 16 << 10
VALUES_MAX = 10_000
DEPTH_MAX = 12
NAMES_KEPT_MAX = 200
"""How many `redact=` lists are kept with what is known about the names met."""
_CO_VARARGS, _CO_VARKEYWORDS = 4, 8
_FULL = Bounds(TEXT_CHARS_MAX, VALUES_MAX, DEPTH_MAX)
_BRIEF = Bounds(200, 100, 3)
_names_for = functools.lru_cache(NAMES_KEPT_MAX)(Names)


class Shape:
    """The parameters of one function, prepared once, so that a call's values get names without binding a signature."""

    __slots__ = ("_positional", "_names", "_open", "_redact", "_rest", "_rest_named", "_clean", "_plain", "params")

    def __init__(self, function: Any, redact: tuple[str, ...] = ()) -> None:
        names, positional, flags = _parameters(function)
        self.params = names[:positional]
        self._positional = positional
        self._rest = names[len(names) - 1 - bool(flags & _CO_VARKEYWORDS)] if flags & _CO_VARARGS else "args"
        self._rest_named = names[-1] if flags & _CO_VARKEYWORDS else "kwargs"
        self._names = names
        self._open = bool(flags & _CO_VARKEYWORDS)
        self._redact, self._plain = redact, plain_for(redact)
        hidden = [is_secret(name, self._redact) for name in self.params]
        self._clean = min(hidden.index(True) if True in hidden else positional, SCALARS_MAX)

    def takes(self, name: str) -> bool:
        """Whether a call may give this parameter by name."""
        return name in self._names or self._open

    def encode(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[str, str | None]:
        """One call's arguments as JSON text (a list for the first parameters, or an object), and why no replay, if so."""
        found = self.plain(args, kwargs)
        return written(self.named(args, kwargs), self._redact) if found is None else (found.decode(), None)

    def plain(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bytes | None:
        """The same where every value is plain and none is hidden, so that it can be replayed; else None."""
        given = self._in_order(args, kwargs) if kwargs else args
        if given is not None and len(given) <= self._clean and (found := CODEC.scalars(given)) is not None:
            return found
        return self._plain.encode(self.named(args, kwargs))

    def _in_order(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, ...] | None:
        """The values as they would be given by position; None where some are given that have none, or one before them is not."""
        count = len(args) + len(kwargs)
        try:
            return (*args, *[kwargs[name] for name in self.params[len(args) : count]]) if count <= self._clean else None
        except KeyError:
            return None

    def named(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
        """A call's values under their parameter names; `*args` and `**kwargs` under theirs."""
        found: dict[str, Any] = dict(zip(self.params, args, strict=False))
        if len(args) > self._positional:
            found[self._rest] = args[self._positional :]
        for name, value in kwargs.items():
            if name in found or name == self._rest:
                found.setdefault(self._rest_named, {})[name] = value
            else:
                found[name] = value
        return found


def _parameters(function: Any) -> tuple[tuple[str, ...], int, int]:
    """Names of the parameters (positional first), how many of them are positional, and the code's flags.

    Of a bound method as its function has them, `self` among them: who records a bound call puts its object first.
    """
    seen = 0
    while hasattr(function, "__wrapped__") and seen < 20:
        function, seen = function.__wrapped__, seen + 1
    given = 0
    while isinstance(function, functools.partial) and seen < 20:
        given, function = given + len(function.args), function.func
        seen += 1
    if seen and hasattr(function, "__func__"):  # a partial of a bound method is called without the object
        given += 1
    function = getattr(function, "__func__", function)
    if not hasattr(function, "__code__"):  # a class is called as its __init__, an object as its __call__, both without self
        made = getattr(function, "__init__" if isinstance(function, type) else "__call__", None)
        given, function = given + 1, getattr(made, "__func__", made)
    code = getattr(function, "__code__", None)
    if code is None:
        return ("args", "kwargs"), 0, _CO_VARARGS | _CO_VARKEYWORDS
    total = code.co_argcount + code.co_kwonlyargcount
    total += bool(code.co_flags & _CO_VARARGS) + bool(code.co_flags & _CO_VARKEYWORDS)
    given = min(given, code.co_argcount)
    names = code.co_varnames[given:total]
    return names, code.co_argcount - given, code.co_flags


def encode_named(values: Mapping[str, Any], redact: Sequence[str] = ()) -> tuple[str, str | None]:
    """Values under names as JSON text of at most ARGS_BYTES_MAX, and the reason why they cannot be replayed, if any."""
    found = plain_for(tuple(redact)).encode(values) if type(values) is dict else None
    return (found.decode(), None) if found is not None else written(values, redact)


def written(values: Mapping[str, Any], redact: Sequence[str] = ()) -> tuple[str, str | None]:
    """`encode_named` without its short way: for whoever has tried it already."""
    text, problem = _encode(values, redact, _FULL)
    if len(text) <= ARGS_BYTES_MAX:
        return text, problem
    reason = Reason(f"its arguments are over {len(text):,} bytes of JSON; at most {ARGS_BYTES_MAX:,} are recorded")
    reason.hidden = problem.hidden if problem is not None else ()
    text, _ = _encode(values, redact, _BRIEF)
    return text if len(text) <= ARGS_BYTES_MAX else "{}", reason


def _encode(values: Mapping[str, Any], redact: Sequence[str], bounds: Bounds) -> tuple[str, Reason | None]:
    walk = Walk(_names_for(tuple(redact)), bounds)
    found = dumps(walk.top(dict.items(values) if issubclass(type(values), dict) else values.items()))  # type: ignore[arg-type]
    return found, walk.problem
