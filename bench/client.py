"""What an audited call costs, beside what an instrumented one costs: CPU of the calling thread, in one run, interleaved.

    make bench                                               (installs the rival beside it, for this alone)
    .venv/bin/python bench/client.py [--rounds 40] [--calls 2000] [--profile]

The audited call has three scalar arguments, a key, redaction and the current task on; its start and its end are in a journal on
disk when it returns. No daemon answers. The rival is prometheus_client with two counters and a histogram, children bound once,
as a careful programmer would write it. Each round runs all rows in turn; printed is the median of the rounds, less what a
bare call costs. The bar is 2.0 times the rival; smaller is better.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib.util
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from typing import Any

BAR = 2.0
NESTED = {"lines": [{"sku": f"sku-{n}", "count": n, "price": n * 1.25, "gift": n % 2 == 0} for n in range(18)], "note": "x" * 200}


def bare(order_id: int, customer: str, total: float) -> int:
    """The work: nothing."""
    return order_id


async def bare_async(order_id: int, customer: str, total: float) -> int:
    """The same in a coroutine."""
    return order_id


def rival() -> tuple[Callable[..., Any], Callable[..., Any]]:
    """The same functions under prometheus_client: begun, ended, and how long it took."""
    client = importlib.import_module("prometheus_client")  # by name: it is there for this benchmark only
    registry = client.CollectorRegistry()
    begun = client.Counter("begun", "tasks", ["name"], registry=registry).labels("mail")
    ended = client.Counter("ended", "tasks", ["name", "outcome"], registry=registry).labels("mail", "ok")
    took = client.Histogram("took", "seconds", ["name"], registry=registry).labels("mail")
    now = time.perf_counter

    def counted(*args: Any, **kwargs: Any) -> Any:
        begun.inc()
        at = now()
        try:
            return bare(*args, **kwargs)
        finally:
            took.observe(now() - at)
            ended.inc()

    async def counted_async(*args: Any, **kwargs: Any) -> Any:
        begun.inc()
        at = now()
        try:
            return await bare_async(*args, **kwargs)
        finally:
            took.observe(now() - at)
            ended.inc()

    return counted, counted_async


def calls(function: Callable[..., Any], count: int, *args: Any) -> float:
    """CPU seconds of this thread for `count` calls."""
    begun = time.thread_time()
    for _ in range(count):
        function(*args)
    return time.thread_time() - begun


def awaits(function: Callable[..., Any], count: int, *args: Any) -> float:
    """The same for a coroutine function, awaited inside one running loop."""

    async def run() -> float:
        begun = time.thread_time()
        for _ in range(count):
            await function(*args)
        return time.thread_time() - begun

    return asyncio.run(run())


Row = tuple[Callable[..., float], Callable[..., Any], tuple[Any, ...]]


def rows() -> dict[str, Row]:
    """Everything that is measured, by name."""
    import looseends

    audited = looseends.task(name="bench.call", key="order_id", redact=("nickname",))(bare)
    audited_async = looseends.task(name="bench.await", key="order_id", redact=("nickname",))(bare_async)

    @looseends.task(name="bench.nested")
    def nested(order: dict[str, Any]) -> None:
        return None

    def tracked(order_id: int, customer: str, total: float) -> None:
        with looseends.track("bench.track", {"order_id": order_id, "customer": customer, "total": total}):
            return

    counted, counted_async = rival()
    three = (7, "ada@example.com", 12.5)
    return {
        "bare": (calls, bare, three),
        "prometheus_client": (calls, counted, three),
        "audited": (calls, audited, three),
        "audited, 1 KB nested": (calls, nested, (NESTED,)),
        "track": (calls, tracked, three),
        "bare await": (awaits, bare_async, three),
        "prometheus_client await": (awaits, counted_async, three),
        "audited await": (awaits, audited_async, three),
    }


def measure(rounds: int, count: int) -> dict[str, float]:
    """Microseconds per call, the median of the rounds, by row."""
    found: dict[str, list[float]] = {}
    table = rows()
    for _ in range(rounds):
        for name, (runner, function, args) in table.items():
            make_room()
            found.setdefault(name, []).append(runner(function, count, *args) / count * 1e6)
    return {name: statistics.median(values[rounds // 10 :]) for name, values in found.items()}


def make_room() -> None:
    """Between rows, do what the sender's thread does every 50 ms while a daemon answers: have the next segment ready, let go
    of the old ones. A journal that nobody reads is bounded, and a dropped record would look cheap."""
    from looseends.lifecycle import PROCESS

    journal = PROCESS.open()
    assert journal is not None and not journal.dropped, "records were dropped: these figures say nothing"
    if journal.bytes_used() > 24 << 20:
        PROCESS.goodbye(0.0)
        journal = PROCESS.open()
    if journal is not None:
        journal.prepare()


def report(figures: dict[str, float]) -> None:
    """The table: cost without the bare call, and the ratio to the rival of the same kind."""
    print(f"{'':24}  us CPU   ratio   (bar {BAR:.1f})")
    for name, value in figures.items():
        kind = " await" if name.endswith(" await") else ""
        floor = figures[f"bare{kind}"]
        if not name.startswith("bare"):
            print(f"{name:24} {value - floor:7.2f} {(value - floor) / (figures[f'prometheus_client{kind}'] - floor):7.2f}")


def profile(count: int) -> None:
    """Where the time of an audited call goes (the profiler's own cost makes small functions look large)."""
    import cProfile
    import pstats

    runner, function, args = rows()["audited"]
    with cProfile.Profile() as found:
        runner(function, count, *args)
    pstats.Stats(found).sort_stats("tottime").print_stats(15)


def main() -> int:
    """Measure in a spool of its own."""
    parser = argparse.ArgumentParser(description="Measure an audited call against one counted by prometheus_client.")
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--calls", type=int, default=2_000, help="calls of each row in each round")
    parser.add_argument("--profile", action="store_true", help="say where an audited call's time goes instead")
    options = parser.parse_args()
    if importlib.util.find_spec("prometheus_client") is None:
        print("this benchmark compares with prometheus_client: python -m pip install prometheus-client", file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory() as folder:
        os.environ.update(LOOSEENDS_SPOOL_DIR=f"{folder}/spool", LOOSEENDS_URL=f"unix:{folder}/nobody", LOOSEENDS_SERVICE="bench")
        profile(options.calls) if options.profile else report(measure(options.rounds, options.calls))
        from looseends.lifecycle import PROCESS

        PROCESS.goodbye(0.0)
    return 0


if __name__ == "__main__":
    sys.exit(main())
