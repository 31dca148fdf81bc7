"""What a wall clock that was set does to times that were told before: pure arithmetic, so that no jump makes a storm.

Rules:

1. Wall time is stored, boot time measures: only the difference of the two between two looks shows that the wall clock was set.
2. After a clock was set forward, everything told before looks older than it is: its due times move by as much. After it was set
   back, what was told before lies in the future for a while: its due times move back.
3. Where it cannot be known by which clock something was told, a verdict comes late, by no more than the clock was moved. It never
   comes early.
"""

from __future__ import annotations

from collections.abc import Sequence

from looseends.wire import AHEAD_S_MAX, NS, SKEW_NS_MIN
from looseends_daemon.core.resources import Value

JUMPS_MAX = 8


class Jump(Value, frozen=True):
    """The wall clock was set: it then read `at`, `by` ns more than it should have."""

    at: int
    by: int


class Break(Value, frozen=True):
    """A time in which the daemon did not hear: `cause` is down, frozen or clock; `by` is how far the wall clock was set (ns)."""

    cause: str
    from_at: int
    to_at: int
    by: int = 0

    @property
    def jump(self) -> Jump | None:
        """The wall clock's part in it."""
        return Jump(at=self.to_at, by=self.by) if self.by else None


def said(told_at: int, skew: int, travel: int | None, now: int) -> int:
    """When a word that arrives now was said, by our clock, where its sender's clock showed `told_at`. All in ns.

    `travel`: the least that a word of this sender ever took, beside its skew; so a clock that is a second off makes no word old.
    """
    return max(0, min(told_at + skew + (travel or 0), now))


def corrected(due: int | None, told_at: int | None, now: int, jumps: Sequence[Jump]) -> int | None:
    """A due time by today's clock, where what it counts from was told at `told_at` by the clock of its day. All in ns.

    Between two jumps the clock ends at some time, and what lies after it was not told then. Of all the times in which it may
    have been told, the one that makes it due last counts.
    """
    if due is None or told_at is None or not jumps:
        return due
    moved = [] if told_at > now + AHEAD_S_MAX * NS else [0]
    later = 0
    for jump in reversed(jumps):
        later += jump.by
        if told_at <= jump.at - jump.by + SKEW_NS_MIN:
            moved.append(later)
    return due + max(moved, default=0)
