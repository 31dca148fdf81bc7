"""Endpoints and notices over HTTP: how deliveries go, a test, enable and disable, and telling news again.

Rules: reading is for viewers, acts for operators; an endpoint's address is in no answer, since it may be a secret.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from aiohttp import web

from looseends.wire import parse_time
from looseends_daemon.core.endpoints import Endpoint
from looseends_daemon.core.resources import Actor, Page, encode
from looseends_daemon.core.routing import Route
from looseends_daemon.http.answers import decode_json, json_response, nearest, only_known
from looseends_daemon.http.context import Context
from looseends_daemon.http.errors import ProblemError

MEMBERS = ("from", "to", "endpoint")


def routes(context: Context) -> list[Route]:
    """The list, the three acts on an endpoint, and the two on notices."""
    acts = context.endpoints

    async def listing(request: web.Request) -> web.Response:
        only_known(request)
        shown = encode(Page(items=await acts.endpoints()))
        return json_response({name: shown[name] for name in ("items", "next_cursor")})

    async def test(request: web.Request) -> web.Response:
        await _nothing_more(request)
        notice = await acts.test_endpoint(request.match_info["name"], request["actor"])
        return json_response(encode(notice), 202, {"Location": f"/api/v1/notices/{notice.id}"})

    def act(do: Callable[[str, Actor], Awaitable[Endpoint]]) -> Callable[[web.Request], Awaitable[web.Response]]:
        async def handler(request: web.Request) -> web.Response:
            await _nothing_more(request)
            return json_response(encode(await do(request.match_info["name"], request["actor"])))

        return handler

    async def resend(request: web.Request) -> web.Response:
        await _nothing_more(request)
        notice = await acts.resend_notice(request.match_info["id"], request["actor"])
        return json_response(encode(notice), 202, {"Location": f"/api/v1/notices/{notice.id}"})

    async def resend_range(request: web.Request) -> web.Response:
        only_known(request)
        begin, end, endpoint = range_of(await request.read(), context.now())
        return json_response(encode(await acts.resend_notices(begin, end, endpoint, request["actor"])), 202)

    one = "/api/v1/endpoints/{name}"
    return [
        Route(method="GET", path="/api/v1/endpoints", role="viewer", handler=listing),
        Route(method="POST", path=f"{one}/test", role="operator", handler=test, acts=True),
        Route(method="POST", path=f"{one}/enable", role="operator", handler=act(acts.enable_endpoint), acts=True),
        Route(method="POST", path=f"{one}/disable", role="operator", handler=act(acts.disable_endpoint), acts=True),
        Route(method="POST", path="/api/v1/notices/{id}/resend", role="operator", handler=resend, acts=True),
        Route(method="POST", path="/api/v1/notices/resend", role="operator", handler=resend_range, acts=True),
    ]


async def _nothing_more(request: web.Request) -> None:
    """These acts take no parameters and no members. Raises ProblemError 400, 422."""
    only_known(request)
    body = await request.read()
    document = decode_json(body) if body.strip() else {}
    if document != {}:
        raise _bad("", "this act takes no body; leave it out, or send {}")


def range_of(body: bytes, now: int) -> tuple[int, int, str | None]:
    """The window [from, to) and the endpoint (None: all) of a resend. Raises ProblemError 400, 422 with a pointer."""
    document = decode_json(body) if body.strip() else None
    if not isinstance(document, dict):
        raise _bad("", 'the body is an object {"from", "to", "endpoint"}; "from" is needed')
    for name in document:
        if name not in MEMBERS:
            raise _bad(f"/{name[:60]}", f"unknown member {name[:60]!r}; {nearest(name, MEMBERS)}")
    begin, end = _time(document, "from", None), _time(document, "to", now)
    if begin is None or end is None:
        raise _bad("/from", "from is a time (RFC 3339): what was written since then is told again")
    if begin >= end:
        raise _bad("/from", "from must lie before to")
    endpoint = document.get("endpoint")
    if endpoint is not None and not isinstance(endpoint, str):
        raise _bad("/endpoint", "endpoint is the name of one, or left out for all")
    return begin, end, endpoint


def _time(document: dict[str, Any], name: str, default: int | None) -> int | None:
    value = document.get(name)
    if value is None:
        return default
    try:
        return parse_time(value)
    except ValueError as error:
        raise _bad(f"/{name}", f"{name} cannot be read: {error}") from None


def _bad(pointer: str, detail: str) -> ProblemError:
    return ProblemError(422, "The body cannot be used", detail, [{"pointer": pointer, "detail": detail}])
