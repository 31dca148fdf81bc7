"""Types, as pages and routes show them: all tasks of one service and name, in figures of a window; and the port to read them.

Rules: counts are the ledger's own, by minute of begin; durations are those of tasks that succeeded, in the bins of
core/durations.py.
"""

from __future__ import annotations

from typing import Protocol

import msgspec

from looseends_daemon.core.durations import Suggestion
from looseends_daemon.core.resources import Page, Value

SLICES = 24
"""Into how many equal parts a window is cut for its small picture."""
TYPES_MAX = 5_000
"""Types that are looked at for one page; with more of them, the busiest count."""


class Slice(Value, frozen=True):
    """One part of the window: what began in it."""

    at: int
    tasks: int = 0
    failed: int = 0
    gap: int = 0


class Bin(Value, frozen=True):
    """How many took at most `upto` seconds (None: longer than any bound), and longer than the bin before."""

    upto: float | None
    count: int


class TaskType(Value, frozen=True):
    """One type in the window [from, to). `typical`, `slow`: what half and 95 % of those that succeeded stayed under (s).

    `deadline`: seconds a run of it may take where its client names none (None: for ever), and `rule`: the [[task]] `match`
    that says so. `offered`: a live instance runs it again. `loops`: loops of it that ended with their process; `is_loop`:
    nothing of it was ever seen to end by itself.
    """

    service: str
    name: str
    tasks: int = 0
    succeeded: int = 0
    failed: int = 0
    cancelled: int = 0
    in_time: int = 0
    gap: int = 0
    loose: int = 0
    last_began_at: int | None = None
    typical: float | None = None
    slow: float | None = None
    measured: int = 0
    deadline: float | None = None
    rule: str | None = None
    offered: bool = False
    loops: int = 0
    is_loop: bool = False
    slices: list[Slice] = msgspec.field(default_factory=list)


class TypeStory(Value, frozen=True):
    """One type with all that is known about its durations."""

    type: TaskType
    from_: int = msgspec.field(name="from")
    to: int
    durations: list[Bin] = msgspec.field(default_factory=list)
    suggestions: list[Suggestion] = msgspec.field(default_factory=list)
    toml: str | None = None


class Types(Protocol):
    """The read side; windows are [from_, to) in ns."""

    async def types(
        self, from_: int, to: int, *, environment: str | None = None, limit: int = 50, cursor: str | None = None
    ) -> Page[TaskType]:
        """Those with tasks in the window, most unaccounted first. Raises ValueError in words for a made-up cursor."""
        ...

    async def type_of(self, service: str, name: str, from_: int, to: int, *, environment: str | None = None) -> TypeStory | None:
        """One type, also without tasks in the window; None: it was never seen."""
        ...


def toml_line(service: str, name: str, deadline: float) -> str:
    """The lines of the configuration that set this deadline (s) for one type."""
    # A name may hold what a glob takes for a pattern.
    match = "".join(f"[{c}]" if c in "[*?" else c for c in f"{service}/{name}")
    return f'[[task]]\nmatch = {_quoted(match)}\ndeadline = "{span(deadline)}"\n'


def _quoted(text: str) -> str:
    """A TOML basic string."""
    escaped = "".join(
        f"\\u{ord(c):04X}" if (ord(c) < 32 or ord(c) == 127) else {'"': '\\"', "\\": "\\\\"}.get(c, c) for c in text
    )
    return f'"{escaped}"'


def span(seconds: float) -> str:
    """A duration as the configuration reads it: "90s", "2m", "1500ms", "1h"."""
    milliseconds = round(seconds * 1000)
    for size, unit in ((86_400_000, "d"), (3_600_000, "h"), (60_000, "m"), (1000, "s")):
        if milliseconds % size == 0:
            return f"{milliseconds // size}{unit}"
    return f"{milliseconds}ms"
