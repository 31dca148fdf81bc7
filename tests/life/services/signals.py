"""Prints how every signal is handled before looseends is imported and when it has run everything it has."""

from __future__ import annotations

import asyncio
import signal
import threading


def handlers() -> dict[int, object]:
    """What stands for each signal now."""
    return {number: signal.getsignal(number) for number in signal.valid_signals()}


before, threads = handlers(), threading.active_count()
import looseends  # noqa: E402

assert threading.active_count() == threads, "a thread at import"


@looseends.task(name="signals.task", replay=True)
async def task() -> None:
    """One task."""


async def main() -> None:
    looseends.spawn(task())
    await task()
    await looseends.shutdown()


looseends.init(service="signals")
looseends.install("asyncio", "starlette")
asyncio.run(main())
looseends.shutdown()
assert handlers() == before, "somebody changed a signal handler"
print("unchanged", flush=True)
