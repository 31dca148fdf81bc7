"""`GET /metrics`: for Prometheus and whatever scrapes like it.

Rules: a reader on this host needs no token, everybody else the viewer role; a proxy is no reader on this host. Format and
packing are as the scraper asks; what it asks for beyond that is refused by name.
"""

from __future__ import annotations

from typing import Any

from aiohttp import web

from looseends_daemon.core.routing import Route
from looseends_daemon.http.answers import only_known
from looseends_daemon.http.context import Context
from looseends_daemon.http.errors import ProblemError

OPENMETRICS = "application/openmetrics-text"


def routes(context: Context) -> list[Route]:
    """The one door, where the configuration opens it."""

    async def metrics(request: web.Request) -> web.Response:
        only_known(request)
        # Two formats, not one page for each way to ask for them.
        accept = f"{OPENMETRICS}; version=1.0.0" if OPENMETRICS in request.headers.get("Accept", "") else "text/plain"
        zipped = "gzip" in request.headers.get("Accept-Encoding", "").lower()
        try:
            page: Any = await context.meter.page(accept, zipped=zipped)
        except ModuleNotFoundError as error:
            detail = f'{error.name} is not installed: pip install "looseends[daemon]"'
            raise ProblemError(501, "Metrics cannot be rendered", detail) from None
        headers = {"Content-Type": page.content_type, "Vary": "Accept, Accept-Encoding"}
        if page.gzipped:
            headers["Content-Encoding"] = "gzip"
        return web.Response(body=page.body, headers=headers)

    if not context.settings.metrics.prometheus:
        return []
    return [Route(method="GET", path="/metrics", role="viewer", handler=metrics, local=True)]
