"""Which time the overview shows: one of the named windows, or one that somebody drew or typed.

Rules: a window is made of whole bars, its ends are moved outward to them and shown as they are then: a bar that is cut in half
would show less than began in it. The address is the only state; a bad one is answered with what is allowed.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from looseends.wire import NS
from looseends_daemon.core.resources import Value
from looseends_dashboard import asked, words
from looseends_dashboard.charts import BARS_MAX

SPAN_S_MAX = 400 * 86_400
BAR_STEPS = (60, 120, 180, 300, 600, 900, 1_200, 1_800, 3_600, 7_200, 10_800, 21_600, 43_200, 86_400)
"""Widths of a bar (s): multiples of the ledger's minute."""


class Window(Value, frozen=True):
    """A window to choose: its name in words, its span and the width of its bars in seconds."""

    words: str
    span_s: int
    bar_s: int


WINDOWS = {
    "1h": Window(words="hour", span_s=3_600, bar_s=60),
    "6h": Window(words="6 hours", span_s=21_600, bar_s=60),
    "24h": Window(words="24 hours", span_s=86_400, bar_s=180),
    "7d": Window(words="7 days", span_s=604_800, bar_s=1_200),
    "30d": Window(words="30 days", span_s=2_592_000, bar_s=7_200),
}
DEFAULT, YOUNG = "24h", "1h"
"""Without a choice: a day; in the first hour of a daemon's life that hour, where a day would be one needle at its edge."""


class Shown(Value, frozen=True):
    """The window of a page: [from_, to) in ns in bars of `bar_s` seconds; `name` is a key of WINDOWS or "" for a drawn one."""

    from_: int
    to: int
    bar_s: int
    name: str
    words: str
    chosen: bool = True


def named(name: str, now: int, chosen: bool = True) -> Shown:
    """The window that ends with the bar that `now` lies in."""
    window = WINDOWS[name]
    width = window.bar_s * NS
    end = (now // width + 1) * width
    said = f"in the last {window.words}"
    return Shown(from_=end - window.span_s * NS, to=end, bar_s=window.bar_s, name=name, words=said, chosen=chosen)


def shown(query: Mapping[str, str], now: int) -> Shown:
    """What was asked for by `window`, or by `from` and `to`. Raises BadParameter."""
    name = query.get("window")
    if name is not None:
        if name not in WINDOWS:
            raise asked.BadParameter("window", f"window is one of {', '.join(WINDOWS)}.")
        return named(name, now)
    begin, end = pair(query, "from", "to")
    if begin is None or end is None:
        return named(DEFAULT, now, chosen=False)
    return drawn(begin, end, now)


def drawn(begin: int, end: int, now: int) -> Shown:
    """A window somebody drew. Raises BadParameter for one that is longer than SPAN_S_MAX."""
    span = (end - begin) / NS
    if span > SPAN_S_MAX:
        raise asked.BadParameter("from", f"A picture spans at most {SPAN_S_MAX // 86_400} days.")
    bar_s = next((step for step in BAR_STEPS if math.ceil(span / step) + 1 <= BARS_MAX), BAR_STEPS[-1])
    width = bar_s * NS
    begin, end = begin // width * width, -(-end // width) * width
    return Shown(from_=begin, to=end, bar_s=bar_s, name="", words=span_words(begin, end, now))


def pair(query: Mapping[str, str], first: str, last: str) -> tuple[int | None, int | None]:
    """Two times that belong together, in whole minutes outward. Raises BadParameter."""
    texts = query.get(first, "").strip(), query.get(last, "").strip()
    begin, end = asked.time_of(texts[0], first), asked.time_of(texts[1], last)
    if (begin is None) != (end is None):
        missing = first if begin is None else last
        raise asked.BadParameter(missing, f"{first} and {last} stand together: {missing} is missing.")
    if begin is None or end is None:
        return None, None
    if begin >= end:
        raise asked.BadParameter(first, f"{first} must lie before {last}.")
    minute = 60 * NS
    return begin // minute * minute, -(-end // minute) * minute


def span_words(begin: int, end: int, now: int) -> str:
    """ "18 Nov 05:20 to 05:30", without seconds: windows are whole minutes."""
    first, last = words.clock(begin, now)[:-3], words.clock(end, now)[:-3]
    same_day = begin // (86_400 * NS) == end // (86_400 * NS)
    return f"{first} to {last[-5:] if same_day else last}"
