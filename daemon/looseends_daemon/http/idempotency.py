"""An act is done once, however often it is asked for: the same key and body on the same path get the first answer again.

Rules: the key is a header in the API (`Idempotency-Key`) and a hidden field in forms (`idempotency_key`); it is remembered for
24 hours per method and concrete path. Same key with another body is 422, none is 400, a first act that still runs is 409. An
answer is kept, refusals and failures included: whoever repeats a request learns what became of it, not what would become of
it now. Only 503 frees the key, since it says that nothing was taken.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Awaitable, Callable

from aiohttp import web

from looseends_daemon.http.context import Context
from looseends_daemon.http.errors import ProblemError
from looseends_daemon.store import acts
from looseends_daemon.store.acts import Answer, Seen

KEY = re.compile(r"[\x21-\x7e]{8,200}")
KEPT_HEADERS = ("Content-Type", "Location")
FORM = "a token of 8 to 200 visible characters, a new one for each act"


def key_of(given: str | None, name: str, pointer: str) -> str:
    """The key as it was sent. Raises ProblemError 400 for a missing or misshapen one."""
    if not given:
        raise ProblemError(400, "Idempotency key missing", f"this acts, so it needs {name}: {FORM}")
    if KEY.fullmatch(given) is None:
        detail = f"{name} must be {FORM}"
        raise ProblemError(400, "Invalid idempotency key", detail, [{"pointer": pointer, "detail": detail}])
    return given


async def once(
    context: Context, request: web.Request, key: str, act: Callable[[], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    """Run `act` unless this key has been here. `act` answers refusals and failures as responses, it does not raise them.

    Raises ProblemError 409 (still running, or cut off by a stop of the daemon) and 422 (another body).
    """
    door = f"{request.method} {request.path}"
    body_hash = hashlib.sha256(await request.read()).digest()
    database, now = context.database, context.now()
    seen = await database.write(lambda conn: acts.begin_act(conn, door, key, body_hash, now=now))
    if seen is not None:
        return _again(seen, context.started_at)
    response = await act()
    answer = _answer(response)
    if answer.status == 503:
        await database.write(lambda conn: acts.drop_act(conn, door, key))
    else:
        await database.write(lambda conn: acts.finish_act(conn, door, key, answer))
    return response


def _answer(response: web.StreamResponse) -> Answer:
    body = response.body if isinstance(response, web.Response) else None
    headers = {name: response.headers[name] for name in KEPT_HEADERS if name in response.headers}
    return Answer(status=response.status, headers=headers, body=bytes(body) if isinstance(body, bytes) else b"")


def _again(seen: Seen, started_at: int) -> web.StreamResponse:
    if not seen.same_body:
        raise ProblemError(422, "Idempotency key already used", "this key was sent with another body; use a new key")
    if seen.answer is not None:
        headers = {**seen.answer.headers, "Idempotency-Replayed": "true"}
        return web.Response(status=seen.answer.status, headers=headers, body=seen.answer.body)
    if seen.at >= started_at:
        detail = "the first request with this key is still running; ask again in a second"
        raise ProblemError(409, "Still running", detail, headers={"Retry-After": "1"})
    detail = "the daemon stopped while the first request with this key ran: look whether it took effect, then use a new key"
    raise ProblemError(409, "Outcome unknown", detail)
