"""A notifier that raises behind an answer of 200: Python says so when the task is collected, hours later, if anybody reads it.

    looseends instrument -- uvicorn --app-dir examples/articles raising_notifier:app
    curl -X POST 'http://127.0.0.1:8000/webhook?recipient=ada'

Under capture it is `failed` at once, with its arguments and its error, and a loose end, since nobody retrieved the exception.
"""

from __future__ import annotations

import asyncio

from fastapi import FastAPI

app = FastAPI()
running: set[asyncio.Task[None]] = set()


class Notifier:
    """Pushes messages through a provider that is down."""

    async def send(self, recipient: str, payload: dict[str, str]) -> None:
        """Never gets through."""
        await asyncio.sleep(0.01)
        raise ConnectionError(f"push provider refused {recipient}")


notifier = Notifier()


@app.post("/webhook")
async def webhook(recipient: str) -> dict[str, bool]:
    """Not in the critical path, so it is not awaited. The set keeps the task alive, as the documentation says; nobody asks it."""
    task = asyncio.create_task(notifier.send(recipient, {"kind": "order"}))
    running.add(task)
    task.add_done_callback(running.discard)
    return {"ok": True}
