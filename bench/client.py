"""What an audited call costs, beside what other ways to account for it cost: CPU of the calling thread, in one run, interleaved.

    make bench                                             this table's first part alone
    make bench-client                                      all of it (installs the rivals, for this alone)
    .venv/bin/python bench/client.py [--rivals] [--rounds 40] [--calls 2000] [--profile]

The audited call has three scalar arguments; key, redaction, codec, trace and the current task are on; start and end are in a
journal on disk when it returns. No daemon answers. "stdlib" is the client as it is, "fast" with msgspec installed beside it.
The yardstick is prometheus_client with two counters and a histogram, children bound once. Each round runs all rows in turn;
printed is the median of the rounds less what a bare call costs, and the middle half of the rounds. Smaller is better.
"""

from __future__ import annotations

import argparse
import asyncio
import functools
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import rivals

BARS = {"stdlib": 2.0, "fast": 1.25}
IMPORT_BAR_MS = 20.0
NESTED = {"lines": [{"sku": f"sku-{n}", "count": n, "price": n * 1.25, "gift": n % 2 == 0} for n in range(18)], "note": "x" * 200}
THREE = (7, "ada@example.com", 12.5)
LONGER = (7, "Ada Lovelace, 12 Main Street, London", 12.5)


class Row(NamedTuple):
    """One thing measured: how it is run, what it is compared with, its codec ("" where that does not matter)."""

    name: str
    run: Callable[..., float]
    function: Callable[..., Any]
    args: tuple[Any, ...]
    calls: int
    floor: str
    yardstick: str
    codec: str = ""
    bar: float | None = None


def bare(order_id: int, customer: str, total: float) -> int:
    """The work: nothing."""
    return order_id


async def bare_async(order_id: int, customer: str, total: float) -> int:
    """The same in a coroutine."""
    return order_id


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


def our_rows(count: int) -> list[Row]:
    """The client's rows, each with both codecs, between their yardsticks."""
    import looseends

    audited = looseends.task(name="bench.call", key="order_id", redact=("nickname",))(bare)
    audited_async = looseends.task(name="bench.await", key="order_id", redact=("nickname",))(bare_async)

    @looseends.task(name="bench.nested")
    def nested(order: dict[str, Any]) -> None:
        return None

    def tracked(order_id: int, customer: str, total: float) -> None:
        with looseends.track("bench.track", {"order_id": order_id, "customer": customer, "total": total}):
            return

    def by_name(order_id: int, customer: str, total: float) -> None:
        audited(order_id=order_id, customer=customer, total=total)

    prom = "prometheus_client"
    found = [
        Row("bare call", calls, bare, THREE, count, "", ""),
        Row("bare await", awaits, bare_async, THREE, count, "", ""),
        Row(prom, calls, rivals.prometheus(bare), THREE, count, "bare call", prom),
        Row(f"{prom} await", awaits, rivals.prometheus_awaited(bare_async), THREE, count, "bare await", f"{prom} await"),
        Row(f"{prom} with", calls, rivals.prometheus_block(bare), THREE, count, "bare call", f"{prom} with"),
    ]
    kinds: dict[str, tuple[Callable[..., float], Callable[..., Any], tuple[Any, ...], str, bool]] = {
        "call": (calls, audited, THREE, "", True),
        "await": (awaits, audited_async, THREE, " await", True),
        "with track": (calls, tracked, THREE, " with", True),
        "call, by name": (calls, by_name, THREE, "", False),
        "call, longer text": (calls, audited, LONGER, "", False),
        "call, 1 KB nested": (calls, nested, (NESTED,), "", False),
    }
    for codec, bar in BARS.items():
        for kind, (run, function, args, like, barred) in kinds.items():
            floor = "bare await" if like == " await" else "bare call"
            limit = bar if barred else None
            found.append(Row(f"audited {kind}, {codec}", run, function, args, count, floor, prom + like, codec, limit))
    return found


def rival_rows(count: int, posts: str) -> Iterator[Row]:
    """What others cost, and an audited call inside a span, which then records where it belongs."""
    import looseends

    audited = looseends.task(name="bench.call", key="order_id", redact=("nickname",))(bare)
    floor, rod = "bare call", "prometheus_client"
    yield Row("bare call", calls, bare, THREE, count, "", "")
    yield Row("bare await", awaits, bare_async, THREE, count, "", "")
    yield Row(rod, calls, rivals.prometheus(bare), THREE, count, floor, rod)
    yield Row("audited call, stdlib", calls, audited, THREE, count, floor, rod, "stdlib")
    for rival, there in rivals.installed():
        if there:
            yield Row(rival.name, calls, rival.make(bare), THREE, rival.calls, floor, rod)
        else:
            print(f"{rival.name}: not installed", file=sys.stderr)
    if rivals.is_there("opentelemetry.sdk"):
        yield Row("audited call inside a span, stdlib", in_span, audited, THREE, count, floor, rod, "stdlib")
    if rivals.is_there("aiohttp"):
        yield Row("2 awaited POSTs, aiohttp", functools.partial(posted, posts), bare, THREE, 20, "bare await", rod)


def in_span(function: Callable[..., Any], count: int, *args: Any) -> float:
    """`calls` while an OpenTelemetry span is the current one."""
    import importlib

    tracer = importlib.import_module("opentelemetry.sdk.trace").TracerProvider().get_tracer("bench")
    with tracer.start_as_current_span("request"):
        return calls(function, count, *args)


def posted(address: str, _: Any, count: int, *args: Any) -> float:
    """CPU seconds of `count` calls that tell of their start and end by two awaited POSTs."""

    async def run() -> float:
        async with rivals.two_posts(address) as told:
            await told(*args)
            begun = time.thread_time()
            for _ in range(count):
                await told(*args)
            return time.thread_time() - begun

    return asyncio.run(run())


def use(codec: str) -> None:
    """Write with the standard library or with msgspec from here on; a process of its own would have chosen once."""
    from looseends import plain

    if codec == "fast":
        plain.CODEC.looked = False
        plain.speed_up()
        assert plain.CODEC.fast, "msgspec is not installed"
    elif codec:
        plain.CODEC.__init__()  # type: ignore[misc]
        plain.CODEC.looked = True


def measure(rows: list[Row], rounds: int) -> dict[str, list[float]]:
    """Microseconds per call in each round, by row; the first tenth of the rounds warms up and is left out."""
    found: dict[str, list[float]] = {row.name: [] for row in rows}
    for _ in range(rounds):
        for row in rows:
            use(row.codec)
            make_room()
            found[row.name].append(row.run(row.function, row.calls, *row.args) / row.calls * 1e6)
    return {name: values[rounds // 10 :] for name, values in found.items()}


def make_room() -> None:
    """Between rows, do what the sender's thread does every 50 ms while a daemon answers: have the next segment ready, let go
    of the old ones. A journal that nobody reads is bounded, and a dropped record would look cheap."""
    from looseends.lifecycle import PROCESS

    journal = PROCESS.open()
    assert journal is not None and not journal.dropped, "records were dropped: these figures say nothing"
    if journal.bytes_used() > 24 << 20:
        PROCESS.goodbye(0.0)
        shutil.rmtree(journal.folder, ignore_errors=True)  # a spool is bounded too, and nobody else empties this one
        journal = PROCESS.open()
    if journal is not None:
        journal.prepare()


def report(rows: list[Row], found: dict[str, list[float]]) -> None:
    """The table: cost without the bare call, the middle half of the rounds, and the ratio to the yardstick of the same kind."""
    kept = len(next(iter(found.values())))
    floors = {row.name: statistics.median(found[row.floor]) for row in rows if row.floor}
    print(f"{'':38}  us CPU   middle half    x prometheus   bar      (medians of {kept} interleaved rounds)")
    for row in rows:
        if not row.floor:
            continue
        low, middle, high = (value - floors[row.name] for value in statistics.quantiles(found[row.name], n=4))
        ratio = middle / (statistics.median(found[row.yardstick]) - floors[row.yardstick])
        said = "" if row.bar is None else f"{row.bar:5.2f}  {'met' if ratio <= row.bar else 'NOT MET'}"
        print(f"{row.name:38} {middle:7.2f}  {low:6.2f}-{high:6.2f}    {ratio:7.2f}       {said}")


def import_cost(rounds: int) -> None:
    """CPU of `import looseends` over that of the bare interpreter: whole processes, in turn, with compiled files in place."""
    spent: dict[str, list[float]] = {"pass": [], "import looseends": []}
    for _ in range(rounds + 1):
        for source, values in spent.items():
            before = resource.getrusage(resource.RUSAGE_CHILDREN)
            subprocess.run([sys.executable, "-c", source], check=True)
            after = resource.getrusage(resource.RUSAGE_CHILDREN)
            values.append((after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime) * 1e3)
    bare_ms, ours_ms = (statistics.median(values[1:]) for values in spent.values())
    print(
        f"\nimport looseends: {ours_ms - bare_ms:.1f} ms CPU over the bare interpreter's {bare_ms:.1f} ms "
        f"(medians of {rounds}; bar {IMPORT_BAR_MS:.0f} ms)"
    )


def profile(count: int) -> None:
    """Where the time of an audited call goes (the profiler's own cost makes small functions look large)."""
    import cProfile
    import pstats

    row = next(row for row in our_rows(count) if row.name.startswith("audited"))
    use(row.codec)
    with cProfile.Profile() as found:
        row.run(row.function, count, *row.args)
    pstats.Stats(found).sort_stats("tottime").print_stats(15)


def beside_rivals(options: argparse.Namespace) -> None:
    """The second table. In a process of its own: once OpenTelemetry is imported, every audited call looks for a span."""
    server = subprocess.Popen([sys.executable, rivals.__file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert server.stdin is not None and server.stdout is not None
    try:
        rows = list(rival_rows(options.calls, server.stdout.readline().strip()))
        report(rows, measure(rows, options.rounds))
    finally:
        server.stdin.close()
        server.wait(10)
        server.stdout.close()


def main() -> int:
    """Measure in a spool of its own."""
    parser = argparse.ArgumentParser(description="Measure an audited call beside one counted by prometheus_client, and others.")
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--calls", type=int, default=2_000, help="calls of each row in each round")
    parser.add_argument("--rivals", action="store_true", help="other rivals too, and the cost of the import")
    parser.add_argument("--profile", action="store_true", help="say where an audited call's time goes instead")
    parser.add_argument("--part", choices=["ours", "rivals"], help=argparse.SUPPRESS)
    options = parser.parse_args()
    if not rivals.is_there("prometheus_client"):
        print("this benchmark compares with prometheus_client: python -m pip install prometheus-client", file=sys.stderr)
        return 2
    if not rivals.is_there("msgspec"):
        print(
            "msgspec is not installed, so the rows called fast cannot be measured: python -m pip install msgspec", file=sys.stderr
        )
        BARS.pop("fast")
    with tempfile.TemporaryDirectory() as folder:
        os.environ.update(LOOSEENDS_SPOOL_DIR=f"{folder}/spool", LOOSEENDS_URL=f"unix:{folder}/nobody", LOOSEENDS_SERVICE="bench")
        if options.profile:
            profile(options.calls)
        elif options.part == "rivals":
            beside_rivals(options)
        else:
            rows = our_rows(options.calls)
            report(rows, measure(rows, options.rounds))
        from looseends.lifecycle import PROCESS

        PROCESS.goodbye(0.0)
    if options.rivals and options.part is None:
        print()
        again = [sys.executable, __file__, "--part", "rivals", "--rounds", str(options.rounds), "--calls", str(options.calls)]
        subprocess.run(again, check=True)
        import_cost(15)
    return 0


if __name__ == "__main__":
    sys.exit(main())
