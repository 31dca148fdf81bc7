"""Our own troubles: counted always, said once a minute at most, never raised into a task.

Rules: `note` may be called from anywhere (a signal handler, a finaliser, a thread that is being torn down), so it takes
no lock and lets nothing out. Counts are what the heartbeat and `looseends.trouble.COUNTS` show.
"""

from __future__ import annotations

import time

EVERY_S = 60.0
COUNTS: dict[str, int] = {}
_said_at: dict[str, float] = {}
_KINDS_MAX = 100


def note(kind: str, detail: object = "") -> None:
    """Count one trouble of this kind and log it, unless the same kind was logged within the last minute."""
    if kind not in COUNTS and len(COUNTS) >= _KINDS_MAX:
        kind = "other"
    COUNTS[kind] = COUNTS.get(kind, 0) + 1
    now = time.monotonic()
    if now - _said_at.get(kind, -EVERY_S) < EVERY_S:
        return
    _said_at[kind] = now
    _log(kind, detail)


def _log(kind: str, detail: object) -> None:
    try:
        import logging

        logging.getLogger("looseends").warning("looseends: %s (%s so far): %s", kind, COUNTS[kind], detail)
    except Exception:  # noqa: BLE001 - a host's broken log handler must not break the host's task
        COUNTS["log"] = COUNTS.get("log", 0) + 1


def total() -> int:
    """All troubles noted in this process so far."""
    return sum(COUNTS.values())
