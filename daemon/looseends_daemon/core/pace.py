"""How many orders of a run may be released now, and when a person must look first. Pure.

Rules:

1. Everything that stops a run says so in a named sentence, and only a person starts it again. Nothing starts by itself what
   was stopped.
2. The canary goes first and alone: the rest waits until all of it has ended, and one of it that did not do its work stops the
   run.
3. The pace is kept by the time of the next release, which is stored: a restart does not lose it, and time in which nothing was
   released (a pause, a restart) gives no more than BURST_NS of credit.
4. In flight counts what waits to be taken, was taken or runs. A new task with a verdict is a failure and holds no place: what is
   lost would hold it for ever.
"""

from __future__ import annotations

from looseends.wire import NS
from looseends_daemon.core.resources import Value

CANARY_MAX = 1_000
PER_SECOND_MIN, PER_SECOND_MAX = 0.01, 200.0
IN_FLIGHT_MAX = 200
"""As many orders as one look for an instance sees (store/orders.py LOOKED_AT_MAX)."""
STOP_AFTER_MAX = 100_000
RELEASED_MAX = 25
"""Orders made in one pass, which is one transaction: about a millisecond each."""
BURST_NS = NS // 5
HELD_NS_MAX = 600 * NS
"""How long a run waits for an instance to live before it is paused: it must not go off at 3 a.m. after a deploy."""


class Rule(Value, frozen=True):
    """What a person asked for. `canary` 0: none; `stop_after_failures` 0: never stop for that."""

    canary: int = 5
    per_second: float = 10.0
    in_flight: int = 20
    stop_after_failures: int = 10


class Seen(Value, frozen=True):
    """How a run stands. `failures` counts since a person last said go on; `pending`: tasks that have no order yet."""

    pending: int
    released: int
    in_flight: int
    failures: int
    canary_passed: bool
    next_at: int


class Step(Value, frozen=True):
    """What to do now: make so many orders; or stop, with the reason. `next_at`: when the pace allows another (ns)."""

    release: int = 0
    next_at: int = 0
    canary_passed: bool = False
    stop: str | None = None


def pace(rule: Rule, seen: Seen, now: int) -> Step:
    """What a running run does at `now`."""
    stop = _stop(rule, seen)
    if stop is not None:
        return Step(next_at=seen.next_at, canary_passed=seen.canary_passed, stop=stop)
    in_canary = bool(rule.canary) and not seen.canary_passed
    room = rule.in_flight - seen.in_flight
    if in_canary and seen.released >= rule.canary:
        in_canary = seen.in_flight > 0
        room = 0 if in_canary else room
    elif in_canary:
        room = min(room, rule.canary - seen.released)
    interval = int(NS / rule.per_second)
    begin = max(seen.next_at, now - BURST_NS)
    due = (now - begin) // interval + 1 if now >= begin else 0
    release = max(0, min(due, room, seen.pending, RELEASED_MAX))
    return Step(release=release, next_at=begin + release * interval, canary_passed=not in_canary)


def _stop(rule: Rule, seen: Seen) -> str | None:
    if rule.canary and not seen.canary_passed and seen.failures:
        tried = min(seen.released, rule.canary)
        return f"the canary: {seen.failures} of the first {tried} did not do their work. Look at them, then resume or cancel"
    if rule.stop_after_failures and seen.failures >= rule.stop_after_failures:
        return f"{seen.failures} did not do their work, and it was to stop after {rule.stop_after_failures}"
    return None


def remaining_s(pending: int, in_flight: int, recent: int, over_s: float, per_second: float) -> float | None:
    """About how long the rest takes (s): by what was released in the last `over_s` seconds, else by the pace."""
    if not pending and not in_flight:
        return 0.0
    rate = recent / over_s if recent and over_s > 0 else per_second
    return round((pending + in_flight) / rate, 1) if rate > 0 else None
