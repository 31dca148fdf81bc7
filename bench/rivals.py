"""What a service would use instead, as a careful programmer writes it: each a call of the same function, and its awaited twin.

Rules: no rival sends anywhere but to this machine; what needs a server gets one of its own here; one that is not installed is
said to be missing. The cost that counts is the calling thread's: what a rival's own thread does later is not in it (nor is ours).
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import importlib.util
import os
import socket
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any, NamedTuple

Work = Callable[..., Any]


class Rival(NamedTuple):
    """A way to account for one call: `call` around a function, or `awaited` around a coroutine function."""

    name: str
    needs: str
    make: Callable[[Work], Work]
    calls: int
    """How many calls a slice has: the slow ones get fewer."""


def prometheus(work: Work) -> Work:
    """Two counters and a histogram, children bound once: begun, ended, and how long it took."""
    begun, ended, took, now = _metrics()

    def counted(*args: Any, **kwargs: Any) -> Any:
        begun.inc()
        at = now()
        try:
            return work(*args, **kwargs)
        finally:
            took.observe(now() - at)
            ended.inc()

    return counted


def prometheus_awaited(work: Work) -> Work:
    """The same around a coroutine."""
    begun, ended, took, now = _metrics()

    async def counted(*args: Any, **kwargs: Any) -> Any:
        begun.inc()
        at = now()
        try:
            return await work(*args, **kwargs)
        finally:
            took.observe(now() - at)
            ended.inc()

    return counted


def prometheus_block(work: Work) -> Work:
    """The same as blocks: its own `count_exceptions` and `time`, which are context managers, and a counter."""
    begun, ended, took, _ = _metrics()

    def counted(*args: Any, **kwargs: Any) -> Any:
        with ended.count_exceptions(), took.time():
            begun.inc()
            return work(*args, **kwargs)

    return counted


def _metrics() -> tuple[Any, Any, Any, Callable[[], float]]:
    client = importlib.import_module("prometheus_client")  # by name: it is there for this benchmark only
    registry = client.CollectorRegistry()
    begun = client.Counter("begun", "tasks", ["name"], registry=registry).labels("mail")
    ended = client.Counter("ended", "tasks", ["name", "outcome"], registry=registry).labels("mail", "ok")
    took = client.Histogram("took", "seconds", ["name"], registry=registry).labels("mail")
    return begun, ended, took, time.perf_counter


def opentelemetry(work: Work) -> Work:
    """A span with its arguments, in the usual batch processor; the exporter throws the batches away."""
    sdk = importlib.import_module("opentelemetry.sdk.trace")
    export = importlib.import_module("opentelemetry.sdk.trace.export")

    class Nowhere(export.SpanExporter):  # type: ignore[name-defined, misc]
        def export(self, spans: Any) -> Any:
            return export.SpanExportResult.SUCCESS

    provider = sdk.TracerProvider()
    provider.add_span_processor(export.BatchSpanProcessor(Nowhere(), max_queue_size=1 << 16, max_export_batch_size=1 << 12))
    tracer = provider.get_tracer("bench")

    def traced(order_id: int, customer: str, total: float) -> Any:
        with tracer.start_as_current_span("mail.send") as span:
            span.set_attributes({"order_id": order_id, "customer": customer, "total": total})
            return work(order_id, customer, total)

    return traced


def sentry(work: Work) -> Work:
    """Two check-ins, as its cron monitors make them; the transport throws the envelopes away."""
    sdk = importlib.import_module("sentry_sdk")
    crons = importlib.import_module("sentry_sdk.crons")
    transport = importlib.import_module("sentry_sdk.transport")

    class Nowhere(transport.Transport):  # type: ignore[name-defined, misc]
        def capture_envelope(self, envelope: Any) -> None:
            return

    sdk.init(dsn="http://key@127.0.0.1:1/1", transport=Nowhere, default_integrations=False)

    def checked(*args: Any) -> Any:
        number = crons.capture_checkin(monitor_slug="mail", status="in_progress")
        try:
            result = work(*args)
        except BaseException:
            crons.capture_checkin(monitor_slug="mail", check_in_id=number, status="error")
            raise
        crons.capture_checkin(monitor_slug="mail", check_in_id=number, status="ok", duration=0.1)
        return result

    return checked


def statsd(work: Work) -> Work:
    """Two counters and a timer: three datagrams to a socket of our own, which drops what it cannot hold."""
    listening = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    listening.bind(("127.0.0.1", 0))
    client = importlib.import_module("statsd").StatsClient("127.0.0.1", listening.getsockname()[1])

    def counted(*args: Any, kept: Any = listening) -> Any:
        client.incr("mail.begun")
        with client.timer("mail.took"):
            result = work(*args)
        client.incr("mail.ended")
        return result

    return counted


def structlog(work: Work) -> Work:
    """Two lines of JSON with the arguments, into a file."""
    library = importlib.import_module("structlog")
    file = open(os.devnull, "w")  # noqa: SIM115 - open as long as the program
    made = library.processors
    library.configure(
        processors=[made.add_log_level, made.TimeStamper(fmt="iso"), made.JSONRenderer()],
        logger_factory=library.WriteLoggerFactory(file),
        cache_logger_on_first_use=True,
    )
    log = library.get_logger()

    def logged(order_id: int, customer: str, total: float) -> Any:
        log.info("started", task="mail.send", order_id=order_id, customer=customer, total=total)
        result = work(order_id, customer, total)
        log.info("finished", task="mail.send", order_id=order_id)
        return result

    return logged


CALLS = (
    Rival("statsd, 3 datagrams", "statsd", statsd, 300),
    Rival("structlog, 2 JSON lines", "structlog", structlog, 300),
    Rival("OpenTelemetry span, batch processor", "opentelemetry.sdk", opentelemetry, 200),
    Rival("Sentry, 2 check-ins", "sentry_sdk", sentry, 30),
)


@contextlib.asynccontextmanager
async def two_posts(address: str) -> AsyncIterator[Work]:
    """Two awaited POSTs per call, over one kept aiohttp session, to the server at `address`."""
    aiohttp = importlib.import_module("aiohttp")
    async with aiohttp.ClientSession() as session:

        async def told(order_id: int, customer: str, total: float) -> Any:
            said = {"task": "mail.send", "order_id": order_id, "customer": customer, "total": total}
            async with session.post(address, json={"type": "started", **said}) as answer:
                await answer.read()
            async with session.post(address, json={"type": "finished", **said}) as answer:
                await answer.read()
            return order_id

        yield told


def answer_posts() -> None:
    """For a process of its own: a server that answers every POST with 200. Prints its address; ends with its standard input."""
    web = importlib.import_module("aiohttp.web")

    async def serve() -> None:
        app = web.Application()

        async def taken(request: Any) -> Any:
            await request.read()
            return web.Response()

        app.router.add_post("/", taken)
        runner = web.AppRunner(app)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        print(f"http://127.0.0.1:{site._server.sockets[0].getsockname()[1]}/", flush=True)
        await asyncio.to_thread(sys.stdin.read)
        await runner.cleanup()

    asyncio.run(serve())


def is_there(module: str) -> bool:
    """Whether this module can be imported."""
    with contextlib.suppress(ImportError):
        return importlib.util.find_spec(module) is not None
    return False


def installed() -> Iterator[tuple[Rival, bool]]:
    """Every rival, and whether it can be measured here."""
    for rival in CALLS:
        yield rival, is_there(rival.needs)


if __name__ == "__main__":
    answer_posts()
