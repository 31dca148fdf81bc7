"""What is counted for ever: which fact adds to which counter, and the bounds of durations. Pure.

Rules: a counter grows when a fact's bit is set for the first time, so that a batch sent twice counts once; it is counted under
the name and environment that the task had then, and never taken back. So counters only grow, whatever retention removes.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator

from looseends.wire import NS
from looseends_daemon.core.facts import Cell, Cells

BOUNDS_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 1800.0, 3600.0)
"""Upper bounds of the buckets of durations; one more bucket holds what took longer."""
OUTCOMES = {"finished": "succeeded", "failed": "failed", "cancelled": "cancelled", "with_process": "cancelled"}
SCHEDULED, STARTED, ENDED, DURATION, DURATION_US = "scheduled", "started", "finished", "duration", "duration_us"

Mark = tuple[str, str, int]
"""(counter, its label, how much)."""


def marks_of(cells: Cells, fresh: Iterable[tuple[int, str, str]]) -> Iterator[Mark]:
    """What the facts that are new (attempt, instance, slot) add to the counters."""
    for attempt, who, slot in fresh:
        if slot in (SCHEDULED, STARTED):
            yield slot, "", 1
        elif slot in OUTCOMES:
            yield ENDED, OUTCOMES[slot], 1
            took = _took(cells[attempt, who], slot)
            if took is not None:
                yield DURATION, str(bisect_left(BOUNDS_S, took)), 1
                yield DURATION_US, "", round(took * 1e6)


def _took(cell: Cell, slot: str) -> float | None:
    """Seconds from start to end, as the client measured; else by its clock; None where no start of this execution is known.

    A cancellation is not measured: it says when somebody had enough, not how long the work takes.
    """
    if OUTCOMES[slot] == "cancelled":
        return None
    told = cell[slot].body.get("duration")
    if told is not None:
        return float(told)
    started = cell.get(STARTED)
    return None if started is None else max(0.0, (cell[slot].at - started.at) / NS)
