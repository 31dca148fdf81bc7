"""Signing in and out: a token becomes a session cookie, a one-use link does so without typing.

Rules: the cookie is HttpOnly, SameSite=Lax (a link in a message must find it), and Secure where the daemon is published by
https. A wrong guess is audited; more than FAILURES_MAX from one address within a minute get 429. `next` leads to a path of this
daemon only. An ingest token signs nobody in: it belongs to a service.
"""

from __future__ import annotations

import re
from urllib.parse import urlsplit

from aiohttp import web

from looseends.wire import NS
from looseends_daemon.core.resources import Actor
from looseends_daemon.core.routing import Route
from looseends_daemon.http.context import Context
from looseends_daemon.http.errors import ProblemError
from looseends_daemon.http.guard import Peer, cookie_name, name_of
from looseends_daemon.store.access import SESSION_S_MAX

FAILURES_MAX = 10
FAILURES_WINDOW_S = 60
ADDRESSES_MAX = 1_000
_NEXT = re.compile(r"/(?![/\\])[\x21-\x5b\x5d-\x7e]{0,2000}")


class Failures:
    """Wrong guesses per address within a window; the newest ADDRESSES_MAX addresses are remembered."""

    def __init__(self) -> None:
        self._seen: dict[str, tuple[int, int]] = {}

    def count(self, address: str, now: int) -> int:
        """Count one more wrong guess; how many there were in this window."""
        began, number = self._seen.pop(address, (now, 0))
        if now - began >= FAILURES_WINDOW_S * NS:
            began, number = now, 0
        while len(self._seen) >= ADDRESSES_MAX:
            del self._seen[next(iter(self._seen))]
        self._seen[address] = (began, number + 1)
        return number + 1


class _SignIn:
    """The handlers, with what they share."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._failures = Failures()

    async def ask(self, request: web.Request) -> web.Response:
        """GET /sign-in: the page, or onwards for who is signed in already."""
        target = safe_next(request.query.get("next"))
        if request["csrf"]:
            return _onwards(target)
        return self._page(None, target)

    async def take(self, request: web.Request) -> web.Response:
        """POST /sign-in: a token for a cookie."""
        form = await request.post()
        text, target = str(form.get("token", "")), safe_next(str(form.get("next", "")))
        token = await self._context.access.token(text)
        if token is None:
            return await self._failed(request, "This token is not valid.", target)
        if token.role == "ingest":
            return self._page("This is the token of a service. Sign in with an operator or viewer token.", target, 403)
        cookie = await self._context.access.sign_in(token, self._context.now(), "token")
        return self._signed_in(request, cookie, target)

    async def link(self, request: web.Request) -> web.Response:
        """GET /sign-in/{code}: a one-use link. A HEAD, as previews send it, takes nothing."""
        if request.method == "HEAD":
            return web.Response()
        cookie = await self._context.access.sign_in_by_link(request.match_info["code"], self._context.now())
        if cookie is None and request["csrf"]:
            return _onwards("/")  # signed in already: opened a second time, it needs no second sign-in
        if cookie is None:
            return await self._failed(request, "This link was used already or has expired. Sign in with a token.", "/")
        return self._signed_in(request, cookie, "/")

    async def out(self, request: web.Request) -> web.Response:
        """POST /sign-out: the session ends here and now, not only in this browser."""
        actor: Actor = request["actor"]
        name = cookie_name(request["peer"])
        await self._context.access.sign_out(request.cookies.get(name, ""), actor, self._context.now())
        response = _onwards("/sign-in")
        response.del_cookie(name, path="/")
        return response

    def _page(self, error: str | None, target: str, status: int = 200) -> web.Response:
        return web.Response(text=self._context.render_sign_in(error, target), status=status, content_type="text/html")

    async def _failed(self, request: web.Request, error: str, target: str) -> web.Response:
        address, now = _address(request["peer"]), self._context.now()
        if self._failures.count(address, now) > FAILURES_MAX:
            detail = f"more than {FAILURES_MAX} wrong tries from {address}; wait a minute"
            raise ProblemError(429, "Too many wrong tries", detail, headers={"Retry-After": str(FAILURES_WINDOW_S)})
        await self._context.access.audit(now, address, "sign_in_refused", request.path.split("/")[1], error)
        return self._page(error, target, 401)

    def _signed_in(self, request: web.Request, cookie: str, target: str) -> web.Response:
        response = _onwards(target)
        response.set_cookie(
            cookie_name(request["peer"]),
            cookie,
            path="/",
            max_age=SESSION_S_MAX,
            httponly=True,
            samesite="Lax",
            secure=self._is_https(request),
        )
        return response

    def _is_https(self, request: web.Request) -> bool:
        """Whether this visitor came by the published https address; by loopback the same daemon is plain http."""
        parts = urlsplit(self._context.settings.server.external_url or "")
        return parts.scheme == "https" and name_of(request.headers.get("Host", "")) == parts.hostname


def routes(context: Context) -> list[Route]:
    """The doors for people."""
    sign_in = _SignIn(context)
    return [
        Route(method="GET", path="/sign-in", role="open", page=True, handler=sign_in.ask),
        Route(method="POST", path="/sign-in", role="open", page=True, handler=sign_in.take),
        Route(method="GET", path="/sign-in/{code}", role="open", page=True, handler=sign_in.link),
        Route(method="POST", path="/sign-out", role="viewer", page=True, handler=sign_in.out),
    ]


def safe_next(target: str | None) -> str:
    """A path of this daemon to go on to; "/" for everything else, so that no link leads elsewhere through us."""
    return target if target and _NEXT.fullmatch(target) else "/"


def _onwards(target: str) -> web.Response:
    return web.Response(status=303, headers={"Location": target})


def _address(peer: Peer) -> str:
    return peer.address or ("unix socket" if peer.uid is not None else "unknown")
