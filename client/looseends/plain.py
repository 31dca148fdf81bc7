"""Arguments that are plain values, as JSON, the short way: what nearly every call passes. Pure; `capture.py` takes the rest.

Rules:

1. Numbers, texts, booleans, None, and lists and dicts of them; nothing is secret by its name or its looks, nothing is large.
   Whoever is not sure gives None, and `capture.py` looks at each value by itself: the short way may be slow to say yes,
   never wrong to say it.
2. What is written is what was looked at: containers are copied first, since another thread may hold them too.
3. msgspec, where it is installed, writes the text (`looseends[fast]`); what it writes reads back the same.
4. Bounds: 1,000 characters a text, 1,000 values, 8 levels, 60,000 bytes in all.
"""

from __future__ import annotations

import json.encoder
from collections.abc import Callable, Iterable
from typing import Any, Final

from .redact import is_secret
from .scrub import CARD_INT_MIN, CARD_RUN, DIGITS, SHORT_CHARS, TOKEN_RUN, TOKENISH, scrub
from .wire import NAME_CHARS_MAX

ARGS_BYTES_MAX = 60_000
TEXT_CHARS_MAX = 1_000
SCALARS_MAX = 9
"""So many texts, each character escaped, stay below ARGS_BYTES_MAX: what is handed to `CODEC.scalars` needs no other bound."""
VALUES_MAX = 1_000
DEPTH_MAX = 8
NAMES_MAX, NAMES_TOGETHER_MAX, PLAINS_MAX = 2_000, 50, 1_000
"""How many sets of names are remembered as hiding nothing, for each `redact` list; names in one; how many such lists."""
INT_MAX = CARD_INT_MIN - 1
INT_MIN = -INT_MAX
LETTERED_CHARS = 15  # a text up to this length that ends in a letter holds no card's number either
_TEXTS = frozenset((str,))
_quote = json.encoder.encode_basestring_ascii


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


def _write(value: Any) -> bytes:
    return "".join(_chunks(value, 0)).encode()


class _Codec:
    """Who writes the text: the standard library, or msgspec once `speed_up` found it."""

    __slots__ = ("fast", "looked", "scalars", "write")

    def __init__(self) -> None:
        self.looked = self.fast = False
        self.write: Callable[[Any], bytes] = _write
        self.scalars: Callable[[tuple[Any, ...]], bytes | None] = scalars


def scalars(args: tuple[Any, ...]) -> bytes | None:
    """Values as a JSON list, None where one of them is no small scalar. By hand: a third faster than the C encoder."""
    parts = []
    look = False
    for value in args:
        kind = type(value)
        if kind is str and len(value) <= TEXT_CHARS_MAX:
            if len(value) > SHORT_CHARS and (value[-1] <= "9" or len(value) > LETTERED_CHARS):
                look = True
            parts.append(_quote(value))
        elif kind is int and INT_MIN <= value <= INT_MAX or kind is float and value - value == 0:
            parts.append(repr(value))
        elif kind is bool:
            parts.append("true" if value else "false")
        elif value is None:
            parts.append("null")
        else:
            return None
    text = f"[{','.join(parts)}]"
    data = text.encode()
    if "\\ud" in text or (look or ":" in text or "=" in text) and hide_something(args, data, text):  # half a surrogate, perhaps
        return None
    return data


def hide_something(args: tuple[Any, ...], data: bytes, text: str) -> bool:
    """Whether one of these values holds what `scrub` hides; `data` is all of them as JSON, `text` the same."""
    return not cannot_hide(data, text) and any(type(value) is str and scrub(value) != value for value in args)


def _one_hides(texts: list[str]) -> bool:
    """Whether one of these texts holds what `scrub` hides. One look at all of them spares nearly every call a look at each."""
    text = "\n".join(texts)
    if ":" not in text and "=" not in text:
        if max(map(len, texts)) <= SHORT_CHARS:
            return False
        if '",' not in text and cannot_hide(text.encode("ascii", "replace"), text):
            return False
    return any(scrub(value) != value for value in texts)


def cannot_hide(data: bytes, text: str) -> bool:
    """A first look at all texts of a JSON list at once: True where `scrub` would surely leave each of them as it is.

    Escapes and what stands between the texts only add to what is found, and what is found is looked at again, text by text.
    (Before Python 3.13 `in` takes seven times as long for bytes as for text: it tries them as a number first.)
    """
    return not (
        ":" in text
        or "=" in text
        or "--" in text
        or "</" in text
        or "'," in text
        or '\\",' in text
        or "earer " in text
        or "asic " in text
        or data.translate(TOKENISH).find(TOKEN_RUN) >= 0
        or data.translate(DIGITS, b" -.").find(CARD_RUN) >= 0
    )


def checked_scalars(args: tuple[Any, ...]) -> bytes | None:
    """`scalars`, with `CODEC.write` for the writing: for a codec that would also write what is not to be written."""
    look = False
    for value in args:
        kind = type(value)
        if kind is str:
            if len(value) > TEXT_CHARS_MAX:
                return None
            if len(value) > SHORT_CHARS and (value[-1] <= "9" or len(value) > LETTERED_CHARS):
                look = True
        elif kind is int:
            if not INT_MIN <= value <= INT_MAX:
                return None
        elif kind is float:
            if value - value != 0:  # infinite, or no number
                return None
        elif kind is not bool and value is not None:
            return None
    try:
        data = CODEC.write(args)
    except ValueError:  # half a surrogate
        return None
    text = data.decode()
    return None if (look or ":" in text or "=" in text) and hide_something(args, data, text) else data


CODEC: Final = _Codec()


def speed_up() -> None:
    """Let msgspec write, where it is installed. Looked for once, at the first record, and not by the import of this package:
    its own import takes as long as ten thousand records."""
    if CODEC.looked:
        return
    CODEC.looked = True
    try:
        import msgspec

        CODEC.write = msgspec.json.Encoder().encode
        CODEC.scalars, CODEC.fast = checked_scalars, True
    except Exception:  # noqa: BLE001 - absent, too old or broken: the standard library writes as it did
        CODEC.write = _write


class Plain:
    """Values under names, the short way, for one list of names to hide."""

    __slots__ = ("_redact", "_safe")

    def __init__(self, redact: tuple[str, ...] = ()) -> None:
        self._redact = redact
        self._safe: set[tuple[str, ...]] = set()  # names that were looked at and hide nothing

    def encode(self, values: dict[str, Any]) -> bytes | None:
        """Values under their names, as a JSON object; None where one of them is for `capture.py`."""
        try:
            copy = self._copy(values)
            data = CODEC.write(copy) if copy is not None else None
            # half a surrogate, perhaps: two of them beside each other would come back as one character
            return data if data is not None and len(data) <= ARGS_BYTES_MAX and b"\\ud" not in data else None
        except (RuntimeError, ValueError):  # changed by another thread while it was copied; half a surrogate
            return None

    def _copy(self, values: dict[str, Any]) -> Any:
        """A copy of all containers in which every value was looked at, or None."""
        whole = values.copy()
        waiting: list[tuple[Any, int]] = [(whole, 1)]
        texts: list[str] = []
        left = VALUES_MAX
        while waiting:
            box, depth = waiting.pop()
            left -= len(box)
            if left < 0 or depth > DEPTH_MAX:
                return None
            if type(box) is list:
                places: Iterable[tuple[Any, Any]] = enumerate(box)
            elif self._are_safe(tuple(box)):
                places = box.items()
            else:
                return None
            for place, value in places:
                kind = type(value)
                if kind is str:
                    if len(value) > TEXT_CHARS_MAX:
                        return None
                    texts.append(value)
                elif kind is int:
                    if not INT_MIN <= value <= INT_MAX:
                        return None
                elif kind is float:
                    if value - value != 0:
                        return None
                elif kind is dict or kind is list:
                    box[place] = inner = value.copy()
                    waiting.append((inner, depth + 1))
                elif kind is not bool and value is not None:
                    return None
        return None if texts and _one_hides(texts) else whole

    def _are_safe(self, names: tuple[Any, ...]) -> bool:
        """Whether these names are texts, hide nothing, and are as the wire takes them; remembered if so."""
        if not _TEXTS.issuperset(map(type, names)):
            return False
        if names in self._safe:
            return True
        for name in names:
            if name == "$t" or len(name) > NAME_CHARS_MAX or is_secret(name, self._redact) or scrub(name) != name:
                return False
        if len(self._safe) < NAMES_MAX and len(names) <= NAMES_TOGETHER_MAX:
            self._safe.add(names)
        return True


_plains: dict[tuple[str, ...], Plain] = {}


def plain_for(redact: tuple[str, ...]) -> Plain:
    """The short way that hides these names too, shared by all functions with the same list."""
    found = _plains.get(redact)
    if found is None:
        found = Plain(redact)
        if len(_plains) < PLAINS_MAX:
            _plains[redact] = found
    return found
