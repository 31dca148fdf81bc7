"""The first page: how the ledger of a window adds up, its picture, and what needs a look.

Rules: the window's numbers come from the ledger alone; what needs a look comes from the open loose ends of all time, so that
an old one cannot fall out of sight. Nobody is told that all is well while one is open anywhere.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from looseends.wire import NS
from looseends_daemon.core.front import Front, Happened
from looseends_daemon.core.resources import BlindWindow, Bucket, Ledger, Reader, Value
from looseends_dashboard import asked, beside, charts, links, views, windows
from looseends_dashboard.windows import WINDOWS, Shown

LOOSE_READ_MAX = 200
INCIDENTS_MAX = 50
TROUBLED_MAX = 24
TYPES_MAX = 5
BESIDE_MAX = 3
"""So many releases and deaths stand under the picture, the newest; the rest stands with its table."""


class Picked(Value, frozen=True):
    """A part of the window in one line: its time in words, its ledger, and where one can go from it."""

    words: str
    ledger: Ledger
    show: str
    unaccounted: str
    failed: str
    replay: str
    open_gap: int
    zoom: str | None = None
    clear: str | None = None


def place(shown: Shown, environment: str | None, picked: tuple[int, int] | None = None) -> str:
    """The address of the overview as it is."""
    asked_for: dict[str, str] = {}
    if shown.name and shown.chosen:
        asked_for["window"] = shown.name
    elif not shown.name:
        asked_for |= links.window(shown.from_, shown.to)
    if environment is not None:
        asked_for["environment"] = environment
    if picked is not None:
        asked_for |= links.window(*picked, "sel_from", "sel_to")
    return links.address("/", asked_for)


async def environment_of(front: Front, query: Mapping[str, str]) -> tuple[str | None, list[str]]:
    """The environment that was chosen (None: all) and those there are. Raises BadParameter."""
    known = await front.environments()
    chosen = query.get("environment") or None
    if chosen is not None and chosen not in known:
        raise asked.BadParameter("environment", f"environment is one of {', '.join(known) or 'none so far'}.")
    return chosen, known


async def picked(front: Front, query: Mapping[str, str], now: int) -> dict[str, Any]:
    """The line under the picture alone, for the window of `sel_from` and `sel_to`, else the whole one. Raises BadParameter."""
    environment, _ = await environment_of(front, query)
    shown = windows.shown(query, now)
    begin, end = windows.pair(query, "sel_from", "sel_to")
    if begin is None or end is None:
        ledger = await front.ledger(shown.from_, shown.to, None, environment)
        return {"picked": _whole(shown, ledger, environment)}
    ledger = await front.ledger(begin, end, None, environment)
    return {"picked": _part(shown, (begin, end), ledger, environment, now)}


async def read(reader: Reader, front: Front, now: int, query: Mapping[str, str]) -> dict[str, Any]:
    """All that the overview shows. Raises BadParameter."""
    environment, environments = await environment_of(front, query)
    shown = windows.shown(query, now)
    selected = windows.pair(query, "sel_from", "sel_to")
    only = links.term("environment", environment) if environment else ""
    ledger, loose, incidents = await asyncio.gather(
        front.ledger(shown.from_, shown.to, shown.bar_s, environment),
        front.loose(environment, limit=LOOSE_READ_MAX),
        reader.incidents("open", limit=INCIDENTS_MAX),
    )
    if not shown.chosen and _is_young(ledger, shown, now):
        shown = windows.named(windows.YOUNG, now, chosen=False)
        ledger = await front.ledger(shown.from_, shown.to, shown.bar_s, environment)
    happened, blind, types = await asyncio.gather(
        front.happened(shown.from_, shown.to, environment),
        reader.blind_windows(shown.from_, shown.to, limit=beside.BLIND_MAX),
        front.types(shown.from_, shown.to, environment, TYPES_MAX),
    )
    part = None
    if selected[0] is not None and selected[1] is not None:
        span = (selected[0], selected[1])
        part = _part(shown, span, await front.ledger(*span, None, environment), environment, now)
    return {
        "api": links.href(from_=ledger.from_, to=ledger.to, base="/api/v1/ledger") if environment is None else None,
        "windows": WINDOWS,
        "window": shown.name,
        "shown": shown,
        "environment": environment,
        "environments": environments if len(environments) > 1 or environment else [],
        "place": place,
        "named": {name: windows.named(name, now) for name in WINDOWS},
        "only": only,
        "calm": not (ledger.loose or loose.items),
        "groups": views.groups(loose.items),
        "grouped": len(loose.items),
        "cut": loose.next_cursor is not None,
        "incidents": [it for it in incidents.items if environment in (None, it.environment)],
        "types": types,
        "picked": part or _whole(shown, ledger, environment),
        **_picture(ledger, shown, environment, happened, list(blind.items), selected),
    }


def _whole(shown: Shown, ledger: Ledger, environment: str | None) -> Picked:
    return _line(shown.words[:1].upper() + shown.words[1:], ledger, environment)


def _part(shown: Shown, span: tuple[int, int], ledger: Ledger, environment: str | None, now: int) -> Picked:
    zoomed = windows.drawn(*span, now)
    said = windows.span_words(*span, now)
    return _line(said, ledger, environment, zoom=place(zoomed, environment), clear=place(shown, environment))


def _line(said: str, ledger: Ledger, environment: str | None, **more: Any) -> Picked:
    only = links.term("environment", environment) if environment else ""
    open_gap = max(0, ledger.gap - ledger.settled.get("gap", 0))

    def listed(q: str) -> str:
        return links.href(f"{q} {only}".strip(), ledger.from_, ledger.to)

    return Picked(
        words=said,
        ledger=ledger,
        show=listed(""),
        unaccounted=listed("is:gap"),
        failed=listed("state:failed"),
        replay=links.plan(f"is:gap is:loose {only}".strip(), ledger.from_, ledger.to),
        open_gap=open_gap,
        **more,
    )


def _is_young(ledger: Ledger, shown: Shown, now: int) -> bool:
    """Whether everything in the window began within the last hour, as far as its bars tell."""
    begun = [bucket.at for bucket in ledger.buckets if bucket.tasks]
    return bool(begun) and min(begun) + shown.bar_s * NS > now - WINDOWS[windows.YOUNG].span_s * NS


def _picture(
    ledger: Ledger,
    shown: Shown,
    environment: str | None,
    happened: list[Happened],
    blind: list[BlindWindow],
    selected: tuple[int | None, int | None],
) -> dict[str, Any]:
    troubled: list[Bucket] = [row for row in reversed(charts.bars(ledger, shown.bar_s)) if row.gap or row.failed]
    marks = beside.gathered(happened, ledger.from_, shown.bar_s)
    part = None if selected[0] is None or selected[1] is None else (selected[0], selected[1])
    return {
        "ledger": ledger,
        "equation": views.equation(ledger, links.term("environment", environment) if environment else ""),
        "picture": charts.gap_picture(ledger, shown.bar_s, marks=marks, blind=blind, picked=part),
        "bar_s": shown.bar_s,
        "marks": list(reversed(marks)),
        "beside_max": BESIDE_MAX,
        "blind": blind,
        "troubled": troubled[:TROUBLED_MAX],
        "troubled_left": max(0, len(troubled) - TROUBLED_MAX),
    }
