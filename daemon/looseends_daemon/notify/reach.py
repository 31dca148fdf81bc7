"""Bounded requests to the outside: which addresses may be reached, how long, how many bytes, and what came of it in words.

Rules:

1. `Caller.request` never raises for what the other side or the network does; it returns an Outcome. Only cancellation passes.
2. The address that is really connected to is checked, after name resolution: a name that resolves to the cloud's metadata
   address is refused as the address itself would be. Redirects are not followed, proxies of the environment not used.
3. Everything is bounded: connecting, the whole attempt, and the bytes of the answer that are read, without unpacking them.
"""

from __future__ import annotations

import asyncio
import email.utils
import ipaddress
import socket
import ssl
import time
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

import aiohttp
import msgspec

from looseends_daemon.core.delivery import ANSWER_BYTES_KEPT_MAX, Outcome
from looseends_daemon.core.resources import Value

CONNECT_S_MAX = 5.0
ANSWER_BYTES_READ_MAX = 20_000
CONNECTIONS_MAX = 8
NAT64 = ipaddress.ip_network("64:ff9b::/96")
Address = ipaddress.IPv4Address | ipaddress.IPv6Address


class Reach(Value, frozen=True, kw_only=True):
    """Which addresses may be connected to: `deny` never, private ones only with `allow_private`."""

    allow_private: bool = True
    deny: tuple[str, ...] = ()


class Denied(OSError):
    """The address may not be reached."""


def reason_against(host: str, reach: Reach) -> str | None:
    """Why this IP address may not be connected to, naming the setting; None: it may. Raises ValueError: it is no IP address."""
    address = _unwrapped(ipaddress.ip_address(host.partition("%")[0]))
    for text in reach.deny:
        network = ipaddress.ip_network(text)
        if address.version == network.version and address in network:
            return f"{address} lies in {network}, which [network] deny_networks forbids"
    if not reach.allow_private and (not address.is_global or address.is_multicast):
        return f"{address} is not a public address, and [network] allow_private is false"
    return None


def _unwrapped(address: Address) -> Address:
    """The IPv4 address inside a mapped or NAT64 one: other spellings must not pass where the plain one would not."""
    if isinstance(address, ipaddress.IPv4Address):
        return address
    if address.ipv4_mapped is not None:
        return address.ipv4_mapped
    return ipaddress.IPv4Address(int(address) & 0xFFFF_FFFF) if address in NAT64 else address


def _socket_factory(reach: Reach) -> Callable[[Any], socket.socket]:
    def make(info: Any) -> socket.socket:
        family, kind, proto, _, sockaddr = info
        against = reason_against(sockaddr[0], reach)
        if against is not None:
            raise Denied(against)
        return socket.socket(family=family, type=kind, proto=proto)

    return make


@cache
def _context() -> ssl.SSLContext:
    """Whom this machine trusts. Made when first needed: the certificates are 1 MiB, and reading them takes 20 ms."""
    context = ssl.create_default_context()
    context.set_alpn_protocols(("http/1.1",))
    return context


async def _trust() -> ssl.SSLContext:
    return await asyncio.to_thread(_context)


class Caller:
    """Makes requests to one address with kept connections. `timeout` in seconds for a whole attempt. Close it with `close()`."""

    def __init__(self, reach: Reach, *, timeout: float, clock: Callable[[], int] = time.time_ns) -> None:
        self._reach = reach
        self._timeout = timeout
        self._clock = clock
        self._session: aiohttp.ClientSession | None = None

    async def close(self) -> None:
        """Close kept connections. Safe to call twice."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def request(self, method: str, url: str, *, body: bytes | None = None, headers: Mapping[str, str]) -> Outcome:
        """Make one request once. Returns what came of it; never raises, cancellation apart."""
        started = time.monotonic()
        try:
            async with asyncio.timeout(self._timeout):
                outcome = await self._send(method, url, body, headers)
        except TimeoutError:
            outcome = Outcome(detail=f"no answer within {self._timeout:g} s", timed_out=True)
        except (aiohttp.ClientError, OSError, ValueError) as error:
            outcome = Outcome(detail=words_of(error))
        return msgspec.structs.replace(outcome, duration=round(time.monotonic() - started, 6))

    async def _send(self, method: str, url: str, body: bytes | None, headers: Mapping[str, str]) -> Outcome:
        tls = await _trust() if url.lower().startswith("https:") else True
        async with self._opened().request(method, url, data=body, headers=headers, allow_redirects=False, ssl=tls) as answer:
            kept = await _beginning(answer.content)
            wait = retry_after(answer.headers, self._clock() / 1e9)
            return Outcome(status=answer.status, detail=_told(answer.status, kept), retry_after=wait)

    def _opened(self) -> aiohttp.ClientSession:
        """The session, made on first use since it belongs to the running loop."""
        if self._session is None:
            connector = aiohttp.TCPConnector(
                socket_factory=_socket_factory(self._reach), limit=CONNECTIONS_MAX, enable_cleanup_closed=False
            )
            # sock_connect bounds each address; the total is `asyncio.timeout` in request, which also covers the queue.
            timeout = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_S_MAX)
            self._session = aiohttp.ClientSession(
                connector=connector, timeout=timeout, auto_decompress=False, trust_env=False, cookie_jar=aiohttp.DummyCookieJar()
            )
        return self._session


def _told(status: int, kept: str) -> str:
    """What to remember of an answer: of a redirect, that we do not follow it."""
    return f"a redirect, and none is followed: configure where it leads. {kept}".strip() if 300 <= status < 400 else kept


async def _beginning(content: aiohttp.StreamReader) -> str:
    """The first bytes of an answer as text. The rest is not waited for: a status says all that counts."""
    kept = b""
    while len(kept) < ANSWER_BYTES_READ_MAX:
        chunk = await content.read(ANSWER_BYTES_READ_MAX - len(kept))
        if not chunk:
            break
        kept += chunk
    return kept[:ANSWER_BYTES_KEPT_MAX].decode("utf-8", "replace")


def retry_after(headers: Mapping[str, str], now_s: float) -> float | None:
    """Seconds that the answer asks to wait: `retry-after` as a number or a date; None where it is absent or nonsense."""
    text = headers.get("retry-after", "").strip()
    if text.isascii() and text.isdigit():
        return float(text[:9])
    try:
        return max(0.0, email.utils.parsedate_to_datetime(text).timestamp() - now_s) if text else None
    except (ValueError, OverflowError):
        return None


def words_of(error: Exception) -> str:
    """An error as a sentence for the delivery log, without the address: its path may be a secret."""
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        return f"its certificate is not trusted: {error.certificate_error}"[:ANSWER_BYTES_KEPT_MAX]
    if isinstance(error, aiohttp.ClientConnectorSSLError):
        return "it does not speak TLS as it should: " + str(getattr(error.os_error, "reason", None) or error.os_error)
    if isinstance(error, aiohttp.ClientConnectorError):
        inner = error.os_error
        if isinstance(inner, Denied):
            return f"not sent: {inner}"
        what = "its host name cannot be resolved" if isinstance(error, aiohttp.ClientConnectorDNSError) else "cannot connect"
        return f"{what}: {inner.strerror or inner}"
    if isinstance(error, aiohttp.ServerDisconnectedError | ConnectionResetError):
        return "the connection was closed without an answer"
    return f"{type(error).__name__}: {error}"[:ANSWER_BYTES_KEPT_MAX]
