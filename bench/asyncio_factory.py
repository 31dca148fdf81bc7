"""What a captured `asyncio.create_task` costs, beside a bare one and one under Sentry's asyncio integration.

    .venv/bin/pip install sentry-sdk                          (for this benchmark alone; without it, its rows are left out)
    .venv/bin/python bench/asyncio_factory.py [--rounds 30] [--tasks 2000]

One run, interleaved slices, CPU of the loop's thread, the median of the rounds: creating a task with three scalar arguments and
running it to its end, its coroutine doing nothing. With ours its arguments, its start and its end are in a journal on disk by
then. Sentry runs as it comes (errors only) and with tracing, inside a transaction, its events dropped before any network.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from typing import Any

Row = Callable[[int], float]


async def work(order_id: int, customer: str, total: float) -> int:
    """The work: nothing."""
    return order_id


async def slice_of(count: int) -> float:
    """CPU seconds of this thread for `count` tasks, created in groups of a hundred."""
    begun = time.thread_time()
    for _ in range(count // 100):
        tasks = [asyncio.create_task(work(n, "ada@example.com", 12.5)) for n in range(100)]
        await asyncio.gather(*tasks)
    return time.thread_time() - begun


def on(loop: asyncio.AbstractEventLoop, create_task: Any) -> Row:
    """Slices in this loop, with this `create_task` in its class."""

    def run(count: int) -> float:
        asyncio.BaseEventLoop.create_task = create_task  # type: ignore[method-assign]
        return loop.run_until_complete(slice_of(count))

    return run


def sentry(tracing: bool) -> Row | None:
    """Slices in a loop whose task factory is Sentry's, with a client of their own; None: it is not installed."""
    try:
        sdk = importlib.import_module("sentry_sdk")
        hook = importlib.import_module("sentry_sdk.integrations.asyncio")
    except ImportError:
        return None
    loop = asyncio.new_event_loop()

    async def begin() -> Any:
        sdk.init(
            dsn="http://key@127.0.0.1:9/1",
            integrations=[hook.AsyncioIntegration(task_spans=tracing)],
            default_integrations=False,
            traces_sample_rate=1.0 if tracing else None,
            before_send=lambda *_: None,
            before_send_transaction=lambda *_: None,
        )
        hook.patch_asyncio()
        return sdk.get_client()

    client = loop.run_until_complete(begin())
    plain = on(loop, asyncio.BaseEventLoop.create_task)

    def run(count: int) -> float:
        sdk.get_global_scope().set_client(client)
        if not tracing:
            return plain(count)
        with sdk.start_transaction(op="http.server", name="POST /orders"):
            return plain(count)

    return run


def rows() -> dict[str, Row]:
    """What is measured, by name."""
    found = {"bare": on(asyncio.new_event_loop(), asyncio.BaseEventLoop.create_task)}
    for name, tracing in (("sentry, errors only", False), ("sentry, tracing", True)):
        run = sentry(tracing)
        if run is not None:
            found[name] = run
    importlib.import_module("looseends").install("asyncio")
    found["looseends"] = on(asyncio.new_event_loop(), asyncio.BaseEventLoop.create_task)
    return found


def main() -> int:
    """Measure, print, and say how it compares."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--tasks", type=int, default=2_000)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        os.environ |= {"LOOSEENDS_SPOOL_DIR": f"{folder}/spool", "LOOSEENDS_URL": f"unix:{folder}/nobody"}
        measured = rows()
        seen: dict[str, list[float]] = {name: [] for name in measured}
        for number in range(given.rounds + 2):
            for name, run in measured.items():
                took = run(given.tasks) / given.tasks * 1e6
                if number >= 2:
                    seen[name].append(took)
        medians = {name: statistics.median(found) for name, found in seen.items()}
        print(f"Python {sys.version.split()[0]}, {given.rounds} rounds of {given.tasks} tasks, CPU of the loop's thread")
        for name, median in medians.items():
            print(f"  {name:<22} {median:7.2f} us/task   {median / medians['bare']:5.2f} x bare")
        for name in medians:
            if name.startswith("sentry"):
                extra = (medians["looseends"] - medians["bare"]) / (medians[name] - medians["bare"])
                print(f"  looseends adds {extra:.2f} of what {name} adds")
        if len(medians) == 2:
            print("  sentry-sdk is not installed: its rows are left out")
        importlib.import_module("looseends.lifecycle").PROCESS.goodbye(0.1)
    return 0


if __name__ == "__main__":
    sys.exit(main())
