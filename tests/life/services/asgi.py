"""The same as an ASGI service."""

from __future__ import annotations

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

import looseends

looseends.install("starlette")


@looseends.task(name="server.task", key="where")
async def task(where: str) -> None:
    """One task."""


async def endpoint(request: Request) -> Response:
    """Any request: one task."""
    await task("request")
    return Response()


app = Starlette(routes=[Route("/", endpoint)])
