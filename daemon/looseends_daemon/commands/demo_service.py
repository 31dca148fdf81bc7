"""The service that `looseends demo` loses work in: it reads one line per piece of work and starts it in the background.

Rules: standard library and the client only, so that it runs wherever the daemon does. A line is `ok`, `raise`, `hang` or `slow`,
then an address; each becomes one task, begun after the line was answered, as background work is.
"""

from __future__ import annotations

import asyncio
import sys

import looseends

DEADLINE_S = 1.0
HANG_S = 4.0
SLOW_S = 60.0


@looseends.task(name="mail.send_receipt", key="to", replay=True)
async def send_receipt(to: str) -> str:
    """Works, slowly enough to be killed in it when the line says so."""
    await asyncio.sleep(SLOW_S if to.startswith("slow") and not is_replay() else 0.05)
    return f"sent to {to}"


@looseends.task(name="audit.write_row", replay=True)
async def write_row(who: str) -> None:
    """Raises, after its caller was told that all is well."""
    raise RuntimeError(f"the audit table has no column for {who}")


@looseends.task(name="partner.notify", deadline=DEADLINE_S, replay=True)
async def notify(who: str) -> None:
    """Hangs past its deadline, then ends after all."""
    await asyncio.sleep(0.05 if is_replay() else HANG_S)


WORK = {"ok": send_receipt, "slow": send_receipt, "raise": write_row, "hang": notify}


def is_replay() -> bool:
    """Whether an operator asked for this run: then nothing goes wrong."""
    task = looseends.current()
    return task is not None and task.is_replay


async def main() -> None:
    """Until standard input ends."""
    looseends.init(service="demo-shop")
    lines = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
    print("reading lines", flush=True)
    while line := (await lines.readline()).decode().strip():
        verb, _, who = line.partition(" ")
        looseends.spawn(WORK[verb](f"{verb}-{who}"))
        print(f"200 OK {line}", flush=True)
    await looseends.shutdown(1.0)


if __name__ == "__main__":
    asyncio.run(main())
