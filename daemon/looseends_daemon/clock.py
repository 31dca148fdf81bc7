"""The clocks: wall time is stored and compared with what services say, boot time measures. Tests bring their own."""

from __future__ import annotations

import time

BOOT_FILE = "/proc/sys/kernel/random/boot_id"


class Clock:
    """The real clocks of this machine."""

    def wall_ns(self) -> int:
        """Unix nanoseconds, for what is stored."""
        return time.time_ns()

    def boot_ns(self) -> int:
        """Nanoseconds since this machine was started, asleep or not; where it cannot tell, since some moment, awake only."""
        if hasattr(time, "CLOCK_BOOTTIME"):
            return time.clock_gettime_ns(time.CLOCK_BOOTTIME)
        return time.monotonic_ns()

    def which_boot(self) -> int:
        """A number for this start of the machine, below 2^62; 0 where nothing tells."""
        try:
            with open(BOOT_FILE, encoding="ascii") as file:
                return int(file.read().strip().replace("-", ""), 16) >> 66
        except (OSError, ValueError):
            return 0
