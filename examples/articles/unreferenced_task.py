"""A task that nobody refers to: Python's garbage collector may take it in mid-flight, and nobody hears of it.

    looseends instrument -- uvicorn --app-dir examples/articles unreferenced_task:app
    curl -X POST 'http://127.0.0.1:8000/register?email=ada@example.com'

Under capture the task is held, so it is not collected; when its process ends first, it is `lost`, with its arguments.
"""

from __future__ import annotations

import asyncio

from fastapi import FastAPI

app = FastAPI()


async def send_welcome_email(email: str) -> None:
    """Waits for a mail server's word that only this very task knows of: nothing else keeps it alive."""
    await asyncio.get_running_loop().create_future()


@app.post("/register")
async def register(email: str) -> dict[str, str]:
    """Answers at once. The task goes its own way, and its only strong reference ends with this line."""
    asyncio.create_task(send_welcome_email(email))  # noqa: RUF006 - this is the fault shown here
    return {"status": "created"}
