"""A shop's registration: it answers at once, and sends the mail, writes the audit row and tells the partner afterwards.

    uvicorn --app-dir examples fastapi_service:app

    curl -d '{"email": "ada@example.com"}' -H 'Content-Type: application/json' http://127.0.0.1:8000/register

The three steps are ordinary BackgroundTasks. What makes them accountable: `install("starlette")` sees each one when it is
scheduled, `@looseends.task` records its arguments before it runs and allows its replay.

Trouble can be ordered with the address, as `ada+<step>-<trouble>@example.com`, step mail, audit or partner:

    mail-raises    the step raises; Starlette then silently drops the steps behind it
    mail-hangs     the step waits for an answer that does not come, past its deadline
    mail-slow      the step sleeps for SHOP_SLOW_S seconds: time enough to kill the process in mid-task

A replay finds the trouble over, as it would be once somebody has mended it. Settings, all from the environment:
SHOP_DEADLINE ("30s"), SHOP_HANG_S (3600), SHOP_SLOW_S (60), SHOP_RECEIPTS (a file that gets one JSON line per effect).
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import time
from pathlib import Path

from fastapi import BackgroundTasks, FastAPI, HTTPException
from pydantic import BaseModel

import looseends

DEADLINE = os.environ.get("SHOP_DEADLINE", "30s")
HANG_S = float(os.environ.get("SHOP_HANG_S", "3600"))
SLOW_S = float(os.environ.get("SHOP_SLOW_S", "60"))
RECEIPTS = os.environ.get("SHOP_RECEIPTS")
ADDRESS = re.compile(r"[^@\s]+@[^@\s]+\.[^@\s]+")
ORDERED = re.compile(r"\+(mail|audit|partner)-(raises|hangs|slow)@")

looseends.init(service="shop-web")
looseends.install("starlette")
app = FastAPI(title="shop-web")


class Registration(BaseModel):
    """Who registers."""

    email: str


def trouble(step: str, email: str) -> str | None:
    """The trouble ordered for this step; None in a replay, which happens after the trouble is over."""
    task = looseends.current()
    ordered = ORDERED.search(email)
    if ordered is None or ordered[1] != step or (task is not None and task.is_replay):
        return None
    return ordered[2]


def receipt(effect: str, email: str) -> None:
    """Do the effect once, however often the task runs: its idempotency key is the same in every replay of it."""
    task = looseends.current()
    key = task.idempotency_key if task is not None else f"{effect}:{email}"
    if RECEIPTS is None or key in done():
        return
    row = {"effect": effect, "email": email, "key": key, "at": time.time()}
    if task is not None:
        row |= {"task": task.id, "replay_of": task.replay_of}
    with open(RECEIPTS, "a", encoding="utf-8") as file:
        file.write(json.dumps(row) + "\n")


def done() -> set[str]:
    """The keys of the effects that are in the receipts already."""
    if RECEIPTS is None or not Path(RECEIPTS).exists():
        return set()
    return {json.loads(line)["key"] for line in Path(RECEIPTS).read_text(encoding="utf-8").splitlines()}


async def work(step: str, email: str) -> None:
    """What a mail server or a partner does to us: a little time, or trouble."""
    match trouble(step, email):
        case "raises":
            raise ConnectionError(f"{step}: the other side refused the connection for {email}")
        case "hangs":
            await asyncio.sleep(HANG_S)
        case "slow":
            await asyncio.sleep(SLOW_S)
        case _:
            await asyncio.sleep(0.02)


@looseends.task(name="mail.send_welcome", key="email", deadline=DEADLINE, replay=True)
async def send_welcome(email: str) -> None:
    """The welcome mail."""
    await work("mail", email)
    receipt("mail", email)


@looseends.task(name="audit.write_row", key="email", deadline=DEADLINE, replay=True)
def write_audit_row(email: str, what: str) -> None:
    """The audit row; a plain function, so Starlette runs it in a thread."""
    asyncio.run(work("audit", email))
    receipt("audit", email)


@looseends.task(name="partner.notify", key="email", deadline=DEADLINE, replay=True)
async def notify_partner(email: str) -> None:
    """The partner's webhook."""
    await work("partner", email)
    receipt("partner", email)


@app.post("/register", status_code=202)
async def register(registration: Registration, background: BackgroundTasks) -> dict[str, str]:
    """Answer now, do the rest afterwards: the pattern that loses work in silence."""
    email = registration.email
    if ADDRESS.fullmatch(email) is None:
        raise HTTPException(422, f"{email!r} is no mail address; send one like ada@example.com")
    background.add_task(send_welcome, email)
    background.add_task(write_audit_row, email, what="registered")
    background.add_task(notify_partner, email)
    return {"status": "registered", "email": email}


@app.get("/")
async def about() -> dict[str, object]:
    """Which process answers here."""
    return {"service": "shop-web", "pid": os.getpid(), "receipts": len(done())}


if __name__ == "__main__":  # uvicorn runs it; on its own it says how
    print(__doc__)
