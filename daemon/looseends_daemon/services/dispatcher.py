"""Delivers the notices of one endpoint: lease, send, mark, until nothing is due.

Rules:

1. One dispatcher per endpoint, each in a loop of its own, so an endpoint that hangs delays nobody else. Within an endpoint
   up to IN_FLIGHT_MAX notices are under way, and one that hangs does not hold up those beside it.
2. A notice is marked after its answer. Whatever happens in between, the daemon that comes next sends it again, with the
   same id and the same bytes: at least once, twice at worst.
3. Honest limits: a receiver that answers 2xx and then forgets is believed, and after the last wait of the schedule (about
   77 hours) a notice is given up, which its page shows as `exhausted`.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable

from looseends.wire import NS
from looseends_daemon.core.delivery import Message, Outcome
from looseends_daemon.core.incidents import AlertRules, EndpointRule
from looseends_daemon.store import outbox
from looseends_daemon.store.connection import Database
from looseends_daemon.store.incidents import announce

IN_FLIGHT_MAX = 8
PASS_S_MAX = 30
Post = Callable[[Message], Awaitable[Outcome]]


async def begin(database: Database, rules: AlertRules, now: int) -> None:
    """Once at the start, before any dispatcher runs: take back what was under way, and fit stored to configured endpoints.

    An endpoint that is new is told of what is open.
    """
    await database.write(lambda conn: announce(conn, now, outbox.begin(conn, now, rules.endpoints), rules))


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
        self._due: int | None = None

    def wake(self) -> None:
        """Something new may be due."""
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
                message, self._due = await self._lease(now) if now <= until else (None, now)
                if message is not None:
                    self._flying += 1
                    return message
                self._over = not self._flying or now > until
                if not self._over:
                    await self._changed(now, self._due)
            return None

    async def _lease(self, now: int) -> tuple[Message | None, int | None]:
        leased, due = await self._database.write(lambda conn: outbox.lease(conn, now, self._endpoint, 1))
        return (leased[0] if leased else None), due

    async def _changed(self, now: int, due: int | None) -> None:
        """Wait until an attempt ends, somebody wakes us, or a waiting notice is due while another attempt hangs."""
        # A notice that is due and still waits is held back by one under way: then only its end changes anything.
        seconds = None if due is None or due <= now else (due - now) / NS
        try:
            async with asyncio.timeout(seconds):
                await self._look.wait()
        except TimeoutError:
            return
