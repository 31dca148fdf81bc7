"""A busy company's tasks, for a database of any size: made up by their number, told through the store's writer.

Rules: task n is the same whenever it is made, so a database can be built in pieces; 200 types in 8 services, a few of them most
of the work; ids as the client makes them, ordered by time within a process. One in a hundred never ends, one in ten thousand is
stuck; one in a hundred fails, most of those handled. Nine of ten end in the batch they began in, the others in a later one. Time
is made up too: WEEK_NS for MOST.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from itertools import accumulate
from typing import Any

from looseends.wire import NS, Batch
from looseends_daemon.core.incidents import AlertRules
from looseends_daemon.core.policy import Policy
from looseends_daemon.core.resources import Actor
from looseends_daemon.services.detector import Detector
from looseends_daemon.store import facts
from looseends_daemon.store.connection import Database

MOST = 10_000_000
WEEK_NS = int(6.8 * 86_400 * NS)
SERVICES = 8
TYPES = 200
WORKERS = 5
BATCH_TASKS = 450
TOGETHER = 8
OPEN_EVERY = 100
STUCK_EVERY = 10_000
NEVER_DUE_S, DUE_S = 30 * 86_400.0, 7_200.0
FAILED_SHARE, UNHANDLED_SHARE, CANCELLED_SHARE, LATE_SHARE = 0.01, 0.1, 0.004, 0.1
TRACEBACK = "Traceback (most recent call last):\n" + "".join(
    f'  File "/srv/shop/mail_{n}.py", line {n}, in send\n    return post(message)\n' for n in range(6)
)
PLAIN = Policy()
CALLER = Actor(name="loopback", role="ingest", channel="loopback")
_WEIGHTS = list(accumulate(1 / (rank + 1) for rank in range(TYPES)))


def uuid_of(time_ms: int, slot: int, nonce: int) -> str:
    """An id as the client makes it from a segment's time, a slot in it and the segment's nonce."""
    rest = slot << 58 | nonce
    value = (time_ms << 80 | 0x8 << 76 | (rest >> 62) << 64 | 0b10 << 62 | rest & ((1 << 62) - 1)).to_bytes(16, "big").hex()
    return f"{value[:8]}-{value[8:12]}-{value[12:16]}-{value[16:20]}-{value[20:]}"


class Process:
    """One instance: what it is, its next record, and the ends that it has yet to tell."""

    def __init__(self, service: int, number: int, born: int) -> None:
        self.nonce = random.Random(f"{service} {number}").getrandbits(58)
        self.born_ms = born // 1_000_000
        self.records = 0
        self.ends: list[dict[str, Any]] = []
        self.about = {
            "id": uuid_of(self.born_ms, 0, self.nonce),
            "service": f"service-{service}",
            "environment": "production",
            "release": "2026.11.3",
            "host": f"host-{number}",
            "pid": 100 + number,
        }


class Company:
    """Tasks from number `first` on, `begin` being the made-up time of task 0 (ns). `args_bytes`: the size of their arguments."""

    def __init__(self, begin: int, *, args_bytes: int = 90, step: int = WEEK_NS // MOST, first: int = 0) -> None:
        self.begin, self.step, self.told, self.first = begin, step, first, first
        self._filler = "a line of a mail " * (args_bytes // 17 + 1)
        self._args_bytes = args_bytes
        self.processes = [Process(n % SERVICES, n, self.now) for n in range(SERVICES * WORKERS)]
        if first:  # the same processes went on; their records are numbered anew, in segments of their own
            self.processes = [Process(n % SERVICES, 1000 + first % 997 + n, self.now) for n in range(SERVICES * WORKERS)]

    @property
    def now(self) -> int:
        """The made-up time, ns."""
        return self.begin + self.told * self.step

    def batch(self, tasks: int = BATCH_TASKS) -> Batch:
        """The next batch of one process: the ends it owes, then so many tasks."""
        number = self.told // tasks
        process = self.processes[number % len(self.processes)]
        chance = random.Random(number)
        events, process.ends = process.ends, []
        ranks = chance.choices(range(TYPES // SERVICES), cum_weights=_WEIGHTS[: TYPES // SERVICES], k=tasks)
        for rank in ranks:
            started, end = self._task(process, rank, chance)
            events.append(started)
            if end is not None:
                (process.ends if chance.random() < LATE_SHARE else events).append(end)
        return Batch(process.about, None, 0, events, [], [], list(range(len(events))))

    def _task(self, process: Process, rank: int, chance: random.Random) -> tuple[dict[str, Any], dict[str, Any] | None]:
        at, n = self.now, self.told
        self.told += 1
        process.records += 1
        about = process.about
        common = {
            "task": uuid_of(process.born_ms, process.records, process.nonce),
            "name": f"{about['service']}.job_{rank}",
            "attempt": 1,
            "seq": process.records,
            "service": about["service"],
            "environment": "production",
        }
        begun = {"order_id": n, "to": f"somebody-{n % 9973}@example.com", "text": ""}
        begun["text"] = self._filler[: max(0, self._args_bytes - 52 - len(str(n)))]
        stays, stuck = n % OPEN_EVERY == 0, n % STUCK_EVERY == 1
        started = {"type": "started", **common, "at": at, "key": f"order-{n}", "args": begun}
        started["deadline"] = NEVER_DUE_S if stays else DUE_S
        if stays or stuck:
            return started, None
        took = int(chance.lognormvariate(-3.5, 1.2) * NS)
        end = {"type": "finished", **common, "at": at + took, "duration": took / NS}
        dice = chance.random()
        if dice < FAILED_SHARE:
            handled = dice >= FAILED_SHARE * UNHANDLED_SHARE
            error = {"type": "TimeoutError", "message": f"no answer for order {n}", "traceback": TRACEBACK}
            end = {**end, "type": "failed", "error": error}
            if handled:
                started |= {"declared": False, "source": "asyncio"}
                end["handled"] = True
        elif dice < FAILED_SHARE + CANCELLED_SHARE:
            end = {**end, "type": "cancelled", "reason": "requested"}
        return started, end

    def rest(self) -> list[Batch]:
        """The ends that are still owed."""
        owing = [process for process in self.processes if process.ends]
        told = [Batch(one.about, None, 0, one.ends, [], [], list(range(len(one.ends)))) for one in owing]
        for process in owing:
            process.ends = []
        return told


async def tell(database: Database, company: Company, batches: int, tasks: int = BATCH_TASKS, policy: Policy = PLAIN) -> int:
    """So many batches (none: the rest), folded and committed together as waiting posts are; how many events those were."""
    told = [company.batch(tasks) for _ in range(batches)] or company.rest()
    arrival = company.now + 60 * NS

    def fold(batch: Batch) -> Callable[[Any], None]:
        def run(conn: Any) -> None:
            done = facts.apply_batch(conn, batch, actor=CALLER, now=arrival, policy=policy)
            assert not done.rejected, done.rejected[:1]

        return run

    await asyncio.gather(*(database.write(fold(batch), grows=True) for batch in told))
    return sum(len(batch.events) for batch in told)


async def judge(database: Database, now: int) -> None:
    """Let the detector look at everything due, as if it had been there all along."""
    heard = "UPDATE instance SET last_heard_at = ?1, said_at = ?1 WHERE state = 'alive'"
    await database.write(lambda conn: conn.execute(heard, (now,)))
    await Detector(database, Policy(), AlertRules, started_at=now - 3_600 * NS).run_once(now)
