"""How a service takes replay orders: list, claim, answer; and how a person decides one whose outcome nobody knows.

Rules:

1. An order leaves this daemon only in the answer to a claim whose commit is on disk, and only to a live, proven instance of the
   caller's own. The list is what it may claim; it gives nothing away that the claim would not.
2. Who came by token gets a mac with the token's order key, and so knows that it is this daemon that asks. Over the unix socket
   the peer's uid says the same.
3. A claim is never repeated: an answer that got lost leaves an order that a person decides, not one that may run twice.
"""

from __future__ import annotations

from typing import Any

from aiohttp import web

from looseends.wire import NAME_CHARS_MAX, NOTE_CHARS_MAX, order_mac
from looseends_daemon.core.orders import ANSWERS, DETAIL_CHARS_MAX, OUTCOMES
from looseends_daemon.core.resources import Actor, encode
from looseends_daemon.core.routing import Route
from looseends_daemon.http.answers import json_response
from looseends_daemon.http.bodies import Fields, count, document, text_of, word_of
from looseends_daemon.http.context import Context
from looseends_daemon.http.errors import ProblemError
from looseends_daemon.http.instances import touched
from looseends_daemon.http.strangers import reached_for
from looseends_daemon.store import access, codes, orders
from looseends_daemon.store.instances_owned import NO_NEWS
from looseends_daemon.store.questions import ask


def routes(context: Context) -> list[Route]:
    """The doors for orders."""
    doors = Doors(context)
    own = "/api/v1/orders/{id}"
    return [
        Route(method="GET", path="/api/v1/instances/{id}/orders", role="ingest", handler=doors.waiting),
        Route(method="POST", path=f"{own}/claim", role="ingest", handler=doors.claim),
        Route(method="POST", path=f"{own}/result", role="ingest", handler=doors.result),
        Route(method="POST", path=f"{own}/resolve", role="operator", handler=doors.resolve, acts=True),
    ]


class Doors:
    """Handlers over one context."""

    def __init__(self, context: Context) -> None:
        self._context = context

    async def waiting(self, request: web.Request) -> web.StreamResponse:
        """GET /instances/{id}/orders -> {"items": [order]}: what this instance may claim now, first to expire first."""
        who, actor, now = request.match_info["id"], request["actor"], self._context.now()

        def work(conn: Any) -> list[dict[str, Any]]:
            touched(conn, who, actor, now, {}, told_at=NO_NEWS)
            return [orders.order_for(row) for row in ask(conn, orders.takeable(who, now))]

        return json_response({"items": await self._context.database.write(work), "next_cursor": None})

    async def claim(self, request: web.Request) -> web.StreamResponse:
        """POST /orders/{id}/claim {"instance"} -> {"order", "fence", "mac"}; 409 with the reason where it is not given."""
        order_id = _order_id(request)
        body = Fields(await document(request))
        who = body.need("instance", text_of(NAME_CHARS_MAX), "")
        body.done("Invalid claim")
        actor: Actor = request["actor"]
        now = self._context.now()

        def work(conn: Any) -> tuple[orders.Claim, str | None]:
            touched(conn, who, actor, now, {}, told_at=NO_NEWS)
            key = access.order_key(conn, actor.token) if actor.token is not None else None
            return orders.claim(conn, order_id, who, now), key

        try:
            given, key = await self._context.database.write(work)
        except ProblemError as problem:
            if problem.status == 403:
                reached_for(actor, "claim", problem.detail)
            raise
        if given.order is None:
            raise ProblemError(409, "Not given", f"this order is not given to this instance: {given.reason}")
        mac = order_mac(key, given.order, who) if key is not None else None
        return json_response({"order": given.order, "fence": given.fence, "mac": mac})

    async def result(self, request: web.Request) -> web.StreamResponse:
        """POST /orders/{id}/result {"fence", "outcome", "detail"} -> {"state", "counted"}; a stale fence counts for nothing."""
        order_id = _order_id(request)
        body = Fields(await document(request))
        fence = body.need("fence", count, 0)
        outcome = body.need("outcome", word_of(OUTCOMES), "")
        detail = body.get("detail", text_of(DETAIL_CHARS_MAX, empty=True), "")
        body.done("Invalid result")
        actor: Actor = request["actor"]
        now = self._context.now()

        def work(conn: Any) -> orders.Answered:
            who = orders.claimant(conn, order_id)
            if who is None:
                raise ProblemError(404, "Unknown order", "no instance ever claimed an order of this id")
            touched(conn, who, actor, now, {}, told_at=NO_NEWS)
            return orders.answer(conn, order_id, fence, outcome, detail)

        answered = await self._context.database.write(work)
        return json_response({"state": answered.state, "counted": answered.counted})

    async def resolve(self, request: web.Request) -> web.StreamResponse:
        """POST /orders/{id}/resolve {"as", "note"} -> the replay: a person decides an outcome that nobody knows."""
        body = Fields(await document(request))
        answer = body.need("as", word_of(ANSWERS), "")
        note = body.get("note", text_of(NOTE_CHARS_MAX, empty=True), "")
        body.done("Invalid decision")
        replay = await self._context.commands.resolve_order(request.match_info["id"], request["actor"], answer=answer, note=note)
        return json_response(encode(replay))


def _order_id(request: web.Request) -> bytes:
    try:
        return codes.blob(request.match_info["id"])
    except ValueError:
        raise ProblemError(404, "Unknown order", "the id of an order is a UUID") from None
