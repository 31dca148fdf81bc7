"""Recorded arguments -> values again, for a replay. Pure; imports a module only to rebuild its values.

Rules:

1. No pickle, no eval, no import by a recorded name. What is built is the standard library's values, by a fixed table, and
   the classes and functions that are handed in (`allowed`); everything else is a DecodeError with the path and the reason.
2. A class is built only under the tag it is written with, so that nothing handed in is ever *called* as something else.
3. What a value could cost is bounded before it is built: digits of a number, levels, items of a range are numbers only.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from typing import Any

from .forms import CLASS_TAGS, NUMPY, form_of
from .scrub import scrub

DEPTH_MAX = 32
DIGITS_MAX = 4_000
Allowed = Mapping[str, Any]
"""What may be built or handed over, by "module:qualname": classes, and functions that are registered."""


class DecodeError(ValueError):
    """Recorded arguments that cannot become values again; the message names the path and the reason."""


def decode_args(args: Mapping[str, Any], allowed: Allowed) -> dict[str, Any]:
    """Recorded arguments by name -> values. `allowed` maps "module:qualname" to what may be built or handed over.

    Raises DecodeError naming the argument and the reason.
    """
    return {name: _decode(value, name, allowed, 0) for name, value in args.items()}


def _decode(value: Any, path: str, allowed: Allowed, depth: int) -> Any:
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
    if tag == "ref":
        return _handed_in(value.get("v"), path, allowed)
    inner = value.get("v")
    build = _builder(value, tag, path, allowed) if isinstance(tag, str) else None
    if build is None:
        raise DecodeError(f"argument {path} has the unknown form {tag!r:.50}")
    if tag in _CONTAINERS or tag in CLASS_TAGS:
        inner = _decode(inner, path, allowed, depth + 1)
    try:
        return build(inner, value)
    except Exception as error:  # noqa: BLE001 - whatever a constructor says, the place is what the operator needs
        what = value.get("class") if tag in CLASS_TAGS else tag
        raise DecodeError(scrub(f"argument {path} is no {what}: {type(error).__name__}: {error}"[:600])[:300]) from None


def _handed_in(name: Any, path: str, allowed: Allowed) -> Any:
    found = allowed.get(name) if isinstance(name, str) else None
    if found is None:
        raise DecodeError(f"argument {path} is a {name!s:.100}, which this service has not registered: looseends.register(...)")
    return found


def _builder(value: dict[str, Any], tag: str, path: str, allowed: Allowed) -> Callable[[Any, dict[str, Any]], Any] | None:
    return _instance(value, tag, path, allowed) if tag in CLASS_TAGS else _BUILDERS.get(tag)


def _instance(value: dict[str, Any], tag: str, path: str, allowed: Allowed) -> Callable[[Any, dict[str, Any]], Any]:
    kind = _handed_in(value.get("class"), path, allowed)
    if not isinstance(kind, type) or form_of(kind).tag != tag:
        raise DecodeError(f"argument {path} is a {value.get('class')!s:.100}, which is no {tag}")
    make = _MAKERS.get(tag, _by_name)
    return lambda inner, _: make(kind, inner)


# --- classes that are allowed -------------------------------------------------------------------------------------


def _by_name(kind: Any, fields: Any) -> Any:
    return kind(**fields)


def _attrs(kind: Any, fields: Any) -> Any:
    """attrs takes a private field under another name: `_key` as `key`."""
    given = {field.name: field.alias for field in kind.__attrs_attrs__}
    return kind(**{given.get(name, name): item for name, item in fields.items()})


def _model(kind: Any, fields: Any) -> Any:
    """A pydantic model, validated again, by the names of its fields and not by their aliases."""
    if getattr(kind, "__pydantic_root_model__", False):
        return kind.model_validate(fields["root"])
    try:
        return kind.model_validate(fields, by_name=True)
    except TypeError:  # a pydantic before 2.11 knows no by_name
        known = getattr(kind, "model_fields", {})
        aliases = {name: field.validation_alias or field.alias for name, field in known.items()}
        found = {name: alias if isinstance(alias, str) else name for name, alias in aliases.items()}
        return kind.model_validate({found.get(name, name): item for name, item in fields.items()})


_MAKERS: dict[str, Callable[[Any, Any], Any]] = {
    "enum": lambda kind, inner: kind[inner],
    "flag": lambda kind, inner: kind(inner),
    "attrs": _attrs,
    "model": _model,
}


# --- the standard library and numpy -------------------------------------------------------------------------------


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


def _regex(inner: Any, _: dict[str, Any]) -> Any:
    pattern, flags = inner
    re = _module("re")
    return re.compile(pattern, int(flags) & ~int(re.DEBUG))  # DEBUG prints


def _defaultdict(inner: Any, value: dict[str, Any]) -> Any:
    makers = {kind.__name__: kind for kind in (list, dict, set, int, float, str, tuple, bool)}
    make = value.get("make")
    return _module("collections").defaultdict(None if make is None else makers[make], dict(inner))


def _fraction(inner: Any, _: dict[str, Any]) -> Any:
    """Of two whole numbers only: a text such as 1e999999999 would be worked out, digit by digit."""
    above, _, below = inner.partition("/")
    return _module("fractions").Fraction(_whole(above), _whole(below or "1"))


def _whole(text: Any) -> int:
    if not isinstance(text, str) or len(text) > DIGITS_MAX:
        raise ValueError(f"a text of at most {DIGITS_MAX:,} digits is wanted")
    return int(text)


def _numpy(inner: Any, _: dict[str, Any]) -> Any:
    name, *parts = inner
    numpy = sys.modules.get("numpy")
    if name not in NUMPY or not all(isinstance(part, str) for part in parts):
        raise ValueError(f"{name!r:.50} is no numpy scalar that is recorded")
    if numpy is None:
        raise ValueError("numpy is not loaded here")
    kind = getattr(numpy, name)
    if name.startswith("bool"):
        return kind(parts[0] == "True")
    if name.startswith("complex"):
        return kind(complex(float(parts[0]), float(parts[1])))
    return kind(_whole(parts[0]) if "int" in name else float(parts[0]) if "float" in name else parts[0])


_CONTAINERS = frozenset(
    ("tuple", "set", "frozenset", "deque", "map", "ordered", "counter", "defaultdict", "namespace")
    + ("partial", "range", "slice", "timezone", "regex", "numpy")
)
_BUILDERS: dict[str, Callable[[Any, dict[str, Any]], Any]] = {
    "int": lambda inner, _: _whole(inner),
    "float": lambda inner, _: float(inner),
    "text": lambda inner, _: bytes.fromhex(inner).decode("utf-8", "surrogatepass"),
    "complex": lambda inner, _: complex(float(inner[0]), float(inner[1])),
    "bytes": lambda inner, _: _module("binascii").a2b_base64(inner),
    "bytearray": lambda inner, _: bytearray(_module("binascii").a2b_base64(inner)),
    "tuple": lambda inner, _: tuple(inner),
    "set": lambda inner, _: set(inner),
    "frozenset": lambda inner, _: frozenset(inner),
    "map": lambda inner, _: dict(inner),
    "ordered": lambda inner, _: _module("collections").OrderedDict(inner),
    "counter": lambda inner, _: _module("collections").Counter(dict(inner)),
    "defaultdict": _defaultdict,
    "namespace": lambda inner, _: _module("types").SimpleNamespace(**inner),
    "deque": lambda inner, value: _module("collections").deque(inner, value.get("max")),
    "range": lambda inner, _: range(*inner),
    "slice": lambda inner, _: slice(*inner),
    "partial": lambda inner, _: _module("functools").partial(inner[0], *inner[1], **inner[2]),
    "regex": _regex,
    "datetime": _when("datetime"),
    "time": _when("time"),
    "date": lambda inner, _: _module("datetime").date.fromisoformat(inner),
    "timedelta": lambda inner, _: _module("datetime").timedelta(*inner),
    "timezone": lambda inner, _: _module("datetime").timezone(*inner),
    "zone": lambda inner, _: _module("zoneinfo").ZoneInfo(inner),
    "uuid": lambda inner, _: _module("uuid").UUID(inner),
    "decimal": lambda inner, _: _module("decimal").Decimal(inner),
    "fraction": _fraction,
    "path": lambda inner, _: _module("pathlib").Path(inner),
    "purepath": lambda inner, _: _module("pathlib").PurePosixPath(inner),
    "winpath": lambda inner, _: _module("pathlib").PureWindowsPath(inner),
    "ip": lambda inner, _: _module("ipaddress").ip_address(inner),
    "network": lambda inner, _: _module("ipaddress").ip_network(inner),
    "interface": lambda inner, _: _module("ipaddress").ip_interface(inner),
    "numpy": _numpy,
}
