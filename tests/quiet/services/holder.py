"""A service that lives on while it loses work. It takes one order a line on standard input: KIND KEY."""

from __future__ import annotations

import asyncio
import gc
import sys
import threading

import looseends


@looseends.task(name="loss.hung", key="key", deadline="1.5s", replay=True)
def hang(key: str) -> None:
    """Never ends."""
    threading.Event().wait()


def stall(key: str) -> None:
    """Says once how far it is, and nothing after that."""
    with looseends.track("loss.stalled", key=key, deadline="never", progress_within="1s") as task:
        task.progress(0.1, "begun")
        threading.Event().wait()


@looseends.task(name="loss.raised", key="key")
def refuse(key: str) -> None:
    """Fails for good."""
    raise ValueError("no such account")


@looseends.task(name="loss.asleep", key="key", deadline="never")
async def sleep(key: str) -> None:
    """Waits for what nobody else holds."""
    await asyncio.get_running_loop().create_future()


def collect(key: str) -> None:
    """The mistake of every beginner: nobody keeps the task."""

    async def forget() -> None:
        asyncio.create_task(sleep(key))  # noqa: RUF006 - that is the point
        await asyncio.sleep(0.1)
        gc.collect()
        await asyncio.sleep(0.1)

    asyncio.run(forget())


def shut_down(key: str) -> None:
    """The event loop ends before the task does."""

    async def leave() -> None:
        looseends.spawn(sleep(key))
        await asyncio.sleep(0.1)

    asyncio.run(leave())


def block(key: str) -> None:
    """The event loop is blocked before the task's first step."""

    async def blocked() -> None:
        looseends.spawn(sleep(key))
        threading.Event().wait()

    asyncio.run(blocked())


def main() -> None:
    """One thread for each order."""
    looseends.init(service="quiet-holder")
    print("at work", flush=True)
    for line in sys.stdin:
        kind, key = line.split()
        threading.Thread(target=globals()[kind], args=(key,), daemon=True).start()
    threading.Event().wait()


main()
