"""Seven clicks on a slow endpoint: the browser gave up, the server did not, and then the pod was shot.

    looseends instrument -- uvicorn --app-dir examples/articles seven_clicks:app
    for i in 1 2 3 4 5 6 7; do curl -m 0.2 -X POST 'http://127.0.0.1:8000/reports/42'; done; pkill -9 -f seven_clicks:app

Each click starts a report of its own. One entry in the daemon's configuration shows them as `is:overlap` while they run; when the
process is killed all seven are `lost`:

    [[task]]
    match = "shop/*.generate_report"
    overlap = "warn"
"""

from __future__ import annotations

import asyncio

from fastapi import FastAPI

app = FastAPI()
REPORT_S = 15.0


async def generate_report(user_id: int) -> str:
    """Fifteen seconds of inference."""
    await asyncio.sleep(REPORT_S)
    return f"report of {user_id}"


@app.post("/reports/{user_id}")
async def report(user_id: int) -> dict[str, str]:
    """Waits for the report; a client that hangs up ends the waiting and not the report."""
    return {"report": await asyncio.shield(asyncio.create_task(generate_report(user_id)))}
