"""The same under uvicorn: GET /WAY runs `exit.body` on the loop, in the request. uvicorn exit_asgi:app"""

from __future__ import annotations

import asyncio

from exits import DRAIN_S, LONG_S, end_by, run_beside
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

import looseends

looseends.install("starlette")


@looseends.task(name="exit.body", deadline="never")
async def body(way: str) -> None:
    """The task in whose body the process ends."""
    if way in ("term", "drain", "kill"):
        await asyncio.sleep(DRAIN_S if way == "drain" else LONG_S)
    else:
        end_by(way)


async def endpoint(request: Request) -> Response:
    """GET /WAY."""
    way = request.path_params["way"]
    run_beside(way)
    await body(way)
    return Response()


app = Starlette(routes=[Route("/{way}", endpoint)])
