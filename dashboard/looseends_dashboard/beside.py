"""What the gap picture shows beside the tasks: releases, deaths of processes, times in which something may be missing.

Rules: marks of one bar are one mark that says how many; each has its words in a <title> and again in the table below the
picture, since a title is nothing to a finger or a keyboard. Foreign text is made visible and escaped here.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from markupsafe import escape

from looseends.wire import NS
from looseends_daemon.core.front import Happened
from looseends_daemon.core.resources import BlindWindow, Value
from looseends_dashboard import words

BAND_PX = 24
_ROW_PX = {"release": 1, "death": 13}
"""Two rows: what died of a release stands under it and not on it."""
BLIND_MAX = 50
NAMED_MAX = 3
_SHAPES = {"release": "M-4.5 1h9L0 9z", "death": "M-4 1l8 8m0-8l-8 8"}


class Beside(Value, frozen=True):
    """One mark of the picture: `what` is release or death, `at` its earliest time, `said` one sentence each."""

    what: str
    place: int
    at: int
    said: tuple[str, ...]

    @property
    def words(self) -> str:
        """All of it in one line."""
        more = len(self.said) - NAMED_MAX
        return "; ".join(self.said[:NAMED_MAX]) + (f" and {more} more" if more > 0 else "")


def sentence(one: Happened) -> str:
    """A release or a death in words."""
    service = words.short(one.service, 60)
    if one.what == "release":
        return f"first sight of release {words.short(one.release, 60)} of {service}"
    process = f"process {one.pid}" if one.pid is not None else "a process"
    host = f" on {words.short(one.host, 60)}" if one.host else ""
    return f"{process}{host} of {service} ended without a goodbye"


def gathered(happened: Sequence[Happened], from_: int, bar_s: int) -> list[Beside]:
    """One mark per bar and kind, oldest first."""
    piles: dict[tuple[str, int], list[Happened]] = {}
    for one in sorted(happened, key=lambda h: h.at):
        piles.setdefault((one.what, (one.at - from_) // (bar_s * NS)), []).append(one)
    return [
        Beside(what=what, place=place, at=pile[0].at, said=tuple(dict.fromkeys(sentence(one) for one in pile)))
        for (what, place), pile in piles.items()
    ]


def layer(marks: Sequence[Beside], count: int, bottom: int) -> Iterator[str]:
    """The marks on the top edge; a release also draws a fine line through all lanes, since it splits before from after."""
    for mark in marks:
        x = f"{(mark.place + 0.5) / count * 100:.2f}%"
        if mark.what == "release":
            yield f'<line class="since" x1="{x}" x2="{x}" y1="11" y2="{bottom}"/>'
        title = escape(words.visible(mark.words, 400))
        y = _ROW_PX[mark.what]
        # The shape has a transparent square around it: a target of 3 px strokes cannot be hit with a mouse.
        yield (
            f'<svg class="mark {mark.what}" x="{x}" y="{y}" width="1" height="1" overflow="visible"><title>{title}</title>'
            f'<rect x="-7" y="-1" width="14" height="12"/><path d="{_SHAPES[mark.what]}"/></svg>'
        )


def blind_layer(blind: Sequence[BlindWindow], from_: int, to: int, bottom: int) -> Iterator[str]:
    """Times in which something may be missing, hatched behind everything, at least a pixel and a half wide."""
    if not blind:
        return
    yield (
        '<defs><pattern id="hatch" width="6" height="6" patternUnits="userSpaceOnUse" patternTransform="rotate(45)">'
        '<path class="hatching" d="M0 0v6"/></pattern></defs>'
    )
    for window in blind[:BLIND_MAX]:
        left, right = max(window.from_, from_), min(window.to, to)
        x, width = (left - from_) / (to - from_) * 100, max(0, right - left) / (to - from_) * 100
        yield (
            f'<rect class="blind" fill="url(#hatch)" x="{x:.3f}%" width="{width:.3f}%" y="{BAND_PX}" height="{bottom - BAND_PX}">'
            f"<title>{escape(words.visible(words.sentence(window.reason), 300))}</title></rect>"
        )
