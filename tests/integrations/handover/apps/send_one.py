"""A producer that sends one message and ends."""

from __future__ import annotations

import asyncio
import os

import replayable

import looseends


async def by_arq() -> None:
    """arq's pool lives in a loop."""
    from arq import create_pool

    pool = await create_pool(replayable.WorkerSettings.redis_settings)
    await pool.enqueue_job("send", 7)
    await pool.aclose()


def main() -> None:
    """Send, and be sure that it was told."""
    system = os.environ["SYSTEM"]
    if system == "arq":
        asyncio.run(by_arq())
    elif system == "celery":
        replayable.send.delay(7)
    elif system == "dramatiq":
        replayable.send.send(7)
    elif system == "huey":
        replayable.send(7)
    else:
        replayable.queue.enqueue(replayable.work, 7)
    looseends.shutdown()


main()
