"""Recorded arguments -> values again, for a replay. Pure; imports a module only to rebuild its values.

Rule: no pickle, no eval, no import by a recorded name. What is built is the standard library's values, by a fixed table,
and the classes that are handed in (`allowed`); everything else is a DecodeError with the path and the reason.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

DEPTH_MAX = 32


class DecodeError(ValueError):
    """Recorded arguments that cannot become values again; the message names the path and the reason."""


def decode_args(args: Mapping[str, Any], allowed: Mapping[str, type]) -> dict[str, Any]:
    """Recorded arguments by name -> values. `allowed` maps "module:qualname" to classes that may be built.

    Raises DecodeError naming the argument and the reason.
    """
    return {name: _decode(value, name, allowed, 0) for name, value in args.items()}


def _decode(value: Any, path: str, allowed: Mapping[str, type], depth: int) -> Any:
    if depth > DEPTH_MAX:
        raise DecodeError(f"argument {path} is nested too deeply")
    if isinstance(value, list):
        return [_decode(item, f"{path}[{n}]", allowed, depth + 1) for n, item in enumerate(value)]
    if not isinstance(value, dict):
        return value
    if "$t" not in value:
        return {key: _decode(item, f"{path}.{key}", allowed, depth + 1) for key, item in value.items()}
    tag = value["$t"]
    if tag in ("opaque", "redacted", "cut"):
        raise DecodeError(f"argument {path} was not recorded ({tag})")
    if tag in ("enum", "dataclass", "namedtuple", "model"):
        return _decode_instance(value, path, allowed, depth)
    build = _BUILDERS.get(tag) if isinstance(tag, str) else None
    if build is None:
        raise DecodeError(f"argument {path} has the unknown form {tag!r:.50}")
    inner = value.get("v")
    if tag in _CONTAINERS:
        inner = _decode(inner, path, allowed, depth + 1)
    try:
        return build(inner, value)
    except Exception as error:  # noqa: BLE001 - whatever a constructor says, the place is what the operator needs
        raise DecodeError(f"argument {path} is no {tag}: {type(error).__name__}: {error}"[:300]) from None


def _decode_instance(value: dict[str, Any], path: str, allowed: Mapping[str, type], depth: int) -> Any:
    name, inner = value.get("class"), value.get("v")
    kind = allowed.get(name) if isinstance(name, str) else None
    if kind is None:
        raise DecodeError(f"argument {path} is a {name!s:.100}, which this service has not registered: looseends.register(...)")
    fields = _decode(inner, path, allowed, depth + 1)
    try:
        return kind[fields] if value["$t"] == "enum" else kind(**fields)  # type: ignore[index]
    except Exception as error:  # noqa: BLE001 - the user's own constructor may raise anything
        raise DecodeError(f"argument {path} is no {name}: {type(error).__name__}: {error}"[:300]) from None


def _module(name: str) -> Any:
    """One of the fixed modules named in this file, imported when a value of it is rebuilt."""
    return __import__(name)


def _when(kind: str) -> Callable[[Any, dict[str, Any]], Any]:
    def build(inner: Any, value: dict[str, Any]) -> Any:
        found = getattr(_module("datetime"), kind).fromisoformat(inner)
        if isinstance(value.get("zone"), str):
            found = found.replace(tzinfo=_module("zoneinfo").ZoneInfo(value["zone"]))
        return found.replace(fold=1) if value.get("fold") else found

    return build


_CONTAINERS = frozenset(("tuple", "set", "frozenset", "deque", "map"))
_BUILDERS: dict[str, Callable[[Any, dict[str, Any]], Any]] = {
    "int": lambda inner, _: int(inner),
    "float": lambda inner, _: float(inner),
    "text": lambda inner, _: bytes.fromhex(inner).decode("utf-8", "surrogatepass"),
    "complex": lambda inner, _: complex(float(inner[0]), float(inner[1])),
    "bytes": lambda inner, _: _module("binascii").a2b_base64(inner),
    "bytearray": lambda inner, _: bytearray(_module("binascii").a2b_base64(inner)),
    "tuple": lambda inner, _: tuple(inner),
    "set": lambda inner, _: set(inner),
    "frozenset": lambda inner, _: frozenset(inner),
    "map": lambda inner, _: dict(inner),
    "deque": lambda inner, value: _module("collections").deque(inner, value.get("max")),
    "datetime": _when("datetime"),
    "time": _when("time"),
    "date": lambda inner, _: _module("datetime").date.fromisoformat(inner),
    "timedelta": lambda inner, _: _module("datetime").timedelta(*inner),
    "uuid": lambda inner, _: _module("uuid").UUID(inner),
    "decimal": lambda inner, _: _module("decimal").Decimal(inner),
    "fraction": lambda inner, _: _module("fractions").Fraction(inner),
    "path": lambda inner, _: _module("pathlib").Path(inner),
    "ip": lambda inner, _: _module("ipaddress").ip_address(inner),
}
