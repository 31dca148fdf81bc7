"""Single connections: how one is served, what bytes that are no request are answered with, and how one too many is sent away.

Rules: a refusal below the routes looks like every other one (problem+json, our headers, no inside); it is logged without a
traceback, since what a stranger sends must not fill a log. Who asks and then takes nothing of the answer for idle_s_max is
hung up on: such a connection would be held for as long as its peer likes.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import logging
import struct
import termios
from typing import Any, Protocol

from aiohttp import web
from aiohttp.http_exceptions import ContentEncodingError, HttpProcessingError

from looseends_daemon.http.answers import ENCODINGS, Limits, problem_response
from looseends_daemon.http.errors import ProblemError, phrase
from looseends_daemon.http.guard import Peer, secured
from looseends_daemon.http.quiet import OnceAMinute

LINGER_S_MAX = 2.0
DETAIL_CHARS_MAX = 200
_FULL_BODY = b'{"type":"about:blank","title":"Too many connections","status":503,"detail":"try again in a second"}'
_FULL = (
    b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\nConnection: close\r\n"
    b"Content-Type: application/problem+json\r\nContent-Length: %d\r\n\r\n%b" % (len(_FULL_BODY), _FULL_BODY)
)
_BYTES = struct.Struct("@i")


class Lookout(Protocol):
    """Who wants to know of connections, each by its number. By default nobody does."""

    def opened(self, number: int, address: str) -> None:
        """Somebody connected from this host (without a port), or over a unix socket."""

    def answered(self, number: int) -> None:
        """A request on it had its answer."""

    def ended(self, number: int, by_peer: bool, unanswered: bool) -> None:
        """It is closed: by its peer and in order, or else; and whether the peer had not taken an answer, or had none yet."""


class NoLookout:
    """Nobody asks who is connected."""

    def opened(self, number: int, address: str) -> None:
        """Nothing to do."""

    def answered(self, number: int) -> None:
        """Nothing to do."""

    def ended(self, number: int, by_peer: bool, unanswered: bool) -> None:
        """Nothing to do."""


class Connection(web.RequestHandler):
    """One connection of aiohttp's, within our limits and with our words."""

    __slots__ = ("_hung_up", "_idle_s_max", "_left", "_lookout", "_unanswered", "_wire", "_writing", "peer")

    def __init__(self, server: web.Server, limits: Limits, loop: asyncio.AbstractEventLoop, lookout: Lookout) -> None:
        self.peer: Peer | None = None
        self._lookout = lookout
        self._hung_up = self._unanswered = False
        self._idle_s_max, self._left = limits.idle_s_max, 0
        self._wire: asyncio.Transport | None = None
        self._writing: asyncio.TimerHandle | None = None
        super().__init__(
            server,
            loop=loop,
            logger=_log(),
            access_log=None,  # type: ignore[arg-type]  # as aiohttp's own runner passes it
            keepalive_timeout=limits.idle_s_max,
            lingering_time=LINGER_S_MAX,
            max_line_size=limits.header_bytes_max,
            max_field_size=limits.header_bytes_max,
            max_headers=limits.headers_max,
        )

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Ask to hear of every byte that the peer leaves with us."""
        super().connection_made(transport)
        if isinstance(transport, asyncio.Transport):
            transport.set_write_buffer_limits(high=0)
            self._wire = transport
        name = transport.get_extra_info("peername")
        self._lookout.opened(id(self), name[0] if isinstance(name, tuple) else "unix")

    def pause_writing(self) -> None:
        """The peer does not take all of an answer at once: see that it goes on taking."""
        super().pause_writing()
        self._watch_writing()

    def resume_writing(self) -> None:
        """The peer has taken everything."""
        self._stop_watching()
        super().resume_writing()

    def _watch_writing(self) -> None:
        self._stop_watching()
        if self._wire is not None:
            self._left = self._wire.get_write_buffer_size()
            self._writing = self._loop.call_later(self._idle_s_max, self._look_whether_it_takes)

    def _look_whether_it_takes(self) -> None:
        if self._wire is None:
            return
        if self._wire.get_write_buffer_size() < self._left:
            self._watch_writing()
        else:
            self._wire.abort()

    def _stop_watching(self) -> None:
        if self._writing is not None:
            self._writing.cancel()
            self._writing = None

    def eof_received(self) -> None:
        """The peer sends nothing more."""
        self._note_hang_up()
        super().eof_received()

    def connection_lost(self, exc: BaseException | None) -> None:
        """The connection is closed, by whomever. An error is a network's, or a peer's that threw away what we said."""
        self._stop_watching()
        self._wire = None
        self._lookout.ended(id(self), self._hung_up and exc is None, self._unanswered)
        super().connection_lost(exc)

    def _note_hang_up(self) -> None:
        """The peer hung up, and whether it was still waiting for an answer."""
        if not self._hung_up:
            self._hung_up = True
            self._unanswered = self._request_in_progress or bool(self._messages) or self._is_owed()

    def _is_owed(self) -> bool:
        """Whether some of what we said has not reached the peer: it lies with us, or in the system as not yet acknowledged."""
        sock = None if self._wire is None else self._wire.get_extra_info("socket")
        if self._wire is None or sock is None:
            return False
        left = self._wire.get_write_buffer_size()
        with contextlib.suppress(OSError):  # a system that does not tell
            left += _BYTES.unpack(fcntl.ioctl(sock.fileno(), termios.TIOCOUTQ, bytes(_BYTES.size)))[0]
        return left > 0

    async def finish_response(
        self, request: web.BaseRequest, resp: web.StreamResponse, start_time: float | None
    ) -> tuple[web.StreamResponse, bool]:
        """Send an answer. What aiohttp refuses before our middleware gets the form of every other refusal."""
        if isinstance(resp, web.HTTPException):
            detail = "the only thing that can be expected here is 100-continue" if resp.status == 417 else resp.reason
            resp = secured(problem_response(ProblemError(resp.status, detail=detail)), page=False)
        finished = await super().finish_response(request, resp, start_time)
        self._lookout.answered(id(self))
        return finished

    def log_exception(self, *args: Any, **kw: Any) -> None:
        """What went wrong beside an answer. A body that nobody read, and nobody could, is its sender's mistake."""
        cause = kw.get("exc_info")
        if isinstance(cause, web.RequestPayloadError | HttpProcessingError):
            self.logger.warning("the rest of a body could not be read: %s", type(cause).__name__)
        else:
            super().log_exception(*args, **kw)

    def handle_error(
        self, request: web.BaseRequest, status: int = 500, exc: BaseException | None = None, message: str | None = None
    ) -> web.StreamResponse:
        """The answer to what never became a request. Raises ConnectionError where an answer was already begun."""
        problem = _problem(status, exc, message)
        if isinstance(exc, ConnectionError):
            self.logger.debug("the asker went away before its answer")
        elif status >= 500:
            self.logger.error("a request failed before it reached a route", exc_info=exc)
        else:
            self.logger.warning("a request could not be read: %s", type(exc).__name__ if exc else status)
        if request.writer.output_size > 0:
            raise ConnectionError("an answer was already begun")
        response = secured(problem_response(problem), page=False)
        response.force_close()
        return response


def _problem(status: int, exc: BaseException | None, message: str | None) -> ProblemError:
    if isinstance(exc, ContentEncodingError):
        return ProblemError(415, detail=f"Content-Encoding is one of {', '.join(ENCODINGS)}")
    if status >= 500:
        return ProblemError(status, detail="something unexpected happened inside; the daemon's log has the details")
    words = " ".join((message or phrase(status)).split()).removesuffix(":")
    return ProblemError(status, "Malformed request", f"this is no HTTP request: {words[:DETAIL_CHARS_MAX]}")


class TurnedAway(asyncio.Protocol):
    """The protocol of a connection too many: it says so and ends."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Answer before anything was asked, and close."""
        if isinstance(transport, asyncio.WriteTransport):
            transport.write(_FULL)
        transport.close()


def _log() -> logging.Logger:
    log = logging.getLogger("looseends.http.connections")
    if not any(isinstance(kept, OnceAMinute) for kept in log.filters):
        log.addFilter(OnceAMinute())
    return log
