"""How long one change takes to reach a hundred open streams, over real connections to a real daemon.

    make bench-stream           # 100 streams, 30 changes: p50 and p99 from the commit to each reader, CPU of the daemon

Rules: readers and daemon share this process and its loop, so the figure includes what a hundred readers cost: an upper bound.
A change is an event; the time begins when its answer is here, that is after its commit.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import sys
import tempfile
import time
import uuid
from pathlib import Path

import aiohttp

from looseends_daemon import config
from looseends_daemon.app import running
from looseends_daemon.http import stream

P99_MS_MAX = 50.0


async def read(reader: asyncio.StreamReader, heard: asyncio.Queue[float]) -> None:
    """Note when each message comes."""
    while line := await reader.readline():
        if line.startswith(b"event: now"):
            heard.put_nowait(time.perf_counter())


async def main(streams: int, changes: int) -> int:
    """Measure; 1 if the p99 of the fan-out itself is over its bar."""
    with tempfile.TemporaryDirectory(prefix="le-stream-") as folder:
        path = str(Path(folder) / "x.db")
        settings = config.with_flags(config.load(None, {"HOME": folder}), listen=("127.0.0.1:0",), path=path)
        async with running(settings) as daemon, aiohttp.ClientSession() as service:
            base = daemon.listener.addresses[0] if daemon.listener else ""
            port = int(base.rpartition(":")[2])
            token = (await asyncio.to_thread(Path(f"{path}.token").read_text)).strip()
            head = f"GET /api/v1/stream HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nAuthorization: Bearer {token}\r\n\r\n"
            heard: asyncio.Queue[float] = asyncio.Queue()
            readers, writers = [], []
            for _ in range(streams):
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
                writer.write(head.encode())
                writers.append(writer)
                readers.append(asyncio.ensure_future(read(reader, heard)))
            for _ in range(streams):
                await heard.get()
            latency, spread = [], []
            cpu, wall = time.process_time(), time.perf_counter()
            for _ in range(changes):
                event = {"type": "started", "task": str(uuid.uuid4()), "name": "bench", "service": "bench"}
                async with service.post(f"{base}/api/v1/events", json=[event]) as answer:
                    answer.raise_for_status()
                stored = time.perf_counter()
                times = sorted([await heard.get() for _ in range(streams)])
                latency.append(times[-1] - stored)
                spread += [at - times[0] for at in times]
                await asyncio.sleep(stream.SEND_S + 0.1)
            cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
            for one in readers:
                one.cancel()
            for writer in writers:
                writer.close()
    p50, p99 = (1000 * statistics.quantiles(spread, n=100)[n] for n in (49, 98))
    share = 100 * cpu / wall
    print(f"{streams} streams, {changes} changes: fan-out p50 {p50:.1f} ms, p99 {p99:.1f} ms; CPU {share:.1f} % of a core")
    print(f"commit to the last of them: median {1000 * statistics.median(latency):.0f} ms, worst {1000 * max(latency):.0f} ms")
    print(f"bar: p99 {P99_MS_MAX:g} ms: {'met' if p99 <= P99_MS_MAX else 'NOT met'}")
    return int(p99 > P99_MS_MAX)


if __name__ == "__main__":
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--streams", type=int, default=100)
    options.add_argument("--changes", type=int, default=30)
    given = options.parse_args()
    sys.exit(asyncio.run(main(given.streams, given.changes)))
