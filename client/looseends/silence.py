"""When no daemon answers: said after 5 s, once a minute at most, and said again when one does.

Rules: a service is told at the level it was told of the trouble (warning), so that whoever saw it begin sees it end. A
daemon that is restarted within 5 s is nobody's trouble. Used by the sender's thread alone.
"""

from __future__ import annotations

import time

from . import trouble

SAY_AFTER_S = 5.0


class Silence:
    """How long nobody has answered, and whether that was said. `spool` is where the records wait."""

    def __init__(self, spool: str) -> None:
        self._spool = spool
        self._since: float | None = None
        self._said = False

    def go_on(self, where: str, error: str) -> None:
        """Nobody answered at `where`, because of `error`."""
        now = time.monotonic()
        if self._since is None:
            self._since = now
        if now - self._since < SAY_AFTER_S:
            trouble.COUNTS["no answer"] = trouble.COUNTS.get("no answer", 0) + 1
            return
        line = f"no daemon answers at {where}; records are kept in {self._spool} and sent when one does ({error})"
        self._said = trouble.note("no answer", line=line) or self._said

    def end(self, where: str) -> None:
        """Somebody answered at `where`."""
        if self._said:
            trouble.say(f"a daemon answers at {where}; what was kept is sent now")
        self._since, self._said = None, False

    def next_s(self) -> float:
        """Seconds until the first time to say it; infinite where that is over, or nothing is wrong."""
        left = 0.0 if self._since is None else self._since + SAY_AFTER_S - time.monotonic()
        return left if left > 0 else float("inf")
