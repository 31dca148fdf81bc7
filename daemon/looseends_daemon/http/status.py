"""How the daemon itself does, over HTTP: what the status page shows."""

from __future__ import annotations

from aiohttp import web

from looseends_daemon.core.resources import encode
from looseends_daemon.core.routing import Route
from looseends_daemon.http.answers import json_response, only_known
from looseends_daemon.http.context import Context


def routes(context: Context) -> list[Route]:
    """The one door."""

    async def status(request: web.Request) -> web.Response:
        only_known(request)
        return json_response(encode(await context.vitals()))

    return [Route(method="GET", path="/api/v1/status", role="viewer", handler=status)]
