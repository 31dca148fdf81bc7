"""One line to a daemon: requests as bytes, answers as they came, and what is left over between them.

Rules: a request is written whole before its answer is read, so whatever arrives before the next one belongs to nobody and is
a fault; an answer has ANSWER_S_MAX to come.
"""

from __future__ import annotations

import contextlib
import gzip
import select
import socket
from dataclasses import dataclass, field
from http.client import HTTPException, HTTPResponse
from typing import Self

STREAM_BYTES = 4_096
ANSWER_S_MAX = 15.0
SHOWN_BYTES_MAX = 600


@dataclass(frozen=True)
class Case:
    """A request. `door` is the route it was made from; `method` and `target` what is really asked."""

    door: str
    method: str
    target: bytes
    headers: tuple[tuple[bytes, bytes], ...] = ()
    body: bytes | None = None

    def raw(self) -> bytes:
        """The bytes to send."""
        lines = [self.method.encode("latin-1") + b" " + self.target + b" HTTP/1.1"]
        lines += [name + b": " + value for name, value in self.headers]
        if self.body is not None:
            lines.append(b"Content-Length: %d" % len(self.body))
        return b"\r\n".join(lines) + b"\r\n\r\n" + (self.body or b"")

    def shown(self) -> str:
        """Enough of it to send it again by hand."""
        raw = self.raw()
        return f"{raw[:SHOWN_BYTES_MAX]!r}" + (f" ... {len(raw)} bytes" if len(raw) > SHOWN_BYTES_MAX else "")


@dataclass(frozen=True)
class Reply:
    """An answer, header names in lower case. Status 0: there was none, `body` says why."""

    status: int
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""

    @property
    def kind(self) -> str:
        return self.headers.get("content-type", "").partition(";")[0]


class Line:
    """A connection to a unix socket or a port, made when it is needed and kept while the daemon keeps it."""

    def __init__(self, place: str | tuple[str, int]) -> None:
        self._place = place
        self._sock: socket.socket | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Hang up; the next request calls again."""
        if self._sock is not None:
            self._sock.close()
            self._sock = None

    def ask(self, case: Case) -> Reply:
        """Send, and read one answer. A kept connection that the daemon closed meanwhile is made anew once."""
        kept = self._sock is not None
        reply = self._asked(case)
        return self._asked(case) if kept and reply.status == 0 else reply

    def _asked(self, case: Case) -> Reply:
        try:
            reply, keeps = _exchange(self._connected(), case)
        except (OSError, HTTPException) as error:
            self.close()
            return Reply(0, body=f"no answer: {type(error).__name__} {error}".encode())
        if not keeps:
            self.close()
        elif (extra := self._left_over()) is not None:
            self.close()
            return Reply(0, body=b"after the answer came bytes that nobody asked for: " + extra[:200])
        return reply

    def _connected(self) -> socket.socket:
        if self._sock is None:
            unix = isinstance(self._place, str)
            self._sock = socket.socket(socket.AF_UNIX if unix else socket.AF_INET, socket.SOCK_STREAM)
            self._sock.settimeout(ANSWER_S_MAX)
            self._sock.connect(self._place)
        return self._sock

    def _left_over(self) -> bytes | None:
        """Bytes beyond the answer; None where there are none, also where the daemon has just hung up."""
        assert self._sock is not None
        if not select.select([self._sock], [], [], 0)[0]:
            return None
        return self._sock.recv(4_096) or None


def _exchange(sock: socket.socket, case: Case) -> tuple[Reply, bool]:
    """(the answer, whether the connection is kept). Raises OSError, HTTPException."""
    # It may have answered and closed before it had heard everything: the answer is there to read.
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        sock.sendall(case.raw())
    with HTTPResponse(sock, method=case.method) as response:
        response.begin()
        headers = {name.lower(): value for name, value in response.getheaders()}
        if headers.get("content-type", "").startswith("text/event-stream"):
            # It has no end: what comes first is the answer, and the connection is given up.
            return Reply(response.status, headers, response.read1(STREAM_BYTES)), False
        body = response.read()
        if headers.get("content-encoding") == "gzip" and body:
            body = gzip.decompress(body)
        return Reply(response.status, headers, body), not response.will_close
