"""Forgets what may be forgotten: by age in the background, by size as soon as there is too much, a few rows at a time.

Rules:

1. One step per pass: at most STEP_TASKS_MAX tasks, one commit beside those of ingest, then a pause PAUSES times as long as it
   took. So a purge of millions slows nobody down, and the shell sees a loop that moves.
2. A sweep looks at everything begun before the retention, oldest first, and rests at least RESTS times as long as it took.
3. Too much: payloads, then rows, then failed rows go, oldest first, until the size is eased; if nothing is left that may go,
   new facts are refused (`Database.full`), in words that /readyz shows.
4. Honest limit: space is counted in pages that hold something. The file shrinks later, in steps, once a quarter of it is free.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from typing import Any

from looseends.wire import NS
from looseends_daemon.core.resources import Value
from looseends_daemon.core.retention import (
    STAGES,
    Forecast,
    Rules,
    Sizes,
    forecast,
    is_eased,
    is_over,
    refusal,
    without_age,
)
from looseends_daemon.store import instances, retention
from looseends_daemon.store.acts import ANSWER_S_MAX
from looseends_daemon.store.checkpoints import Counts, wal_bytes
from looseends_daemon.store.connection import QUEUE_BYTES_MAX, Database
from looseends_daemon.store.questions import ask_async
from looseends_daemon.store.retention import Walk

log = logging.getLogger(__name__)

PAUSES = 4
RESTS = 20
SWEEP_NS_MIN = 60 * NS
VISITS_NS = 60 * NS
RETRY_NS = 30 * NS
"""When nothing was left to give up: how long until it is looked for again."""
INSTANCES_NS_MIN = 32 * 86_400 * NS
"""A gone instance is remembered at least as long as anybody may still send events of that time."""
FREE_BYTES_MIN = 32 << 20
FREE_SHARE = 0.25
SHRINK_PAGES_MAX = 256


class Figures(Value, frozen=True):
    """How the storage stands. Bytes; counts are since the start of the daemon.

    `queued` waits to be written, of at most `queued_max`; `queued_most` is the most that ever did; `refused`: how often it was
    full, and somebody was told to come again. `behind_*`: live instances that have records still to send, and how many those are.
    """

    sizes: Sizes
    forecast: Forecast
    wal: int
    checkpoints: Counts
    commits: int
    queued: int
    queued_most: int
    queued_max: int
    refused: int
    behind_instances: int
    behind_records: int
    reopened: int
    removed: int
    given_up: int
    full: str | None
    trouble: str | None


async def sizes_of(database: Database) -> Sizes:
    """What the storage takes now. Raises OSError, StoreError."""
    page, count, free = await database.read(lambda conn: ask_async(conn, retention.pages()))
    return retention.sizes_of(database.path, page, count, free)


class Janitor:
    """`run_once(now)` for the supervised loop. `rules` gives the rules in force."""

    def __init__(self, database: Database, rules: Callable[[], Rules]) -> None:
        self._database = database
        self._rules = rules
        self._one_at_a_time = asyncio.Lock()
        self._visits_at = 0
        self._sweep_at = 0
        self._sweep: _Sweep | None = None
        self._stage = 0
        self._place: Walk | None = None
        self._again_at = 0
        self.removed = 0
        """Tasks removed since the start."""
        self.given_up = 0
        """Tasks whose payloads were given up for space since the start."""

    async def run_once(self, now: int) -> int | None:
        """Take one step; when to take the next (ns), None: nothing waits. Raises StoreError, OSError."""
        async with self._one_at_a_time:  # a step remembers its place: two at once would walk past the end of it
            return await self._step(now)

    async def _step(self, now: int) -> int | None:
        began = time.perf_counter()
        sizes = await sizes_of(self._database)
        self._say(sizes)
        if now >= self._visits_at:
            self._visits_at = now + VISITS_NS
            before = now - ANSWER_S_MAX * NS
            await self._database.write(lambda conn: retention.forget_visits(conn, now, before))
        more = await self._give_up(now, sizes) or await self._go_on(now) or await self._shrink(sizes)
        return now + int(PAUSES * (time.perf_counter() - began) * NS) if more else None

    async def figures(self, now: int) -> Figures:
        """How it stands, and where it is going. Raises StoreError, OSError."""
        sizes, rules = await sizes_of(self._database), self._rules()
        growth = await self._database.read(lambda conn: ask_async(conn, retention.growth(now)))
        behind = await self._database.read(lambda conn: ask_async(conn, instances.behind()))
        return Figures(
            sizes=sizes,
            forecast=forecast(sizes, rules, growth),
            wal=wal_bytes(self._database.path),
            checkpoints=self._database.checkpoints.counts,
            commits=self._database.commits,
            queued=self._database.queued_bytes,
            queued_most=self._database.queued_most,
            queued_max=QUEUE_BYTES_MAX,
            refused=self._database.refused,
            behind_instances=behind[0],
            behind_records=behind[1],
            reopened=self._database.reopened,
            removed=self.removed,
            given_up=self.given_up,
            full=self._database.full,
            trouble=self._database.trouble,
        )

    # --- by size --------------------------------------------------------------------------------------------------

    def _say(self, sizes: Sizes) -> None:
        """Refuse new facts, or take them again."""
        words = refusal(sizes, self._rules(), exhausted=self._stage == len(STAGES))
        if words is not None and self._database.full is None:
            log.error("no new facts are taken: %s", words)
        if words is None and self._database.full is not None:
            log.warning("new facts are taken again")
        self._database.full = words

    async def _give_up(self, now: int, sizes: Sizes) -> bool:
        """One step of giving up the oldest; False: nothing has to be, or nothing is left that may."""
        rules = self._rules()
        if self._place is None and (not is_over(sizes, rules) or now < self._again_at):
            return False
        if self._place is None:
            self._place, self._stage = await self._first_place(), 0
            log.warning("the storage is over its limit: the oldest finished payloads go first, then finished rows")
        if is_eased(sizes, rules):
            self._place, self._stage = None, 0
            return False
        await self._step_of_stage(now, rules)
        if self._stage == len(STAGES):
            self._place, self._again_at = None, now + RETRY_NS
            self._say(await sizes_of(self._database))
        return True

    async def _first_place(self) -> Walk:
        """Payloads before this were given up already."""
        before = await self._database.read(lambda conn: ask_async(conn, retention.given_up_before()))
        # Where the last round found nothing left, it is begun from the oldest: tasks may have ended since.
        return Walk() if self._stage == len(STAGES) else Walk(began_at=before - 1)

    async def _step_of_stage(self, now: int, rules: Rules) -> None:
        stage, place = STAGES[self._stage], self._place or Walk()
        bare = without_age(rules, stage)
        look = await self._database.read(lambda conn: ask_async(conn, retention.step(place, now, bare, now)))
        if look.going and stage == "payloads":
            self.given_up += await self._database.write(lambda conn: retention.strip(conn, look.going, bare, now))
        elif look.going:
            self.removed += (await self._database.write(lambda conn: retention.remove(conn, look.going, bare, now))).tasks
        self._place = look.walk
        if look.done:
            self._place, self._stage = Walk(), self._stage + 1

    # --- by age ---------------------------------------------------------------------------------------------------

    async def _go_on(self, now: int) -> bool:
        """One step of a sweep; False: none is due."""
        if self._sweep is None:
            if now < self._sweep_at:
                return False
            self._sweep = await _Sweep.begin(self._database, self._rules(), now)
        self.removed += await self._sweep.step(now)
        if self._sweep.done:
            took = max(0, now - self._sweep.began)
            self._sweep_at = now + max(SWEEP_NS_MIN, RESTS * took)
            self._sweep = None
        return True

    async def _shrink(self, sizes: Sizes) -> bool:
        """Give free pages back to the disk while much of the file is free."""
        if sizes.free < max(FREE_BYTES_MIN, FREE_SHARE * (sizes.used + sizes.free)):
            return False
        await self._database.write(lambda conn: retention.shrink(conn, SHRINK_PAGES_MAX))
        return True


class _Sweep:
    """One walk over everything begun before the retention, and the gone instances that no task it saw speaks of."""

    def __init__(self, database: Database, rules: Rules, now: int) -> None:
        self._database, self._rules = database, rules
        self.began, self._until = now, now - rules.finished
        self._instances_until = now - max(rules.finished, INSTANCES_NS_MIN)
        self._walk = Walk()
        self._instances: frozenset[int] = frozenset()
        self.done = False

    @classmethod
    async def begin(cls, database: Database, rules: Rules, now: int) -> _Sweep:
        """A sweep at its beginning, with the instances that it may find forgotten by all."""
        sweep = cls(database, rules, now)
        until = sweep._instances_until
        sweep._instances = await database.read(lambda conn: ask_async(conn, retention.gone_instances(until)))
        return sweep

    async def step(self, now: int) -> int:
        """Look at some tasks and remove what may go; how many went."""
        look = await self._ask(lambda conn: ask_async(conn, retention.step(self._walk, self._until, self._rules, now)))
        removed = retention.Removed()
        if look.going:
            removed = await self._database.write(lambda conn: retention.remove(conn, look.going, self._rules, now))
        self._walk = look.walk
        self._instances -= look.named | removed.named
        if look.done:
            await self._database.write(lambda conn: self._finish(conn, now))
            self.done = True
        return removed.tasks

    async def _ask(self, question: Callable[[Any], Awaitable[retention.Look]]) -> retention.Look:
        return await self._database.read(question)

    def _finish(self, conn: Any, now: int) -> None:
        # A task that began later cannot speak of an instance that ended before it.
        retention.forget_instances(conn, self._instances, self._instances_until)
        retention.forget_incidents(conn, now - self._rules.failed)
        retention.forget_blind_windows(conn, now - self._rules.failed)
