"""What a plan over 100,000 tasks costs: seconds to make, look through and begin, memory, and the weight of its pages.

    python bench/plan.py [tasks]        100,000 unless told otherwise

A real daemon in this process, over a database of its own in a temporary folder, asked over HTTP. The tasks are lost ones of one
killed process, arguments and keys and all. `stall` is the longest time in which the daemon's event loop did nothing else.
"""

from __future__ import annotations

import asyncio
import gzip
import resource
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import aiohttp

from looseends import wire
from looseends.wire import NS, check_batch
from looseends_daemon.app import Daemon, running
from looseends_daemon.config.settings import Server, Settings, Storage
from looseends_daemon.core.policy import Policy
from looseends_daemon.core.resources import Actor
from looseends_daemon.store import facts, instances
from looseends_daemon.store.connection import Database
from looseends_daemon.store.token_file import token_path

SERVICE = Actor(name="uid 0", role="ingest", channel="uds:0", uid=0)
FUNCTION = {"name": "mail.send", "signature": "(order_id, text)", "code": "c", "replay": "yes", "caution": None, "via": None}
BATCH = 1_000


def instance(n: int) -> dict[str, Any]:
    """One process of the service."""
    return {"id": wire.uuid8(n.to_bytes(16, "big")), "service": "shop", "host": f"web-{n}", "pid": n}


async def tell(database: Database, who: dict[str, Any], events: list[dict[str, Any]]) -> None:
    """One batch, folded for real."""
    now = time.time_ns()
    batch = check_batch({"instance": who, "events": events}, now)
    await database.write(lambda conn: facts.apply_batch(conn, batch, actor=SERVICE, now=now, policy=Policy(), proven=True))


def offer(conn: Any, *whose: dict[str, Any]) -> None:
    """They register the function."""
    for who in whose:
        row = conn.execute("SELECT no FROM instance WHERE id = ?", (who["id"],)).fetchone()
        instances.put_functions(conn, row["no"], [FUNCTION])


async def fill(database: Database, count: int) -> None:
    """`count` tasks of a process that was killed, and another that lives."""
    dead, alive = instance(1), instance(2)
    began = time.time_ns() - 600 * NS
    for first in range(0, count, BATCH):
        events = [
            {
                "type": "started",
                "task": wire.uuid8((n + 1_000).to_bytes(16, "big")),
                "name": "mail.send",
                "at": began + n * 1_000,
                "key": f"order-{n}",
                "args": {"order_id": n, "text": "a line of text as it is in mails"},
            }
            for n in range(first, min(first + BATCH, count))
        ]
        await tell(database, dead, events)
    await tell(database, alive, [])
    await database.write(lambda conn: offer(conn, dead, alive))
    await database.write(
        lambda conn: facts.end_instance(conn, dead["id"], state="gone", reason="killed", now=time.time_ns(), adopted=True)
    )


class Stalls:
    """The longest time in which the loop came to nothing else."""

    def __init__(self) -> None:
        self.longest = 0.0

    async def watch(self) -> None:
        while True:
            before = time.perf_counter()
            await asyncio.sleep(0.001)
            self.longest = max(self.longest, time.perf_counter() - before)


def token_of(daemon: Daemon) -> str:
    """The operator token beside its database."""
    return Path(token_path(daemon.database.path)).read_text().strip()


def memory_mib() -> float:
    """The most this process ever held, MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


async def timed(what: str, stalls: Stalls, asking: Any) -> Any:
    """Ask, and print how long it took."""
    stalls.longest, before, cpu = 0.0, time.perf_counter(), time.process_time()
    async with asking as answer:
        body = await answer.read()
        took, used = time.perf_counter() - before, time.process_time() - cpu
        packed = len(gzip.compress(body)) / 1024
        print(
            f"{what:34} {took:7.2f} s  {used:7.2f} s CPU  stall {stalls.longest * 1000:5.0f} ms"
            f"  {len(body) / 1024:8.1f} KiB ({packed:.1f} packed)  status {answer.status}"
        )
        if answer.status >= 400:
            raise SystemExit(body.decode())
        return await answer.json() if "json" in answer.content_type else body


async def measure(daemon: Daemon, count: int) -> None:
    """Fill, plan, look, begin."""
    await fill(daemon.database, count)
    base = daemon.listener.addresses[0].rstrip("/") if daemon.listener else ""
    filled, stalls = memory_mib(), Stalls()
    print(f"{count:,} tasks; {filled:.0f} MiB before the plan")
    auth = {"Authorization": f"Bearer {token_of(daemon)}"}
    timeout = aiohttp.ClientTimeout(total=600)
    async with asyncio.TaskGroup() as group, aiohttp.ClientSession(base, headers=auth, timeout=timeout) as web:
        watching = group.create_task(stalls.watch())
        key = {"Idempotency-Key": "bench-plan-1"}
        plan = await timed("make the plan", stalls, web.post("/api/v1/replay-plans", json={"q": "is:open"}, headers=key))
        print(f"  {plan['counts']}, peak {memory_mib() - filled:+.0f} MiB")
        await timed("look at the plan's page", stalls, web.get(f"/plans/{plan['id']}"))
        wish = {"plan": plan["id"], "digest": plan["digest"], "per_second": 50}
        replay = await timed("look through and begin", stalls, web.post("/api/v1/replays", json=wish, headers=key))
        await timed("look at the run's page", stalls, web.get(f"/replays/{replay['id']}"))
        await timed("its last items", stalls, web.get(f"/api/v1/replays/{replay['id']}/items?state=blocked"))
        await timed("its report as CSV", stalls, web.get(f"/api/v1/replays/{replay['id']}/report.csv"))
        print(f"  peak {memory_mib() - filled:+.0f} MiB over what it held before")
        watching.cancel()


async def main() -> None:
    """Print the figures."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 100_000
    with tempfile.TemporaryDirectory(prefix="looseends-bench-") as folder:
        settings = Settings(server=Server(listen=("127.0.0.1:0",)), storage=Storage(path=str(Path(folder) / "bench.db")))
        async with running(settings) as daemon:
            await measure(daemon, count)


if __name__ == "__main__":
    asyncio.run(main())
