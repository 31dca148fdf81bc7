"""From a failure's report to the arrival of its notice, over a thousand incidents, with a real daemon and a signed webhook.

    python bench/notices.py [--incidents 1000] [--hostile]

One failure after the other is posted over HTTP; the time runs from before the POST until the receiver has the whole body, so it
holds ingest, judgement, incident, outbox and delivery, each commit on disk. `group_wait` (1 s by default: it gathers loose ends)
is printed beside it and not part of the first figure; the second run has the default. `--hostile` puts nine receivers beside it
that hang, drip, fail, redirect, flood and speak bad TLS.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))

from harness import free_port  # noqa: E402
from receivers import HOSTILE, Books, Door, Hostiles, configuration, endpoint, memory_mib, quantile  # noqa: E402

BAR_S = 1.5
START_S_MAX = 60.0
NAME = re.compile(rb'"name":"(job\.\d+)"')


class Daemon:
    """`looseends serve` in a folder of its own."""

    def __init__(self, folder: Path, tables: list[str], group_wait: str) -> None:
        self.port = free_port()
        file = configuration(folder, self.port, *tables, alerts=f'group_wait = "{group_wait}"')
        env = {**os.environ, "XDG_STATE_HOME": str(folder)}
        args = [sys.executable, "-m", "looseends.cli", "serve", "-c", str(file)]
        self.process = subprocess.Popen(args, env=env, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        assert self.process.stdout is not None
        until = time.monotonic() + START_S_MAX
        while "is running" not in self.process.stdout.readline():
            if time.monotonic() > until or self.process.poll() is not None:
                raise SystemExit("the daemon did not start")
        self.door = Door(folder, self.port)

    def stop(self) -> None:
        """End it."""
        self.process.terminate()
        self.process.communicate(timeout=30)


async def one_by_one(door: Door, books: Books, incidents: int, label: str) -> list[float]:
    """Seconds from the report of each failure to the arrival of its notice."""
    delays = []
    for n in range(incidents):
        name = f"job.{n}"
        began = time.monotonic()
        await asyncio.to_thread(door.fail, [name])
        await books.until(has(name))
        delays.append(arrivals(books)[name] - began)
        if incidents >= 200 and n % 200 == 199:
            print(f"  {label}: {n + 1} of {incidents}", file=sys.stderr, flush=True)
    return delays


def has(name: str) -> Callable[[Books], bool]:
    """Whether the notice about this task has arrived."""
    return lambda books: name in arrivals(books)


def arrivals(books: Books) -> dict[str, float]:
    """When the notice about each task first arrived; kept from call to call."""
    known: dict[str, float] = books.__dict__.setdefault("known", {})
    done = books.__dict__.setdefault("done", [0])
    for at, _, body in books.arrived[done[0] :]:
        for found in NAME.findall(body):
            known.setdefault(found.decode(), at)
    done[0] = len(books.arrived)
    return known


async def run(label: str, incidents: int, group_wait: str, tables: list[str]) -> tuple[list[float], float]:
    """One run on a fresh daemon: the delays (s), and the daemon's memory (MiB) at its end."""
    books = Books()
    with tempfile.TemporaryDirectory(prefix="le-bench-") as folder:
        daemon = Daemon(Path(folder), [*tables, endpoint(await books.open(), "good")], group_wait)
        try:
            delays = await one_by_one(daemon.door, books, incidents, label)
            memory = memory_mib(daemon.process.pid)
        finally:
            daemon.stop()
            await books.close()
    p50, p99 = quantile(delays, 0.5), quantile(delays, 0.99)
    print(
        f"{label:<34} {len(delays):>5} incidents  p50 {p50 * 1000:>6.0f} ms  p99 {p99 * 1000:>6.0f} ms"
        f"  max {max(delays) * 1000:>6.0f} ms  ({p99 / BAR_S:.2f} of the bar)  daemon {memory:.0f} MiB",
        flush=True,
    )
    return delays, memory


async def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--incidents", type=int, default=1_000)
    parser.add_argument("--hostile", action="store_true", help="also beside receivers that misbehave")
    args = parser.parse_args()
    await run("group_wait 0s", args.incidents, "0s", [])
    await run("group_wait 1s, the default", max(10, args.incidents // 20), "1s", [])
    if args.hostile:
        hostiles = Hostiles()
        await hostiles.open()
        await run(f"beside {len(HOSTILE)} hostile receivers", args.incidents, "0s", hostiles.tables)
        await hostiles.close()
    print(f"bar: p99 of report to arrival <= {BAR_S} s, the default group_wait of 1 s included", flush=True)


if __name__ == "__main__":
    asyncio.run(main())
