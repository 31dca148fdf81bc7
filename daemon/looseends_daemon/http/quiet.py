"""A log that cannot be flooded: each kind of complaint once a minute, with the number of those left out."""

from __future__ import annotations

import logging
import time

EVERY_S = 60.0
KINDS_MAX = 200


class OnceAMinute(logging.Filter):
    """Lets the first record of a kind through, then one a minute. A kind is the message before its values, and the exception."""

    def __init__(self) -> None:
        super().__init__()
        self._seen: dict[tuple[object, ...], tuple[float, int]] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether this record is written. It then says how many of its kind were not."""
        kind = (record.levelno, record.msg, record.exc_info[0] if record.exc_info else None)
        now = time.monotonic()
        at, left_out = self._seen.get(kind, (-EVERY_S, 0))
        if now - at < EVERY_S:
            self._seen[kind] = (at, left_out + 1)
            return False
        if len(self._seen) >= KINDS_MAX:
            self._seen.clear()
        self._seen[kind] = (now, 0)
        if left_out:
            record.msg = f"{record.msg} ({left_out} more like this since the last one)"
        return True
