"""Tracebacks and stacks in parts: the frames of one's own code to be read, those of libraries folded away.

Rules: what is no frame (messages, chained causes, output of a command) is shown as it is; nothing is left out, since folding is
no cutting; a text without any frame is one part.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence

from looseends_daemon.core.resources import Value
from looseends_dashboard import words

LINES_MAX = 1_000
_FRAME = re.compile(r'^\s*(?:\|\s*)*File "(?P<path>[^"]*)", line \d+')
_LIBRARY = re.compile(
    r"(?:^|[/\\])(?:site-packages|dist-packages|lib[/\\]python\d[\d.]*)[/\\]|^<frozen |^[A-Z]:\\Python\d+\\Lib\\", re.ASCII
)
_OF_LIBRARY = re.compile(r"\[[\w.\- ]+\]\s*$")
"""How a stack line of the client names the library that it stands in."""


class Part(Value, frozen=True):
    """Some lines. `folded`: frames of libraries, `frames` of them."""

    text: str
    folded: bool = False
    frames: int = 0


def parts(text: str) -> list[Part]:
    """A traceback as Python writes it."""
    return _parts(_frames(text.split("\n")))


def stack_parts(lines: Sequence[str]) -> list[Part]:
    """A stack as the client writes it, one frame in a line, the innermost last."""
    return _parts(([line], _is_library_line(line)) for line in lines)


def _is_library_line(line: str) -> bool:
    return bool(_OF_LIBRARY.search(line) or _LIBRARY.search(line.split(":", 1)[0]))


def _frames(lines: Sequence[str]) -> Iterator[tuple[list[str], bool | None]]:
    """The lines by frame: (lines, whether it is a library's); None: they are no frame."""
    pile: list[str] = []
    library: bool | None = None
    for line in lines:
        found = _FRAME.match(line)
        goes_on = library is not None and line.startswith("    ") and found is None
        if found is not None or not goes_on:
            if pile:
                yield pile, library
            pile, library = [], None if found is None else bool(_LIBRARY.search(found["path"]))
        pile.append(line)
    if pile:
        yield pile, library


def _parts(frames: Iterable[tuple[list[str], bool | None]]) -> list[Part]:
    """Neighbours of one kind put together, bounded in lines."""
    piles: list[tuple[bool, int, list[str]]] = []
    for count, (lines, library) in enumerate(frames):
        folded = library is True
        if count >= LINES_MAX:
            piles.append((False, 0, ["… more lines are in the JSON"]))
            break
        if piles and piles[-1][0] == folded:
            before = piles[-1]
            before[2].extend(lines)
            piles[-1] = (folded, before[1] + 1, before[2])
        else:
            piles.append((folded, 1, list(lines)))
    return [Part(text=words.visible("\n".join(lines)), folded=folded, frames=n) for folded, n, lines in piles]
