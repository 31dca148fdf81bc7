"""`POST /api/v1/purge`: remove what a person names; and `GET /api/v1/storage`: how the storage stands and where it is going.

Rules: without `"confirm": true` a purge only counts. One call removes a bounded number of tasks and says whether there is more,
so that no request runs for minutes and whoever asked sees how far it got.
"""

from __future__ import annotations

from typing import Any

from aiohttp import web

from looseends.wire import parse_time
from looseends_daemon.core.query import QUERY_CHARS_MAX
from looseends_daemon.core.resources import encode
from looseends_daemon.core.routing import Route
from looseends_daemon.http.answers import decode_json, json_response, nearest, only_known
from looseends_daemon.http.context import Context
from looseends_daemon.http.errors import ProblemError
from looseends_daemon.store import purge
from looseends_daemon.store.purge import Wish

MEMBERS = ("q", "from", "to", "confirm")


def routes(context: Context) -> list[Route]:
    """The act and the figures."""

    async def post_purge(request: web.Request) -> web.Response:
        only_known(request)
        wish, confirmed = read_wish(await request.read(), context.now())
        if not confirmed:
            counted = await purge.count(context.database, wish, context.now())
            return json_response({**encode(counted), "removed": 0, "more": counted.removable > 0})
        done = await purge.purge(context.database, wish, request["actor"].name, context.now)
        return json_response(encode(done))

    async def storage(request: web.Request) -> web.Response:
        only_known(request)
        return json_response(encode(await context.storage()))

    return [
        Route(method="POST", path="/api/v1/purge", role="operator", handler=post_purge, acts=True),
        Route(method="GET", path="/api/v1/storage", role="viewer", handler=storage),
    ]


def read_wish(body: bytes, now: int) -> tuple[Wish, bool]:
    """(what shall go, whether it really shall). Raises ProblemError 400, 422 with a pointer to the mistake."""
    document = decode_json(body) if body.strip() else None
    if not isinstance(document, dict):
        raise _bad("", 'the body is an object {"q", "from", "to", "confirm"}')
    for name in document:
        if name not in MEMBERS:
            raise _bad(f"/{name[:60]}", f"unknown member {name[:60]!r}; {nearest(name, MEMBERS)}")
    q, confirmed = document.get("q") or "", document.get("confirm") or False
    if not isinstance(q, str) or len(q) > QUERY_CHARS_MAX:
        raise _bad("/q", f"q is a query of at most {QUERY_CHARS_MAX} characters")
    if not isinstance(confirmed, bool):
        raise _bad("/confirm", "confirm is true or false")
    begin, end = _time(document, "from"), _time(document, "to")
    if not q.strip() and end is None:
        raise _bad("", 'a purge of everything is not done by leaving things out: give "q", or "to" for all tasks begun before it')
    return Wish(q=q, from_=begin or 0, to=now if end is None else min(end, now)), confirmed


def _time(document: dict[str, Any], name: str) -> int | None:
    value = document.get(name)
    if value is None:
        return None
    try:
        return parse_time(value)
    except ValueError as error:
        raise _bad(f"/{name}", f"{name} cannot be read: {error}") from None


def _bad(pointer: str, detail: str) -> ProblemError:
    return ProblemError(422, "The purge cannot be used", detail, [{"pointer": pointer, "detail": detail}])
