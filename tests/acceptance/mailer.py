"""A service with a backlog: `many N` begins N mails that hang; a replay sends them, one receipt line each.

The receipts are independent of looseends: one line per effect, `<order or - > <customer>`, appended in one write.
"""

from __future__ import annotations

import asyncio
import os
import sys

import looseends

RECEIPTS = os.environ["MAILER_RECEIPTS"]
SENDS_S = float(os.environ.get("MAILER_SENDS_S", "0.02"))


@looseends.task(name="mail.send", key="customer-{customer}", deadline="1h", replay=True)
async def send(customer: int) -> dict[str, int]:
    """Send a mail: hangs at first; a replay finds the mail server mended."""
    task = looseends.current()
    assert task is not None
    if not task.is_replay:
        await asyncio.sleep(3_600)
    await asyncio.sleep(SENDS_S)
    receipt = os.open(RECEIPTS, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    os.write(receipt, f"{task.id} {task.replay_of} {customer}\n".encode())
    os.close(receipt)
    return {"sent": customer}


async def main() -> None:
    """Do as standard input says."""
    looseends.init(service="mailer")
    print("mailer is up", flush=True)
    loop = asyncio.get_running_loop()
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        word, _, rest = line.strip().partition(" ")
        if word == "many":
            for n in range(int(rest)):
                looseends.spawn(send(n))
            await asyncio.sleep(0)
            print("begun", flush=True)


if __name__ == "__main__":
    asyncio.run(main())
