"""Types over HTTP: all tasks of one service and name, in figures of a window."""

from __future__ import annotations

from aiohttp import web

from looseends.wire import NS
from looseends_daemon.core.resources import encode
from looseends_daemon.core.routing import Route
from looseends_daemon.core.stats import MINUTE_NS
from looseends_daemon.http.answers import json_response, limit_of, only_known, time_of, wrong
from looseends_daemon.http.context import Context
from looseends_daemon.http.errors import ProblemError

WINDOW_NS = 86_400 * NS


def routes(context: Context) -> list[Route]:
    """The list and one of it; none where nobody handed in who reads them."""
    types = context.types
    if types is None:
        return []

    async def listing(request: web.Request) -> web.Response:
        only_known(request, "from", "to", "environment", "limit", "cursor")
        begin, end = _window(request, context.now())
        environment, cursor = request.query.get("environment"), request.query.get("cursor")
        try:
            page = await types.types(begin, end, environment=environment, limit=limit_of(request), cursor=cursor)
        except ValueError as error:
            raise wrong("cursor", f"cannot be used: {error}") from None
        shown = encode(page)
        return json_response({name: shown[name] for name in ("items", "next_cursor")})

    async def one(request: web.Request) -> web.Response:
        only_known(request, "from", "to", "environment")
        begin, end = _window(request, context.now())
        service, name = request.match_info["service"], request.match_info["name"]
        found = await types.type_of(service, name, begin, end, environment=request.query.get("environment"))
        if found is None:
            raise ProblemError(
                404, "No such type", f"no task {name[:100]!r} of {service[:100]!r} was ever seen; GET /api/v1/types"
            )
        return json_response(encode(found))

    return [
        Route(method="GET", path="/api/v1/types", role="viewer", handler=listing),
        Route(method="GET", path="/api/v1/types/{service}/{name}", role="viewer", handler=one),
    ]


def _window(request: web.Request, now: int) -> tuple[int, int]:
    """[from, to), by default the last 24 hours with the minute that runs. Raises ProblemError 422."""
    end = time_of(request, "to") or (now // MINUTE_NS + 1) * MINUTE_NS
    begin = time_of(request, "from")
    begin = max(0, end - WINDOW_NS) if begin is None else begin
    if begin >= end:
        raise wrong("from", "must lie before to")
    return begin, end
