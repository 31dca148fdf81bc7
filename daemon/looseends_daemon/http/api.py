"""The reading side of `/api/v1`, the acts on a task, and the two doors for probes.

Rules: every list is `{"items", "next_cursor"}` with an opaque cursor and a bounded limit; an unknown parameter or an unknown
member of a body is refused with the nearest known name, because a misspelt filter must not look like a result.
"""

from __future__ import annotations

from collections.abc import Awaitable, Collection
from typing import Any, TypeVar

from aiohttp import web

from looseends.wire import DEPTH_MAX, NS, PAYLOAD_BYTES_MAX, canonical, canonical_uuid, is_uuid
from looseends_daemon.core.resources import Page, encode
from looseends_daemon.core.routing import Route
from looseends_daemon.http.answers import (
    decode_json,
    json_response,
    limit_of,
    nearest,
    one_of,
    only_known,
    time_of,
    wrong,
)
from looseends_daemon.http.context import Context
from looseends_daemon.http.errors import ProblemError

T = TypeVar("T")
BUCKETS_S = {"1m": 60.0, "10m": 600.0, "1h": 3_600.0, "1d": 86_400.0}
BUCKETS_MAX = 1_500
WINDOW_NS = 86_400 * NS
INCIDENT_STATES = ("pending", "open", "resolved")
NOTE_CHARS_MAX = 1_000
CONFIRM_MAX = 20


def api_routes(context: Context) -> list[Route]:
    """Everything a viewer reads, POST tasks/{id}/replay and dismiss, and the probes."""
    doors = [*_task_routes(context), *_list_routes(context), *_one_routes(context), *_probe_routes(context)]

    async def listing(request: web.Request) -> web.Response:
        only_known(request)
        shown = [{"method": door.method, "path": door.path, "role": door.role} for door in doors]
        return json_response({"name": "looseends", "version": context.version, "routes": shown})

    doors.append(Route(method="GET", path="/api/v1", role="viewer", handler=listing))
    return doors


def _probe_routes(context: Context) -> list[Route]:
    async def livez(request: web.Request) -> web.Response:
        return web.Response(text="ok\n")

    async def readyz(request: web.Request) -> web.Response:
        missing = context.ready()
        said = [*(missing or ["ok"]), *(f"note: {words}" for words in context.notes())]
        return web.Response(text="".join(f"{words}\n" for words in said), status=503 if missing else 200)

    return [
        Route(method="GET", path="/livez", role="open", handler=livez),
        Route(method="GET", path="/readyz", role="open", handler=readyz),
    ]


def _task_routes(context: Context) -> list[Route]:
    reader = context.reader

    async def tasks(request: web.Request) -> web.Response:
        only_known(request, "q", "from", "to", "limit", "cursor")
        begin, end = time_of(request, "from"), time_of(request, "to")
        q, cursor = request.query.get("q", ""), request.query.get("cursor")
        return await _page(reader.tasks(q, from_=begin, to=end, limit=limit_of(request), cursor=cursor))

    async def task(request: web.Request) -> web.Response:
        only_known(request)
        wanted = wanted_task(request)
        found = await reader.task(wanted)
        if found is not None:
            context.wishes.opened(found, context.now())
        return _found(found, "task", wanted)

    async def history(request: web.Request) -> web.Response:
        only_known(request)
        wanted = wanted_task(request)
        entries = await reader.history(wanted)
        return _found(None if entries is None else Page(items=entries), "task", wanted)

    async def replay(request: web.Request) -> web.Response:
        only_known(request)
        wish = replay_wish(await request.read())
        made = await context.commands.replay_task(task_id_of(request), request["actor"], **wish)
        return json_response(encode(made), 202, {"Location": f"/api/v1/replays/{made.id}"})

    async def ledger(request: web.Request) -> web.Response:
        only_known(request, "from", "to", "bucket", "service")
        begin, end, bucket = _window(request, context.now())
        return json_response(encode(await reader.ledger(begin, end, bucket, request.query.get("service"))))

    async def dismiss(request: web.Request) -> web.Response:
        only_known(request)
        note = dismissal_note(await request.read())
        return json_response(encode(await context.commands.dismiss_task(task_id_of(request), request["actor"], note=note)))

    return [
        Route(method="GET", path="/api/v1/tasks", role="viewer", handler=tasks),
        Route(method="GET", path="/api/v1/tasks/{id}", role="viewer", handler=task),
        Route(method="GET", path="/api/v1/tasks/{id}/history", role="viewer", handler=history),
        Route(method="POST", path="/api/v1/tasks/{id}/replay", role="operator", handler=replay, acts=True),
        Route(method="POST", path="/api/v1/tasks/{id}/dismiss", role="operator", handler=dismiss, acts=True),
        Route(method="GET", path="/api/v1/ledger", role="viewer", handler=ledger),
    ]


def _list_routes(context: Context) -> list[Route]:
    reader = context.reader

    async def incidents(request: web.Request) -> web.Response:
        only_known(request, "state", "limit", "cursor")
        state = one_of(request, "state", INCIDENT_STATES)
        return await _page(reader.incidents(state, **_place(request)))

    async def notices(request: web.Request) -> web.Response:
        only_known(request, "incident", "limit", "cursor")
        return await _page(reader.notices(request.query.get("incident"), **_place(request)))

    async def replays(request: web.Request) -> web.Response:
        only_known(request, "limit", "cursor")
        return await _page(reader.replays(**_place(request)))

    async def instances(request: web.Request) -> web.Response:
        only_known(request, "limit", "cursor")
        return await _page(reader.instances(**_place(request)), without=("functions",))

    async def blind_windows(request: web.Request) -> web.Response:
        only_known(request, "from", "to", "limit", "cursor")
        begin, end = time_of(request, "from"), time_of(request, "to")
        return await _page(reader.blind_windows(begin, end, **_place(request)))

    async def audit(request: web.Request) -> web.Response:
        only_known(request, "limit", "cursor")
        return await _page(reader.audit(**_place(request)))

    handlers = {
        "incidents": incidents,
        "notices": notices,
        "replays": replays,
        "instances": instances,
        "blind-windows": blind_windows,
        "audit": audit,
    }
    return [Route(method="GET", path=f"/api/v1/{name}", role="viewer", handler=h) for name, h in handlers.items()]


def _one_routes(context: Context) -> list[Route]:
    reader = context.reader
    readers = {
        "incident": reader.incident,
        "notice": reader.notice,
        "replay": reader.replay,
        "instance": reader.instance,
    }

    def door(what: str) -> Route:
        async def one(request: web.Request) -> web.Response:
            only_known(request)
            wanted = request.match_info["id"]
            return _found(await readers[what](wanted), what, wanted)

        return Route(method="GET", path=f"/api/v1/{what}s/{{id}}", role="viewer", handler=one)

    return [door(what) for what in readers]


def _place(request: web.Request) -> dict[str, Any]:
    return {"limit": limit_of(request), "cursor": request.query.get("cursor")}


async def _page(reading: Awaitable[Page[T]], without: Collection[str] = ()) -> web.Response:
    """A list as JSON, its items `without` what only one of them by itself tells.

    A cursor that was made up is the only thing a reader says with ValueError.
    """
    try:
        page = await reading
    except ValueError as error:
        raise wrong("cursor", f"cannot be used: {error}") from None
    listed = _listed(page)
    items = [{name: value for name, value in item.items() if name not in without} for item in listed["items"]]
    return json_response({**listed, "items": items})


def _listed(page: Page[T]) -> dict[str, Any]:
    """A page without the members that say nothing here."""
    shown: dict[str, Any] = encode(page)
    return shown if page.searched is not None else {name: shown[name] for name in ("items", "next_cursor")}


def _found(value: Any, what: str, wanted: str) -> web.Response:
    if value is None:
        raise _missing(what, wanted)
    return json_response(_listed(value) if isinstance(value, Page) else encode(value))


def _missing(what: str, wanted: str) -> ProblemError:
    return ProblemError(404, f"No such {what}", f"there is no {what} {wanted[:100]!r}; GET /api/v1/{what}s lists them")


def wanted_task(request: web.Request) -> str:
    """The task in the path: its id in the one form, or the text its sender calls it by."""
    text = request.match_info["id"]
    return canonical_uuid(text) if is_uuid(text) else text


def task_id_of(request: web.Request) -> str:
    """The id of the task to act on. Raises ProblemError 404: what is no UUID may stand for several tasks."""
    text = wanted_task(request)
    if not is_uuid(text):
        detail = f"to act, name the task by its id, a UUID; find it with GET /api/v1/tasks?q=id:{text[:100]}"
        raise ProblemError(404, "No such task", detail)
    return text


def _window(request: web.Request, now: int) -> tuple[int, int, float | None]:
    """[from, to) and the bucket of a ledger. Raises ProblemError 422."""
    end = time_of(request, "to") or now
    begin = time_of(request, "from")
    begin = max(0, end - WINDOW_NS) if begin is None else begin
    if begin >= end:
        raise wrong("from", "must lie before to")
    bucket = BUCKETS_S.get(one_of(request, "bucket", tuple(BUCKETS_S)) or "")
    if bucket is not None and (end - begin) / (bucket * NS) > BUCKETS_MAX:
        raise wrong("bucket", f"makes more than {BUCKETS_MAX} buckets of this window; take a longer one")
    return begin, end, bucket


def replay_wish(body: bytes) -> dict[str, Any]:
    """The body of a replay: `args`, `note`, `confirm`, each optional. Raises ProblemError 400, 422."""
    given = _members(body, "args", "note", "confirm")
    _check_note(given.get("note", ""))
    _check_confirm(given.get("confirm", []))
    _check_args(given.get("args"))
    return given


def dismissal_note(body: bytes) -> str:
    """The body of a dismissal: `note`. Raises ProblemError 400, 422. How long it may be is the act's own rule."""
    note = _members(body, "note").get("note", "")
    if not isinstance(note, str) or "\0" in note:
        raise _bad_body("/note", "note is text that says why nothing is to be done")
    return note


def _members(body: bytes, *known: str) -> dict[str, Any]:
    """The members of a body that are not null. Raises ProblemError 400, 422 for what is no object or has others."""
    document = decode_json(body) if body.strip() else {}
    if not isinstance(document, dict):
        names = ", ".join(f'"{name}"' for name in known)
        raise _bad_body("", f"the body is an object {{{names}}}")
    for name in document:
        if name not in known:
            raise _bad_body(f"/{name[:60]}", f"unknown member {name[:60]!r}; {nearest(name, known)}")
    return {name: value for name, value in document.items() if value is not None}


def _check_note(note: Any) -> None:
    if not isinstance(note, str) or len(note) > NOTE_CHARS_MAX or "\0" in note:
        raise _bad_body("/note", f"note is text of at most {NOTE_CHARS_MAX} characters")


def _check_confirm(confirm: Any) -> None:
    if not isinstance(confirm, list) or len(confirm) > CONFIRM_MAX or not all(isinstance(item, str) for item in confirm):
        raise _bad_body("/confirm", f"confirm is a list of at most {CONFIRM_MAX} of the reasons that were named")


def _check_args(args: Any) -> None:
    if args is None:
        return
    if not isinstance(args, dict):
        raise _bad_body("/args", "args is an object: argument name to value")
    if not _shallow(args, DEPTH_MAX):
        raise _bad_body("/args", f"args are nested deeper than {DEPTH_MAX} levels")
    try:
        size = len(canonical(args).encode())
    except ValueError:
        raise _bad_body("/args", "args hold a number or a character that JSON cannot carry") from None
    if size > PAYLOAD_BYTES_MAX:
        raise _bad_body("/args", f"args are {size} bytes of JSON, at most {PAYLOAD_BYTES_MAX} are taken")


def _shallow(value: Any, left: int) -> bool:
    items = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return left >= 0 and all(_shallow(item, left - 1) for item in items)


def _bad_body(pointer: str, detail: str) -> ProblemError:
    return ProblemError(422, "The body cannot be used", detail, [{"pointer": pointer, "detail": detail}])
