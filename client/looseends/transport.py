"""One kept connection to the daemon, and what came of each request: an outcome, never an exception.

Rules: used by the sender's thread alone. `LOOSEENDS_URL` decides; without it the unix socket in the state folder, if
something answers there, else loopback on the default port. A process that has reached that socket once stays with it:
while its daemon restarts, any process may listen on the port, and would be handed the arguments of tasks. A connection is
proven when it is a unix socket whose peer has our uid or root's: only then, or with a valid mac, are orders taken. The
third part of a token never leaves.
"""

from __future__ import annotations

import os
import select
import socket
import struct
from typing import Any, NamedTuple

from . import parcel, slots, trouble
from .exchange import exchange
from .lifecycle import PROCESS, VERSION
from .settings import Settings
from .silence import Silence
from .wire import BODY_BYTES_MAX, DEFAULT_PORT

JSON = "application/json"
_PORTS = {"http": 80, "https": 443}
CONNECT_S = 2.0
ANSWER_S = 10.0
GZIP_BYTES_MIN = 4 << 10
UNIX_BYTES_MAX = 108  # of a socket's path, its closing zero included
_UCRED = struct.Struct("@iII")
_HANG_UP = getattr(select, "POLLRDHUP", select.POLLIN)
"""The other end is closed. Where a system cannot tell that from news: nothing comes unasked, so any news is the end."""


class Answer(NamedTuple):
    """status 0: nobody answered. `body` is the decoded JSON, or None. retry_after in seconds, 0 where not said."""

    status: int
    body: Any = None
    retry_after: float = 0.0


def was_read(answer: Answer) -> bool:
    """Whether this says what became of each event: with counts, as a 200, or as a 422 where all were rejected.

    A 200 without them is another program's, which took the port and answers everything with its page.
    """
    return answer.status in (200, 422) and isinstance(answer.body, dict) and type(answer.body.get("accepted")) is int


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
            port = parts.port or _PORTS[parts.scheme]
            return Address(parts.scheme, parts.hostname, port, parts.path.rstrip("/"))
    raise ValueError(f"LOOSEENDS_URL is https://host, http://host:port or unix:/path (absolute, under 108 bytes), not {url!r}")


class Transport:
    """The connection, made when needed and kept."""

    def __init__(self, settings: Settings, spool: str = "") -> None:
        """`spool` is where records wait while nobody answers, by default the one of the settings."""
        self._settings = settings
        self.silence = Silence(spool or settings.spool)
        self._socket: socket.socket | None = None
        self._address: Address | None = None
        self._default = Address("unix", f"{settings.state}/looseends.sock"), Address("http", "127.0.0.1", DEFAULT_PORT)
        self.proven = False
        self.takes_journal = False
        """Whether who answers on this connection said that it takes the journal's own bytes; `asked`: that it spoke at all."""
        self.asked = False
        parts = (settings.token or "").split(".")
        self._bearer = ".".join(parts[:2]) if len(parts) >= 2 else ""
        self.order_key = parts[2] if len(parts) == 3 else ""

    def request(self, method: str, path: str, body: bytes | None = None, kind: str = JSON) -> Answer:
        """Ask once; where the connection ends before its answer, once more on a new one (every request may be repeated)."""
        for again in (False, True):
            reused = self._socket is not None
            try:
                return self._ask(method, path, body, kind)
            except Exception as error:  # noqa: BLE001 - sockets, TLS, HTTP and JSON fail in more ways than can be listed
                was_open = self._socket is not None
                self.close()
                # A kept one may have been dead for long. On a new one the answer was lost, unless nobody gave any in time.
                if again or not (reused or (was_open and not isinstance(error, TimeoutError))):
                    self.silence.go_on(self.where(), f"{type(error).__name__}: {error}")
                    break
        return Answer(0)

    def was_cut(self) -> bool:
        """Whether the kept connection was closed by its other end or by the network. Never waits."""
        if self._socket is None:
            return False
        poll = select.poll()
        poll.register(self._socket, _HANG_UP)  # errors are told unasked
        return bool(poll.poll(0))

    def _ask(self, method: str, path: str, body: bytes | None, kind: str) -> Answer:
        sock = self._socket or self._connect()
        headers = {"Host": self._host(), "User-Agent": f"looseends/{VERSION}", "Accept": JSON}
        if self._bearer:
            headers["Authorization"] = f"Bearer {self._bearer}"
        if body is not None:
            headers["Content-Type"] = kind
            if len(body) >= GZIP_BYTES_MIN and not self._is_local():
                import gzip

                body = gzip.compress(body, 1)
                headers["Content-Encoding"] = "gzip"
        prefix = self._address.prefix if self._address else ""
        reply = exchange(sock, f"{method} {prefix}/api/v1{path}", headers, body, BODY_BYTES_MAX)
        self.silence.end(self.where())
        if path == "/events":
            self.asked, self.takes_journal = True, reply.headers.get(parcel.TAKES.lower()) == parcel.TAKEN
        if not reply.keeps:
            self.close()
        answered = slots.loads(reply.body) if reply.body else None
        return Answer(reply.status, answered, _seconds(reply.headers.get("retry-after")))

    def _host(self) -> str:
        address = self._address
        if address is None or address.scheme == "unix":
            return "localhost"
        host = f"[{address.host}]" if ":" in address.host else address.host
        return host if address.port == _PORTS[address.scheme] else f"{host}:{address.port}"

    def _is_local(self) -> bool:
        address = self._address
        return address is not None and (address.scheme == "unix" or address.host in ("127.0.0.1", "localhost", "::1"))

    def _connect(self) -> socket.socket:
        error: Exception = OSError("no address")
        for address in self._addresses():
            try:
                sock = _open(address)
            except OSError as failure:
                error = failure
                continue
            self._socket, self._address = sock, address
            if address == self._default[0]:
                PROCESS.reached = address.host
            self.proven = address.scheme == "unix" and _peer_is_ours(sock)
            return sock
        raise error

    def where(self) -> str:
        """Where the daemon is, or is looked for."""
        return " or ".join(map(str, self._addresses() if self._socket is None or self._address is None else [self._address]))

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
        sock, self._socket = self._socket, None
        self.proven = self.takes_journal = self.asked = False
        if sock is not None:
            sock.close()

    def abandon(self) -> None:
        """In a forked child: free the descriptor, and say nothing to the other end, which hears our parent on it."""
        sock, self._socket = self._socket, None
        self.proven = self.takes_journal = self.asked = False
        if sock is not None:
            os.close(sock.detach())


def _open(address: Address) -> socket.socket:
    if address.scheme == "unix":
        sock = _unix(address.host)
    else:
        sock = socket.create_connection((address.host, address.port), CONNECT_S)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if address.scheme == "https":
            sock = _secured(sock, address.host)
    sock.settimeout(ANSWER_S)
    return sock


def _secured(sock: socket.socket, host: str) -> socket.socket:
    import ssl

    try:
        return ssl.create_default_context().wrap_socket(sock, server_hostname=host)
    except OSError:
        sock.close()
        raise


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
