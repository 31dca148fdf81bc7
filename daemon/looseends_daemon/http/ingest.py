"""`POST /api/v1/events`: what clients and shell users report, answered only after it is on disk.

Rules: the answer 200 means committed. One bad event is one `rejected` entry and never holds up its neighbours; only a body that
is no JSON at all (400), too large (413), of another type (415) or without a usable envelope (422) is refused as a whole. Where
every event was rejected the same answer comes as 422, so that `curl --fail` in a script notices. In NDJSON every line stands for
itself, so even a line that does not parse is one entry; there `index` is the line, from 0.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from aiohttp import web

from looseends import parcel
from looseends.wire import EVENTS_MAX, Batch, Problem, Refused, check_batch
from looseends_daemon.core.payloads import within
from looseends_daemon.core.policy import Policy
from looseends_daemon.core.resources import Actor
from looseends_daemon.core.routing import Route
from looseends_daemon.http.answers import decode_json, json_response
from looseends_daemon.http.context import Context
from looseends_daemon.http.errors import ProblemError
from looseends_daemon.http.strangers import NOT_THEIRS, reached_for
from looseends_daemon.store.blind import Connection
from looseends_daemon.store.facts import Applied, OwnershipRefused, apply_batches
from looseends_daemon.store.joining import Told
from looseends_daemon.store.judgements import next_check
from looseends_daemon.store.orders import waiting_for
from looseends_daemon.store.questions import ask

JSON = "application/json"
NDJSON = "application/x-ndjson"
WARNINGS_MAX = 100
Stored = tuple[Applied, int, int | None]
"""What became of a batch, how many orders wait for its instance, and when the detector has something to look at (ns)."""


def routes(context: Context) -> list[Route]:
    """The one door of events."""

    def fold(conn: Connection, told: Sequence[Told]) -> list[Stored]:
        return _fold(conn, told, context.policy)

    async def post_events(request: web.Request) -> web.Response:
        body = await request.read()
        batch = within(read_batch(body, request.content_type, context.now()), context.settings.storage.max_payload)
        applied, orders, due = await _store(context, fold, batch, request["actor"], len(body))
        _wake(context, due)
        status = 422 if _nothing_taken(batch, applied) else 200
        return json_response(_answer(batch, applied, orders), status, {parcel.TAKES: parcel.TAKEN})

    return [Route(method="POST", path="/api/v1/events", role="ingest", handler=post_events)]


def _wake(context: Context, due: int | None) -> None:
    """Have the detector look when something is due. Woken for every batch it would commit as often as the batches do."""
    if context.wake_by is None:
        context.wake()
    elif due is not None:
        context.wake_by(due)


def read_batch(body: bytes, content_type: str, now: int) -> Batch:
    """A body as a checked batch. Raises ProblemError 400, 413, 415, 422."""
    try:
        if content_type == JSON:
            document = decode_json(body)
            _check_count(document)
            return check_batch(document, now)
        if content_type == NDJSON:
            return _read_lines(body, now)
        if content_type == parcel.CONTENT_TYPE:
            return _read_parcel(body, now)
    except parcel.TooMuch as error:
        raise ProblemError(413, "Too many events", f"{error}: send them in smaller batches") from None
    except OverflowError:
        detail = "the body holds a whole number too large to be one"
        raise ProblemError(400, "Malformed JSON", detail) from None
    except Refused as refused:
        entry = {"pointer": refused.pointer, "detail": refused.detail}
        detail = f"{refused.pointer or 'the body'} {refused.detail}"
        raise ProblemError(422, "The batch cannot be used", detail, [entry]) from None
    raise ProblemError(415, detail=f"Content-Type is {JSON}, {NDJSON} or {parcel.CONTENT_TYPE}, not {content_type[:80]!r}")


def _read_parcel(body: bytes, now: int) -> Batch:
    """The journal's own bytes -> Batch; what is no record in them is rejected by its number."""
    found = parcel.read(body)
    batch = check_batch(found.document, now)
    return batch._replace(rejected=[*batch.rejected, *found.damaged])


def _check_count(document: Any) -> None:
    events = document.get("events") if isinstance(document, dict) else document
    if isinstance(events, list) and len(events) > EVENTS_MAX:
        raise _too_many(len(events))


def _too_many(count: int) -> ProblemError:
    detail = f"{count} events; at most {EVENTS_MAX} are taken in one batch: send them in smaller ones"
    return ProblemError(413, "Too many events", detail)


def _read_lines(body: bytes, now: int) -> Batch:
    """NDJSON -> Batch, with line numbers for indexes."""
    lines = [(number, line) for number, line in enumerate(body.split(b"\n")) if line.strip()]
    if len(lines) > EVENTS_MAX:
        raise _too_many(len(lines))
    numbers, events, rejected = [], [], []
    for number, line in lines:
        try:
            events.append(decode_json(line))
            numbers.append(number)
        except ProblemError as problem:
            rejected.append(Problem(number, "", problem.detail.replace("the body", "this line")))
    batch = check_batch(events, now)
    rejected += _at_lines(batch.rejected, numbers)
    return batch._replace(
        rejected=rejected,
        warnings=_at_lines(batch.warnings, numbers),
        indexes=[numbers[index] for index in batch.indexes],
    )


def _at_lines(problems: Iterable[Problem], numbers: list[int]) -> list[Problem]:
    return [Problem(numbers[problem.index], problem.pointer, problem.detail) for problem in problems]


def is_proven(actor: Actor) -> bool:
    """Whether orders may go to this caller: an ingest token, or the unix socket with the daemon's uid or root's."""
    return actor.token is not None or (actor.uid is not None and actor.uid in (0, os.geteuid()))


def _fold(conn: Connection, told: Sequence[Told], policy: Policy) -> list[Stored]:
    """Fold batches that wait side by side. Raises OwnershipRefused."""
    applied = apply_batches(conn, told, policy)
    waiting = [
        ask(conn, waiting_for(one.batch.instance["id"], one.now)) if one.batch.instance is not None and one.proven else 0
        for one in told
    ]
    due = next_check(conn)
    return [(done, orders, due) for done, orders in zip(applied, waiting, strict=True)]


async def _store(
    context: Context, fold: Callable[[Connection, Sequence[Told]], list[Stored]], batch: Batch, actor: Actor, size: int
) -> Stored:
    """Fold and commit. Raises ProblemError 403 for somebody else's instance, StoreBusy."""
    if batch.instance is not None:
        context.presence.heard(batch.instance["id"])
    told = Told(batch, actor, context.now(), proven=is_proven(actor), delayed=context.waited(batch.sent_at))
    try:
        stored = await context.database.write_together(fold, told, size=size, grows=True)
        foreign = next((problem.detail for problem in stored[0].rejected if problem.detail.startswith(NOT_THEIRS)), None)
        if foreign is not None:
            reached_for(actor, "tell of", foreign)
        return stored
    except OwnershipRefused as refused:
        raise ProblemError(403, "Not your instance", str(refused), [{"pointer": "/instance", "detail": str(refused)}]) from None


def _nothing_taken(batch: Batch, applied: Applied) -> bool:
    """Whether there were events, and every one of them was rejected."""
    return bool(batch.rejected or applied.rejected) and not applied.accepted and not applied.duplicates


def _answer(batch: Batch, applied: Applied, orders: int) -> dict[str, Any]:
    return {
        "accepted": applied.accepted,
        "duplicates": applied.duplicates,
        "warnings": _entries([*batch.warnings, *applied.warnings][:WARNINGS_MAX]),
        "rejected": _entries(sorted((*batch.rejected, *applied.rejected), key=lambda problem: problem.index)),
        "orders": orders,
    }


def _entries(problems: Iterable[Problem]) -> list[dict[str, object]]:
    return [problem.as_json() for problem in problems]
