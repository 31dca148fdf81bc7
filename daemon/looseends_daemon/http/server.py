"""The aiohttp application: one middleware that every request passes, and one form for everything that goes wrong.

Order: host and site, then role, then the body within its limits, then the form token, then the idempotency key, then the
handler. Whatever is raised on that way becomes `application/problem+json`, for pages a small HTML page; a user never sees a
traceback, the log sees each kind of surprise once a minute.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Awaitable, Callable, Mapping
from types import MappingProxyType

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from looseends_daemon.core.query import QueryError
from looseends_daemon.core.resources import CommandRefused
from looseends_daemon.core.routing import ROLES, Route
from looseends_daemon.http.answers import Bodies, problem_response, read_body
from looseends_daemon.http.context import Context
from looseends_daemon.http.errors import ProblemError, of_command, of_query
from looseends_daemon.http.guard import SAFE_METHODS, Guard, check_csrf, secured
from looseends_daemon.http.idempotency import key_of, once
from looseends_daemon.http.listen import Listener, listen
from looseends_daemon.http.quiet import OnceAMinute
from looseends_daemon.store.connection import FULL_RETRY_S, StoreFull
from looseends_daemon.store.schema import StoreError

__all__ = ["Context", "Listener", "listen", "make_app"]

FORM_TYPE = "application/x-www-form-urlencoded"
JSON_TYPES = ("application/json", "application/x-ndjson")
FORM_FIELDS_MAX = 100


def make_app(routes: list[Route], context: Context) -> web.Application:
    """An application with these doors and no others. Raises ValueError for a route without a known role."""
    # The guard hands `actor`, `csrf` and `peer` to handlers by plain names: pages may not import a key object from here.
    warnings.filterwarnings("ignore", category=web.NotAppKeyWarning)
    app = web.Application(client_max_size=context.limits.body_bytes_max)
    doors: dict[web.AbstractRoute, Route] = {}
    for route in routes:
        if route.role not in ROLES:
            raise ValueError(f"{route.method} {route.path} has the role {route.role!r}; roles are {', '.join(ROLES)}")
        for method in ("GET", "HEAD") if route.method == "GET" else (route.method,):
            doors[app.router.add_route(method, route.path, route.handler)] = route
    app.middlewares.append(_Door(context, MappingProxyType(doors)).middleware())
    return app


class _Door:
    """What every request passes, known path or not."""

    def __init__(self, context: Context, doors: Mapping[web.AbstractRoute, Route]) -> None:
        self._context = context
        self._doors = doors
        self._guard = Guard(context)
        self._bodies = Bodies(context.limits.arriving_bytes_max)
        self._log = logging.getLogger("looseends.http")
        if not any(isinstance(kept, OnceAMinute) for kept in self._log.filters):
            self._log.addFilter(OnceAMinute())

    def middleware(self) -> Middleware:
        """The middleware as aiohttp wants it."""

        @web.middleware
        async def door(request: web.Request, handler: Handler) -> web.StreamResponse:
            route = self._doors.get(request.match_info.route)
            response = await self._answered(request, route, lambda: self._pass(request, route, handler))
            return response if response.prepared else secured(response, _wants_page(request, route))

        return door

    async def _pass(self, request: web.Request, route: Route | None, handler: Handler) -> web.StreamResponse:
        peer = self._guard.check_origin(request, route)
        if route is None:
            return await handler(request)  # aiohttp's own 404 and 405
        await self._guard.admit(request, route, peer)
        if request.method in SAFE_METHODS or route.raw:
            return await handler(request)
        await read_body(request, self._context.limits, self._bodies)
        if route.page:
            return await self._form(request, route, handler)
        _check_json(request)
        if not route.acts:
            return await handler(request)
        key = key_of(request.headers.get("Idempotency-Key"), "the header Idempotency-Key", "")
        return await once(self._context, request, key, lambda: self._answered(request, route, lambda: handler(request)))

    async def _form(self, request: web.Request, route: Route, handler: Handler) -> web.StreamResponse:
        form = await _form_of(request)
        if route.role != "open":  # the sign-in form is rendered for nobody in particular
            check_csrf(request, form.get("csrf", ""))
        if not route.acts:
            return await handler(request)
        key = key_of(form.get("idempotency_key"), "the field idempotency_key", "/idempotency_key")
        return await once(self._context, request, key, lambda: self._answered(request, route, lambda: handler(request)))

    async def _answered(
        self, request: web.Request, route: Route | None, act: Callable[[], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        """The answer of `act`, or the refusal it raised as an answer."""
        render = self._context.render_error
        try:
            return await act()
        except ProblemError as problem:
            return _refusal(problem, request, route, render)
        except CommandRefused as refused:
            return _refusal(of_command(refused), request, route, render)
        except QueryError as error:
            return _refusal(of_query(error), request, route, render)
        except StoreError as error:
            return _refusal(self._store_trouble(error), request, route, render)
        except web.HTTPException as error:
            return _refusal(_of_aiohttp(error, request, _wants_page(request, route)), request, route, render)
        except ConnectionError:
            raise  # the asker is gone; there is nobody to tell
        except Exception:  # noqa: BLE001 - told in the log with its traceback, to the user without
            self._log.exception("%s %s failed", request.method, route.path if route else "an unknown path")
            detail = "something unexpected happened inside; the daemon's log has the details"
            return _refusal(ProblemError(500, detail=detail), request, route, render)

    def _store_trouble(self, error: StoreError) -> ProblemError:
        self._log.warning("the database refused: %s", error)
        detail = f"the database cannot take this now: {error.hint or 'try again in a moment'}"
        wait = FULL_RETRY_S if isinstance(error, StoreFull) else 1
        return ProblemError(503, detail=detail, headers={"Retry-After": str(wait)})


def _of_aiohttp(error: web.HTTPException, request: web.Request, page: bool) -> ProblemError:
    """aiohttp's own refusals (404, 405 with Allow) and the redirects that handlers raise. `page`: told to a person."""
    kept = {name: error.headers[name] for name in ("Allow", "Location") if name in error.headers}
    known = {
        404: f"there is nothing at {request.path[:200]}; GET /api/v1 lists what is",
        405: f"{request.method[:20]} is not done here; allowed: {kept.get('Allow', 'nothing')}",
    }
    if page:
        known = {
            404: f"There is no page at {request.path[:200]}. Check the address, or begin at one of the pages below.",
            405: f"{request.path[:200]} cannot be opened in this way. Begin at one of the pages below.",
        }
    return ProblemError(error.status, detail=known.get(error.status, error.reason), headers=kept)


def _wants_page(request: web.Request, route: Route | None) -> bool:
    if route is not None:
        return route.page
    return not request.path.startswith("/api/") and "text/html" in request.headers.get("Accept", "")


def _refusal(
    problem: ProblemError, request: web.Request, route: Route | None, render: Callable[[int, str, str], str]
) -> web.StreamResponse:
    if problem.status < 400:
        return web.Response(status=problem.status, headers=problem.headers)
    if not _wants_page(request, route):
        return problem_response(problem)
    text = render(problem.status, problem.title, problem.detail)
    return web.Response(status=problem.status, headers=problem.headers, text=text, content_type="text/html")


def _check_json(request: web.Request) -> None:
    if request.can_read_body and request.content_type not in JSON_TYPES:
        detail = f"Content-Type is one of {', '.join(JSON_TYPES)}, not {request.content_type[:80]!r}"
        raise ProblemError(415, detail=detail)


async def _form_of(request: web.Request) -> Mapping[str, str]:
    """The fields of a form. Checked here once, so that `request.post()` in a handler cannot fail on them."""
    if request.content_type != FORM_TYPE:
        raise ProblemError(415, detail=f"a form is sent as {FORM_TYPE}, not {request.content_type[:80]!r}")
    if (request.charset or "utf-8").lower() != "utf-8":
        raise ProblemError(415, detail="a form is sent as UTF-8")
    body = await request.read()
    if body.count(b"&") >= FORM_FIELDS_MAX:
        raise ProblemError(400, "Malformed form", f"a form has at most {FORM_FIELDS_MAX} fields")
    try:
        fields = await request.post()
    except ValueError:
        raise ProblemError(400, "Malformed form", "the form is not UTF-8") from None
    return {name: value for name, value in fields.items() if isinstance(value, str)}
