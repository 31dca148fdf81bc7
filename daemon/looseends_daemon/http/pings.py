"""`/ping/...`: Healthchecks' address scheme, so that whatever pings there pings here unchanged but for the host.

Rules: the answer `OK` means committed. The key is the token of a service and is checked by the guard like any other, before the
body. A long body is read to its end and kept from its end: a job must not look dead because its log was long.
"""

from __future__ import annotations

import asyncio
import zlib
from uuid import uuid4

from aiohttp import web

from looseends_daemon.core.pings import BODY_KEPT_BYTES_MAX, Ping, read_ping
from looseends_daemon.core.routing import Route
from looseends_daemon.http.context import Context
from looseends_daemon.http.errors import ProblemError
from looseends_daemon.store.pings import apply_ping

BODY_BYTES_MAX = 64 << 20
"""Read and let go beyond what is kept; more than this is no log."""
BODY_S_MAX = 30.0


def routes(context: Context) -> list[Route]:
    """The doors of pings: with and without key, with and without action, by GET, HEAD and POST."""

    async def ping(request: web.Request) -> web.Response:
        slug, action = _address(request)
        body = await read_end(request) if request.method == "POST" else b""
        try:
            told = read_ping(slug, action, request.query.get("rid", ""), body)
        except ValueError as error:
            raise ProblemError(400, "This is no ping", str(error)) from None
        await _store(context, request, told)
        context.wake()
        return web.Response(text="OK")

    return [
        *(Route(method=m, path="/ping/{slug}", role="ingest", handler=ping, raw=True) for m in ("GET", "POST")),
        *(Route(method=m, path="/ping/{key}/{slug}", role="ingest", handler=ping, raw=True) for m in ("GET", "POST")),
        *(Route(method=m, path="/ping/{key}/{slug}/{action}", role="ingest", handler=ping, raw=True) for m in ("GET", "POST")),
    ]


def _address(request: web.Request) -> tuple[str, str]:
    """(slug, action). A key holds a dot and a slug never does: that tells `/ping/{key}/{slug}` from `/ping/{slug}/start`."""
    found = request.match_info
    key = found.get("key")
    if key is None or "." in key:
        return found["slug"], found.get("action", "")
    if "action" in found:
        detail = (
            "the key is <id>.<secret> of an ingest token: make one with `looseends token create --role ingest --service NAME`"
        )
        raise ProblemError(400, "This is no ping", detail)
    return key, found["slug"]


async def read_end(request: web.Request) -> bytes:
    """The last BODY_KEPT_BYTES_MAX bytes of a body. Raises ProblemError 400 (broken off), 408 (too slow), 413 (no log)."""
    kept, size = b"", 0
    try:
        async with asyncio.timeout(BODY_S_MAX):
            async for chunk in request.content.iter_chunked(64 << 10):
                size += len(chunk)
                kept = (kept + chunk)[-BODY_KEPT_BYTES_MAX:]
                if size > BODY_BYTES_MAX:
                    detail = f"a ping's body is at most {BODY_BYTES_MAX} bytes; send its end: tail -c {BODY_KEPT_BYTES_MAX}"
                    raise ProblemError(413, detail=detail, headers={"Connection": "close"})
    except TimeoutError:
        detail = f"the body did not arrive within {BODY_S_MAX:g} s"
        raise ProblemError(408, detail=detail, headers={"Connection": "close"}) from None
    except (web.RequestPayloadError, zlib.error):
        detail = "the body could not be unpacked or ended too early"
        raise ProblemError(400, "Malformed body", detail, headers={"Connection": "close"}) from None
    return kept


async def _store(context: Context, request: web.Request, told: Ping) -> None:
    """Fold and commit. Raises ProblemError 409 where the run's id was used up, or belongs to somebody else; StoreBusy."""
    now, fresh, actor = context.now(), str(uuid4()), request["actor"]
    room = context.settings.storage.max_payload
    applied = await context.database.write(
        lambda conn: apply_ping(conn, told, fresh, actor=actor, now=now, policy=context.policy, payload_bytes_max=room),
        size=len(told.body),
        grows=True,
    )
    if applied is not None and applied.rejected:
        raise ProblemError(409, "This ping was not taken", applied.rejected[0].detail)
