"""A service as they are: an aiohttp application in a process of its own, whose every request does one piece of async work.

    python served.py audited|plain          prints "port N" once it answers; ends with its standard input

`GET /do/N` answers with what the work gave, `GET /state` with what this process holds. The audited work may be replayed, so a
daemon that is believed could make it run: `ran` counts by number what really ran.
"""

from __future__ import annotations

import asyncio
import os
import sys
import threading
from collections import Counter
from typing import Any

from aiohttp import web

import looseends
from looseends import trouble
from looseends.lifecycle import PROCESS

PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
ran: Counter[int] = Counter()


async def work(number: int, customer: str, total: float) -> dict[str, Any]:
    """What each request does: a moment of waiting, and an answer that depends on its arguments."""
    ran[number] += 1
    await asyncio.sleep(0)
    if number % 50 == 49:
        raise ValueError(f"no {number}")
    return {"number": number, "twice": number * 2, "customer": customer, "total": total}


def state() -> dict[str, Any]:
    """What this process holds, and what its client has noticed."""
    with open("/proc/self/statm") as file:
        resident = int(file.read().split()[1]) * PAGE_BYTES
    journal = PROCESS.journal
    return {
        "resident_bytes": resident,
        "spool_bytes": journal.bytes_used() if journal is not None else 0,
        "dropped": journal.dropped if journal is not None else 0,
        "unsent": looseends.flush(0.0),
        "threads": threading.active_count(),
        "takes_journal": PROCESS.sender is not None and PROCESS.sender.transport.takes_journal,
        "trouble": dict(trouble.COUNTS),
        "ran": sum(ran.values()),
        "ran_for_a_rogue": ran[1_000_000_000],
    }


def application(audited: bool) -> web.Application:
    """The service, with its work audited or as it is."""
    perform = looseends.task(name="served.work", key="number", replay=True)(work) if audited else work

    async def answer(request: web.Request) -> web.Response:
        number = int(request.match_info["number"])
        try:
            return web.json_response(await perform(number, "ada@example.com", number / 4))
        except ValueError as error:
            return web.json_response({"error": str(error)}, status=422)

    async def show(request: web.Request) -> web.Response:
        return web.json_response(state())

    app = web.Application()
    app.router.add_get("/do/{number}", answer)
    app.router.add_get("/state", show)
    return app


async def main(audited: bool) -> None:
    """Serve until the standard input ends."""
    runner = web.AppRunner(application(audited), access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    sockets: Any = getattr(site._server, "sockets", ())
    print(f"port {sockets[0].getsockname()[1]}", flush=True)
    await asyncio.to_thread(sys.stdin.read)
    await runner.cleanup()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1] == "audited"))
