"""What several pages of this dashboard show in the same way: small pictures, and groups of pages that belong together."""

from __future__ import annotations

from collections.abc import Sequence

from markupsafe import Markup

from looseends_daemon.core.task_types import Bin, Slice

ALERTING = (("/incidents", "Incidents"), ("/silences", "Silences"), ("/endpoints", "Endpoints"))
RUNNING = (("/status", "Status"), ("/instances", "Instances"), ("/audit", "Audit"), ("/setup", "Setup"))
_HIGH = 24


def spark(slices: Sequence[Slice]) -> Markup:
    """A type's window in one small picture: its volume as quiet bars, what is unaccounted as needles that are never too small."""
    top = max((part.tasks for part in slices), default=0)
    if not top:
        return Markup("")
    shapes = []
    for place, part in enumerate(slices):
        if part.tasks:
            high = max(1, round(_HIGH * part.tasks / top))
            shapes.append(_bar(place, high, "volume"))
        if part.gap:
            shapes.append(_bar(place, max(8, round(_HIGH * (part.gap / top) ** 0.5)), "loose"))
        elif part.failed:
            shapes.append(_bar(place, max(5, round(_HIGH * (part.failed / top) ** 0.5)), "failed"))
    drawing = '<svg class="spark" width="96" height="{}" viewBox="0 0 {} {}" aria-hidden="true" focusable="false">{}</svg>'
    return Markup(drawing).format(_HIGH, len(slices) * 4, _HIGH, Markup("").join(shapes))


def _bar(place: int, high: int, kind: str) -> Markup:
    return Markup('<rect x="{}" y="{}" width="3" height="{}" class="{}"/>').format(place * 4, _HIGH - high, high, kind)


def histogram(bins: Sequence[Bin]) -> Markup:
    """Durations by bin, as wide as the page: heights on a square root, so that one slow task among thousands is seen."""
    top = max((one.count for one in bins), default=0)
    if not top:
        return Markup("")
    shapes = []
    for place, one in enumerate(bins):
        if one.count:
            high = max(4, round(100 * (one.count / top) ** 0.5))
            bar = '<rect x="{}" y="{}" width="8" height="{}" class="volume"/>'
            shapes.append(Markup(bar).format(place * 10 + 1, 100 - high, high))
    drawing = (
        '<svg class="histogram" width="100%" height="100" viewBox="0 0 {} 100" preserveAspectRatio="none" aria-hidden="true" '
        'focusable="false">{}</svg>'
    )
    return Markup(drawing).format(len(bins) * 10, Markup("").join(shapes))
