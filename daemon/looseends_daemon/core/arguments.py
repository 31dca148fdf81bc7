"""Whether named arguments can be what a function is called with: plain JSON within bounds, and a fit to its signature. Pure."""

from __future__ import annotations

import ast
from collections.abc import Mapping
from typing import Any

from looseends.wire import DEPTH_MAX, PAYLOAD_BYTES_MAX, canonical


def misfit(signature: str | None, args: Mapping[str, Any]) -> str | None:
    """Why these named arguments cannot be bound to `str(inspect.signature(f))`; None: they can, or nobody can tell.

    The text is parsed, never run. Defaults that are no Python (`<object object at ...>`) make it unreadable; then the
    client's own binding is the judge, before anything of the user's runs.
    """
    spec = _parameters(signature)
    if spec is None:
        return None
    positional = [*spec.posonlyargs, *spec.args]
    needed = positional[: len(positional) - len(spec.defaults)]
    needed += [name for name, default in zip(spec.kwonlyargs, spec.kw_defaults, strict=True) if default is None]
    missing = [item.arg for item in needed if item.arg not in args]
    known = {item.arg for item in (*positional, *spec.kwonlyargs, spec.vararg, spec.kwarg) if item is not None}
    extra = sorted(name for name in args if name not in known) if spec.kwarg is None else []
    wrong = [f"{', '.join(missing)} {'is' if len(missing) == 1 else 'are'} missing"] if missing else []
    wrong += [f"it takes no {', '.join(extra)}"] if extra else []
    return ", and ".join(wrong) or None


def _parameters(signature: str | None) -> ast.arguments | None:
    try:
        body = ast.parse(f"def f{signature}: ...").body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None
    return body[0].args if len(body) == 1 and isinstance(body[0], ast.FunctionDef) else None


def wrong_arguments(args: object) -> str | None:
    """Why edited arguments cannot be taken (None: they can): by name, plain JSON, and no larger than recorded ones."""
    if not isinstance(args, Mapping) or not all(isinstance(name, str) for name in args):
        return 'must be an object of arguments by name, such as {"order_id": 7}'
    if _nesting(args) > DEPTH_MAX:
        return f"are nested deeper than {DEPTH_MAX} levels"
    try:
        size = len(canonical(args).encode())
    except (TypeError, ValueError):
        return "hold something that JSON cannot carry (NaN, infinity, half a surrogate)"
    return f"are {size} bytes of JSON, at most {PAYLOAD_BYTES_MAX} are taken" if size > PAYLOAD_BYTES_MAX else None


def _nesting(value: object, level: int = 0) -> int:
    """How deep a value nests; stops counting one past the limit, so that hostile depth costs nothing."""
    if level > DEPTH_MAX or not isinstance(value, Mapping | list):
        return level
    inner = value.values() if isinstance(value, Mapping) else value
    return max((_nesting(item, level + 1) for item in inner), default=level)
