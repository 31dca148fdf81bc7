"""From a real FastAPI service to the daemon's rows of its background tasks, with the right verdict."""

from __future__ import annotations

import json
import time
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from hooked import ask

from harness import free_port

SERVICE = """
import sys, time
import looseends
looseends.install("starlette")
from fastapi import BackgroundTasks, FastAPI
import uvicorn
app = FastAPI()
def well(order_id, password): pass
async def raises(): raise ConnectionError("planted")
def hangs(): time.sleep(3600)

@app.post("/{name}")
async def endpoint(name: str, tasks: BackgroundTasks):
    tasks.add_task(*{"well": (well, 7, "canary-0815"), "raises": (raises,), "hangs": (hangs,)}[name])
    return {}

uvicorn.run(app, port=int(sys.argv[1]), log_level="info")
"""


@pytest.mark.cells("scheduled", "started", "finished", "failed", "lost", "arguments", system="starlette")
def test_every_end_of_a_background_task_gets_its_row(daemon: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    port = free_port()
    service = daemon.python(SERVICE, tmp_path, str(port))
    service.wait_for("Uvicorn running on")
    for name in ("well", "raises", "hangs"):
        assert ask(port, "POST", f"/{name}") == 200
    [well] = daemon.wait_for("state:succeeded name:shop.well")
    assert well["args"] == {"order_id": 7, "password": {"$t": "redacted"}} and well["source"] == "starlette"
    assert well["scheduled_at"] <= well["started_at"] <= well["ended_at"]
    [failed] = daemon.wait_for("state:failed name:shop.raises")
    assert failed["error"]["message"] == "planted" and failed["loose"]
    daemon.wait_for("state:running name:shop.hangs")
    at = time.time()
    service.kill()
    [lost] = daemon.wait_for("verdict:lost")
    items = json.loads(daemon.get(f"/api/v1/tasks/{lost['id']}/history")[1])["items"]
    given = datetime.fromisoformat(next(item["at"] for item in items if "lost" in json.dumps(item))).timestamp()
    with capsys.disabled():
        print(f"\n  starlette: SIGKILL to verdict of a background task: {given - at:.2f} s (bar 1 s on a quiet machine)")
    assert lost["name"] == "shop.hangs" and len(daemon.tasks()) == 3
