"""Numbers, times and foreign text as a page says them.

Rules: times come in as unix nanoseconds with `now` beside them and are shown in UTC; nothing here reads a clock. Text that
came from outside passes `visible`, so that no control or direction character can hide, reorder or break what stands
around it.
"""

from __future__ import annotations

import json
import re
from typing import Any

from looseends.wire import NS, format_time

TEXT_CHARS_MAX = 20_000
"""The longest text a page shows in one piece; the rest is one click away in the API."""

_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_DIRECTION = "\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069\ufeff"
# The noncharacters of every plane, two at its end, are parse errors in HTML like the control characters.
_NONCHARACTERS = "\ufdd0-\ufdef" + "".join(chr(0x10000 * plane + 0xFFFE) + chr(0x10000 * plane + 0xFFFF) for plane in range(17))
_UNSAFE = re.compile(f"[\x00-\x08\x0b-\x1f\x7f-\x9f{_DIRECTION}\ud800-\udfff{_NONCHARACTERS}]")


def _shown(match: re.Match[str]) -> str:
    return f"⟨U+{ord(match[0]):04X}⟩"


def visible(text: str, chars_max: int = TEXT_CHARS_MAX) -> str:
    """Foreign text, made safe to stand in a page: unsafe characters become visible marks, the end is cut in words."""
    cut = text[:chars_max]
    shown = _UNSAFE.sub(_shown, cut.replace("\r\n", "\n"))
    return shown if len(text) <= chars_max else f"{shown}… ({len(text) - chars_max:,} more characters)"


def short(text: str | None, chars_max: int = 120) -> str:
    """The first line of a text, at most `chars_max` characters, for a table cell."""
    line = (text or "").strip()[: chars_max + 1].split("\n", 1)[0]
    return line if len(line) <= chars_max else line[: chars_max - 1] + "…"


def json_text(value: Any, indent: int | None = 2) -> str:
    """JSON for reading and copying: letters of any script as they are, unsafe characters as escapes, so it stays exact."""
    text = json.dumps(value, indent=indent, ensure_ascii=False, default=str)
    return _UNSAFE.sub(lambda match: _escape(ord(match[0])), text)


def _escape(code: int) -> str:
    if code < 0x10000:
        return f"\\u{code:04x}"
    code -= 0x10000
    return f"\\u{0xD800 + (code >> 10):04x}\\u{0xDC00 + (code & 0x3FF):04x}"


def sentence(text: str) -> str:
    """A reason as a sentence: its first letter large, a full stop at its end."""
    text = text.strip()
    return text[:1].upper() + text[1:] + ("" if text.endswith((".", "!", "?")) else ".")


def number(value: int) -> str:
    """1811627 -> 1,811,627."""
    return f"{value:,}"


def plural(count: int, one: str, many: str = "") -> str:
    """3, "task" -> "3 tasks"."""
    return f"{count:,} {one if count == 1 else many or one + 's'}"


def duration(seconds: float | None) -> str:
    """Seconds -> "240 ms", "1.24 s", "3 min 10 s", "2 h 5 min", "3 d 4 h"; nothing for None."""
    if seconds is None:
        return ""
    if seconds < 0.9995:
        return f"{max(seconds, 0) * 1000:.0f} ms" if seconds >= 0.001 or seconds <= 0 else "under 1 ms"
    if seconds < 59.95:
        return f"{seconds:.2f} s" if seconds < 10 else f"{seconds:.1f} s"
    whole = round(seconds)
    for size, unit, below, lesser in ((86_400, "d", 3600, "h"), (3600, "h", 60, "min"), (60, "min", 1, "s")):
        if whole >= size:
            rest = whole % size // below
            return f"{whole // size} {unit}" + (f" {rest} {lesser}" if rest else "")
    return f"{whole} s"


def limit(seconds: float | None) -> str:
    """A round duration, such as a deadline: "30 s", "1.5 s", "2 h"."""
    number, _, unit = duration(seconds).partition(" ")
    return f"{number.rstrip('0').rstrip('.') if '.' in number else number} {unit}".strip()


def coarse(seconds: float) -> str:
    """Seconds in one unit, rounded down: "12 s", "3 min", "2 h", "3 d"."""
    for size, unit in ((172_800, "d"), (7200, "h"), (120, "min")):
        if seconds >= size:
            return f"{int(seconds // {'d': 86_400, 'h': 3600, 'min': 60}[unit])} {unit}"
    return f"{int(seconds)} s"


def ago(at: int, now: int) -> str:
    """How long ago, or how soon: "just now", "12 s ago", "in 3 min"."""
    seconds = (now - at) / NS
    if abs(seconds) < 1:
        return "just now"
    return f"{coarse(seconds)} ago" if seconds > 0 else f"in {coarse(-seconds)}"


def iso(at: int) -> str:
    """The value of a `datetime` attribute: RFC 3339, UTC, milliseconds (HTML allows no more)."""
    return format_time(at)[:23] + "Z"


def clock(at: int, now: int, millis: bool = False) -> str:
    """UTC: "14:05:31" today, "19 Nov 14:05:31" this year, "19 Nov 2025 14:05:31" else."""
    text = format_time(at)
    time = text[11:23] if millis else text[11:19]
    today = format_time(now)
    if text[:10] == today[:10]:
        return time
    day = f"{int(text[8:10])} {_MONTHS[int(text[5:7]) - 1]}"
    return f"{day} {time}" if text[:4] == today[:4] else f"{day} {text[:4]} {time}"


def tick(at: int, days: bool) -> str:
    """The label under the chart's axis: "14:05" or "19 Nov"."""
    text = format_time(at)
    return f"{int(text[8:10])} {_MONTHS[int(text[5:7]) - 1]}" if days else text[11:16]
