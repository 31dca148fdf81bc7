"""A web service that is deployed again and again: background tasks, spawned tasks, and three loops as old as its process."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator

from starlette.applications import Starlette
from starlette.background import BackgroundTasks
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

import looseends
from looseends import record
from looseends.context import Task
from looseends.spec import Spec

looseends.init(service="quiet-web")
looseends.install("starlette")


@looseends.task(name="web.mail", key="key", deadline="15s", replay=True)
async def mail(key: str, seconds: float) -> None:
    """Takes its time, on the loop."""
    await asyncio.sleep(seconds)


@looseends.task(name="web.audit", key="key", deadline="15s")
def audit(key: str, seconds: float) -> None:
    """Takes its time, in a thread."""
    time.sleep(seconds)


@looseends.task(name="web.push", key="key", deadline="15s")
async def push(key: str, seconds: float) -> None:
    """What is spawned; drained when the service ends."""
    await asyncio.sleep(seconds)


@looseends.task(name="web.refused", key="key")
async def refused(key: str) -> None:
    """Fails for good."""
    raise ValueError("no such account")


async def work(request: Request) -> JSONResponse:
    """POST /work?key=K&s=0.1: three tasks; one more is cancelled as its caller wishes."""
    key, seconds = request.query_params["key"], float(request.query_params["s"])
    behind = BackgroundTasks()
    behind.add_task(mail, key, seconds)
    behind.add_task(audit, key, seconds)
    looseends.spawn(push(key, seconds * 2), name="web.push")
    unwanted = looseends.spawn(push(key, 3600.0))
    await asyncio.sleep(0)
    unwanted.cancel()
    return JSONResponse({}, 202, background=behind)


async def refuse(request: Request) -> JSONResponse:
    """POST /refuse?raises=K&dropped=K: the first background task raises, the one behind it never runs."""
    behind = BackgroundTasks()
    behind.add_task(refused, request.query_params["raises"])
    behind.add_task(mail, request.query_params["dropped"], 0.1)
    return JSONResponse({}, 202, background=behind)


def captured(name: str) -> Task:
    """The record of captured work, as a hook writes it."""
    return record.begin(Spec(name, None, source="asyncio", declared=False), "{}", None)


@contextlib.asynccontextmanager
async def lifespan(_: Starlette) -> AsyncIterator[None]:
    """Three loops; one is cancelled at the end, one dies with the event loop, one is left to die with the process."""
    cancelled, dropped = captured("web.poll_forever"), captured("web.flush_forever")
    captured("web.watch_forever")
    yield
    record.end(cancelled, asyncio.CancelledError())
    record.drop(dropped, "loop_shutdown")


app = Starlette(
    routes=[Route("/work", work, methods=["POST"]), Route("/refuse", refuse, methods=["POST"])],
    lifespan=lifespan,
)
