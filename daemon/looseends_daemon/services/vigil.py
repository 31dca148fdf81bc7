"""Knows since when the daemon hears without a break: it notices that it was frozen, and that the wall clock was set.

Rules:

1. Everybody who is about to rest something on time calls `look` first, so whoever runs first after a freeze notices it. A tick
   of its own makes sure that somebody looks every TICK_S.
2. More than FREEZE_S between two looks, by the clock that goes on while the machine sleeps, was a freeze (a stopped
   process, a suspended laptop, a machine far too busy). Wall time that moved otherwise than measured time was set by somebody.
3. After either, `grace` begins anew, and every live instance must be heard again before a verdict rests on it.

Without a boot clock only `now` itself is measured (tests move it by hand): then nothing tells a set clock from a freeze.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from looseends.wire import NS
from looseends_daemon.core.clocks import JUMPS_MAX, Break, Jump

FREEZE_S = 5.0
JUMP_S = 2.0
TICK_S = 0.5
BREAKS_MAX = 100


class Vigil:
    """`heard_since`, `ready_at` (when judging may begin), `jumps` and `blind` (the last break, from and to). All in ns."""

    def __init__(
        self,
        *,
        started_at: int | None = None,
        grace_s: float = 5.0,
        boot_ns: Callable[[], int] | None = None,
        freeze_s: float = FREEZE_S,
    ) -> None:
        self._grace = int(grace_s * NS)
        self._boot_ns = boot_ns
        self._freeze = int(freeze_s * NS)
        self._last: tuple[int, int] | None = None
        self._pending: list[Break] = []
        self.heard_since = started_at or 0
        self.ready_at = (started_at or 0) + self._grace
        self.jumps: tuple[Jump, ...] = ()
        self.blind: tuple[int, int] | None = None
        self._frozen_at: int | None = None
        self.on_break: list[Callable[[], None]] = []

    def resume(self, breaks: Iterable[Break], jumps: Iterable[Jump]) -> None:
        """What was found out about the time before this start, and written down already."""
        self.jumps = tuple(jumps)
        for one in breaks:
            self.blind = (one.from_at, one.to_at)

    def look(self, now: int) -> None:
        """Notice what happened since the last look. `now`: the wall clock (ns)."""
        boot = now if self._boot_ns is None else self._boot_ns()
        before, self._last = self._last, (now, boot)
        if before is None:
            self.heard_since = self.heard_since or now
            return
        passed = boot - before[1]
        by = now - before[0] - passed
        if abs(by) > JUMP_S * NS:
            self._broke(Break(cause="clock", from_at=now - max(by, 0), to_at=now, by=by))
        if abs(passed) > self._freeze:
            self._frozen_at = now - max(passed, 0)
            self._broke(Break(cause="frozen", from_at=self._frozen_at, to_at=now))

    def _broke(self, one: Break) -> None:
        self.heard_since = one.to_at
        self.ready_at = one.to_at + self._grace
        self.blind = (one.from_at, one.to_at)
        if one.jump is not None:
            self.jumps = (*self.jumps, one.jump)[-JUMPS_MAX:]
        self._pending = [*self._pending, one][-BREAKS_MAX:]
        for tell in self.on_break:
            tell()

    def is_settling(self, now: int) -> bool:
        """Whether what was sent during a break may still be arriving."""
        return now < self.ready_at

    def may_have_waited(self, sent_at: int | None, now: int) -> bool:
        """Whether what arrives now may have waited in a socket for us to thaw, going by when it was sent.

        Nothing waits while a daemon is down. What was sent long before the freeze would have been read by then: so its clock
        is wrong.
        """
        if self._frozen_at is None or sent_at is None or not self.is_settling(now):
            return False
        return sent_at >= self._frozen_at - int(JUMP_S * NS)

    def take(self) -> list[Break]:
        """The breaks that nobody has written down yet; whoever cannot gives them back."""
        taken, self._pending = self._pending, []
        return taken

    def give_back(self, breaks: list[Break]) -> None:
        """They could not be written down."""
        self._pending = [*breaks, *self._pending][-BREAKS_MAX:]
