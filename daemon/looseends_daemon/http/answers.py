"""Answers and the reading of what was asked: JSON out, bodies and query parameters in.

Rules: JSON is encoded in one place; a body is read once, within `Limits`, before any handler sees the request; query
parameters that nobody knows are refused with the nearest known name, because a misspelt filter must not look like a result.
"""

from __future__ import annotations

import asyncio
import contextlib
import difflib
from collections.abc import Collection, Iterator
from typing import Any

import msgspec
from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

from looseends.wire import BODY_BYTES_MAX, parse_time
from looseends_daemon.core.resources import Value
from looseends_daemon.http.errors import ProblemError

ITEMS_MAX = 500
ITEMS_DEFAULT = 50
ENCODINGS = ("identity", "gzip", "deflate")


class Limits(Value, frozen=True):
    """What one sender can take of the daemon. Bytes are unpacked bytes; `_s_max` are seconds."""

    body_bytes_max: int = BODY_BYTES_MAX
    body_s_max: float = 10.0
    arriving_bytes_max: int = 64 << 20
    idle_s_max: float = 30.0
    connections_max: int = 512
    header_bytes_max: int = 8_190
    headers_max: int = 100


def json_response(
    value: Any, status: int = 200, headers: dict[str, str] | None = None, content_type: str = "application/json"
) -> web.Response:
    """Plain JSON types (`resources.encode(x)`) as an answer."""
    return web.Response(body=msgspec.json.encode(value), status=status, headers=headers, content_type=content_type)


def problem_response(problem: ProblemError) -> web.Response:
    """The one form of every refusal in the API."""
    return json_response(problem.body(), problem.status, problem.headers, "application/problem+json")


def nearest(name: str, known: Collection[str]) -> str:
    """The end of a sentence about an unknown name: the nearest known one, or all of them."""
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    return f"did you mean {close[0]}?" if close else f"known here: {', '.join(known) or 'none'}"


class Bodies:
    """The bodies that are still arriving. Over `bytes_max` in all, the one that has been arriving longest is cut off.

    400 connections that each keep a whole body back by its last byte would otherwise hold 600 MB. Cutting off the slowest, not
    the newest, lets everybody in who really sends.
    """

    def __init__(self, bytes_max: int) -> None:
        self._bytes_max = bytes_max
        self._bytes = 0
        self._arriving: dict[asyncio.Timeout, int] = {}

    @contextlib.contextmanager
    def arriving(self, size: int, deadline: asyncio.Timeout) -> Iterator[None]:
        """A body of up to `size` bytes, under a deadline that is moved to now when others need the room."""
        self._arriving[deadline] = size
        self._bytes += size
        while self._bytes > self._bytes_max and len(self._arriving) > 1:
            slowest = next(iter(self._arriving))
            self._gone(slowest)
            slowest.reschedule(asyncio.get_running_loop().time())
        try:
            yield
        finally:
            self._gone(deadline)

    def _gone(self, deadline: asyncio.Timeout) -> None:
        self._bytes -= self._arriving.pop(deadline, 0)


async def read_body(request: web.Request, limits: Limits, bodies: Bodies) -> bytes:
    """The whole body, unpacked; kept in the request, so that `request.json()` and `.post()` find it again.

    Raises ProblemError 400 (cut off, not gzip), 408 (not here within body_s_max, or slowest of all when others needed the room),
    413 (over body_bytes_max), 415.
    """
    encoding = request.headers.get("Content-Encoding")
    if encoding is not None and encoding.strip().lower() not in ENCODINGS:
        raise ProblemError(415, detail=f"Content-Encoding is one of {', '.join(ENCODINGS)}, not {encoding[:40]!r}")
    if (request.content_length or 0) > limits.body_bytes_max:
        raise too_large(limits)
    try:
        if request.content.is_eof():  # all of it came with the header: nothing to wait for
            return await request.read()
        async with asyncio.timeout(limits.body_s_max) as deadline:
            with bodies.arriving(_room_for(request, limits), deadline):
                return await request.read()
    except TimeoutError:
        detail = f"the body did not arrive within {limits.body_s_max:g} s, or was the slowest when others needed its room"
        raise ProblemError(408, detail=detail, headers={"Connection": "close"}) from None
    except web.HTTPRequestEntityTooLarge:
        raise too_large(limits) from None
    except (web.RequestPayloadError, HttpProcessingError) as error:
        detail = f"the body could not be unpacked or ended too early ({type(error).__name__})"
        raise ProblemError(400, "Malformed body", detail, headers={"Connection": "close"}) from None


def _room_for(request: web.Request, limits: Limits) -> int:
    """What a body may take until it is here: what it announced, the most it may be where that says nothing."""
    announced = request.content_length
    packed = request.headers.get("Content-Encoding", "identity").strip().lower() != "identity"
    return limits.body_bytes_max if announced is None or packed else announced


def too_large(limits: Limits) -> ProblemError:
    """413, with the number that holds."""
    detail = f"a body is at most {limits.body_bytes_max} bytes unpacked; send it in smaller batches"
    return ProblemError(413, detail=detail, headers={"Connection": "close"})


def decode_json(body: bytes) -> Any:
    """Strict JSON. Raises ProblemError 400 that says where: NaN, 1e999, half a surrogate and 1,000 levels are no JSON."""
    try:
        return msgspec.json.decode(body)
    except msgspec.DecodeError as error:
        raise ProblemError(400, "Malformed JSON", f"the body is not JSON: {_where(error, body)}") from None
    except UnicodeDecodeError:
        raise ProblemError(400, "Malformed JSON", f"the body is not UTF-8 {_not_utf8(body)}") from None
    except RecursionError:
        raise ProblemError(400, "Malformed JSON", "the body is nested too deep") from None


def _where(error: msgspec.DecodeError, body: bytes) -> str:
    text = str(error)
    return f"{text} (byte {len(body)})" if text == "Input data was truncated" else text


def _not_utf8(body: bytes) -> str:
    try:
        body.decode()
    except UnicodeDecodeError as error:
        return f"from byte {error.start}"
    return "in one of its escapes"


def only_known(request: web.Request, *known: str) -> None:
    """Refuse query parameters nobody reads, and one that stands there twice. Raises ProblemError 422."""
    for name in request.query:
        if name not in known:
            detail = f"unknown parameter {name[:60]!r}; {nearest(name, known)}"
            raise ProblemError(422, "Unknown parameter", detail, [{"pointer": f"/{name[:60]}", "detail": detail}])
        if len(request.query.getall(name)) > 1:
            raise wrong(name, "is given more than once")


def wrong(name: str, detail: str) -> ProblemError:
    """422 about one query parameter."""
    return ProblemError(422, "Invalid parameter", f"{name} {detail}", [{"pointer": f"/{name}", "detail": detail}])


def limit_of(request: web.Request) -> int:
    """`limit`, 1..ITEMS_MAX, ITEMS_DEFAULT where it is absent."""
    text = request.query.get("limit")
    if text is None:
        return ITEMS_DEFAULT
    if not (text.isascii() and text.isdigit() and len(text) <= 6 and 1 <= int(text) <= ITEMS_MAX):
        raise wrong("limit", f"is a whole number from 1 to {ITEMS_MAX}")
    return int(text)


def time_of(request: web.Request, name: str) -> int | None:
    """A time parameter in ns: RFC 3339 or whole nanoseconds; None where it is absent."""
    text = request.query.get(name)
    if text is None:
        return None
    try:
        # A "+" of a zone that nobody escaped arrives as a blank.
        return parse_time(int(text) if text.isascii() and text.isdigit() and len(text) < 20 else text.replace(" ", "+"))
    except ValueError as error:
        raise wrong(name, f"cannot be read: {error}") from None


def one_of(request: web.Request, name: str, words: Collection[str]) -> str | None:
    """A parameter with a fixed set of words; None where it is absent."""
    text = request.query.get(name)
    if text is not None and text not in words:
        raise wrong(name, f"is one of {', '.join(words)}; {nearest(text, words)}")
    return text
