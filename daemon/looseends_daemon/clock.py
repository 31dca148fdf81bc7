"""The two clocks: wall time is stored and compared with what services say, monotonic time measures. Tests bring their own."""

from __future__ import annotations

import time


class Clock:
    """The real clocks of this machine."""

    def wall_ns(self) -> int:
        """Unix nanoseconds, for what is stored."""
        return time.time_ns()
