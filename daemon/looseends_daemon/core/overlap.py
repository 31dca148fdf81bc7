"""Two live tasks of one name that do the same work: only where a [[task]] rule says `overlap = "warn"`. Pure.

Rules:

1. Live is from the start to the end, by the facts, so it does not matter in which order the two were told.
2. The same work is the same key; without a key the same arguments. Tasks without either are not compared.
3. A flag on both, shown and searchable, and never a page: two at a time may be meant.
"""

from __future__ import annotations

from collections.abc import Iterable
from hashlib import sha256

from looseends.wire import canonical
from looseends_daemon.core.policy import Policy
from looseends_daemon.core.resources import Value
from looseends_daemon.core.view import View

DIGEST_BYTES = 16


class Span(Value, frozen=True):
    """When a task was live (ns); `ended_at` None: it still is."""

    started_at: int
    ended_at: int | None = None


def is_watched(view: View, policy: Policy) -> bool:
    """Whether the operator wants to be told of two at a time."""
    rule = policy.rule(view.service, view.name) if policy.rules else None
    return rule is not None and rule.overlap == "warn"


def same_work(view: View) -> bytes | None:
    """What two tasks that do the same work have in common; None: nothing to go by."""
    key, args = view.opening.get("key"), view.opening.get("args")
    if key is None and args is None:
        return None
    what = f"key:{key}" if key is not None else f"args:{canonical(args)}"
    return sha256(what.encode()).digest()[:DIGEST_BYTES]


def overlaps(one: Span, others: Iterable[Span]) -> bool:
    """Whether it was live together with any of the others. An end and a start at the same moment do not overlap."""
    return any(
        (one.ended_at is None or other.started_at < one.ended_at) and (other.ended_at is None or one.started_at < other.ended_at)
        for other in others
    )
