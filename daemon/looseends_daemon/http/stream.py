"""GET /api/v1/stream: how things stand, told to every open browser the moment it changes.

Rules:

1. Counts only, never a row: who may see what is decided where rows are read. A page asks for what it shows.
2. The database is looked at once for all listeners, at most every LOOK_S, and only while somebody listens and something was
   committed. A message is encoded once and goes to all of them; at most one every SEND_S.
3. Each listener has a queue of QUEUE_MAX messages. Who does not take them is cut off and may come back with `Last-Event-ID`:
   what it missed is told if the daemon still has it (KEPT_MAX messages of this run), else how things stand now.
4. An `alive` event every ALIVE_S lets a page tell silence from peace. A stream ends after STREAM_S_MAX, so that the token of a
   listener is looked at again; it resumes by itself.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import time
from collections import deque
from collections.abc import Awaitable, Callable

import msgspec
from aiohttp import web

from looseends.wire import NS, format_time
from looseends_daemon.core.front import Now
from looseends_daemon.core.resources import encode
from looseends_daemon.core.routing import Route
from looseends_daemon.http.answers import only_known
from looseends_daemon.http.context import Context
from looseends_daemon.http.errors import ProblemError
from looseends_daemon.http.guard import secured
from looseends_daemon.store.front import StoreFront

STREAMS_MAX = 200
QUEUE_MAX = 64
KEPT_MAX = 64
LOOK_S = 0.25
SEND_S = 1.0
ALIVE_S = 5.0
STREAM_S_MAX = 900.0
WRITE_S_MAX = 10.0
RETRY_MS = 2_000
_ALIVE = b"event: alive\ndata: {}\n\n"
_END = b""


class Listener:
    """One open stream. `cut`: it did not take its messages."""

    def __init__(self) -> None:
        self.queue: asyncio.Queue[bytes] = asyncio.Queue(QUEUE_MAX)
        self.cut = False

    def give(self, message: bytes) -> None:
        """Queue a message; where there is no room for it the listener is cut off."""
        if self.cut:
            return
        if self.queue.full():
            self.cut = True
            while not self.queue.empty():
                self.queue.get_nowait()
            message = _END
        self.queue.put_nowait(message)


class Streams:
    """All open streams. `look` reads how things stand, `commits` counts the writes, `assets` is the version of the pages."""

    def __init__(self, look: Callable[[], Awaitable[Now]], commits: Callable[[], int], assets: str = "") -> None:
        self._look, self._commits, self._assets = look, commits, assets
        self._listeners: set[Listener] = set()
        self._kept: deque[tuple[int, bytes]] = deque(maxlen=KEPT_MAX)
        self._run = secrets.token_hex(4)
        self._number = 0
        self._seen = -1
        self._told: Now | None = None
        self._sent_at = float("-inf")
        self._closing = False
        self.cut = 0

    @property
    def listening(self) -> int:
        """How many streams are open."""
        return len(self._listeners)

    async def run_once(self, now: int) -> int | None:
        """Tell everybody if something changed; when to look again (ns)."""
        wait = self._sent_at + SEND_S - time.monotonic()
        if wait > 0:
            return now + int(wait * NS)
        if self._listeners and self._commits() != self._seen:
            await self._refresh(now)
        return now + int(LOOK_S * NS)

    async def _refresh(self, now: int) -> None:
        seen = self._commits()  # before the read: what is committed meanwhile is looked at again
        standing = await self._look()
        self._seen = seen
        if standing == self._told:
            return
        self._told = standing
        self._number += 1
        message = self._encoded(standing, now)
        self._kept.append((self._number, message))
        self._sent_at = time.monotonic()
        for listener in self._listeners:
            listener.give(message)

    def _encoded(self, standing: Now, now: int) -> bytes:
        data = msgspec.json.encode({"at": format_time(now), "assets": self._assets, "stamp": standing.stamp, **encode(standing)})
        return b"event: now\nid: %s-%d\ndata: %s\n\n" % (self._run.encode(), self._number, data)

    async def open(self, last_id: str | None, now: int) -> Listener:
        """A new stream that begins with what was missed, or with how things stand. Raises ProblemError 503."""
        if self._closing or len(self._listeners) >= STREAMS_MAX:
            detail = f"{STREAMS_MAX} streams are open, which is as many as there may be; close a window"
            raise ProblemError(503, detail="the daemon is stopping" if self._closing else detail, headers={"Retry-After": "5"})
        listener = Listener()
        await self._refresh(now)  # nobody may have listened for a while
        for message in self._missed(last_id):
            listener.give(message)
        self._listeners.add(listener)
        return listener

    def _missed(self, last_id: str | None) -> list[bytes]:
        run, _, text = (last_id or "").rpartition("-")
        known = run == self._run and text.isascii() and text.isdigit() and len(text) <= 18
        after = int(text) if known else -1
        if known and self._kept and self._kept[0][0] <= after + 1:
            return [message for number, message in self._kept if number > after]
        return [self._kept[-1][1]] if self._kept else []

    def leave(self, listener: Listener) -> None:
        """A stream is closed."""
        self.cut += listener.cut
        self._listeners.discard(listener)

    def close(self) -> None:
        """End all streams: the doors are closing."""
        self._closing = True
        for listener in self._listeners:
            if not listener.queue.full():
                listener.give(_END)
            listener.cut = True


def routes(context: Context) -> list[Route]:
    """The one door. Where nobody keeps the streams going they tell how things stood when they were opened."""
    streams: Streams = context.streams
    if streams is None:
        streams = Streams(StoreFront(context.database, wall_ns=context.now).now, lambda: context.database.commits)

    async def stream(request: web.Request) -> web.StreamResponse:
        only_known(request)
        headers = {"Content-Type": "text/event-stream; charset=utf-8", "X-Accel-Buffering": "no"}
        response = secured(web.StreamResponse(headers=headers), page=False)
        if request.method == "HEAD":  # how a browser learns why its stream was refused
            return web.Response(headers={"Content-Type": "text/event-stream"})
        listener = await streams.open(request.headers.get("Last-Event-ID"), context.now())
        try:
            await response.prepare(request)
            await response.write(b"retry: %d\n\n" % RETRY_MS)
            await _tell(listener, response)
        except (ConnectionError, TimeoutError):
            pass  # the browser is gone, or takes nothing any more: it knows where to go on
        finally:
            streams.leave(listener)
        with contextlib.suppress(ConnectionError):
            await response.write_eof()
        return response

    return [Route(method="GET", path="/api/v1/stream", role="viewer", handler=stream)]


async def _tell(listener: Listener, response: web.StreamResponse) -> None:
    """Send until the listener is cut off or its time is over. Raises ConnectionError, TimeoutError (a write that hangs)."""
    ends = time.monotonic() + STREAM_S_MAX
    while time.monotonic() < ends:
        try:
            async with asyncio.timeout(ALIVE_S):
                message = await listener.queue.get()
        except TimeoutError:
            message = _ALIVE
        if message == _END or listener.cut:
            return
        async with asyncio.timeout(WRITE_S_MAX):
            await response.write(message)
