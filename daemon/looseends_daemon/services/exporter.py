"""Hands to a collector what waits for it: spans, log records, and from time to time the metrics.

Rules:

1. The collector is asked from one worker thread of its own. However long it takes, ingest and detection never wait for it, and a
   stop does not either: what was not taken stays in its table.
2. A record is removed after the collector's yes. Between a yes and the commit of the removal a SIGKILL sends the batch once more:
   at most BATCH_MAX records of a signal.
3. After a no, one record at a time is offered, with growing pauses up to PAUSE_S_MAX. If the second oldest is taken where the
   oldest is refused, it is the record and not the collector: it is given up and counted.
"""

from __future__ import annotations

import asyncio
import logging
import queue
import threading
import time
from collections.abc import Awaitable, Callable
from typing import Any, Protocol

from looseends_daemon.config.export import Export
from looseends_daemon.core.metrics import Family
from looseends_daemon.services.meter import Meter, share_interpreter
from looseends_daemon.services.shell import LOG_EVERY_S, NS
from looseends_daemon.store.connection import Database
from looseends_daemon.store.exports import Waiting, waiting
from looseends_daemon.store.outgoing import BATCH_MAX, relieve, taken
from looseends_daemon.store.questions import ask_apart

PAUSE_S = (1.0, 2.0, 5.0, 10.0, 30.0)
PAUSE_S_MAX = PAUSE_S[-1]
IDLE_S = 1.0
RELIEVE_EVERY_S = 10.0
"""Between two looks whether too many wait: each is a turn of the writer, and a collector that is down must not stop them."""
REST_TIMES = 2.0
"""Small batches, rests between: at 600 tasks/s batches of 256 without rest took the p99 of ingest from 4 to 15 ms, 64 to 7."""
log = logging.getLogger("looseends")


class Sending(Protocol):
    """What sends: telemetry/otlp.Otlp. Its methods block and may take as long as the request does."""

    def send(self, signal: str, records: list[Any]) -> bool: ...
    def send_metrics(self, families: list[Family], since: int, now: int) -> bool: ...
    def close(self) -> None: ...


class Worker:
    """One daemon thread that runs what it is given. `close` lets everybody go who waits for it, whatever it is doing."""

    def __init__(self) -> None:
        self._jobs: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._waiting: set[asyncio.Future[Any]] = set()
        self._closed = False
        self._thread: threading.Thread | None = None

    async def run(self, fn: Callable[[], Any]) -> Any:
        """`fn()`, run there. Raises what it raises; None after `close`."""
        if self._closed:
            return None
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Any] = loop.create_future()
        self._waiting.add(future)

        def job() -> None:
            try:
                value, error = fn(), None
            except Exception as failure:  # noqa: BLE001 - raised where it is waited for
                value, error = None, failure
            try:
                loop.call_soon_threadsafe(_settle, future, value, error)
            except RuntimeError:
                log.debug("the export ended after the daemon's loop")

        if self._thread is None:
            share_interpreter()
            self._thread = threading.Thread(target=self._run, name="looseends-export", daemon=True)
            self._thread.start()
        self._jobs.put(job)
        try:
            return await future
        finally:
            self._waiting.discard(future)

    def close(self) -> None:
        """Nobody waits any more; the thread ends with what it is doing, or with the process."""
        self._closed = True
        self._jobs.put(None)
        for future in list(self._waiting):
            _settle(future, None, None)

    def _run(self) -> None:
        while (job := self._jobs.get()) is not None:
            job()


def _settle(future: asyncio.Future[Any], value: Any, error: Exception | None) -> None:
    if future.done():
        return
    if error is not None:
        future.set_exception(error)
    else:
        future.set_result(value)


class Signals:
    """The loop body of one signal, "span" or "log"."""

    def __init__(self, database: Database, signal: str, tell: Callable[[Callable[[Sending], bool]], Awaitable[bool]]) -> None:
        self.name, self.idle_s = f"export of {signal}s", PAUSE_S_MAX
        self._database, self._signal, self._tell = database, signal, tell
        self._failures = 0
        self._logged_at = -LOG_EVERY_S
        self._relieved_at = -RELIEVE_EVERY_S
        self.notes: list[str] = []

    async def run_once(self, now: int) -> int | None:
        """Send what is due. Returns when to look again (ns): while more waits, after REST_TIMES as long as this took."""
        began = time.monotonic()
        if began - self._relieved_at >= RELIEVE_EVERY_S:
            self._relieved_at = began
            await self._database.write(lambda conn: relieve(conn, self._signal))
        found = await self._next(now, 2 if self._failures else BATCH_MAX)
        if found.gone:
            await self._done(list(found.gone), "given_up")
        if not found.records:
            return now + round(IDLE_S * NS)
        if self._failures:
            return await self._probe(now, found)
        if not await self._send(found.records):
            return self._failed(now)
        await self._done([n for n, _ in found.records])
        if len(found.records) + len(found.gone) < BATCH_MAX:
            return now + round(IDLE_S * NS)
        return now + round((1 + REST_TIMES) * (time.monotonic() - began) * NS)

    async def _probe(self, now: int, found: Waiting) -> int:
        """After a no: is it the collector, or the oldest record?"""
        oldest, *rest = found.records
        if await self._send((oldest,)):
            await self._done([oldest[0]])
        elif rest and await self._send(rest):
            log.warning("a collector takes other %ss, but not this one: given up", self._signal)
            await self._done([oldest[0]], "given_up")
            await self._done([rest[0][0]])
        else:
            return self._failed(now)
        self._failures, self.notes = 0, []
        log.info("the collector takes %ss again", self._signal)
        return now

    async def _next(self, now: int, limit: int) -> Waiting:
        return await self._database.read(lambda conn: ask_apart(conn, waiting(self._signal, now, limit)))

    async def _send(self, records: Any) -> bool:
        sent = [record for _, record in records]
        return await self._tell(lambda sending: sending.send(self._signal, sent))

    async def _done(self, rows: list[int], outcome: str = "exported") -> None:
        await self._database.write(lambda conn: taken(conn, self._signal, rows, outcome))

    def _failed(self, now: int) -> int:
        pause = PAUSE_S[min(self._failures, len(PAUSE_S) - 1)]
        self._failures += 1
        self.notes = [f"the collector does not take {self._signal}s; they wait, and are offered again every {pause:g} s"]
        if time.monotonic() - self._logged_at >= LOG_EVERY_S:
            self._logged_at = time.monotonic()
            log.warning("%s", self.notes[0])
        return now + round(pause * NS)


class MetricsPush:
    """The loop body of the metrics: all of them, every so often. A push that fails is not repeated: the next says it all."""

    name = "export of metrics"

    def __init__(self, meter: Meter[Any], tell: Callable[[Callable[[Sending], bool]], Awaitable[bool]], every: float) -> None:
        self._meter, self._tell, self._every = meter, tell, every
        self.idle_s = max(every, PAUSE_S_MAX)
        self.notes: list[str] = []

    async def run_once(self, now: int) -> int | None:
        """Push once. Returns when to push again (ns)."""
        families, since = await self._meter.families(now)
        took = await self._tell(lambda sending: sending.send_metrics(families, since, now))
        self.notes = [] if took else ["the collector did not take the metrics"]
        return now + round(self._every * NS)


class Exports:
    """Everything that is sent to a collector. `make` makes what sends; it is called in the worker thread, at the first use."""

    def __init__(self, database: Database, meter: Meter[Any], export: Export, make: Callable[[], Sending]) -> None:
        self._worker, self._make = Worker(), make
        self._made: Sending | None = None
        self._wrong: str | None = None
        self.bodies: list[Signals | MetricsPush] = [Signals(database, signal, self._tell) for signal in export.signals]
        if export.metrics is not None:
            self.bodies.append(MetricsPush(meter, self._tell, export.every))

    async def _tell(self, what: Callable[[Sending], bool]) -> bool:
        """Whether the collector took it. A setting of the SDK that cannot be used is said, and nothing is sent meanwhile."""
        try:
            took = bool(await self._worker.run(lambda: what(self._sending())))
        except (ImportError, ValueError) as error:
            needed = f'pip install "looseends[daemon]" ({error})' if isinstance(error, ImportError) else str(error)
            self._wrong = f"nothing can be exported: {needed}"
            return False
        self._wrong = None
        return took

    def _sending(self) -> Sending:
        if self._made is None:
            self._made = self._make()
        return self._made

    @property
    def notes(self) -> list[str]:
        """In words what a person should know."""
        found = [note for body in self.bodies for note in body.notes]
        return [self._wrong] if self._wrong is not None else found

    def close(self) -> None:
        """Stop waiting for the collector. Idempotent."""
        self._worker.close()
        if self._made is not None:
            threading.Thread(target=self._made.close, name="looseends-export-end", daemon=True).start()
