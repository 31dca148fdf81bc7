"""A session of the request, used after the request: it is closed before the task's first step.

    looseends instrument -- uvicorn --app-dir examples/articles closed_session:app
    curl -X POST 'http://127.0.0.1:8000/login/7'

The task is `failed`, with "Cannot operate on a closed database", although the answer was 200. Pass the id and open a session in
the task: then it ends well.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from typing import Annotated

from fastapi import Depends, FastAPI

app = FastAPI()
running: set[asyncio.Task[None]] = set()


async def session() -> AsyncIterator[sqlite3.Connection]:
    """One session per request, closed with it."""
    made = sqlite3.connect(":memory:")
    try:
        yield made
    finally:
        made.close()


async def update_last_login(user_id: int, db: sqlite3.Connection) -> None:
    """Uses what is not its own."""
    await asyncio.sleep(0.05)
    db.execute("SELECT ?", (user_id,))


@app.post("/login/{user_id}")
async def login(user_id: int, db: Annotated[sqlite3.Connection, Depends(session)]) -> dict[str, int]:
    """Answers, and leaves the rest to a task."""
    task = asyncio.create_task(update_last_login(user_id, db))
    running.add(task)
    task.add_done_callback(running.discard)
    return {"user_id": user_id}
