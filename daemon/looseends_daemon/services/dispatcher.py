"""Delivers the notices of one endpoint: lease, send, mark, until nothing is due.

Rules:

1. One dispatcher per endpoint, each in a loop of its own, so an endpoint that hangs delays nobody else. Within an endpoint
   up to IN_FLIGHT_MAX notices are under way, and one that hangs does not hold up those beside it.
2. A notice is marked after its answer. Whatever happens in between, the daemon that comes next sends it again, with the
   same id and the same bytes: at least once, twice at worst.
3. No more than `max_per_minute` attempts are begun in any 60 seconds, counted over restarts too. What is held back waits; newer
   news about the same incident supersede it, so a storm arrives as the latest state of each incident, and nothing is dropped.
4. Honest limits: a receiver that answers 2xx and then forgets is believed, and after the last wait of the schedule (about
   77 hours) a notice is given up, which its page shows as `exhausted`.
"""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import Awaitable, Callable, Iterable
from typing import TYPE_CHECKING

from looseends.wire import NS
from looseends_daemon.core.delivery import Message, Outcome
from looseends_daemon.core.incidents import AlertRules, EndpointRule
from looseends_daemon.store import endpoints, outbox
from looseends_daemon.store.connection import Database
from looseends_daemon.store.incidents import announce

if TYPE_CHECKING:
    import sqlite3

IN_FLIGHT_MAX = 8
PASS_S_MAX = 30
MINUTE_NS = 60 * NS
Post = Callable[[Message], Awaitable[Outcome]]


async def begin(database: Database, rules: AlertRules, now: int, then: Callable[[], None] = lambda: None) -> None:
    """Before any dispatcher runs: take back what was under way, and fit stored to configured endpoints.

    An endpoint that is new is told of what is open. `then` is called as the last act of the same transaction, in the writer's
    thread: whoever writes next already goes by these rules, so that no notice falls between the old ones and the new.
    """

    def fit(conn: sqlite3.Connection) -> None:
        announce(conn, now, outbox.begin(conn, now, rules.endpoints), rules)
        then()

    await database.write(fit)


class Pace:
    """When attempts were begun in the last minute, so that there are never more than `max_per_minute`. Times in ns."""

    def __init__(self, max_per_minute: int, sent: Iterable[int] = ()) -> None:
        self._max = max_per_minute
        self._sent = deque(sent, maxlen=max_per_minute)

    def free_at(self, now: int) -> int:
        """When the next attempt may begin; `now` or earlier: at once. A clock that was set back does not stop us."""
        if len(self._sent) < self._max or self._sent[-1] > now:
            return now
        return self._sent[0] + MINUTE_NS

    def begin(self, now: int) -> None:
        """One begins."""
        self._sent.append(now)


class Dispatcher:
    """The loop body for one endpoint. `post` makes one attempt and never raises; `clock` gives unix nanoseconds.

    `run_once` returns when nothing of this endpoint is due or under way; `wake` makes a running one look again at once.
    """

    def __init__(
        self,
        database: Database,
        endpoint: EndpointRule,
        post: Post,
        clock: Callable[[], int],
        *,
        jitter: Callable[[], float] = lambda: random.uniform(-1, 1),
    ) -> None:
        self.name = f"dispatcher {endpoint.name}"
        self._database = database
        self._endpoint = endpoint
        self._post = post
        self._clock = clock
        self._jitter = jitter
        self._door = asyncio.Lock()
        self._look = asyncio.Event()
        self._flying = 0
        self._over = False
        self._ending = False
        self._due: int | None = None
        self._pace: Pace | None = None

    def wake(self) -> None:
        """Something new may be due."""
        self._look.set()

    def finish(self) -> None:
        """Begin nothing more: the pass that runs ends with the attempts under way."""
        self._ending = True
        self._look.set()

    async def run_once(self, now: int) -> int | None:
        """Send everything that is due. Returns when the next notice is due (ns), None: none waits.

        Raises StoreError; the attempts under way are finished first. After PASS_S_MAX nothing more is begun in this pass,
        so that the loop is seen to move however busy it is.
        """
        self._over, self._due = False, None
        lanes = (self._lane(now + PASS_S_MAX * NS) for _ in range(IN_FLIGHT_MAX))
        # return_exceptions: the first lane that fails must not leave the others running with nobody waiting for them.
        for ended in await asyncio.gather(*lanes, return_exceptions=True):
            if isinstance(ended, BaseException):
                raise ended
        return self._due

    async def _lane(self, until: int) -> None:
        """Send one notice after the other until the pass is over."""
        while (message := await self._next(until)) is not None:
            try:
                outcome = await self._post(message)
                await self._mark(message, outcome)
            finally:
                self._flying -= 1
                self._look.set()

    async def _mark(self, message: Message, outcome: Outcome) -> None:
        now, jitter = self._clock(), self._jitter()
        await self._database.write(lambda conn: outbox.mark(conn, now, message, outcome, jitter))

    async def _next(self, until: int) -> Message | None:
        """A leased notice; None: the pass is over. One lane at a time waits here for something to become due."""
        async with self._door:
            while not self._over:
                self._look.clear()
                now = self._clock()
                message, self._due = await self._lease(now) if now <= until and not self._ending else (None, now)
                if message is not None:
                    self._flying += 1
                    return message
                self._over = self._ending or not self._flying or now > until
                if not self._over:
                    await self._changed(now, self._due)
            return None

    async def _lease(self, now: int) -> tuple[Message | None, int | None]:
        pace = self._pace = self._pace or await self._paced(now)
        free_at = pace.free_at(now)
        if free_at > now:
            due = await self._database.write(lambda conn: outbox.next_due(conn, self._endpoint.name))
            return None, None if due is None else max(due, free_at)
        leased, due = await self._database.write(lambda conn: outbox.lease(conn, now, self._endpoint, 1))
        if leased:
            pace.begin(now)
        return (leased[0] if leased else None), due

    async def _paced(self, now: int) -> Pace:
        """The pace that the daemon before left us with."""
        rule = self._endpoint
        sent = await self._database.write(lambda conn: endpoints.sent_since(conn, rule.name, now - MINUTE_NS))
        return Pace(rule.max_per_minute, sent)

    async def _changed(self, now: int, due: int | None) -> None:
        """Wait until an attempt ends, somebody wakes us, or a waiting notice is due while another attempt hangs."""
        # A notice that is due and still waits is held back by one under way: then only its end changes anything.
        seconds = None if due is None or due <= now else (due - now) / NS
        try:
            async with asyncio.timeout(seconds):
                await self._look.wait()
        except TimeoutError:
            return
