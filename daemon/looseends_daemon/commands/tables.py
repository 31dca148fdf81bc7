"""How the command line prints: tables that fit the terminal, times a person reads, nothing that a terminal would obey.

Rules: only the last column is cut, and only where standard output is a terminal, so that a pipe gets everything. Where a terminal
is too narrow for a row, what does not fit stands in a second line below it. Times are UTC and say so in the heading; what
`--json` prints is what the API answered, unchanged.
"""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Sequence
from typing import Any

from looseends.wire import NS, parse_time

LAST_COLUMN_CHARS_MIN = 24
GAP = 2
BELOW = "    "
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
    """One row; on a terminal its last cell is cut to the width, and what does not fit beside the others stands below them."""
    if not sys.stdout.isatty():
        return _aligned(row, widths).rstrip()
    columns = shutil.get_terminal_size().columns
    above = _beside(widths, columns)
    if above == len(row):
        return _cut(_aligned(row[:-1], widths), row[-1], columns)
    below = _aligned(row[above:-1], widths[above:])
    return f"{_aligned(row[:above], widths).rstrip()}\n{_cut(f'{BELOW}{below}', row[-1], columns)}"


def _beside(widths: Sequence[int], columns: int) -> int:
    """How many cells stand in the first line: all, or as many as fit whole."""
    if sum(widths[:-1]) + GAP * (len(widths) - 1) + LAST_COLUMN_CHARS_MIN <= columns:
        return len(widths)
    fits = [n for n in range(1, len(widths)) if sum(widths[:n]) + GAP * (n - 1) <= columns]
    return max(fits, default=1)


def _aligned(row: Sequence[str], widths: Sequence[int]) -> str:
    return (" " * GAP).join(cell.ljust(width) for cell, width in zip(row, widths, strict=False))


def _cut(line: str, last: str, columns: int) -> str:
    line += " " * GAP if line.strip() else ""
    room = max(1, columns - len(line))
    return (line + (last if len(last) <= room else last[: room - 1] + "…")).rstrip()


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
