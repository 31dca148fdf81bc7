"""How long tasks of a type take, in bins whose bounds are deadlines that a person would write; and what follows for a deadline.

Rules:

1. A bin holds the durations up to and with its bound, above the bound before. A percentile read from bins is off by the
   width of one, two fifths at worst; the last bin has no bound.
2. A deadline is suggested at a bound only, so that "how many past tasks it would have caught" is a count and no estimate.
3. Only tasks that succeeded are measured: how long a failure takes says nothing about how long to wait.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping

from looseends.wire import NS
from looseends_daemon.core.resources import Value

_STEPS = (1, 1.2, 1.5, 2, 2.5, 3, 4, 5, 6, 8)
_MINUTE, _HOUR, _DAY = 60.0, 3600.0, 86_400.0
BOUNDS_S: tuple[float, ...] = (
    *(round(step * 10.0**power, 6) for power in (-3, -2, -1, 0) for step in _STEPS),
    *(10.0, 12.0, 15.0, 20.0, 25.0, 30.0, 40.0, 50.0),
    *(_MINUTE * n for n in (1, 1.25, 1.5, 2, 2.5, 3, 4, 5, 6, 8, 10, 12, 15, 20, 25, 30, 40, 50)),
    *(_HOUR * n for n in (1, 1.25, 1.5, 2, 2.5, 3, 4, 5, 6, 8, 10, 12, 16, 20)),
    *(_DAY * n for n in (1, 1.25, 1.5, 2, 2.5, 3, 4, 5, 7)),
)
BINS = len(BOUNDS_S) + 1
_BOUNDS_NS = tuple(round(bound * NS) for bound in BOUNDS_S)
TASKS_MIN = 20
"""Fewer than these say nothing about a deadline."""
ROOM = 2.0
"""How much longer than the slowest usual task a deadline leaves."""


def bin_of(duration_ns: int) -> int:
    """The bin of a duration; what clocks made negative counts as nothing."""
    return bisect_left(_BOUNDS_NS, max(0, duration_ns))


def bound_of(number: int) -> float | None:
    """The upper bound of a bin, s; None: the last one has none."""
    return BOUNDS_S[number] if number < len(BOUNDS_S) else None


def quantile(bins: Mapping[int, int], share: float) -> float | None:
    """The bound (s) that this share of the durations does not exceed; None: there are none, or it lies beyond all bounds."""
    total, seen = sum(bins.values()), 0
    for number in sorted(bins):
        seen += bins[number]
        if bins[number] and seen >= share * total:
            return bound_of(number)
    return None


def slower(bins: Mapping[int, int], deadline: float) -> int:
    """How many of them took longer than a deadline (s); exact where it is one of BOUNDS_S, else at most so many."""
    first = bisect_left(BOUNDS_S, deadline)
    exact = first < len(BOUNDS_S) and BOUNDS_S[first] == deadline
    return sum(count for number, count in bins.items() if (number > first if exact else number >= first))


class Suggestion(Value, frozen=True):
    """A deadline (s), and how many past tasks that succeeded it would have called stuck (`caught`). `best`: take this one."""

    deadline: float
    caught: int
    best: bool = False


def suggestions(bins: Mapping[int, int]) -> list[Suggestion]:
    """Three deadlines with their evidence, from tight to roomy; none where fewer than TASKS_MIN tasks are known.

    The best one leaves ROOM times what 99.9 % of them took, rounded up to a bound.
    """
    if sum(bins.values()) < TASKS_MIN:
        return []
    found: list[float] = []
    for share, room in ((0.99, 1.0), (0.999, ROOM), (1.0, 2 * ROOM)):
        took = quantile(bins, share)
        if took is not None:
            at = bisect_left(BOUNDS_S, max(took * room, 1.0))
            found.append(BOUNDS_S[min(at, len(BOUNDS_S) - 1)])
    tight = found[:1] if len(found) > 1 else []
    best = found[1] if len(found) > 1 else found[0] if found else None
    named = sorted({*tight, *found})
    return [Suggestion(deadline=one, caught=slower(bins, one), best=one == best) for one in named]
