"""Times and durations as people read them, for reasons and titles. UTC, because a page may be read anywhere."""

from __future__ import annotations

from looseends.wire import NS, format_time


def clock(at: int) -> str:
    """Nanoseconds -> "14:05:31" (UTC)."""
    return format_time(at)[11:19]


def span(seconds: float) -> str:
    """Seconds -> "250 ms", "30 s", "2 min 5 s", "3 h 10 min", "2 d 4 h"."""
    if seconds < 1:
        return f"{round(seconds * 1000)} ms"
    if seconds < 60:
        return f"{seconds:.3g} s"
    whole = round(seconds)
    for unit, name, small, small_name in ((86_400, "d", 3600, "h"), (3600, "h", 60, "min"), (60, "min", 1, "s")):
        if whole >= unit:
            rest = whole % unit // small
            return f"{whole // unit} {name}" + (f" {rest} {small_name}" if rest else "")
    return f"{whole} s"


def between(start: int, end: int) -> str:
    """The span between two times in ns, never negative."""
    return span(max(0, end - start) / NS)
