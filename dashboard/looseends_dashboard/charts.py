"""The gap picture: three lanes on one time axis, as SVG built from numbers.

Rules:

1. A task is counted in the bar of the minute it *began*, so each bar of the ledger adds up by itself. Rates of starts and
   ends in the same minute differ by latency and prove nothing.
2. Each lane has a scale of its own; unaccounted and failed are drawn on a square root, and an unaccounted needle is never
   under 7 px, so that one lost task among millions is seen.
3. Work that is still in time is pale and dashed: it is no loss. What was settled is hollow: it was one, and is repaired.
   Times in which something may be missing are hatched; releases and deaths of processes stand on the top edge (beside.py).
4. The outer SVG has no viewBox, so its text never shrinks; each lane stretches by itself with strokes that do not scale.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence

from markupsafe import Markup, escape

from looseends.wire import NS
from looseends_daemon.core.resources import BlindWindow, Bucket, Ledger, Value
from looseends_dashboard import beside, words

BARS_MAX = 600
NEEDLE_PX_MIN = 7
_STEPS = (60, 120, 300, 900, 1800, 3600, 7200, 14_400, 21_600, 43_200, 86_400, 172_800, 259_200, 604_800)
_TICKS_MAX = 12
_TERMS = ("tasks", "succeeded", "failed", "cancelled", "in_time", "gap", "settled_failed", "settled_gap", "loose")
_LABEL_PX, _AXIS_PX = 24, 20


class Lane(Value, frozen=True):
    """One lane: its height in px, its label and the rest of it, the greatest value on it and the inner drawing."""

    height: int
    label: str
    rest: str
    top: int
    scale: str
    body: str


def bars(ledger: Ledger, bar_s: int) -> list[Bucket]:
    """The ledger's buckets summed into bars of `bar_s` seconds, empty ones filled in: at most BARS_MAX over the window."""
    count = max(1, math.ceil((ledger.to - ledger.from_) / (bar_s * NS)))
    if count > BARS_MAX:
        raise ValueError(f"{count} bars of {bar_s} s, at most {BARS_MAX} are drawn")
    sums = [dict.fromkeys(_TERMS, 0) for _ in range(count)]
    for bucket in ledger.buckets:
        place = (bucket.at - ledger.from_) // (bar_s * NS)
        if 0 <= place < count:
            for term in _TERMS:
                sums[place][term] += getattr(bucket, term)
    return [Bucket(at=ledger.from_ + place * bar_s * NS, **row) for place, row in enumerate(sums)]


def gap_picture(
    ledger: Ledger,
    bar_s: int,
    *,
    marks: Sequence[beside.Beside] = (),
    blind: Sequence[BlindWindow] = (),
    picked: tuple[int, int] | None = None,
) -> Markup:
    """The whole picture as one SVG. Its description carries the totals for who cannot see it.

    `picked` is the selected part, [from, to) in ns. What the brush needs stands in `data-from`, `data-to` (ms) and `data-bars`.
    """
    row = bars(ledger, bar_s)
    lanes = [_gap_lane(row), _failed_lane(row), _volume_lane(row)]
    bottom = beside.BAND_PX + sum(lane.height + _LABEL_PX for lane in lanes)
    parts = [
        f'<svg class="gap" width="100%" height="{bottom + _AXIS_PX}" role="img" aria-labelledby="gap-title gap-desc"'
        f' data-from="{ledger.from_ // 1_000_000}" data-to="{ledger.to // 1_000_000}" data-bars="{len(row)}"'
        f' data-bottom="{bottom}"><title id="gap-title">Tasks by the minute they began</title>'
        f'<desc id="gap-desc">{escape(said(ledger))}</desc>',
        *beside.blind_layer(blind, ledger.from_, ledger.to, bottom),
        *_picked(ledger, picked, bottom),
    ]
    y = beside.BAND_PX
    for lane in lanes:
        y += _LABEL_PX
        parts.append(_framed(lane, y, len(row)))
        y += lane.height
    parts.extend(_axis(ledger, bottom))
    parts.extend(beside.layer(marks, len(row), bottom))
    parts.append("</svg>")
    return Markup("".join(parts))


def said(ledger: Ledger) -> str:
    """The totals as a sentence."""
    return (
        f"{words.number(ledger.tasks)} tasks began: {words.number(ledger.succeeded)} succeeded, "
        f"{words.number(ledger.failed)} failed, {words.number(ledger.cancelled)} were cancelled, "
        f"{words.number(ledger.in_time)} are in time, {words.number(ledger.gap)} are unaccounted for."
    )


def _picked(ledger: Ledger, picked: tuple[int, int] | None, bottom: int) -> Iterator[str]:
    """The selected part as a band. The brush moves this same element, so it stands there even if nothing is selected."""
    span = ledger.to - ledger.from_
    left, right = (0, 0) if picked is None else (max(picked[0], ledger.from_), min(picked[1], ledger.to))
    x, width = (0.0, 0.0) if right <= left else ((left - ledger.from_) / span * 100, (right - left) / span * 100)
    yield f'<rect class="picked" x="{x:.3f}%" width="{width:.3f}%" y="{beside.BAND_PX}" height="{bottom - beside.BAND_PX}"/>'


def _framed(lane: Lane, y: int, count: int) -> str:
    peak = f"max {words.number(lane.top)}" if lane.top else "none"
    scale = lane.scale if lane.top else ""
    return (
        f'<text class="lane" x="0" y="{y - 8}">{escape(lane.label)}{_more(lane.rest)}</text>'
        f'<text class="tick end" x="100%" y="{y - 8}">{escape(peak)}{_more(scale)}</text>'
        f'<line class="grid" x1="0" x2="100%" y1="{y + lane.height}.5" y2="{y + lane.height}.5"/>'
        f'<svg y="{y}" width="100%" height="{lane.height}" viewBox="0 0 {count} {lane.height}" '
        f'preserveAspectRatio="none">{lane.body}</svg>'
    )


def _more(text: str) -> str:
    """The part of a label that a narrow screen leaves out."""
    return f'<tspan class="more">{escape(text)}</tspan>' if text else ""


def _root(top: int, height: int, least: int) -> Callable[[int], int]:
    """Value -> height in px on a square-root scale whose top is at least 4, so that a single loss does not fill its lane."""
    return lambda value: max(least, round(math.sqrt(value / max(top, 4)) * height))


def _needles(values: Sequence[int], height: int, kind: str, scale: Callable[[int], int]) -> str:
    drawn = "".join(f"M{i + 0.5:g} {height}v-{scale(value)}" for i, value in enumerate(values) if value)
    return f'<path class="{kind}" d="{drawn}"/>' if drawn else ""


def _two_kinds(all_of: Sequence[int], settled: Sequence[int], height: int, kind: str, least: int) -> str:
    """Needles of the whole height, hollowed where everything is settled, and the part still open drawn full over them."""
    scale = _root(max(all_of), height, least)
    hollow = [total if mended else 0 for total, mended in zip(all_of, settled, strict=True)]
    full = [max(0, total - mended) for total, mended in zip(all_of, settled, strict=True)]
    return (
        _needles(hollow, height, f"needle {kind}", scale)
        + _needles(hollow, height, "hollow", lambda value: scale(value) - 1)
        + _needles(full, height, f"needle {kind}", scale)
    )


def _gap_lane(row: list[Bucket]) -> Lane:
    gap = [bar.gap for bar in row]
    body = _two_kinds(gap, [min(bar.settled_gap, bar.gap) for bar in row], 92, "loose", NEEDLE_PX_MIN)
    return Lane(height=92, label="Unaccounted", rest=": began, no end", top=max(gap), scale=" · √ scale", body=body)


def _failed_lane(row: list[Bucket]) -> Lane:
    failed = [bar.failed for bar in row]
    body = _two_kinds(failed, [min(bar.settled_failed, bar.failed) for bar in row], 44, "failed", 3)
    return Lane(height=44, label="Failed", rest="", top=max(failed), scale=" · √ scale", body=body)


def _volume_lane(row: list[Bucket]) -> Lane:
    height, top = 76, max(bar.tasks for bar in row)
    scale = (height - 4) / max(top, 1)
    ended = [bar.succeeded + bar.failed + bar.cancelled for bar in row]
    body = _area(ended, height, scale, "ended") + _line([bar.tasks for bar in row], height, scale, "began")
    body += "".join(_in_time(row, ended, height, scale))
    return Lane(height=height, label="All", rest=": began (line), ended (fill), in time (dashed)", top=top, scale="", body=body)


def _stairs(values: Sequence[int], height: int, scale: float) -> str:
    """One step per bar in whole pixels; equal neighbours are one step, which halves a quiet week."""
    parts: list[str] = []
    level, run = None, 0
    for value in values:
        y = round(height - value * scale)
        if y != level:
            parts.append(f"h{run}V{y}" if run else f"V{y}")
            level, run = y, 0
        run += 1
    return "".join(parts) + f"h{run}"


def _area(values: Sequence[int], height: int, scale: float, kind: str) -> str:
    return f'<path class="{kind}" d="M0 {height}{_stairs(values, height, scale)}V{height}z"/>'


def _line(values: Sequence[int], height: int, scale: float, kind: str) -> str:
    return f'<path class="{kind}" d="M0 {round(height - values[0] * scale)}{_stairs(values, height, scale)}"/>'


def _in_time(row: list[Bucket], ended: Sequence[int], height: int, scale: float) -> Iterator[str]:
    """What has not ended and is not due: a dashed box on top of the fill, one path for all bars."""
    boxes = "".join(
        f"M{i} {height - done * scale:.1f}v-{bar.in_time * scale:.1f}h1v{bar.in_time * scale:.1f}z"
        for i, (bar, done) in enumerate(zip(row, ended, strict=True))
        if bar.in_time
    )
    if boxes:
        yield f'<path class="intime" d="{boxes}"/>'


def _axis(ledger: Ledger, y: int) -> Iterator[str]:
    """Time under the lanes. Every other label can be left out on a narrow screen; none may be clipped at an edge."""
    span = (ledger.to - ledger.from_) // NS
    step = next((s for s in _STEPS if span / s <= _TICKS_MAX), _STEPS[-1])
    first = -(-ledger.from_ // (step * NS)) * step * NS
    for place, at in enumerate(range(first, ledger.to + 1, step * NS)):
        share = (at - ledger.from_) / (ledger.to - ledger.from_) * 100
        edge = " start" if share < 3 else " end" if share > 97 else ""
        odd = " odd" if place % 2 else ""
        yield (
            f'<text class="tick{edge}{odd}" x="{share:.2f}%" y="{y + 16}" data-at="{at // 1_000_000}">'
            f"{words.tick(at, step >= 86_400)}</text>"
        )
