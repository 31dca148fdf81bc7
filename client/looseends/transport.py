"""One kept connection to the daemon, and what came of each request: an outcome, never an exception.

Rules: used by the sender's thread alone. `LOOSEENDS_URL` decides; without it the unix socket in the state folder, if
something answers there, else loopback on the default port. A process that has reached that socket once stays with it:
while its daemon restarts, any process may listen on the port, and would be handed the arguments of tasks. A connection is
proven when it is a unix socket whose peer has our uid or root's: only then, or with a valid mac, are orders taken. The
third part of a token never leaves.
"""

from __future__ import annotations

import os
import socket
import struct
from typing import TYPE_CHECKING, Any, NamedTuple

from . import slots, trouble
from .lifecycle import PROCESS, VERSION
from .settings import Settings
from .silence import Silence
from .wire import BODY_BYTES_MAX, DEFAULT_PORT

if TYPE_CHECKING:
    import http.client

CONNECT_S = 2.0
ANSWER_S = 10.0
GZIP_BYTES_MIN = 4 << 10
UNIX_BYTES_MAX = 108  # of a socket's path, its closing zero included
_UCRED = struct.Struct("@iII")


class Answer(NamedTuple):
    """status 0: nobody answered. `body` is the decoded JSON, or None. retry_after in seconds, 0 where not said."""

    status: int
    body: Any = None
    retry_after: float = 0.0


class Address(NamedTuple):
    """Where to connect: scheme "unix" with a path, or "http" / "https" with host and port; prefix as in the URL."""

    scheme: str
    host: str
    port: int = 0
    prefix: str = ""

    def __str__(self) -> str:
        """As in LOOSEENDS_URL."""
        if self.scheme == "unix":
            return f"unix:{self.host}"
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}:{self.port}{self.prefix}"


def parse_url(url: str) -> Address:
    """`https://host`, `http://host:port` or `unix:/path`. Raises ValueError naming the forms."""
    if url.startswith("unix:"):
        path = url[len("unix:") :]
        path = path[2:] if path.startswith("//") else path
        if path.startswith("/") and len(path.encode()) < UNIX_BYTES_MAX:
            return Address("unix", path)
    else:
        from urllib.parse import urlsplit

        parts = urlsplit(url)
        if parts.scheme in ("http", "https") and parts.hostname and not parts.query and not parts.username:
            port = parts.port or (443 if parts.scheme == "https" else 80)
            return Address(parts.scheme, parts.hostname, port, parts.path.rstrip("/"))
    raise ValueError(f"LOOSEENDS_URL is https://host, http://host:port or unix:/path (absolute, under 108 bytes), not {url!r}")


class Transport:
    """The connection, made when needed and kept."""

    def __init__(self, settings: Settings, spool: str = "") -> None:
        """`spool` is where records wait while nobody answers, by default the one of the settings."""
        self._settings = settings
        self.silence = Silence(spool or settings.spool)
        self._connection: http.client.HTTPConnection | None = None
        self._address: Address | None = None
        self._default = Address("unix", f"{settings.state}/looseends.sock"), Address("http", "127.0.0.1", DEFAULT_PORT)
        self.proven = False
        parts = (settings.token or "").split(".")
        self._bearer = ".".join(parts[:2]) if len(parts) >= 2 else ""
        self.order_key = parts[2] if len(parts) == 3 else ""

    def request(self, method: str, path: str, body: bytes | None = None) -> Answer:
        """Ask once; where a kept connection turns out to be dead, once more on a new one (every request may be repeated)."""
        for fresh in (False, True):
            if fresh and self._connection is not None:
                self.close()
            reused = self._connection is not None
            try:
                return self._ask(method, path, body)
            except Exception as error:  # noqa: BLE001 - sockets, TLS, HTTP and JSON fail in more ways than can be listed
                self.close()
                if not reused:
                    self.silence.go_on(self.where(), f"{type(error).__name__}: {error}")
                    break
        return Answer(0)

    def _ask(self, method: str, path: str, body: bytes | None) -> Answer:
        connection = self._connection or self._connect()
        headers = {"User-Agent": f"looseends/{VERSION}", "Accept": "application/json"}
        if self._bearer:
            headers["Authorization"] = f"Bearer {self._bearer}"
        if body is not None:
            headers["Content-Type"] = "application/json"
            if len(body) >= GZIP_BYTES_MIN and not self._is_local():
                import gzip

                body = gzip.compress(body, 1)
                headers["Content-Encoding"] = "gzip"
        prefix = self._address.prefix if self._address else ""
        connection.request(method, f"{prefix}/api/v1{path}", body, headers)
        response = connection.getresponse()
        data = response.read(BODY_BYTES_MAX)
        self.silence.end(self.where())
        if response.isclosed() is False or response.will_close:
            self.close()
        return Answer(response.status, slots.loads(data) if data else None, _seconds(response.getheader("Retry-After")))

    def _is_local(self) -> bool:
        address = self._address
        return address is not None and (address.scheme == "unix" or address.host in ("127.0.0.1", "localhost", "::1"))

    def _connect(self) -> http.client.HTTPConnection:
        error: Exception = OSError("no address")
        for address in self._addresses():
            try:
                connection = _open(address)
            except OSError as failure:
                error = failure
                continue
            self._connection, self._address = connection, address
            if address == self._default[0]:
                PROCESS.reached = address.host
            self.proven = address.scheme == "unix" and _peer_is_ours(connection.sock)
            return connection
        raise error

    def where(self) -> str:
        """Where the daemon is, or is looked for."""
        return " or ".join(map(str, self._addresses() if self._connection is None or self._address is None else [self._address]))

    def _addresses(self) -> list[Address]:
        if self._settings.url:
            try:
                return [parse_url(self._settings.url)]
            except ValueError as error:
                trouble.note("LOOSEENDS_URL cannot be used; the default is", error)
        socket_file, port = self._default
        if PROCESS.reached == socket_file.host:
            return [socket_file]
        return [socket_file, port] if len(socket_file.host.encode()) < UNIX_BYTES_MAX else [port]

    def close(self) -> None:
        """Drop the connection; the next request opens another."""
        connection, self._connection, self.proven = self._connection, None, False
        if connection is not None:
            connection.close()

    def abandon(self) -> None:
        """In a forked child: free the descriptor and nothing else.

        The parent's thread may have been reading an answer; closing the file it read from would wait for a lock that nobody in
        this process will ever give back.
        """
        connection, self._connection, self.proven = self._connection, None, False
        if connection is not None and connection.sock is not None:
            os.close(connection.sock.detach())


def _open(address: Address) -> http.client.HTTPConnection:
    import http.client

    if address.scheme == "https":
        connection: http.client.HTTPConnection = http.client.HTTPSConnection(address.host, address.port, timeout=CONNECT_S)
        connection.connect()
    elif address.scheme == "http":
        connection = http.client.HTTPConnection(address.host, address.port, timeout=CONNECT_S)
        connection.connect()
    else:
        connection = http.client.HTTPConnection("localhost", timeout=ANSWER_S)
        connection.sock = _unix(address.host)
    connection.sock.settimeout(ANSWER_S)
    connection.auto_open = 0  # it would reopen a unix connection as TCP, and behind our back
    return connection


def _unix(path: str) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        sock.settimeout(CONNECT_S)
        sock.connect(path)
    except OSError:
        sock.close()
        raise
    return sock


def _peer_is_ours(sock: socket.socket) -> bool:
    """Whether the process that listens there runs as us or as root; systems that cannot tell prove nothing."""
    if not hasattr(socket, "SO_PEERCRED"):
        return False
    _, uid, _ = _UCRED.unpack(sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size))
    return uid in (os.getuid(), 0)


def _seconds(value: str | None) -> float:
    return float(value) if value and value.isdigit() else 0.0
