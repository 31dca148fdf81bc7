"""What an instance says about itself between its events: that it lives, what it can run again, and goodbye.

Rules: an instance belongs to whoever first spoke for it (403 for others); one that was never heard of is 404, and its client
answers that with a batch, which makes it known. Nothing here needs an Idempotency-Key: said twice, it is the same.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from aiohttp import web

from looseends.wire import NAME_CHARS_MAX
from looseends_daemon.core.detect import overdue_after
from looseends_daemon.core.resources import Actor
from looseends_daemon.core.routing import Route
from looseends_daemon.http.answers import json_response
from looseends_daemon.http.bodies import Fields, count, document, list_of, moment, number, text_of, word_of
from looseends_daemon.http.context import Context
from looseends_daemon.http.errors import ProblemError
from looseends_daemon.http.guard import is_forwarded
from looseends_daemon.store import facts, instances, orders
from looseends_daemon.store.hangs import near_their_time
from looseends_daemon.store.instances_owned import NO_NEWS, has_functions
from looseends_daemon.store.questions import ask

T = TypeVar("T")
OPEN_MAX = 10_000
VOID_MAX = 100_000
STACKS_MAX = 50
CODE_CHARS_MAX = 200
GOODBYE = {
    "exit": "its process ended and said goodbye",
    "killed": "its process was killed; another process of its user found it dead",
    "adopted": "its process is gone; another process of its user sent what it had recorded",
}
"""Why an instance is gone, by the reason its goodbye gives."""


def routes(context: Context) -> list[Route]:
    """The doors for instances."""
    own = "/api/v1/instances/{id}"
    doors = Doors(context)
    return [
        Route(method="PUT", path=f"{own}/heartbeat", role="ingest", handler=doors.heartbeat),
        Route(method="PUT", path=f"{own}/functions", role="ingest", handler=doors.functions),
        Route(method="DELETE", path=own, role="ingest", handler=doors.goodbye),
    ]


class Doors:
    """Handlers over one context."""

    def __init__(self, context: Context) -> None:
        self._context = context

    async def heartbeat(self, request: web.Request) -> web.StreamResponse:
        """PUT /instances/{id}/heartbeat -> {"orders": n, "stacks": [ids]}: tasks near their time, and those somebody looks at."""
        body = Fields(await document(request))
        said = {name: body.get(name, count, 0) for name in ("last_seq", "open", "dropped", "backlog")}
        body.get("ended", count, 0)
        told_at = body.get("at", moment, None)
        lag = body.get("loop_lag_ms", number, None)
        body.done("Invalid heartbeat")
        told = {**said, "loop_lag_ms": lag}

        def work(conn: Any, who: str, now: int, row: Any) -> tuple[int, int, int, list[str]]:
            patience = overdue_after(has_functions(conn, row["no"]), self._context.policy.heartbeat_every)
            near = ask(conn, near_their_time(row["no"], now, patience))
            return ask(conn, orders.waiting_for(who, now)), row["said_at"], patience, near

        arrived = self._context.now()
        waiting, said_at, patience, near = await self._as_instance(request, work, told, told_at=told_at)
        # A connection that ended while this was written down is no sign that anybody is there.
        if not is_forwarded(request.headers) and request.transport is not None:
            who, line = request.match_info["id"], id(request.protocol)
            self._context.presence.spoke(line, who, arrived, said_at=said_at, patience=patience)
        wished = self._context.wishes.fetched(request.match_info["id"], arrived)
        return json_response({"orders": waiting, "stacks": list(dict.fromkeys([*wished, *near]))[:STACKS_MAX]})

    async def functions(self, request: web.Request) -> web.StreamResponse:
        """PUT /instances/{id}/functions: everything this instance can run again, in place of what it said before."""
        offered = functions_of(await document(request))

        def work(conn: Any, who: str, now: int, row: Any) -> int:
            instances.put_functions(conn, row["no"], offered)
            return ask(conn, orders.waiting_for(who, now))

        return json_response({"functions": len(offered), "orders": await self._as_instance(request, work, told_at=NO_NEWS)})

    async def goodbye(self, request: web.Request) -> web.StreamResponse:
        """DELETE /instances/{id}: its process is gone; `void` names records that hold nothing and are not missing."""
        body = Fields(await document(request))
        reason = body.get("reason", word_of(GOODBYE), "exit")
        last_seq = body.get("last_seq", count, None)
        still_open: list[str] = body.get("open", list_of(text_of(NAME_CHARS_MAX), OPEN_MAX), [])
        void: list[int] = body.get("void", list_of(count, VOID_MAX), [])
        body.done("Invalid goodbye")
        told = {"open": len(still_open), **({"last_seq": last_seq} if last_seq is not None else {})}

        def work(conn: Any, who: str, now: int, row: Any) -> None:
            facts.end_instance(conn, who, state="gone", reason=GOODBYE[reason], now=now, adopted=reason == "adopted", void=void)

        await self._as_instance(request, work, told, own=reason == "exit")
        self._context.wake()
        return web.Response(status=204)

    async def _as_instance(
        self,
        request: web.Request,
        work: Callable[[Any, str, int, Any], T],
        told: dict[str, Any] | None = None,
        *,
        own: bool = True,
        told_at: int | None = None,
    ) -> T:
        """Run `work(conn, id, now, row)` for the instance of this path, in the commit that notes we heard of it.

        `own` False: another process speaks for one that is gone. `told_at`: when it said this, by its clock (ns).
        """
        who = request.match_info["id"]
        actor: Actor = request["actor"]
        now = self._context.now()

        def heard(conn: Any) -> T:
            return work(conn, who, now, touched(conn, who, actor, now, told or {}, own=own, told_at=told_at))

        return await self._context.database.write(heard)


def touched(
    conn: Any,
    instance: str,
    actor: Actor,
    now: int,
    told: dict[str, Any],
    *,
    own: bool = True,
    told_at: int | None = None,
) -> Any:
    """The row of an instance after noting that we heard of it. Raises ProblemError 404 (unknown) and 403 (not theirs)."""
    try:
        row = facts.touch_instance(conn, instance, actor, now, own=own, told_at=told_at, **told)
    except facts.OwnershipRefused as refused:
        raise ProblemError(403, "Not your instance", str(refused)) from None
    if row is None:
        detail = "this daemon has not heard of this instance; send a batch first, empty if need be"
        raise ProblemError(404, "Unknown instance", detail)
    return row


def functions_of(body: Any) -> list[dict[str, Any]]:
    """The checked list of a PUT. Raises ProblemError 422 with a pointer to every mistake."""
    if not isinstance(body, list) or len(body) > instances.FUNCTIONS_MAX:
        detail = f"the body must be an array of at most {instances.FUNCTIONS_MAX} functions"
        raise ProblemError(422, "Invalid functions", detail, [{"pointer": "", "detail": detail}])
    mistakes: list[dict[str, str]] = []
    checked = [_function(Fields(item, f"/{n}", mistakes)) for n, item in enumerate(body)]
    Fields({}, "", mistakes).done("Invalid functions")
    return checked


def _function(of: Fields) -> dict[str, Any]:
    return {
        "name": of.need("name", text_of(NAME_CHARS_MAX), ""),
        "signature": of.get("signature", text_of(), None),
        "code": of.get("code", text_of(CODE_CHARS_MAX), None),
        "replay": of.need("replay", word_of(("yes", "ask")), "ask"),
        "caution": of.get("caution", text_of(), None),
        "via": of.get("via", text_of(NAME_CHARS_MAX), None),
    }
