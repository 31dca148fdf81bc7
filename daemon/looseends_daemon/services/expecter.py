"""The expecter: makes expectations of due minutes, by the cron rules of the configuration, and forgets old ones.

Rules:

1. A due minute is an instant: local times that a zone skips or repeats are resolved as Debian's cron does it. What falls into
   the skipped hour is due right after it, what is due once a day in the repeated hour is due once.
2. Minutes that passed while the daemon was down are made at its return, up to CATCH_UP_S back: nobody can tell of earlier
   work any more. A new rule begins when the daemon first sees it.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from itertools import islice
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError

from looseends.wire import AGE_S_MAX, NS, SPOOL_AGE_S_MAX
from looseends_daemon.core.expect import CronRule, rule_digest
from looseends_daemon.core.policy import Policy
from looseends_daemon.store import expectations
from looseends_daemon.store.connection import Database

CATCH_UP_S = SPOOL_AGE_S_MAX
STEP_MAX = 500
"""Minutes of one rule made in one commit, and rows forgotten in one."""
SWEEP_EVERY_S = 3600.0
FORGET_S = AGE_S_MAX + 86_400


def due_minutes(rule: CronRule, after: int) -> Iterator[int]:
    """The due minutes of a rule after this time, without end or until cron's own horizon of 50 years (ns)."""
    start = datetime.fromtimestamp(after // NS, tz=UTC).astimezone(ZoneInfo(rule.tz))
    try:
        for minute in CronSim(rule.cron, start):
            at = int(minute.astimezone(UTC).timestamp()) * NS
            if at > after:
                yield at
    except CronSimError:  # a day that never comes, such as 30 February: refused in the configuration
        return


class Expecter:
    """`run_once(now)` for the supervised loop."""

    def __init__(self, database: Database, rules: tuple[CronRule, ...], policy: Policy) -> None:
        self._database, self._rules, self._policy = database, rules, policy
        self._made_until: dict[str, int] | None = None
        self._told: tuple[tuple[CronRule, ...], Policy] | None = None
        self._sweep_at = 0

    def take(self, rules: tuple[CronRule, ...], policy: Policy) -> None:
        """Go on by other rules from the next pass on: the one under way ends by its own."""
        self._told = (rules, policy)

    async def run_once(self, now: int) -> int | None:
        """Make what is due at `now`; returns when the next minute is due (ns)."""
        if self._told is not None:
            (self._rules, self._policy), self._told, self._made_until = self._told, None, None
        if self._made_until is None:
            self._made_until = await self._database.write(lambda conn: expectations.made_until(conn, self._rules, now))
        due = [await self._make(rule, self._made_until, now) for rule in self._rules]
        await self._sweep(now)
        return min((at for at in due if at is not None), default=None)

    async def _make(self, rule: CronRule, made: dict[str, int], now: int) -> int | None:
        """Make the due minutes of one rule up to `now`; returns its next one."""
        digest = rule_digest(rule)
        since = max(made[digest], now - CATCH_UP_S * NS)
        minutes = list(islice(due_minutes(rule, since), STEP_MAX + 1))
        due = [at for at in minutes[:STEP_MAX] if at <= now]
        if due:
            await self._database.write(lambda conn: expectations.make_minutes(conn, rule, due, due[-1], self._policy, now))
            made[digest] = due[-1]
        return minutes[len(due)] if len(due) < len(minutes) else None

    async def _sweep(self, now: int) -> None:
        """Forget what is too old to be told of: a step in each pass while there is any, then a look each hour."""
        if now < self._sweep_at <= now + int(SWEEP_EVERY_S * NS):
            return
        gone = await self._database.write(lambda conn: expectations.sweep(conn, now - FORGET_S * NS, STEP_MAX))
        self._sweep_at = now + (0 if gone >= STEP_MAX else int(SWEEP_EVERY_S * NS))
