"""A line in the log for whoever reaches for an order that is not theirs: it may be a mistake, and may be worse.

Rules: who it was and what was refused, never what an order holds; once a minute, since what a stranger sends must not fill a log.
"""

from __future__ import annotations

import logging

from looseends_daemon.core.resources import Actor
from looseends_daemon.http.quiet import OnceAMinute

log = logging.getLogger("looseends.orders")
NOT_THEIRS = "this is the id of an order"
"""How store/facts.py begins what it says to those who tell of an order that they were not given."""


_LINES = {
    "claim": "%s (%s) tried to claim an order that is not theirs: %s",
    "tell of": "%s (%s) tried to tell of an order that is not theirs: %s",
}
"""A line of its own for each: the filter knows a kind by its words before the values."""


def reached_for(actor: Actor, what: str, why: str) -> None:
    """Say that this caller reached for an order: `what` (claim, or tell of) it tried, and `why` it was refused."""
    if not any(isinstance(kept, OnceAMinute) for kept in log.filters):
        log.addFilter(OnceAMinute())
    log.warning(_LINES[what], actor.name, actor.channel, why)
