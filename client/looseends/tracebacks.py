"""A traceback as Python prints it, without secrets, for a fraction of its price: a place told once is not read and parsed again.

Rules:

1. What comes out is what `traceback.format_exception` gives, with its marks under a part of a line, scrubbed; no locals.
2. In a service that fails often the same places fail. `format_exception` looks each file up on disk and parses the line; with
   cold caches that took 200 us of each failure, and at 2 % of failures it was the service's p99 (bench/service.py).
3. What is rare is left to Python: causes and contexts, groups, notes, errors that come with a suggestion, recursion.
"""

from __future__ import annotations

from types import CodeType, TracebackType
from typing import NamedTuple

from .forms import name_of
from .scrub import scrub
from .slots import clean

FRAMES_MAX = 30
SCRUBBED_CHARS_MAX = 128 << 10
"""Of a message or a traceback, so much is searched for secrets before it is cut to what is kept."""
TELLING = (BaseExceptionGroup, SyntaxError, NameError, AttributeError, ImportError)
"""Their last lines say more than type and message."""
KINDS_MAX, PLACES_MAX = 200, 500
PLACE_CHARS_MAX = 4_000
SAME_MAX = 3  # of more in a row Python says how often they were repeated
Place = tuple[CodeType, int, int]


class Kind(NamedTuple):
    """What all exceptions of a class share: its name as the wire takes it, as Python prints it, and whether that is all of it."""

    name: str
    printed: str
    plain: bool


class Known:
    """Classes that failed before, and texts of places (code, instruction, line). Each forgets all of its own when it is full."""

    def __init__(self) -> None:
        self._kinds: dict[type[BaseException], Kind] = {}
        self._texts: dict[Place, str] = {}

    def kind_of(self, kind: type[BaseException]) -> Kind:
        """See Kind."""
        found = self._kinds.get(kind)
        if found is None:
            name = clean(name_of(kind).replace(":", ".").removeprefix("builtins."))
            printed = (
                kind.__qualname__ if kind.__module__ in ("builtins", "__main__") else f"{kind.__module__}.{kind.__qualname__}"
            )
            if len(self._kinds) >= KINDS_MAX:
                self._kinds.clear()
            found = self._kinds[kind] = Kind(name, printed, not issubclass(kind, TELLING))
        return found

    def texts_of(self, frames: list[TracebackType]) -> list[str]:
        """The lines about each frame. Raises whatever reading their sources raises."""
        known = self._texts.get
        return [known((f.tb_frame.f_code, f.tb_lasti, f.tb_lineno)) or self._read(f) for f in frames]

    def _read(self, frame: TracebackType) -> str:
        import traceback

        text = _mended("".join(traceback.format_tb(frame, 1)), PLACE_CHARS_MAX)
        if len(self._texts) >= PLACES_MAX:
            self._texts.clear()
        self._texts[frame.tb_frame.f_code, frame.tb_lasti, frame.tb_lineno] = text
        return text


KNOWN = Known()


def format_error(error: BaseException, message: str, trace: TracebackType | None, chars_max: int) -> str:
    """`error` as Python prints it, the last FRAMES_MAX frames of `trace`, its end where that is over `chars_max`.

    `message` is its text without secrets. Raises whatever the exception's own methods raise.
    """
    frames = []
    first = trace
    while trace is not None:
        frames.append(trace)
        trace = trace.tb_next
    kind = KNOWN.kind_of(type(error))
    alone = error.__cause__ is None and (error.__context__ is None or error.__suppress_context__)
    if not alone or not kind.plain or "__notes__" in error.__dict__ or (len(frames) > SAME_MAX and _repeats(frames)):
        import traceback

        lines = traceback.format_exception(type(error), error, first, limit=-FRAMES_MAX)
        return _mended("".join(lines), chars_max)
    last = f"{kind.printed}: {message}\n" if message else f"{kind.printed}\n"
    if not frames:
        return last[-chars_max:]
    return "".join(["Traceback (most recent call last):\n", *KNOWN.texts_of(frames[-FRAMES_MAX:]), last])[-chars_max:]


def _mended(text: str, chars_max: int) -> str:
    return clean(scrub(text[-SCRUBBED_CHARS_MAX:])[-chars_max:], chars_max)


def _repeats(frames: list[TracebackType]) -> bool:
    """Whether the same line stands there so often in a row that Python would not print it each time."""
    lines = [(frame.tb_frame.f_code, frame.tb_lineno) for frame in frames]
    return any(len(set(lines[at : at + SAME_MAX + 1])) == 1 for at in range(len(lines) - SAME_MAX))
