"""What people do about incidents, over HTTP: acknowledge, silence, dismiss, and take back.

Rules: unknown members are refused with the nearest known one; a mistake is a 422 that names the member. A silence with `dry_run`
and a dismissal without `digest` change nothing and answer what they would do.
"""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Any, TypeVar

from aiohttp import web

from looseends.wire import NS, parse_time
from looseends_daemon.core.marks import ACK_S_MAX, SILENCE_S_MAX, SILENCE_STATES, Alerts
from looseends_daemon.core.matchers import MATCHERS_MAX
from looseends_daemon.core.resources import Page, encode
from looseends_daemon.core.routing import Route
from looseends_daemon.http.answers import decode_json, json_response, limit_of, nearest, one_of, only_known, wrong
from looseends_daemon.http.context import Context
from looseends_daemon.http.errors import ProblemError

T = TypeVar("T")
MATCHER_CHARS_MAX = 1_000
ID_CHARS_MAX = 100
DIGEST_CHARS_MAX = 64
BODY_TEXT_CHARS_MAX = 10_000


def routes(context: Context) -> list[Route]:
    """The doors; none where nobody handed in who acts."""
    if context.alerts is None:
        return []
    return [*_acknowledge(context.alerts), *_silences(context.alerts, context), *_dismissals(context.alerts)]


def _acknowledge(alerts: Alerts) -> list[Route]:
    async def acknowledge(request: web.Request) -> web.Response:
        only_known(request)
        given = _Body(await request.read(), "note", "expires")
        note, expires = given.text("note"), given.seconds("expires", ACK_S_MAX)
        found = await alerts.acknowledge(request.match_info["id"], request["actor"], note=note, expires=expires)
        return json_response(encode(found))

    path = "/api/v1/incidents/{id}/acknowledge"
    return [Route(method="POST", path=path, role="operator", handler=acknowledge, acts=True)]


def _silences(alerts: Alerts, context: Context) -> list[Route]:
    async def post(request: web.Request) -> web.Response:
        only_known(request)
        given = _Body(await request.read(), "matchers", "comment", "starts_at", "ends_at", "duration", "dry_run")
        begin = given.time("starts_at")
        wish: dict[str, Any] = {"matchers": given.matchers(), "starts_at": begin, "ends_at": _end(given, begin or context.now())}
        if given.flag("dry_run"):
            return json_response(encode(await alerts.preview_silence(**wish)))
        made = await alerts.silence(request["actor"], comment=given.text("comment"), **wish)
        return json_response(encode(made), 201, {"Location": f"/api/v1/silences/{made.id}"})

    async def listing(request: web.Request) -> web.Response:
        only_known(request, "state", "limit", "cursor")
        state = one_of(request, "state", SILENCE_STATES)
        return await _page(alerts.silences(state, limit_of(request), request.query.get("cursor")))

    async def one(request: web.Request) -> web.Response:
        only_known(request)
        return _found(await alerts.silence_of(request.match_info["id"]), "silence", request)

    async def delete(request: web.Request) -> web.Response:
        only_known(request)
        return json_response(encode(await alerts.end_silence(request.match_info["id"], request["actor"])))

    return [
        Route(method="GET", path="/api/v1/silences", role="viewer", handler=listing),
        Route(method="POST", path="/api/v1/silences", role="operator", handler=post, acts=True),
        Route(method="GET", path="/api/v1/silences/{id}", role="viewer", handler=one),
        Route(method="DELETE", path="/api/v1/silences/{id}", role="operator", handler=delete, acts=True),
    ]


def _end(given: _Body, begin: int) -> int:
    """When a silence ends: `ends_at`, or `duration` seconds after it starts. One of them must be there."""
    end, duration = given.time("ends_at"), given.seconds("duration", SILENCE_S_MAX)
    if (end is None) == (duration is None):
        raise _bad("/ends_at", 'a silence ends: give "ends_at" (a time) or "duration" (seconds), one of them')
    return end if end is not None else begin + round((duration or 0) * NS)


def _dismissals(alerts: Alerts) -> list[Route]:
    async def post(request: web.Request) -> web.Response:
        only_known(request)
        given = _Body(await request.read(), "q", "incident", "digest", "note")
        which = {"q": given.text_or_none("q"), "incident": given.text_or_none("incident", ID_CHARS_MAX)}
        digest = given.text_or_none("digest", DIGEST_CHARS_MAX)
        if digest is None:
            return json_response(encode(await alerts.freeze(**which)))
        made = await alerts.dismiss(request["actor"], note=given.text("note"), digest=digest, **which)
        return json_response(encode(made), 201, {"Location": f"/api/v1/dismissals/{made.id}"})

    async def listing(request: web.Request) -> web.Response:
        only_known(request, "limit", "cursor")
        return await _page(alerts.dismissals(limit_of(request), request.query.get("cursor")))

    async def one(request: web.Request) -> web.Response:
        only_known(request)
        return _found(await alerts.dismissal(request.match_info["id"]), "dismissal", request)

    async def delete(request: web.Request) -> web.Response:
        only_known(request)
        return json_response(encode(await alerts.undo_dismissal(request.match_info["id"], request["actor"])))

    return [
        Route(method="GET", path="/api/v1/dismissals", role="viewer", handler=listing),
        Route(method="POST", path="/api/v1/dismissals", role="operator", handler=post, acts=True),
        Route(method="GET", path="/api/v1/dismissals/{id}", role="viewer", handler=one),
        Route(method="DELETE", path="/api/v1/dismissals/{id}", role="operator", handler=delete, acts=True),
    ]


async def _page(reading: Awaitable[Page[T]]) -> web.Response:
    try:
        shown = encode(await reading)
    except ValueError as error:
        raise wrong("cursor", f"cannot be used: {error}") from None
    return json_response({name: shown[name] for name in ("items", "next_cursor")})


def _found(value: object, what: str, request: web.Request) -> web.Response:
    if value is None:
        wanted = request.match_info["id"][:ID_CHARS_MAX]
        raise ProblemError(404, f"No such {what}", f"there is no {what} {wanted!r}; GET /api/v1/{what}s lists them")
    return json_response(encode(value))


class _Body:
    """The members of a body, read one by one; a mistake is a ProblemError 422 (400 where it is no JSON) with its pointer."""

    def __init__(self, body: bytes, *known: str) -> None:
        document = decode_json(body) if body.strip() else {}
        if not isinstance(document, dict):
            raise _bad("", f"the body is an object {{{', '.join(known)}}}")
        for name in document:
            if name not in known:
                raise _bad(f"/{name[:60]}", f"unknown member {name[:60]!r}; {nearest(name, known)}")
        self._given: dict[str, Any] = document

    def text_or_none(self, name: str, chars_max: int = BODY_TEXT_CHARS_MAX) -> str | None:
        value = self._given.get(name)
        if value is not None and (not isinstance(value, str) or "\0" in value or len(value) > chars_max):
            raise _bad(f"/{name}", f"{name} is text of at most {chars_max} characters")
        return value

    def text(self, name: str) -> str:
        """The text, empty where there is none: what it must say is the act's own rule."""
        return self.text_or_none(name) or ""

    def flag(self, name: str) -> bool:
        value = self._given.get(name)
        if value not in (None, True, False):
            raise _bad(f"/{name}", f"{name} is true or false")
        return bool(value)

    def seconds(self, name: str, most: float) -> float | None:
        value = self._given.get(name)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= most:
            raise _bad(f"/{name}", f"{name} is a number of seconds above 0, at most {most:g}")
        return float(value)

    def time(self, name: str) -> int | None:
        value = self._given.get(name)
        if value is None:
            return None
        try:
            return parse_time(value)
        except ValueError as error:
            raise _bad(f"/{name}", f"{name} cannot be read: {error}") from None

    def matchers(self) -> list[str]:
        """One text each, or one text with all of them."""
        value = self._given.get("matchers")
        texts = [value] if isinstance(value, str) else value
        if not isinstance(texts, list) or not 0 < len(texts) <= MATCHERS_MAX:
            raise _bad("/matchers", f'matchers are 1 to {MATCHERS_MAX} texts such as service="shop-web"')
        for n, text in enumerate(texts):
            if not isinstance(text, str) or not text.strip() or len(text) > MATCHER_CHARS_MAX:
                raise _bad(f"/matchers/{n}", f"a matcher is text of 1 to {MATCHER_CHARS_MAX} characters")
        return texts


def _bad(pointer: str, detail: str) -> ProblemError:
    return ProblemError(422, "The body cannot be used", detail, [{"pointer": pointer, "detail": detail}])
