"""Plans to run many tasks again, their runs, and the report of a run.

Rules: a plan is looked at before it is run, and the run names the digest of what was looked at; a mistake in a body names its
place and what is allowed there; a member that nobody knows is refused with the nearest known name.
"""

from __future__ import annotations

import csv
import io
from collections.abc import AsyncIterator, Callable
from typing import Any

import msgspec
from aiohttp import web

from looseends.wire import NAME_CHARS_MAX, NOTE_CHARS_MAX, TEXT_CHARS_MAX, canonical
from looseends_daemon.core.orders import COUNTED
from looseends_daemon.core.pace import Rule
from looseends_daemon.core.plans import ANSWERS, NAMED_TASKS_MAX, PlanCommands, PlanReader, RunItem, Selection, Wish
from looseends_daemon.core.replay import BLOCKING, CONFIRMABLE
from looseends_daemon.core.resources import Page, encode
from looseends_daemon.core.routing import Route
from looseends_daemon.http.answers import ITEMS_MAX, json_response, limit_of, nearest, one_of, only_known, wrong
from looseends_daemon.http.bodies import Fields, Wrong, count, document, list_of, moment, number, text_of
from looseends_daemon.http.context import Context
from looseends_daemon.http.errors import ProblemError
from looseends_daemon.http.guard import secured

CHOOSING = ("q", "from", "to", "tasks", "incident", "edit")
RUNNING = ("plan", "digest", "confirm", "canary", "per_second", "in_flight", "stop_after_failures", "note")
STEERS = ("pause", "resume", "cancel")
CONFIRM_MAX = 20
COLUMNS = (
    *("n", "task", "name", "key", "state", "detail", "edited", "old_state", "old_verdict", "old_args", "old_result", "old_error"),
    *("new_task", "new_state", "new_verdict", "new_args", "new_result", "new_error"),
)
_DANGEROUS = ("=", "+", "-", "@", "\t", "\r")


def routes(context: Context) -> list[Route]:
    """The doors for plans and runs."""
    doors = Doors(context, context.plan_acts, context.plans)
    plan, replay = "/api/v1/replay-plans/{id}", "/api/v1/replays/{id}"
    return [
        Route(method="POST", path="/api/v1/replay-plans", role="operator", handler=doors.make, acts=True),
        Route(method="GET", path=plan, role="viewer", handler=doors.plan),
        Route(method="GET", path=f"{plan}/items", role="viewer", handler=doors.items),
        Route(method="POST", path="/api/v1/replays", role="operator", handler=doors.start, acts=True),
        Route(method="GET", path=f"{replay}/items", role="viewer", handler=doors.run_items),
        Route(method="GET", path=f"{replay}/report", role="viewer", handler=doors.report),
        Route(method="GET", path=f"{replay}/report.csv", role="viewer", handler=doors.report_csv),
        *(
            Route(method="POST", path=f"{replay}/{act}", role="operator", handler=doors.steering(act), acts=True)
            for act in STEERS
        ),
    ]


class Doors:
    """Handlers over the acts on plans and what can be read of them."""

    def __init__(self, context: Context, acts: PlanCommands, reader: PlanReader) -> None:
        self._context, self._acts, self._reader = context, acts, reader

    async def make(self, request: web.Request) -> web.StreamResponse:
        """POST /replay-plans -> 201 with the plan: a frozen list, its digest, and what was said of the tasks, counted."""
        only_known(request)
        made = await self._acts.make_plan(selection_of(await document(request)), request["actor"])
        return json_response(encode(made), 201, {"Location": f"/api/v1/replay-plans/{made.id}"})

    async def plan(self, request: web.Request) -> web.StreamResponse:
        """GET /replay-plans/{id}."""
        only_known(request)
        wanted = request.match_info["id"]
        found = await self._reader.plan(wanted)
        if found is None:
            raise _missing("plan", wanted, "POST /api/v1/replay-plans makes one")
        return json_response(encode(found))

    async def items(self, request: web.Request) -> web.StreamResponse:
        """GET /replay-plans/{id}/items?answer=&reason=&limit=&cursor=: each task with what was said of it."""
        only_known(request, "answer", "reason", "limit", "cursor")
        asked: dict[str, Any] = {
            "answer": one_of(request, "answer", ANSWERS),
            "reason": one_of(request, "reason", (*CONFIRMABLE, *BLOCKING)),
            "limit": limit_of(request),
            "cursor": request.query.get("cursor"),
        }
        wanted = request.match_info["id"]
        page = await _listed(lambda: self._reader.plan_items(wanted, **asked))
        if page is None:
            raise _missing("plan", wanted, "POST /api/v1/replay-plans makes one")
        return json_response(_page(page))

    async def start(self, request: web.Request) -> web.StreamResponse:
        """POST /replays -> 202 with the replay; 409: the list changed, or the plan was run; 410: it has expired."""
        only_known(request)
        made = await self._acts.start_replay(wish_of(await document(request)), request["actor"])
        return json_response(encode(made), 202, {"Location": f"/api/v1/replays/{made.id}"})

    def steering(self, act: str) -> Callable[[web.Request], Any]:
        """POST /replays/{id}/pause, resume, cancel -> the replay."""

        async def steer(request: web.Request) -> web.StreamResponse:
            only_known(request)
            _known(await document(request), ())
            return json_response(encode(await self._acts.steer(request.match_info["id"], act, request["actor"])))

        return steer

    async def run_items(self, request: web.Request) -> web.StreamResponse:
        """GET /replays/{id}/items?state=&limit=&cursor=: everything that was chosen, old beside new."""
        only_known(request, "state", "limit", "cursor")
        state, limit, cursor = one_of(request, "state", COUNTED), limit_of(request), request.query.get("cursor")
        wanted = request.match_info["id"]
        page = await _listed(lambda: self._reader.run_items(wanted, state=state, limit=limit, cursor=cursor))
        if page is None:
            raise _missing("replay", wanted, "GET /api/v1/replays lists them")
        return json_response(_page(page))

    async def report(self, request: web.Request) -> web.StreamResponse:
        """GET /replays/{id}/report: the replay with all its items, as one JSON document."""
        only_known(request)
        replay, pages = await self._whole(request)
        response = await _streaming(request, "application/json", f"{replay.id}.json")
        head = {name: value for name, value in encode(replay).items() if name != "items"}
        await response.write(b'{"replay":' + msgspec.json.encode(head) + b',"items":[')
        comma = b""
        async for page in pages:
            for item in page.items:
                await response.write(comma + msgspec.json.encode(encode(item)))
                comma = b","
        await response.write(b"]}\n")
        await response.write_eof()
        return response

    async def report_csv(self, request: web.Request) -> web.StreamResponse:
        """GET /replays/{id}/report.csv: a line for each item; no cell can be taken for a formula."""
        only_known(request)
        replay, pages = await self._whole(request)
        response = await _streaming(request, "text/csv", f"{replay.id}.csv")
        await response.write(csv_lines([COLUMNS]))
        async for page in pages:
            await response.write(csv_lines([csv_cells(item) for item in page.items]))
        await response.write_eof()
        return response

    async def _whole(self, request: web.Request) -> tuple[Any, AsyncIterator[Page[RunItem]]]:
        wanted = request.match_info["id"]
        replay = await self._context.reader.replay(wanted)
        if replay is None:
            raise _missing("replay", wanted, "GET /api/v1/replays lists them")

        async def pages() -> AsyncIterator[Page[RunItem]]:
            cursor = None
            while True:
                page = await self._reader.run_items(wanted, limit=ITEMS_MAX, cursor=cursor)
                if page is None:
                    return
                yield page
                cursor = page.next_cursor
                if cursor is None:
                    return

        return replay, pages()


# --- what was asked -----------------------------------------------------------------------------------------------


def selection_of(given: Any) -> Selection:
    """The body of POST /replay-plans. Raises ProblemError 422."""
    fields = _known(given, CHOOSING)
    asked = Selection(
        q=fields.get("q", text_of(TEXT_CHARS_MAX, empty=True), None),
        from_=fields.get("from", moment, None),
        to=fields.get("to", moment, None),
        tasks=tuple(fields.get("tasks", list_of(text_of(NAME_CHARS_MAX), NAMED_TASKS_MAX), [])),
        incident=fields.get("incident", text_of(NAME_CHARS_MAX), None),
        edit=fields.get("edit", _object, None),
    )
    fields.done("This cannot be planned")
    return asked


def wish_of(given: Any) -> Wish:
    """The body of POST /replays. Raises ProblemError 422."""
    fields, usual = _known(given, RUNNING), Rule()
    rule = Rule(
        canary=fields.get("canary", count, usual.canary),
        per_second=fields.get("per_second", number, usual.per_second),
        in_flight=fields.get("in_flight", count, usual.in_flight),
        stop_after_failures=fields.get("stop_after_failures", count, usual.stop_after_failures),
    )
    wish = Wish(
        plan=fields.need("plan", text_of(NAME_CHARS_MAX), ""),
        digest=fields.need("digest", text_of(NAME_CHARS_MAX), ""),
        confirm=tuple(fields.get("confirm", list_of(text_of(NAME_CHARS_MAX), CONFIRM_MAX), [])),
        rule=rule,
        note=fields.get("note", text_of(NOTE_CHARS_MAX, empty=True), ""),
    )
    fields.done("This cannot be run")
    return wish


def _known(given: Any, names: tuple[str, ...]) -> Fields:
    """The members of a body; those that nobody knows are noted at once as mistakes."""
    fields = Fields(given)
    for name in given if isinstance(given, dict) else ():
        if name not in names:
            fields.wrong(name[:60], f"is unknown; {nearest(name, names)}")
    if not names:
        fields.done("This takes no body")
    return fields


def _object(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise Wrong("must be an object: argument name to value")
    return value


async def _listed(reading: Callable[[], Any]) -> Any:
    """A page; a made-up cursor is the only thing a reader says with ValueError."""
    try:
        return await reading()
    except ValueError as error:
        raise wrong("cursor", f"cannot be used: {error}") from None


def _page(page: Page[Any]) -> dict[str, Any]:
    shown = encode(page)
    return {"items": shown["items"], "next_cursor": shown["next_cursor"]}


def _missing(what: str, wanted: str, way: str) -> ProblemError:
    return ProblemError(404, f"No such {what}", f"there is no {what} {wanted[:100]!r}; {way}")


# --- reports ------------------------------------------------------------------------------------------------------


async def _streaming(request: web.Request, content_type: str, name: str) -> web.StreamResponse:
    headers = {"Content-Disposition": f'attachment; filename="{name}"', "Cache-Control": "no-store"}
    response = secured(web.StreamResponse(headers={**headers, "Content-Type": f"{content_type}; charset=utf-8"}), page=False)
    await response.prepare(request)
    return response


def csv_cells(item: RunItem) -> list[str]:
    """One item as a line of COLUMNS."""
    old, new = item.old, item.new

    def side(which: Any) -> list[Any]:
        if which is None:
            return [None] * 5
        return [which.state, which.verdict, *(_json(value) for value in (which.args, which.result, which.error))]

    known = [item.n, item.task, item.name, item.key, item.state, item.detail, "yes" if item.edited else None]
    return [harmless(value) for value in (*known, *side(old), new.id if new else None, *side(new))]


def _json(value: Any) -> str | None:
    return None if value is None else canonical(value)


def harmless(value: Any) -> str:
    """A cell as text that no spreadsheet takes for a formula."""
    text = "" if value is None else str(value)
    return f"'{text}" if text.startswith(_DANGEROUS) else text


def csv_lines(rows: list[Any]) -> bytes:
    """Lines of CSV."""
    out = io.StringIO()
    csv.writer(out).writerows(rows)
    return out.getvalue().encode()
