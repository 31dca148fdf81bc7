"""Where a task hangs, in a few words, from the lines of its stack.

Rules:

1. Lines are as looseends/stacks.py writes them, outermost first: `/srv/mail.py:88 send` is the service's own code,
   `httpx/_client.py:120 read [httpx]` a library's, `(...)` a remark. Lines of any other form are shown and not read.
2. The place is the innermost line of the service's own code, then what it called and waits in: `mail.py:88 send -> httpx read`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from looseends_daemon.core.resources import Value

CHARS_MAX = 300


class Frame(Value, frozen=True):
    """One line of a stack. `package`: the library it belongs to, "" for the service's own code."""

    path: str
    line: int
    name: str
    package: str

    @property
    def place(self) -> str:
        """`mail.py:88 send`."""
        return f"{self.path.rpartition('/')[2]}:{self.line} {self.name}"


def frame_of(text: str) -> Frame | None:
    """One line as a frame; None: it is none."""
    package = ""
    if text.endswith("]"):
        text, _, package = text[:-1].rpartition(" [")
    place, _, name = text.rpartition(" ")
    path, _, number = place.rpartition(":")
    if not path or not name or not number.isascii() or not number.isdigit() or len(number) > 9:
        return None
    return Frame(path=path, line=int(number), name=name.rpartition("<locals>.")[2] or name, package=package)


def place_of_stack(lines: Sequence[str]) -> str | None:
    """The place in words, with what a remark says behind it; None: no line of it is a frame."""
    frames = [frame for line in lines if (frame := frame_of(line)) is not None]
    if not frames:
        return None
    own = max((n for n, frame in enumerate(frames) if not frame.package), default=None)
    words = frames[-1].place if own is None else frames[own].place + _called(frames[own + 1 :])
    remarks = (line[1:-1] for line in lines if line.startswith("(") and line.endswith(")"))
    return "; ".join([words, *remarks])[:CHARS_MAX]


def with_place(body: dict[str, Any]) -> dict[str, Any]:
    """What was said of a task, with the place of its stack as `where`: reasons are made from the narrow row, without stacks."""
    where = place_of_stack(body["stack"])
    return body if where is None else {**body, "where": where}


def _called(inner: Sequence[Frame]) -> str:
    """What the service's own code called, and where in it it waits."""
    if not inner:
        return ""
    first, last = inner[0].package, inner[-1]
    return (f" -> {first}" if first != last.package else "") + f" -> {last.package} {last.name}"
