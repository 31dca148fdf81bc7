"""One request and its answer over an open socket: as much of HTTP/1.1 as a client of the daemon needs.

Rules: what is no answer is an OSError, never a guess; sizes have bounds; a socket is kept for the next request only where both
sides know that this answer has ended. `http.client` does more, and takes 400 us of the interpreter's lock for each request, three
quarters of what a batch of 400 records costs the service (bench/service.py), and 20 ms when it is imported.
"""

from __future__ import annotations

import socket
from typing import NamedTuple

HEAD_BYTES_MAX = 64 << 10
READ_BYTES = 16 << 10
LINE_BYTES_MAX = 1 << 10  # of a chunk's size
_BLANK = b"\r\n\r\n"


class Reply(NamedTuple):
    """An answer: `headers` by lower-case name, the last of a name counts; `keeps`: whether another request may follow."""

    status: int
    headers: dict[str, str]
    body: bytes
    keeps: bool


class NoAnswer(ConnectionError):
    """What came, or did not come, is no answer in HTTP."""


def exchange(sock: socket.socket, request: str, headers: dict[str, str], body: bytes | None, bytes_max: int) -> Reply:
    """Ask and read; `request` is method and path. Of a body more than `bytes_max` is not read. Raises OSError."""
    lines = [request + " HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items())]
    if body is not None:
        lines.append(f"Content-Length: {len(body)}")
    if not "".join(lines).isprintable():
        raise NoAnswer("what is to be asked holds a line break or another control character, which HTTP cannot carry")
    sock.sendall("\r\n".join(lines).encode("latin-1", "replace") + _BLANK + (body or b""))
    return _Answering(sock).reply(bytes_max)


class _Answering:
    """What has been read of an answer so far."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock, self._data = sock, b""

    def reply(self, bytes_max: int) -> Reply:
        status, version, headers = self._head()
        while 100 <= status < 200:  # not yet
            status, version, headers = self._head()
        keeps = version != b"HTTP/1.0" and "close" not in headers.get("connection", "").lower()
        body, ended = self._body(status, headers, bytes_max)
        return Reply(status, headers, body, keeps and ended and not self._data)

    def _head(self) -> tuple[int, bytes, dict[str, str]]:
        first, *lines = self._until(_BLANK, HEAD_BYTES_MAX).split(b"\r\n")
        version, _, rest = first.partition(b" ")
        if not version.startswith(b"HTTP/1.") or not rest[:3].isdigit():
            raise NoAnswer(f"it answers {first[:60]!r}, which is no HTTP")
        headers: dict[str, str] = {}
        for line in lines:
            name, _, value = line.decode("latin-1").partition(":")
            headers[name.strip().lower()] = value.strip()
        return int(rest[:3]), version, headers

    def _body(self, status: int, headers: dict[str, str], bytes_max: int) -> tuple[bytes, bool]:
        """The body, and whether all of it was read and its end is known."""
        if status in (204, 304):
            return b"", True
        if "transfer-encoding" in headers:
            return self._chunks(bytes_max)
        length = headers.get("content-length")
        if length is None:
            return self._rest(bytes_max), False
        if not (length.isascii() and length.isdecimal()):
            raise NoAnswer(f"a Content-Length of {length[:40]!r}")
        return self._take(min(int(length), bytes_max)), int(length) <= bytes_max

    def _chunks(self, bytes_max: int) -> tuple[bytes, bool]:
        body = b""
        while len(body) <= bytes_max:
            line = self._until(b"\r\n", LINE_BYTES_MAX)
            try:
                size = int(line.partition(b";")[0].strip(), 16)
            except ValueError:
                raise NoAnswer(f"a chunk of size {line[:40]!r}") from None
            if not 0 <= size <= bytes_max:
                raise NoAnswer(f"a chunk of {size} bytes")
            if not size:
                while self._until(b"\r\n", HEAD_BYTES_MAX):  # trailers
                    continue
                return body, True
            body += self._take(size)
            self._until(b"\r\n", LINE_BYTES_MAX)
        return body[:bytes_max], False

    def _rest(self, bytes_max: int) -> bytes:
        while len(self._data) < bytes_max and (piece := self._sock.recv(READ_BYTES)):
            self._data += piece
        body, self._data = self._data[:bytes_max], b""
        return body

    def _take(self, size: int) -> bytes:
        while len(self._data) < size:
            self._more()
        taken, self._data = self._data[:size], self._data[size:]
        return taken

    def _until(self, mark: bytes, bytes_max: int) -> bytes:
        while (end := self._data.find(mark)) < 0:
            if len(self._data) > bytes_max:
                raise NoAnswer(f"over {bytes_max} bytes without an end")
            self._more()
        taken, self._data = self._data[:end], self._data[end + len(mark) :]
        return taken

    def _more(self) -> None:
        piece = self._sock.recv(READ_BYTES)
        if not piece:
            raise NoAnswer("it hung up without a whole answer")
        self._data += piece
