"""Loops: captured work that lives as long as its process. It ends with it, and that is no loss.

Rules:

1. A loop is a captured task that was begun outside a request and within BEGUN_S of its instance's start, of a type never yet
   seen to finish by itself. Where the start of its instance is not known, nothing is a loop.
2. A finish is such a sight only if its instance lived on for LIVED_ON_S: many loops return when their process is told to end.
   A failure is none. Once seen it is remembered for ever, and from then on work of that type can be lost.
3. When its instance ends, or the loop is reported dropped, the daemon decides once: `cancelled`, reason `with_process`. What a
   client reports outweighs that, and an instance that lives after all takes it back.
"""

from __future__ import annotations

from looseends.wire import NS
from looseends_daemon.core.view import View

BEGUN_S = 10.0
LIVED_ON_S = 30.0


def is_loop(view: View, *, process_started_at: int | None, ends_alone: bool) -> bool:
    """Whether this running task is a loop. `ends_alone`: its type was seen to finish by itself."""
    if ends_alone or view.declared or view.state != "running" or view.started_at is None or process_started_at is None:
        return False
    return view.opening.get("request") is None and view.started_at - process_started_at <= int(BEGUN_S * NS)


def is_sight(finished_at: int, lived_at: int) -> bool:
    """Whether a finish tells that its type ends by itself: its instance lived at `lived_at`, long after."""
    return lived_at - finished_at >= int(LIVED_ON_S * NS)


def may_be_sight(view: View) -> bool:
    """Whether this end is worth remembering until its instance has lived on."""
    return view.state == "succeeded" and not view.declared and view.instance is not None
