"""How the command line prints: tables that fit the terminal, times a person reads, nothing that a terminal would obey.

Rules: only the last column is cut, and only where standard output is a terminal, so that a pipe gets everything. Times are UTC
and say so in the heading; `--json` prints what the API answered, unchanged.
"""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Sequence
from typing import Any

from looseends.wire import NS, parse_time

LAST_COLUMN_CHARS_MIN = 12
DAY_NS = 86_400 * NS


def printable(text: object) -> str:
    """What a task contains on one line, without anything that a terminal would obey."""
    return "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in " ".join(str(text).split()))


def table(heads: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """The rows under their heads, columns aligned."""
    cells = [[printable("-" if value is None else value) for value in row] for row in rows]
    widths = [max(len(head), *(len(row[n]) for row in cells)) if cells else len(head) for n, head in enumerate(heads)]
    return "\n".join(fitted(row, widths) for row in [list(heads), *cells])


def fitted(row: Sequence[str], widths: Sequence[int]) -> str:
    """One line; its last cell cut to the terminal's width."""
    line = "  ".join(cell.ljust(width) for cell, width in zip(row[:-1], widths, strict=False))
    last = row[-1]
    if sys.stdout.isatty():
        room = max(LAST_COLUMN_CHARS_MIN, shutil.get_terminal_size().columns - len(line) - 2)
        last = last if len(last) <= room else last[: room - 1] + "…"
    return f"{line}  {last}".rstrip()


def short_time(text: str | None, now: int) -> str:
    """A time of the API: the clock within the last day, with its date before."""
    if text is None:
        return "-"
    return text[11:19] if abs(now - parse_time(text)) < DAY_NS else f"{text[:10]} {text[11:16]}"


def span(seconds: float | None) -> str:
    """A duration a person reads: "0.42 s", "3 min 10 s", "2 h 5 min"."""
    if seconds is None:
        return "-"
    if seconds < 60:
        return f"{seconds:.2g} s" if seconds < 10 else f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"


def print_json(value: Any) -> None:
    """What a program reads."""
    print(json.dumps(value, indent=1, ensure_ascii=not sys.stdout.encoding.lower().startswith("utf")))
