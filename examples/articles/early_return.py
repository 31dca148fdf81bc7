"""An early return before `add_task`: nothing was scheduled, so nothing failed, and the answer was 200.

    looseends instrument -- uvicorn --app-dir examples/articles early_return:app
    curl -X POST 'http://127.0.0.1:8000/register?name=ada'

What was never scheduled leaves no trace to capture. One line says what each request of this endpoint must begin; a request
that answers well without it is `missed`.
"""

from __future__ import annotations

from fastapi import BackgroundTasks, FastAPI

import looseends

app = FastAPI()


def send_welcome_email(email: str, name: str) -> None:
    """Greets."""


@app.post("/register")
@looseends.expects("early_return.send_welcome_email")
async def register(tasks: BackgroundTasks, name: str, email: str = "") -> dict[str, str]:
    """Answers 200 either way."""
    if not email:
        return {"error": "Email required"}
    tasks.add_task(send_welcome_email, email, name)
    return {"message": "Registered"}
