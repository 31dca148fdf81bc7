"""The first page: how the ledger of a window adds up, and what needs a look.

Rules: the window's numbers come from the ledger alone; what needs a look comes from the open loose ends of all time, so that
an old one cannot fall out of sight. Nobody is told that all is well while one is open anywhere.
"""

from __future__ import annotations

import asyncio
from typing import Any

from looseends.wire import NS
from looseends_daemon.core.resources import Bucket, Ledger, Reader, Value
from looseends_dashboard import charts, links, views

LOOSE_READ_MAX = 200
INCIDENTS_MAX = 50
TROUBLED_MAX = 60


class Window(Value, frozen=True):
    """A window to choose: its name in words, its span, the buckets read and the bars drawn, in seconds."""

    words: str
    span_s: int
    bucket_s: int
    bar_s: int


WINDOWS = {
    "1h": Window(words="hour", span_s=3_600, bucket_s=60, bar_s=60),
    "6h": Window(words="6 hours", span_s=21_600, bucket_s=60, bar_s=60),
    "24h": Window(words="24 hours", span_s=86_400, bucket_s=60, bar_s=180),
    "7d": Window(words="7 days", span_s=604_800, bucket_s=600, bar_s=1_200),
}
DEFAULT, YOUNG = "24h", "1h"
"""Without a choice: a day; in the first hour of a daemon's life that hour, where a day would be one needle at its edge."""


async def read(reader: Reader, now: int, asked: str | None) -> dict[str, Any]:
    """All that the overview shows. `asked` is a key of WINDOWS, or None for no choice."""
    name = asked or DEFAULT
    ledger, loose, incidents = await asyncio.gather(
        _ledger(reader, now, WINDOWS[name]),
        reader.tasks("is:loose", limit=LOOSE_READ_MAX),
        reader.incidents("open", limit=INCIDENTS_MAX),
    )
    if asked is None and _is_young(ledger):
        name = YOUNG
        ledger = await _ledger(reader, now, WINDOWS[name])
    return {
        "api": links.href(from_=ledger.from_, to=ledger.to, base="/api/v1/ledger"),
        "windows": WINDOWS,
        "window": name,
        "calm": not (ledger.loose or loose.items),
        "groups": views.groups(loose.items),
        "grouped": len(loose.items),
        "cut": loose.next_cursor is not None,
        "incidents": incidents.items,
        **_ledger_parts(ledger, WINDOWS[name].bar_s),
    }


async def _ledger(reader: Reader, now: int, window: Window) -> Ledger:
    """The window that ends with the bucket that `now` lies in: whole buckets only, so that bars and links add up."""
    end = (now // (window.bucket_s * NS) + 1) * window.bucket_s * NS
    return await reader.ledger(end - window.span_s * NS, end, window.bucket_s)


def _is_young(ledger: Ledger) -> bool:
    """Whether everything in the window began in its last hour."""
    begun = [bucket.at for bucket in ledger.buckets if bucket.tasks]
    return bool(begun) and min(begun) >= ledger.to - WINDOWS[YOUNG].span_s * NS


def _ledger_parts(ledger: Ledger, bar_s: int) -> dict[str, Any]:
    troubled: list[Bucket] = [row for row in reversed(charts.bars(ledger, bar_s)) if row.gap or row.failed]
    return {
        "ledger": ledger,
        "equation": views.equation(ledger),
        "picture": charts.gap_picture(ledger, bar_s),
        "bar_s": bar_s,
        "troubled": troubled[:TROUBLED_MAX],
        "troubled_left": max(0, len(troubled) - TROUBLED_MAX),
    }
