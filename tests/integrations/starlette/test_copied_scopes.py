"""Middleware of every kind between a service and its endpoint: an early return is missed all the same, and nothing else is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hooked import ask

from harness import free_port

SERVICE = """
import sys
import looseends
looseends.install("asyncio", "starlette")
from fastapi import APIRouter, BackgroundTasks, FastAPI, HTTPException
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Mount, Route, Router

class Copying:
    def __init__(self, app): self.app = app
    async def __call__(self, scope, receive, send):
        await self.app({**scope}, receive, send)
        if scope["type"] == "http": Request({**scope}).url  # as one that writes an access log

class Passing(BaseHTTPMiddleware):
    async def dispatch(self, request, call_next): return await call_next(request)

class Renewing(BaseHTTPMiddleware):
    async def dispatch(self, request, call_next): return await call_next(Request(dict(request.scope), request.receive))

KINDS = {
    "none": [],
    "passing": [Passing],
    "copying": [Copying],
    "renewing": [Renewing],
    "all": [Copying, Passing, GZipMiddleware, Renewing, Copying],
}
chosen = [Middleware(kind) for kind in KINDS[sys.argv[2]]]
app = FastAPI(middleware=chosen)

@looseends.task(name="mail.send_receipt")
async def send_receipt(email): pass

def answer(tasks, email):
    if email == "refused": raise HTTPException(422)
    if email: tasks.add_task(send_receipt, email)
    return {}

@app.post("/register")
@looseends.expects("mail.send_receipt")
async def register(tasks: BackgroundTasks, email: str = ""): return answer(tasks, email)

router = APIRouter(prefix="/included")
@router.post("/register")
@looseends.expects("mail.send_receipt")
def included(tasks: BackgroundTasks, email: str = ""): return answer(tasks, email)
app.include_router(router)

inner = FastAPI(middleware=chosen)
@inner.post("/register")
@looseends.expects("mail.send_receipt")
async def mounted(tasks: BackgroundTasks, email: str = ""): return answer(tasks, email)
app.mount("/inner", inner)

@looseends.expects("mail.send_receipt")
async def bare(request):
    tasks = BackgroundTasks()
    answer(tasks, request.query_params.get("email"))
    return JSONResponse({}, background=tasks)
routes = [Route("/register", bare, methods=["POST"], middleware=chosen)]
app.mount("/starlette", Router([Mount("/deep", Router(routes, middleware=chosen))]))

@app.post("/nothing")
async def nothing(): return {}

import uvicorn
uvicorn.run(app, port=int(sys.argv[1]), log_level="info")
"""
PATHS = ("/register", "/included/register", "/inner/register", "/starlette/deep/register")


@pytest.mark.parametrize("kind", ["none", "passing", "copying", "renewing", "all"])
def test_an_early_return_is_missed_behind_middleware(daemon: Any, tmp_path: Path, kind: str) -> None:
    port = free_port()
    daemon.python(SERVICE, tmp_path, str(port), kind).wait_for("Uvicorn running on")
    for path in PATHS:
        assert ask(port, "POST", f"{path}?email=ada@example.com") == 200
        assert ask(port, "POST", f"{path}?email=refused") == 422
    assert ask(port, "POST", "/nothing") == 200
    daemon.wait_for("state:succeeded name:mail.send_receipt", len(PATHS))
    for path in PATHS:
        assert ask(port, "POST", path) == 200
    missed = daemon.wait_for("verdict:missed", len(PATHS))
    assert sorted(task["key"].rpartition(" ")[0] for task in missed) == sorted(f"POST {path}" for path in PATHS)
    assert len(daemon.tasks("is:loose")) == len(PATHS)
