"""The addresses a daemon listens on: TCP and unix sockets, bounded, closed in order.

Rules:

1. Beyond loopback it listens only if somebody made tokens: an open door to a network is never the default.
2. A unix socket is 0600 from its first moment (umask before bind). The file of a daemon that died is replaced; one that
   answers, and anything that is no socket, is an error.
3. More than connections_max at once get 503 and are closed; who sends no whole header within idle_s_max is closed.
4. Connections never take the last descriptors: DESCRIPTORS_KEPT of what the system allows are left for files. Where they run out
   all the same, who is connected goes on, who comes waits in the queue of the system, and it is said once a minute.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import resource
import socket
import stat
from typing import Any

from aiohttp import web

from looseends_daemon.http.answers import Limits
from looseends_daemon.http.connections import Connection, Lookout, NoLookout, TurnedAway
from looseends_daemon.http.errors import ListenError
from looseends_daemon.http.guard import is_loopback
from looseends_daemon.http.quiet import OnceAMinute

BACKLOG = 256
ACCEPTED_AT_ONCE = 1
"""asyncio tries so many accepts in a row, and puts each one that fails for want of a descriptor off by a second by itself: with
more than one the retries multiply until they are all it does (test_descriptors)."""
DESCRIPTORS_KEPT = 48
CONNECTIONS_MIN = 4
UNIX_PATH_BYTES_MAX = 107


class Listener:
    """The open addresses. `addresses` are as a person would type them: `http://127.0.0.1:3637`, `unix:/path`."""

    def __init__(self, runner: web.AppRunner, limits: Limits, lookout: Lookout) -> None:
        self._runner = runner
        self._limits = limits
        self._lookout = lookout
        self._servers: list[asyncio.Server] = []
        self._files: list[tuple[str, int]] = []
        self.addresses: list[str] = []

    async def add_tcp(self, family: int, address: Any) -> None:
        """Listen on one resolved address. Raises OSError."""
        sock = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
        try:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            sock.bind(address)
            loop = asyncio.get_running_loop()
            self._servers.append(await loop.create_server(self._connection, sock=sock, backlog=ACCEPTED_AT_ONCE))
            sock.listen(BACKLOG)
        except BaseException:
            sock.close()
            raise
        host, port = sock.getsockname()[:2]
        self.addresses.append(f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}")

    async def add_unix(self, path: str) -> None:
        """Listen on a unix socket. Raises ListenError, OSError."""
        _make_room(path)
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
        try:
            before = os.umask(0o177)
            try:
                sock.bind(path)
            finally:
                os.umask(before)
            loop = asyncio.get_running_loop()
            self._servers.append(await loop.create_unix_server(self._connection, sock=sock, backlog=ACCEPTED_AT_ONCE))
            sock.listen(BACKLOG)
        except BaseException:
            sock.close()
            raise
        self._files.append((path, os.lstat(path).st_ino))
        self.addresses.append(f"unix:{path}")

    def _connection(self) -> asyncio.BaseProtocol:
        server = self._runner.server
        assert server is not None
        if len(server.connections) >= min(self._limits.connections_max, affordable()):
            return TurnedAway()
        return Connection(server, self._limits, asyncio.get_running_loop(), self._lookout)

    async def close(self, timeout: float = 10.0) -> None:  # noqa: ASYNC109 - two deadlines, for handlers and for connections
        """Take nothing new, let what runs finish for `timeout` seconds, then cut. Safe to call twice."""
        for server in self._servers:
            server.close()
        for path, inode in self._files:
            with contextlib.suppress(FileNotFoundError):
                # Another daemon may have made a socket of this name meanwhile.
                if os.lstat(path).st_ino == inode:
                    os.unlink(path)
        self._servers, self._files = [], []
        if self._runner.server is not None:
            self._runner.server.pre_shutdown()
            await self._runner.server.shutdown(timeout)
        await self._runner.cleanup()


def affordable() -> int:
    """How many connections the descriptors of this process allow now."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    unlimited = soft == resource.RLIM_INFINITY
    return BACKLOG << 10 if unlimited else max(CONNECTIONS_MIN, soft - DESCRIPTORS_KEPT)


def _hush() -> None:
    """asyncio says in its own log, each second, that it has no descriptor for who comes: once a minute is enough."""
    log = logging.getLogger("asyncio")
    if not any(isinstance(kept, OnceAMinute) for kept in log.filters):
        log.addFilter(OnceAMinute())


async def listen(
    app: web.Application,
    addresses: list[str],
    *,
    made_tokens: bool = False,
    limits: Limits | None = None,
    lookout: Lookout | None = None,
) -> Listener:
    """Open all of these addresses (`host:port`, `[::1]:port`, `unix:/path`), or none.

    `made_tokens`: somebody configured access with `token create`; `lookout` hears of every connection.
    Raises ListenError with the way out.
    """
    limits = limits or Limits()
    _hush()
    runner = web.AppRunner(app, handle_signals=False)
    await runner.setup()
    listener = Listener(runner, limits, lookout or NoLookout())
    try:
        for address in addresses:
            await _open(listener, address, made_tokens)
    except BaseException:
        await listener.close(0.1)
        raise
    return listener


async def _open(listener: Listener, address: str, made_tokens: bool) -> None:
    try:
        if address.startswith("unix:"):
            await listener.add_unix(address.removeprefix("unix:"))
            return
        for family, resolved in await _resolve(address):
            if not made_tokens and not is_loopback(resolved[0]):
                raise _exposed(address)
            await listener.add_tcp(family, resolved)
    except OSError as error:
        in_use = "something listens there already; " if error.errno in (98, 48) else ""
        reason = os.strerror(error.errno) if error.errno else str(error)
        hint = f"{in_use}choose another address with --listen, as in --listen 127.0.0.1:0"
        raise ListenError(f"cannot listen on {address}: {reason}", hint=hint) from None


def _exposed(address: str) -> ListenError:
    message = f"refusing to listen on {address}: whoever reaches this address could try, and no token was ever made"
    hint = "make one first (looseends token create --role ingest --service NAME), or listen on 127.0.0.1"
    return ListenError(message, hint=hint)


async def _resolve(address: str) -> list[tuple[int, Any]]:
    host, _, port = address.removeprefix("http://").rpartition(":")
    if not host or not (port.isascii() and port.isdigit()) or int(port) > 65_535:
        hint = 'an address is "host:port", "[::1]:port" or "unix:/path"'
        raise ListenError(f"{address!r} is no address to listen on", hint=hint)
    loop = asyncio.get_running_loop()
    bare = host.removeprefix("[").removesuffix("]")
    try:
        found = await loop.getaddrinfo(bare, int(port), type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (socket.gaierror, UnicodeError):
        raise ListenError(f"cannot listen on {address}: no such host", hint="name an address of this machine") from None
    return list(dict.fromkeys((family, resolved) for family, _, _, _, resolved in found))


def _make_room(path: str) -> None:
    """Remove the socket file of a daemon that is gone. Raises ListenError for one that answers or is no socket."""
    if len(os.fsencode(path)) > UNIX_PATH_BYTES_MAX:
        hint = f"a unix socket's path has at most {UNIX_PATH_BYTES_MAX} bytes; choose a shorter one with --listen unix:PATH"
        raise ListenError(f"cannot listen on unix:{path}: the path is too long", hint=hint)
    os.makedirs(os.path.dirname(os.path.abspath(path)), mode=0o700, exist_ok=True)
    try:
        kind = os.lstat(path).st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(kind):
        raise ListenError(f"cannot listen on unix:{path}: a file that is no socket is there", hint="choose another path")
    if _answers(path):
        hint = "another daemon runs there: stop it, or choose another path with --listen unix:PATH"
        raise ListenError(f"cannot listen on unix:{path}: something listens there already", hint=hint)
    os.unlink(path)


def _answers(path: str) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(path)
        except (ConnectionRefusedError, FileNotFoundError):
            return False
        except TimeoutError:
            return True  # its backlog is full: somebody holds it
        return True
