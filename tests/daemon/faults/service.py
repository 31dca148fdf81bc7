"""A service with the real client. A line on standard input is what it does; it answers `done`, or `done WORDS`.

run N    N tasks that succeed         fail N   N tasks that fail       cancel   one that is cancelled
open N   N tasks that do not end      progress one that tells of it    expect   one that is expected
flush    -> records unsent            counts   -> troubles counted, as JSON
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
from typing import Any

import looseends
from looseends import trouble
from looseends.lifecycle import PROCESS

OPEN: list[Any] = []


@looseends.task(name="mail.double", key="number", replay=True, tags={"tier": "gold"})
def double(number: int) -> int:
    """Twice the number."""
    return 2 * number


@looseends.task(name="mail.fail")
def fail(number: int) -> None:
    """It never works."""
    raise ValueError(f"no {number}")


def run(count: int) -> None:
    """So many tasks that succeed."""
    for number in range(count):
        double(number)


def fail_all(count: int) -> None:
    """So many tasks that fail."""
    for number in range(count):
        with contextlib.suppress(ValueError):
            fail(number)


def leave_open(count: int) -> None:
    """So many tasks that do not end."""
    for number in range(count):
        OPEN.append(looseends.track("mail.open", {"number": number}, deadline="never"))
        OPEN[-1].__enter__()


def progress(count: int) -> None:
    """Tasks that tell how far they are, and wait until that was sent."""
    for _ in range(count):
        with looseends.track("mail.slow") as task:
            task.progress(0.5, "half of it")
            looseends.flush(5.0)


async def cancel() -> None:
    """A task that is cancelled."""

    async def wait() -> None:
        with looseends.track("mail.wait"):
            await asyncio.sleep(60)

    task = asyncio.ensure_future(wait())
    await asyncio.sleep(0.01)
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


def do(line: str) -> object:
    """Do what a line says; its answer."""
    word, _, rest = line.partition(" ")
    count = int(rest or 1)
    if word == "flush":
        return looseends.flush(timeout=1.0)
    if word == "counts":
        return json.dumps(trouble.COUNTS)
    if word == "expect":
        looseends.expect("mail.double", within="10m", key="never", args={"number": 7})
    elif word == "cancel":
        asyncio.run(cancel())
    else:
        {"run": run, "fail": fail_all, "open": leave_open, "progress": progress}[word](count)
    return ""


def main() -> None:
    """Answer line by line until the input ends."""
    looseends.init()
    assert PROCESS.sender is not None
    print(f"instance {PROCESS.sender.instance['id']}", flush=True)
    for line in sys.stdin:
        print(f"done {do(line.strip())}", flush=True)


if __name__ == "__main__":
    main()
