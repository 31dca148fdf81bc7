"""What all tasks of one function share: its name, options and parameters; and which functions may be run again.

Rules: a `Spec` is made once (at decoration, or at a hook's first sight of a function) and checked then: a wrong option
is a UsageError naming the place and the allowed values. Only what its author registered (`replay=True | "ask"`) is
ever run by an order, and only registered classes, or classes named in a registered function's annotations, are built.
"""

from __future__ import annotations

import functools
import re
import sys
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from . import settings
from .capture import Shape
from .errors import UsageError
from .forms import CLASS_TAGS, form_of
from .journal import Journal
from .plain import speed_up
from .redact import is_secret
from .scrub import MARK, scrub
from .slots import Name, Stamp, clean
from .values import importable_name
from .wire import NAME_CHARS_MAX, TAGS_MAX

VIAS_MAX = 100
CO_GENERATOR, CO_COROUTINE, CO_ASYNC_GENERATOR = 0x20, 0x80, 0x200
_WORD = re.compile(r"[A-Za-z_][\w.]*")
_HOLE = re.compile(r"\{(\w+)\}")


class Spec:
    """One function's tasks: everything about them that does not change from call to call."""

    __slots__ = (
        "caution",
        "fields",
        "function",
        "journal",
        "key",
        "name",
        "number",
        "replay",
        "shape",
        "source",
        "stamp",
        "vias",
        "wrapper",
    )

    def __init__(
        self,
        name: str,
        function: Callable[..., Any] | None = None,
        *,
        source: str,
        declared: bool = True,
        deadline: object = None,
        progress_within: object = None,
        start_within: object = None,
        key: str | None = None,
        redact: Iterable[str] = (),
        tags: Mapping[str, str] | None = None,
        replay: bool | str | None = None,
        caution: str | None = None,
    ) -> None:
        """Raises UsageError."""
        place = f"looseends.{source} {name!r}"
        self.name, self.function, self.source = checked_name(name, place), function, source
        self.shape = Shape(function, checked_redact(redact, place))
        self.key = checked_key(key, self.shape, place) if function is not None else key
        if replay not in (None, False, True, "ask"):
            raise UsageError(f'{place}: replay is True, "ask" or left out, not {replay!r}')
        self.replay = {True: "yes", "ask": "ask"}.get(replay or "")
        self.caution = clean(str(caution), 500) if caution else None
        fields = {
            "declared": declared,
            "source": source,
            "deadline": duration(deadline, f"{place}: deadline"),
            "progress_within": duration(progress_within, f"{place}: progress_within"),
            "start_within": duration(start_within, f"{place}: start_within"),
            "tags": checked_tags(tags, place),
            "code": code_digest(function),
        }
        self.fields = {field: value for field, value in fields.items() if value is not None}
        self.vias: dict[str, Spec] = {}
        self.journal: Journal | None = None  # in whose names table this spec has this number
        self.number = 0
        self.stamp = Stamp(0)
        self.wrapper: Any = None  # the audited function, until it has code of its own (tailored.py)

    def enroll(self, journal: Journal) -> None:
        """Write this spec into the journal's names table. Raises OSError."""
        speed_up()
        self.number = journal.name(Name(self.name, self.shape.params, self.key, self.fields))
        self.stamp = Stamp(self.number)
        self.journal = journal

    def via(self, source: str, **fields: Any) -> Spec:
        """The same function's tasks as begun by a hook: other source, else the same. Asked again it gives the same one: each new
        one takes a line in the journal's names table, which has an end."""
        known = f"{source} {sorted(fields.items())!r}"
        copy = self.vias.get(known)
        if copy is None:
            copy = Spec.__new__(Spec)
            for slot in Spec.__slots__:
                setattr(copy, slot, getattr(self, slot))
            copy.source, copy.fields = source, {**self.fields, "source": source, **fields}
            copy.journal, copy.number, copy.vias = None, 0, {}
            if len(self.vias) < VIAS_MAX:
                self.vias[known] = copy
        return copy

    @property
    def is_async(self) -> bool:
        """Whether the function is an `async def`."""
        return bool(code_flags(self.function) & CO_COROUTINE)

    def signature(self) -> str:
        """`str(inspect.signature(f))`: what an operator sees and what a changed function is noticed by."""
        import inspect

        try:
            return str(inspect.signature(self.function)) if self.function is not None else "(...)"
        except (ValueError, TypeError):
            return "(...)"


class Registry:
    """The functions that orders may run, by name, and the classes that arguments may be rebuilt as."""

    def __init__(self) -> None:
        self.functions: dict[str, Spec] = {}
        self.version = 0
        self._types: dict[str, Any] = {}
        self._scanned: set[str] = set()

    def add(self, spec: Spec) -> None:
        """Offer a function; the latest one of a name counts."""
        self.functions[spec.name] = spec
        self._scanned.discard(spec.name)
        self.version += 1

    def add_type(self, kind: type) -> None:
        """Allow a class to be rebuilt from recorded arguments."""
        self._types[f"{kind.__module__}:{kind.__qualname__}"] = kind

    def types(self) -> Mapping[str, Any]:
        """All classes allowed, those of registered functions' annotations among them (looked up once per function), and the
        registered functions themselves, which may be arguments of each other."""
        for name, spec in list(self.functions.items()):
            if name not in self._scanned:
                self._scanned.add(name)
                for kind in annotated_types(spec.function):
                    self.add_type(kind)
                known = importable_name(spec.function)
                if known is not None:
                    self._types[known] = spec.function
        return self._types


REGISTRY = Registry()


def annotated_types(function: Any) -> list[type]:
    """Classes with a written form that a function's annotations name, found by looking names up, never by evaluating."""
    while hasattr(function, "__wrapped__"):
        function = function.__wrapped__
    space = getattr(function, "__globals__", {})
    found: list[type] = []
    for annotation in getattr(function, "__annotations__", {}).values():
        _collect(annotation, space, found, 0)
    return found


def _collect(annotation: Any, space: Mapping[str, Any], found: list[type], depth: int) -> None:
    if depth > 8 or len(found) > 100:
        return
    if isinstance(annotation, str):
        for word in _WORD.findall(annotation):
            first, *rest = word.split(".")
            target = space.get(first)
            for part in rest:
                target = getattr(target, part, None)
            if isinstance(target, type):
                _collect(target, space, found, depth + 1)
        return
    for inner in getattr(annotation, "__args__", ()) or ():
        _collect(inner, space, found, depth + 1)
    if isinstance(annotation, type) and annotation not in found and has_form(annotation):
        found.append(annotation)
        module = sys.modules.get(annotation.__module__)
        for inner in getattr(annotation, "__annotations__", {}).values():
            _collect(inner, vars(module) if module else {}, found, depth + 1)


def has_form(kind: type) -> bool:
    """Whether instances of this class are written with a tag of their own (enum, dataclass, attrs, namedtuple, model)."""
    return form_of(kind).tag in CLASS_TAGS


def name_of(function: Any) -> str:
    """`module.qualname` of a function, with the script's name for `__main__`."""
    function = unbent(function)
    module = getattr(function, "__module__", None) or type(function).__module__
    qualname = getattr(function, "__qualname__", None) or type(function).__qualname__
    if module in ("__main__", "__mp_main__"):  # the second: the same script, in a process that multiprocessing spawned
        found = getattr(sys.modules.get("__main__"), "__spec__", None)
        module = getattr(found, "name", None) or settings.program_name(sys.argv[0] if sys.argv else "") or module
    return clean(f"{module}.{qualname}")


def code_flags(function: Any) -> int:
    """The code flags of what a call runs, seen through partials, methods, and objects with a `__call__`; 0 without code."""
    function = unbent(function)
    if not hasattr(function, "__code__") and not isinstance(function, type):
        function = type(function).__call__ if callable(function) else None
    return getattr(getattr(function, "__code__", None), "co_flags", 0)


def unbent(function: Any) -> Any:
    """What a `functools.partial` calls in the end; anything else is given back."""
    while isinstance(function, functools.partial):
        function = function.func
    return function


def code_digest(function: Any) -> str | None:
    """A short digest of what a function does: code and constants, of this interpreter's version."""
    function = unbent(function)
    while hasattr(function, "__wrapped__"):
        function = function.__wrapped__
    code = getattr(function, "__code__", None)
    if code is None:
        return None
    import hashlib

    digest = hashlib.sha256(sys.version.encode())
    _feed(digest, code, 0)
    return digest.hexdigest()[:16]


def _feed(digest: Any, code: Any, depth: int) -> None:
    digest.update(code.co_code + " ".join(code.co_names).encode())
    for constant in code.co_consts:
        if hasattr(constant, "co_code") and depth < 10:
            _feed(digest, constant, depth + 1)
        elif isinstance(constant, frozenset):
            digest.update(repr(sorted(map(repr, constant))).encode())
        else:
            digest.update(repr(constant).encode("utf-8", "backslashreplace"))


def duration(value: object, place: str) -> float | str | None:
    """A duration option, or None where it was left out. Raises UsageError."""
    if value is None:
        return None
    try:
        return settings.seconds(value, place)
    except ValueError as error:
        raise UsageError(str(error)) from None


def checked_name(name: object, place: str) -> str:
    """A task's name. Raises UsageError."""
    if not isinstance(name, str) or not name.strip() or len(name) > NAME_CHARS_MAX or not name.isprintable():
        raise UsageError(f"{place}: name is 1 to {NAME_CHARS_MAX} printable characters, not {name!r:.250}")
    return name


def checked_redact(redact: Iterable[str], place: str) -> tuple[str, ...]:
    """Names to hide beside the usual ones. Raises UsageError."""
    found = (redact,) if isinstance(redact, str) else tuple(redact)
    if not all(isinstance(name, str) and name for name in found):
        raise UsageError(f"{place}: redact is a list of parameter names or words, such as ('card',), not {redact!r}")
    return found


def checked_key(key: object, shape: Shape, place: str) -> str | None:
    """A parameter's name, or a text with parameters in braces. Raises UsageError."""
    if key is None:
        return None
    if not isinstance(key, str) or not key:
        raise UsageError(f'{place}: key is a parameter\'s name or a text such as "order-{{order_id}}", not {key!r}')
    wanted = _HOLE.findall(key) if "{" in key else [key]
    for name in wanted:
        if not shape.takes(name):
            raise UsageError(f"{place}: key names {name!r}, which is no parameter; allowed: {', '.join(shape.params) or 'none'}")
    return key


def checked_tags(tags: Mapping[str, str] | None, place: str) -> dict[str, str] | None:
    """Tags as the wire takes them. Raises UsageError."""
    if not tags:
        return None
    if isinstance(tags, Mapping) and len(tags) <= TAGS_MAX:
        texts = [text for pair in tags.items() for text in pair]
        if all(isinstance(text, str) and 0 < len(text) <= NAME_CHARS_MAX for text in texts):
            return {clean(name): MARK if is_secret(name) else clean(scrub(value)) for name, value in tags.items()}
    raise UsageError(f"{place}: tags are at most {TAGS_MAX} short texts by name, such as {{'tier': 'gold'}}, not {tags!r:.200}")
