"""The waterfall of one task: each execution on one time axis, with its waits, its deadline and what was judged when.

Rules:

1. One row for each (attempt, instance) that reported anything, in order of time; one more for the judgements. Work whose end
   is not known is drawn open, up to the last moment that anything is known of it, and never as if it had ended.
2. The axis ends a little after the last fact, the deadline and the first verdict; what people or replays did long afterwards
   stands in the history, and would press everything else into one pixel here.
3. Labels are text beside the drawing, so that they wrap on a phone; the drawing is numbers and words of ours only.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from markupsafe import Markup

from looseends.wire import NS
from looseends_daemon.core.resources import HistoryEntry, Task, Value
from looseends_dashboard import words
from looseends_dashboard.marks import spoken

ROWS_MAX = 20
POINTS_MAX = 60
ROOM = 0.06
"""Of the span: how much is left free behind the last thing that is drawn."""
HEIGHT_PX = 18
_ENDS = ("finished", "failed", "cancelled", "dropped")
_KINDS = {"finished": "ended", "failed": "failed", "cancelled": "ended", "dropped": "loose"}
_SAID = {"finished": "ended well", "failed": "failed", "cancelled": "was cancelled", "dropped": "was dropped"}


class Row(Value, frozen=True):
    """One line: what is to be read beside it, and its drawing."""

    label: str
    svg: Markup


class Waterfall(Value, frozen=True):
    """All lines, the two ends of their axis (ns), the deadline if it lies between, and how many lines are left out."""

    rows: list[Row]
    begin: int
    end: int
    due: int | None
    left: int = 0


class _Axis:
    """Times to places in percent of the width."""

    def __init__(self, begin: int, end: int) -> None:
        self.begin, self.end = begin, max(end, begin + NS // 1000)

    def __call__(self, at: int) -> float:
        share = (at - self.begin) / (self.end - self.begin)
        return round(100 * min(1.0, max(0.0, share)), 2)


def waterfall(task: Task, history: Sequence[HistoryEntry], now: int) -> Waterfall | None:
    """The drawing; None where fewer than two moments are known."""
    facts = [entry for entry in history if entry.kind == "fact"]
    judged = [entry for entry in history if entry.kind == "judgement"]
    known = [entry.at for entry in facts] + [at for at in (task.began_at, task.due_at) if at is not None]
    known += [entry.at for entry in judged if entry.what == "verdict"][:1]
    if task.ended_at is None and task.verdict is None:
        known.append(now)
    if not facts or max(known) == min(known):
        return None
    begin, last = min(known), max(known)
    axis = _Axis(begin, last + int((last - begin) * ROOM))
    runs = _runs(facts)
    rows = [_row(axis, run, task, last, several=len(runs) > 1) for run in runs[:ROWS_MAX]]
    if judged:
        rows.append(_judgements(axis, judged, task))
    due = task.due_at if task.due_at is not None and axis.begin <= task.due_at <= axis.end else None
    return Waterfall(rows=rows, begin=axis.begin, end=axis.end, due=due, left=max(0, len(runs) - ROWS_MAX))


def _runs(facts: Iterable[HistoryEntry]) -> list[list[HistoryEntry]]:
    """The facts by execution. What was scheduled elsewhere belongs to the first execution of its attempt."""
    piles: dict[tuple[int, str], list[HistoryEntry]] = {}
    waits: dict[int, list[HistoryEntry]] = {}
    for entry in facts:
        if entry.what in ("scheduled", "expected"):
            waits.setdefault(entry.attempt, []).append(entry)
        else:
            piles.setdefault((entry.attempt, entry.instance or ""), []).append(entry)
    for attempt, waiting in waits.items():
        first = next((key for key in sorted(piles, key=lambda key: piles[key][0].at) if key[0] == attempt), None)
        piles[first or (attempt, waiting[0].instance or "")] = [*waiting, *piles.get(first or (0, "-"), [])]
    return sorted((sorted(pile, key=lambda entry: entry.at) for pile in piles.values()), key=lambda pile: pile[0].at)


def _row(axis: _Axis, run: list[HistoryEntry], task: Task, last: int, *, several: bool) -> Row:
    told = {entry.what: entry for entry in run}
    waited, started = told.get("scheduled") or told.get("expected"), told.get("started")
    end = next((told[what] for what in _ENDS if what in told), None)
    shapes, label = [], []
    if waited is not None:
        until = started.at if started else end.at if end else last
        shapes.append(_bar(axis, waited.at, until, "wait" if started or end else "wait open"))
        label.append(_spent("waited", until - waited.at) if started else "never started" if end is None else "had not started")
    if started is not None:
        until = end.at if end else last
        kind = _KINDS[end.what] if end else "loose open" if task.verdict else "running open"
        shapes.append(_bar(axis, started.at, until, kind))
        label.append(_spent("ran", until - started.at) if end else f"no end in {words.duration((until - started.at) / NS)}")
    if end is not None:
        label.append(_SAID[end.what])
        shapes.append(_tick(axis, end.at, "end"))
    shapes += [_tick(axis, entry.at, "step") for entry in run if entry.what in ("progress", "stack")][:POINTS_MAX]
    attempt = f"attempt {run[0].attempt}: " if several or run[0].attempt > 1 else ""
    return Row(label=attempt + ", ".join(label or [spoken(run[-1].what)]), svg=_drawn(axis, shapes, task.due_at))


def _judgements(axis: _Axis, judged: list[HistoryEntry], task: Task) -> Row:
    inside = [entry for entry in judged if axis.begin <= entry.at <= axis.end]
    said = [_judged(entry) for entry in judged]
    later = (
        f" ({words.plural(len(judged) - len(inside), 'judgement')} later than this picture)" if len(inside) < len(judged) else ""
    )
    shapes = [_point(axis, entry.at, entry.what) for entry in inside[:POINTS_MAX]]
    return Row(label=f"judged: {', '.join(dict.fromkeys(said))}{later}", svg=_drawn(axis, shapes, task.due_at))


def _judged(entry: HistoryEntry) -> str:
    if entry.what == "verdict":
        return spoken(entry.verdict)
    return "became a loose end" if entry.what == "loose" else spoken(entry.what)


def _spent(word: str, ns: int) -> str:
    return f"{word} {words.duration(max(0, ns) / NS)}"


def _bar(axis: _Axis, begin: int, end: int, kind: str) -> Markup:
    left = axis(begin)
    width = max(0.5, axis(end) - left)
    shape = '<rect x="{}%" y="4" width="{}%" height="10" class="{}"/>'
    return Markup(shape).format(min(left, 99.5), round(width, 2), kind)


def _tick(axis: _Axis, at: int, kind: str) -> Markup:
    place = axis(at)
    return Markup('<line x1="{0}%" x2="{0}%" y1="1" y2="17" class="{1}"/>').format(place, kind)


def _point(axis: _Axis, at: int, what: str) -> Markup:
    return Markup('<circle cx="{}%" cy="9" r="5" class="{}"/>').format(axis(at), "verdict" if what == "verdict" else "other")


def _drawn(axis: _Axis, shapes: Iterable[Markup], due: int | None) -> Markup:
    inside = due is not None and axis.begin <= due <= axis.end
    line = _tick(axis, due, "due") if due is not None and inside else Markup("")
    body = Markup("").join([*shapes, line])
    return Markup('<svg width="100%" height="{}" aria-hidden="true" focusable="false">{}</svg>').format(HEIGHT_PX, body)
