"""Which tasks of an instance are near their time, so that it is asked in time where they are. One bounded look at the agenda."""

from __future__ import annotations

from looseends_daemon.core.resources import STATES
from looseends_daemon.store.codes import code, text
from looseends_daemon.store.questions import Question

AGENDA_MAX = 200
"""Rows of the agenda, of whatever instance, that one heartbeat looks at."""
NEAR = (
    "SELECT id FROM (SELECT id, instance, state FROM task WHERE check_at IS NOT NULL AND check_at > ? AND check_at <= ?"
    " ORDER BY check_at LIMIT ?) WHERE instance = ? AND state = ?"
)


def near_their_time(instance_no: int, now: int, within: int) -> Question[list[str]]:
    """Ids of running tasks of this instance that are looked at within that time (ns): by then a stack of them is wanted."""
    rows = yield NEAR, (now, now + within, AGENDA_MAX, instance_no, code(STATES, "running"))
    return [text(row["id"]) for row in rows]
