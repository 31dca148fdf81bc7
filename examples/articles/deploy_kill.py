"""A deploy in the middle of a render: SIGTERM, the grace period, SIGKILL, and a document that nobody will ever get.

    looseends instrument -- uvicorn --app-dir examples/articles deploy_kill:app
    curl -X POST 'http://127.0.0.1:8000/documents/7'; pkill -TERM -f deploy_kill:app; sleep 2; pkill -9 -f deploy_kill:app

The render and the mail behind it in the same list are `lost`, with what they were to do.
"""

from __future__ import annotations

import asyncio

from fastapi import BackgroundTasks, FastAPI

app = FastAPI()
RENDER_S = 30.0


async def render_pdf(document_id: int) -> None:
    """Longer than any orchestrator waits."""
    await asyncio.sleep(RENDER_S)


def mail_pdf(document_id: int) -> None:
    """Has no turn before the render is done."""


@app.post("/documents/{document_id}")
async def render(document_id: int, tasks: BackgroundTasks) -> dict[str, str]:
    """Answers at once."""
    tasks.add_task(render_pdf, document_id)
    tasks.add_task(mail_pdf, document_id)
    return {"status": "queued"}
