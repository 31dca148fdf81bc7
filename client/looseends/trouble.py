"""Our own troubles: counted always, said once a minute at most, never raised into a task.

Rules: `note` may be called from anywhere (a signal handler, a finaliser, a thread that is being torn down), so it takes
no lock and lets nothing out. Counts are what the heartbeat and `looseends.trouble.COUNTS` show.
"""

from __future__ import annotations

import time

from .scrub import scrub

EVERY_S = 60.0
COUNTS: dict[str, int] = {}
_said_at: dict[str, float] = {}
_KINDS_MAX = 100
DETAIL_CHARS_MAX = 4_000
"""Of a detail as it is logged, without the secrets that show themselves: it may be an exception of the service's own."""


def note(kind: str, detail: object = "", *, line: str = "") -> bool:
    """Count one trouble of this kind and log it, unless the same kind was logged within the last minute.

    `line` is said as it stands; without it kind, count and `detail` make one. -> whether it was logged.
    """
    if kind not in COUNTS and len(COUNTS) >= _KINDS_MAX:
        kind = "other"
    COUNTS[kind] = COUNTS.get(kind, 0) + 1
    now = time.monotonic()
    if now - _said_at.get(kind, -EVERY_S) < EVERY_S:
        return False
    _said_at[kind] = now
    say(scrub(line or f"{kind} ({COUNTS[kind]} so far): {text_of(detail)[:DETAIL_CHARS_MAX]}"))
    return True


def text_of(detail: object) -> str:
    """A detail as text; an exception whose text cannot be made is named by its class."""
    try:
        return str(detail)
    except Exception:  # noqa: BLE001 - a detail is a help, not a duty
        return type(detail).__name__


def say(line: str) -> None:
    """One warning on the logger `looseends`, now."""
    try:
        import logging

        logging.getLogger("looseends").warning("looseends: %s", line)
    except Exception:  # noqa: BLE001 - a host's broken log handler must not break the host's task
        COUNTS["log"] = COUNTS.get("log", 0) + 1


def total() -> int:
    """All troubles noted in this process so far."""
    return sum(COUNTS.values())
