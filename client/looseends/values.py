"""One walk over the values of one call: values -> JSON values, secrets taken out, every bound kept. Pure.

Rules: `forms.py` says which form a class has, here its values are written. A path is made into words only where there is
something to say about it. Nothing is changed on the way, and nothing of the user's runs.
"""

from __future__ import annotations

import sys
import types
from collections.abc import Iterable, Sequence
from itertools import islice
from typing import Any, NamedTuple

from .forms import Form, form_of, is_exactly, name_of
from .redact import is_secret
from .scrub import CARD_INT_MIN, SHORT_CHARS, is_card, scrub
from .wire import NAME_CHARS_MAX

INT_MAX = 1 << 53
INT_BITS_MAX = 10_000
JSON_DEPTH_MAX = 28
HIDDEN_MAX = 20
HIDDEN_CHARS_MIN, HIDDEN_CHARS_MAX = 4, 4_000
NAMES_MAX = 5_000
SECRET, ODD = 1, 2

Path = tuple[Any, Any]
"""(the path of the container, the place in it); made into words by `words_of`."""


class Bounds(NamedTuple):
    """How much of a call is recorded: characters of a text, values, levels."""

    text: int
    values: int
    depth: int


class Reason(str):
    """Why a call cannot be replayed, and beside it the texts that were hidden, to be taken out of its messages too."""

    __slots__ = ("hidden",)
    hidden: tuple[str, ...]


class Names(dict[str, int]):
    """What is known about each name met: SECRET by its words, ODD where it cannot stand in JSON as it is; 0 for most."""

    def __init__(self, extra: Sequence[str] = ()) -> None:
        super().__init__()
        self.extra = tuple(extra)

    def __missing__(self, name: str) -> int:
        odd = len(name) > NAME_CHARS_MAX or name == "$t" or _has_surrogate(name) or scrub(name) != name
        known = (SECRET if is_secret(name, self.extra) else 0) | (ODD if odd else 0)
        if len(self) < NAMES_MAX and not odd:
            self[name] = known
        return known


def words_of(path: Path | None) -> str:
    """A path as people write it: order.lines[3].price."""
    parts: list[str] = []
    while path is not None:
        path, place = path
        parts.append(f"[{place}]" if type(place) is int else f".{place[:50]}" if type(place) is str else "[...]")
    return "".join(reversed(parts)).removeprefix(".")


def _has_surrogate(text: str) -> bool:
    return not text.isascii() and any("\ud800" <= char <= "\udfff" for char in text)


def safe(text: str) -> str:
    """Text without half surrogates."""
    return text.encode("utf-8", "backslashreplace").decode()


class Walk:
    """One walk over one call's values. `problem` says afterwards why they cannot be replayed, if so."""

    __slots__ = ("_bounds", "_hidden", "_left", "_names", "_problem")

    def __init__(self, names: Names, bounds: Bounds) -> None:
        self._names, self._bounds = names, bounds
        self._left = bounds.values
        self._problem: str | None = None
        self._hidden: list[str] = []

    @property
    def problem(self) -> Reason | None:
        """The first thing that cannot be replayed, path and reason, with what was hidden."""
        if self._problem is None:
            return None
        reason = Reason(self._problem)
        reason.hidden = tuple(sorted(self._hidden, key=len, reverse=True))
        return reason

    def top(self, pairs: Iterable[tuple[Any, Any]]) -> dict[str, Any]:
        """The arguments of a call: values under their names."""
        found: dict[str, Any] = {}
        for name, value in pairs:
            name = name if type(name) is str else "argument" if not isinstance(name, str) else str.__str__(name)
            known = self._names[name]
            shown = safe(scrub(name))[:NAME_CHARS_MAX] if known & ODD else name
            path = (None, shown)
            found[shown] = self._redacted(value, path) if known & SECRET else self.value(value, path, 0, 1)
        return found

    def _trouble(self, path: Path, reason: str) -> None:
        if self._problem is None:
            self._problem = safe(f"argument {words_of(path)} {reason}")[:500]

    def _redacted(self, value: Any, path: Path) -> dict[str, str]:
        self._trouble(path, "is redacted")
        self._hide(value, 0)
        return {"$t": "redacted"}

    def _hide(self, value: Any, depth: int) -> None:
        """Remember the texts of what is hidden: what a message repeats of them is hidden as well."""
        kind = type(value)
        if len(self._hidden) >= HIDDEN_MAX or depth > 4:
            return
        if kind is str or kind is int and abs(value) < INT_MAX:
            text = str(value)
            if HIDDEN_CHARS_MIN <= len(text.strip()) <= HIDDEN_CHARS_MAX:
                self._hidden.append(text)
        elif kind is bytes:
            self._hide(value[: HIDDEN_CHARS_MAX + 1].decode("utf-8", "replace"), depth + 1)
        elif kind is dict or kind in (list, tuple, set, frozenset):
            for item in list(islice(value.values() if kind is dict else value, HIDDEN_MAX)):
                self._hide(item, depth + 1)
        else:
            form = form_of(kind)
            if form.tag == "secret":
                self._hide(form.read(value), depth + 1)

    def _opaque(self, kind: type, path: Path, reason: str) -> dict[str, str]:
        name = safe(name_of(kind).replace(":", "."))[:NAME_CHARS_MAX]
        self._trouble(path, f"is {name}, {reason}")
        return {"$t": "opaque", "class": name, "why": reason}

    # --- one value ---

    def value(self, value: Any, path: Path, depth: int, level: int) -> Any:
        """`depth` counts the value's own nesting, `level` that of the JSON it becomes."""
        self._left -= 1
        kind = type(value)
        if self._left < 0:
            return self._opaque(kind, path, f"beyond the first {self._bounds.values:,} values, which are what is recorded")
        if kind is str:
            return self._text(value, path)
        if kind is int:
            return self._int(value, path)
        if kind is bool or value is None:
            return value
        if kind is float:
            return value if value - value == 0 else {"$t": "float", "v": repr(value)}
        if depth >= self._bounds.depth or level > JSON_DEPTH_MAX:
            return self._opaque(kind, path, f"nested deeper than {self._bounds.depth} levels, or a circle")
        try:
            if kind is dict:
                return self._mapping(value, path, depth + 1, level)
            if kind is list:
                return self._items(value, path, depth + 1, level)
            return self._rich(value, kind, path, depth + 1, level)
        except Exception as error:  # noqa: BLE001 - a value that misbehaves is a value we cannot record
            return self._opaque(kind, path, f"which could not be read ({type(error).__name__})")

    def _text(self, value: str, path: Path) -> Any:
        size, clean = len(value), value
        if size > SHORT_CHARS or ":" in value or "=" in value:
            clean = scrub(value[: self._bounds.text] if size > self._bounds.text else value)
        if size > self._bounds.text:
            self._trouble(path, f"is a text of {size:,} characters, of which {self._bounds.text:,} are recorded")
            return {"$t": "cut", "v": safe(clean[: self._bounds.text // 8]), "chars": size}
        if clean is not value and clean != value:
            self._trouble(path, "holds what looks like a secret, which is redacted")
            return {"$t": "redacted", "v": safe(clean)}
        if _has_surrogate(value):
            return {"$t": "text", "v": value.encode("utf-8", "surrogatepass").hex()}
        return value

    def _int(self, value: int, path: Path) -> Any:
        if -CARD_INT_MIN < value < CARD_INT_MIN:
            return value
        if value.bit_length() > INT_BITS_MAX:
            return self._opaque(int, path, f"a number of over {INT_BITS_MAX:,} bits")
        text = str(value)
        if len(text) < 20 and is_card(text):
            self._trouble(path, "looks like a card's number, and is redacted")
            return {"$t": "redacted"}
        return value if -INT_MAX <= value <= INT_MAX else {"$t": "int", "v": text}

    def _items(self, values: Iterable[Any], path: Path, depth: int, level: int) -> list[Any]:
        found: list[Any] = []
        add, level = found.append, level + 1
        # The slice is taken at once: another thread may change the list while it is walked.
        for number, item in enumerate(list(islice(values, self._left + 1))):
            kind = type(item)
            if self._left > 0 and (kind is bool or item is None or kind is int and -CARD_INT_MIN < item < CARD_INT_MIN):
                self._left -= 1
                add(item)
            else:
                add(self.value(item, (path, number), depth, level))
            if self._left < 0:
                break
        return found

    def _mapping(self, value: dict[Any, Any], path: Path, depth: int, level: int) -> Any:
        pairs, names = list(islice(value.items(), self._left + 1)), self._names
        found = {}
        for key, item in pairs:
            known = names[key] if type(key) is str else ODD
            if known & ODD:
                return self._pairs(pairs, path, depth, level)
            kind = type(item)
            if known:
                found[key] = self._redacted(item, (path, key))
            elif self._left > 0 and (kind is bool or item is None or kind is int and -CARD_INT_MIN < item < CARD_INT_MIN):
                self._left -= 1
                found[key] = item
            else:
                found[key] = self.value(item, (path, key), depth, level + 1)
            if self._left < 0:
                break
        return found

    def _pairs(self, pairs: list[tuple[Any, Any]], path: Path, depth: int, level: int) -> Any:
        """A dict whose keys are not all plain names."""
        found = []
        for key, item in pairs:
            is_text = type(key) is str
            where = (path, scrub(key) if is_text else None)
            secret = is_text and self._names[key] & SECRET
            written = self._redacted(item, where) if secret else self.value(item, where, depth, level + 3)
            found.append([self.value(key, where, depth, level + 3), written])
            if self._left < 0:
                break
        return {"$t": "map", "v": found}

    # --- values with a tag ---

    def _rich(self, value: Any, kind: type, path: Path, depth: int, level: int) -> Any:
        if kind is tuple or kind is set or kind is frozenset:
            items = self._items(value, path, depth, level + 1)
            # In one order whatever the process hashes like, so that the same arguments are the same text.
            return {"$t": kind.__name__, "v": items if kind is tuple else sorted(items, key=repr)}
        if kind is bytes or kind is bytearray:
            return self._bytes(value, kind, path)
        form = form_of(kind)
        write = _WRITERS.get(form.tag)
        if write is None:
            return {"$t": form.tag, "v": form.read(value)}
        return write(self, value, form, path, depth, level)

    def _bytes(self, value: Any, kind: type, path: Path) -> Any:
        if len(value) > self._bounds.text:
            return self._opaque(kind, path, f"{len(value):,} bytes long")
        import binascii

        text = value.decode("latin-1")
        if scrub(text) != text:
            self._trouble(path, "holds what looks like a secret, which is redacted")
            return {"$t": "redacted"}
        return {"$t": kind.__name__, "v": binascii.b2a_base64(value, newline=False).decode()}

    def _no_form(self, value: Any, form: Form, path: Path, depth: int, level: int) -> Any:
        return self._opaque(form.kind, path, form.why)

    def _secret(self, value: Any, form: Form, path: Path, depth: int, level: int) -> Any:
        return self._redacted(value, path)

    def _plain(self, value: Any, form: Form, path: Path, depth: int, level: int) -> Any:
        """What holds texts or numbers of its own, which may be secret, long or many."""
        return {"$t": form.tag, "v": self.value(form.read(value), path, depth, level + 1)}

    def _text_of(self, value: Any, form: Form, path: Path, depth: int, level: int) -> Any:
        text = form.read(value)
        written = self._text(text, path)
        return {"$t": form.tag, "v": text} if written is text else written

    def _parts(self, value: Any, form: Form, path: Path, depth: int, level: int) -> Any:
        return {"$t": form.tag, "v": self._items(form.read(value), path, depth, level + 1)}

    def _deque(self, value: Any, form: Form, path: Path, depth: int, level: int) -> Any:
        return {"$t": "deque", "max": value.maxlen, "v": self._items(value, path, depth, level + 1)}

    def _dict_kind(self, value: Any, form: Form, path: Path, depth: int, level: int) -> Any:
        found = self._pairs(list(islice(value.items(), self._left + 1)), path, depth, level)
        found["$t"] = form.tag
        if form.tag == "defaultdict" and value.default_factory is not None:
            made = value.default_factory
            if not any(made is kind for kind in (list, dict, set, int, float, str, tuple, bool)):
                return self._opaque(form.kind, path, "whose default is made by a function of its own; pass dict(value)")
            found["make"] = made.__name__
        return found

    def _when(self, value: Any, form: Form, path: Path, depth: int, level: int) -> Any:
        zone = value.tzinfo
        key = zone.key if zone is not None and is_exactly(type(zone), "zoneinfo", "ZoneInfo") else None
        if zone is not None and key is None and not is_exactly(type(zone), "datetime", "timezone"):
            return self._opaque(form.kind, path, f"in a time zone of class {name_of(type(zone))}; use zoneinfo")
        found = {"$t": form.tag, "v": form.read(value)}
        if key is not None:
            found["zone"] = key
        if value.fold:
            found["fold"] = 1
        return found

    def _zone(self, value: Any, form: Form, path: Path, depth: int, level: int) -> Any:
        key = form.read(value)
        if type(key) is not str:
            return self._opaque(form.kind, path, "without a key")
        return {"$t": "zone", "v": key}

    def _instance(self, value: Any, form: Form, path: Path, depth: int, level: int) -> Any:
        written = {}
        for field, item in form.read(value):
            where = (path, field)
            secret = self._names[field] & SECRET
            written[field] = self._redacted(item, where) if secret else self.value(item, where, depth, level + 2)
        return {"$t": form.tag, "class": form.name, "v": written}

    def _member(self, value: Any, form: Form, path: Path, depth: int, level: int) -> Any:
        return {"$t": form.tag, "class": form.name, "v": self.value(form.read(value), path, depth, level + 1)}

    def _ref(self, value: Any, form: Form, path: Path, depth: int, level: int) -> Any:
        """A function or a class, by the name under which its module holds it."""
        found = importable_name(value)
        if found is None:
            return self._opaque(form.kind, path, "which no module holds by a name (a lambda, or made inside a function)")
        return {"$t": "ref", "v": found}


_WRITERS = {
    "opaque": Walk._no_form,
    "secret": Walk._secret,
    **dict.fromkeys(("path", "purepath", "winpath", "decimal"), Walk._text_of),
    **dict.fromkeys(("range", "slice", "timezone", "regex", "partial", "numpy"), Walk._parts),
    "namespace": Walk._plain,
    "deque": Walk._deque,
    **dict.fromkeys(("ordered", "counter", "defaultdict"), Walk._dict_kind),
    **dict.fromkeys(("datetime", "time"), Walk._when),
    "zone": Walk._zone,
    **dict.fromkeys(("dataclass", "attrs", "namedtuple", "model", "struct"), Walk._instance),
    **dict.fromkeys(("enum", "flag"), Walk._member),
    "ref": Walk._ref,
}


def importable_name(value: Any) -> str | None:
    """ "module:qualname" of a function or class that its loaded module holds under this very name; else None."""
    if issubclass(type(value), type):
        name = name_of(value)
    elif type(value) in (types.FunctionType, types.BuiltinFunctionType) and type(value.__module__) is str:
        name = f"{value.__module__}:{value.__qualname__}"
    else:
        return None
    module, _, qualname = name.partition(":")
    found: Any = sys.modules.get(module)
    for part in qualname.split("."):
        if type(found) is types.ModuleType:
            found = found.__dict__.get(part)
        elif issubclass(type(found), type):
            found = type.__dict__["__dict__"].__get__(found).get(part)
        else:
            return None
        if isinstance(found, staticmethod | classmethod):
            found = found.__func__
    return name if found is value else None
