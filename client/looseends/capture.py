"""Arguments -> bounded, typed JSON. Pure; `rebuild.py` is the way back.

Rules:

1. JSON with one reserved key, `$t`, for what JSON has no word for. Nothing is guessed on the way back: what was a tuple
   comes back as one.
2. What cannot be written down (a session, a lock, a lambda, something too big, a secret) leaves its class and a reason,
   and the task is not replayable, with the path and the reason in words.
3. No user code runs here while a task waits: no `__repr__`, no property; only what lies in the object's own dict.
4. Bounds: 16 KiB a text, 10,000 values, 12 levels, 60,000 bytes in all.
"""

from __future__ import annotations

import json
import json.encoder
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from .redact import is_secret
from .wire import NAME_CHARS_MAX

ARGS_BYTES_MAX = 60_000
TEXT_CHARS_MAX = 16 << 10
PLAIN_CHARS_MAX = 1_000  # of a text that is quoted without a second look
VALUES_MAX = 10_000
DEPTH_MAX = 12
JSON_DEPTH_MAX = 28
INT_MAX = 1 << 53
INT_BITS_MAX = 10_000
_CO_VARARGS, _CO_VARKEYWORDS = 4, 8
_quote = json.encoder.encode_basestring_ascii


class _Bounds(NamedTuple):
    text: int
    values: int
    depth: int


_FULL = _Bounds(TEXT_CHARS_MAX, VALUES_MAX, DEPTH_MAX)
_BRIEF = _Bounds(200, 100, 3)


def _make_chunks() -> Callable[[Any, int], Iterable[str]]:
    """The C encoder, kept: building one for each call, as `json.dumps` does, costs more than the arguments."""
    make: Any = getattr(json.encoder, "c_make_encoder", None)
    if make is None:
        encode = json.JSONEncoder(separators=(",", ":"), allow_nan=False).encode
        return lambda value, _: (encode(value),)
    found: Callable[[Any, int], Iterable[str]] = make(None, _refuse, _quote, None, ":", ",", False, False, False)
    return found


def _refuse(value: object) -> Any:
    raise TypeError(f"{type(value)} is not JSON")


_chunks = _make_chunks()


def dumps(value: Any) -> str:
    """A value as JSON, ASCII only, without blanks. Raises TypeError, ValueError (NaN, infinity)."""
    return "".join(_chunks(value, 0))


class Shape:
    """The parameters of one function, prepared once, so that a call's values get names without binding a signature."""

    __slots__ = ("_positional", "_names", "_open", "_redact", "_rest", "_rest_named", "_clean", "params")

    def __init__(self, function: Any, redact: tuple[str, ...] = ()) -> None:
        names, positional, flags = _parameters(function)
        self.params = names[:positional]
        self._positional = positional
        self._rest = names[len(names) - 1 - bool(flags & _CO_VARKEYWORDS)] if flags & _CO_VARARGS else "args"
        self._rest_named = names[-1] if flags & _CO_VARKEYWORDS else "kwargs"
        self._names = names
        self._open = bool(flags & _CO_VARKEYWORDS)
        self._redact = redact
        hidden = [is_secret(name, redact) for name in self.params]
        self._clean = hidden.index(True) if True in hidden else positional

    def takes(self, name: str) -> bool:
        """Whether a call may give this parameter by name."""
        return name in self._names or self._open

    def encode(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[str, str | None]:
        """One call's arguments as JSON text (a list for the first parameters, or an object), and why no replay, if so."""
        if kwargs or len(args) > self._clean:
            return encode_named(self.named(args, kwargs), self._redact)
        parts = []
        for value in args:  # plain values, a third faster than the encoder
            kind = type(value)
            if kind is str and len(value) <= PLAIN_CHARS_MAX:
                parts.append(_quote(value))
            elif kind is int and -INT_MAX <= value <= INT_MAX or kind is float and value - value == 0:
                parts.append(repr(value))
            elif kind is bool:
                parts.append("true" if value else "false")
            elif value is None:
                parts.append("null")
            else:
                return encode_named(self.named(args, kwargs), self._redact)
        text = f"[{','.join(parts)}]"
        if len(text) <= ARGS_BYTES_MAX and "\\ud" not in text:  # none holds half a surrogate
            return text, None
        return encode_named(self.named(args, kwargs), self._redact)

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
    """Names of the parameters (positional first), how many of them are positional, and the code's flags."""
    seen = 0
    while hasattr(function, "__wrapped__") and seen < 20:
        function, seen = function.__wrapped__, seen + 1
    function = getattr(function, "__func__", function)
    code = getattr(function, "__code__", None)
    if code is None:
        return ("args", "kwargs"), 0, _CO_VARARGS | _CO_VARKEYWORDS
    total = code.co_argcount + code.co_kwonlyargcount
    total += bool(code.co_flags & _CO_VARARGS) + bool(code.co_flags & _CO_VARKEYWORDS)
    return code.co_varnames[:total], code.co_argcount, code.co_flags


def encode_named(values: Mapping[str, Any], redact: Sequence[str] = ()) -> tuple[str, str | None]:
    """Values under names as JSON text of at most ARGS_BYTES_MAX, and the reason why they cannot be replayed, if any."""
    text, problem = _encode(values, redact, _FULL)
    if len(text) <= ARGS_BYTES_MAX:
        return text, problem
    size = len(text)
    text, _ = _encode(values, redact, _BRIEF)
    if len(text) > ARGS_BYTES_MAX:
        text = "{}"
    return text, f"its arguments are over {size:,} bytes of JSON; at most {ARGS_BYTES_MAX:,} are recorded"


def _encode(values: Mapping[str, Any], redact: Sequence[str], bounds: _Bounds) -> tuple[str, str | None]:
    writer = _Writer(redact, bounds)
    found = {}
    for name, value in values.items():
        name = _safe(str(name))[:NAME_CHARS_MAX]
        found[name] = writer.redacted(name) if is_secret(name, redact) else writer.value(value, name, 0, 1)
    return dumps(found), writer.problem


def _safe(text: str) -> str:
    return text.encode("utf-8", "backslashreplace").decode()


class _Writer:
    """One walk over one call's values."""

    def __init__(self, redact: Sequence[str], bounds: _Bounds) -> None:
        self.redact, self.bounds = redact, bounds
        self.left = bounds.values
        self.problem: str | None = None

    def trouble(self, path: str, reason: str) -> None:
        if self.problem is None:
            self.problem = f"argument {path} {reason}"[:500]

    def redacted(self, path: str) -> dict[str, str]:
        self.trouble(path, "is redacted")
        return {"$t": "redacted"}

    def opaque(self, value: Any, path: str, reason: str) -> dict[str, str]:
        kind = type(value)
        name = f"{kind.__module__}.{kind.__qualname__}"
        self.trouble(path, f"is {name}, {reason}")
        return {"$t": "opaque", "class": _safe(name)[:200], "why": reason}

    def value(self, value: Any, path: str, depth: int, level: int) -> Any:
        """`depth` counts the value's own nesting, `level` that of the JSON it becomes."""
        self.left -= 1
        kind = type(value)
        if self.left < 0:
            return self.opaque(value, path, f"beyond the first {self.bounds.values:,} values, which are what is recorded")
        if kind is str:
            return self.of_text(value, path)
        if kind is bool or value is None:
            return value
        if kind is int:
            return self.of_int(value, path)
        if kind is float:
            return value if value - value == 0 else {"$t": "float", "v": repr(value)}
        if depth >= self.bounds.depth or level > JSON_DEPTH_MAX:
            return self.opaque(value, path, f"nested deeper than {self.bounds.depth} levels, or a circle")
        try:
            return self.rich(value, kind, path, depth + 1, level)
        except Exception as error:  # noqa: BLE001 - a value that misbehaves is a value we cannot record
            return self.opaque(value, path, f"which could not be read ({type(error).__name__})")

    def of_text(self, value: str, path: str) -> Any:
        if len(value) > self.bounds.text:
            self.trouble(path, f"is a text of {len(value):,} characters, of which {self.bounds.text:,} are recorded")
            return {"$t": "cut", "v": _safe(value[: self.bounds.text // 8]), "chars": len(value)}
        if value.isascii() or not any("\ud800" <= char <= "\udfff" for char in value):
            return value
        return {"$t": "text", "v": value.encode("utf-8", "surrogatepass").hex()}

    def of_int(self, value: int, path: str) -> Any:
        if -INT_MAX <= value <= INT_MAX:
            return value
        if value.bit_length() > INT_BITS_MAX:
            return self.opaque(value, path, f"a number of over {INT_BITS_MAX:,} bits")
        return {"$t": "int", "v": str(value)}

    def rich(self, value: Any, kind: type, path: str, depth: int, level: int) -> Any:
        if kind is dict:
            return self.mapping(value, path, depth, level)
        if kind is list:
            return self.items(value, path, depth, level)
        if kind in (tuple, set, frozenset):
            return {"$t": kind.__name__, "v": self.items(value, path, depth, level + 1)}
        if kind in (bytes, bytearray):
            return self.of_bytes(value, kind, path)
        if kind is complex:
            return {"$t": "complex", "v": [repr(value.real), repr(value.imag)]}
        known = _STANDARD.get(f"{kind.__module__}.{kind.__qualname__}")
        if known is not None:
            tag, write = known
            return {"$t": tag, **write(value)}
        if (kind.__module__, kind.__qualname__) == ("collections", "deque"):
            return {"$t": "deque", "max": value.maxlen, "v": self.items(value, path, depth, level + 1)}
        return self.instance(value, kind, path, depth, level)

    def items(self, value: Any, path: str, depth: int, level: int) -> list[Any]:
        found = []
        for number, item in enumerate(value):
            found.append(self.value(item, f"{path}[{number}]", depth, level + 1))
            if self.left < 0:
                break
        return found

    def mapping(self, value: dict[Any, Any], path: str, depth: int, level: int) -> Any:
        plain = "$t" not in value and all(type(key) is str and _is_key(key) for key in value)
        found = []
        for key, item in value.items():
            shown = key if type(key) is str else None
            where = f"{path}.{shown[:50]}" if shown is not None else f"{path}[...]"
            if shown is not None and is_secret(shown, self.redact):
                written: Any = self.redacted(where)
            else:
                written = self.value(item, where, depth, level + (1 if plain else 3))
            found.append((key if plain else self.value(key, where, depth, level + 3), written))
            if self.left < 0:
                break
        return dict(found) if plain else {"$t": "map", "v": [[key, item] for key, item in found]}

    def of_bytes(self, value: Any, kind: type, path: str) -> Any:
        if len(value) > self.bounds.text:
            return self.opaque(value, path, f"{len(value):,} bytes long")
        import binascii

        return {"$t": kind.__name__, "v": binascii.b2a_base64(value, newline=False).decode()}

    def instance(self, value: Any, kind: type, path: str, depth: int, level: int) -> Any:
        tag, fields = _fields(value, kind)
        name = f"{kind.__module__}:{kind.__qualname__}"
        if tag == "enum":
            return {"$t": "enum", "class": name, "v": fields}
        if tag is None or fields is None:
            return self.opaque(value, path, "which has no written form; pass an id or plain values instead")
        written = {
            field: self.redacted(f"{path}.{field}")
            if is_secret(field, self.redact)
            else self.value(item, f"{path}.{field}", depth, level + 2)
            for field, item in fields.items()
        }
        return {"$t": tag, "class": name, "v": written}


def _is_key(key: str) -> bool:
    return len(key) <= NAME_CHARS_MAX and (key.isascii() or not any("\ud800" <= char <= "\udfff" for char in key))


def _fields(value: Any, kind: type) -> tuple[str | None, Any]:
    """How an instance is written: its tag and its fields, read from its own dict or slots, past every property."""
    if "_member_map_" in kind.__dict__ and "_value2member_map_" in kind.__dict__:
        return "enum", object.__getattribute__(value, "_name_")
    if isinstance(value, tuple) and "_fields" in kind.__dict__:
        return "namedtuple", dict(zip(kind.__dict__["_fields"], tuple(value), strict=True))
    read = object.__getattribute__
    if "__dataclass_fields__" in kind.__dict__:
        return "dataclass", {n: read(value, n) for n, f in kind.__dict__["__dataclass_fields__"].items() if f.init}
    if "__pydantic_fields__" in kind.__dict__ or "__pydantic_core_schema__" in kind.__dict__:
        return "model", dict(value.__dict__)
    return None, None


def _zoned(value: Any) -> dict[str, Any]:
    zone = getattr(value.tzinfo, "key", None)
    found = {"v": value.isoformat()}
    if isinstance(zone, str):
        found |= {"zone": zone}
    return found | ({"fold": 1} if value.fold else {})


def _str(value: Any) -> dict[str, Any]:
    return {"v": str(value)}


_STANDARD: dict[str, tuple[str, Callable[[Any], dict[str, Any]]]] = {
    "datetime.datetime": ("datetime", _zoned),
    "datetime.time": ("time", _zoned),
    "datetime.date": ("date", lambda value: {"v": value.isoformat()}),
    "datetime.timedelta": ("timedelta", lambda value: {"v": [value.days, value.seconds, value.microseconds]}),
    "uuid.UUID": ("uuid", _str),
    "decimal.Decimal": ("decimal", _str),
    "fractions.Fraction": ("fraction", _str),
    "pathlib.PosixPath": ("path", _str),
    "pathlib.PurePosixPath": ("path", _str),
    "pathlib._local.PosixPath": ("path", _str),
    "ipaddress.IPv4Address": ("ip", _str),
    "ipaddress.IPv6Address": ("ip", _str),
}
