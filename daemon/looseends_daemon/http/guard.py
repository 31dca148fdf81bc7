"""Who may pass a door: host, site, caller, role, form token. In this order, before a byte of the body is read.

Rules:

1. A daemon on loopback is reachable from every web page its operator visits. A page cannot choose the Host header its browser
   sends, so the Host must be one of our names (a page that points its own name at 127.0.0.1 stops here), on every route.
2. A browser says from where a request comes (Sec-Fetch-Site, older ones Origin); another site may do nothing, reads
   included, except let its visitor follow a link to a page.
3. Lists name what is allowed. A method, a role or a header value that nobody thought of is refused.
4. No header that a sender can write makes it more trusted; a forwarding header makes it less.
"""

from __future__ import annotations

import hmac
import ipaddress
import logging
import socket
import struct
from collections.abc import Mapping
from functools import lru_cache
from typing import Any
from urllib.parse import quote, urlsplit

from aiohttp import web

from looseends_daemon.config.settings import Server
from looseends_daemon.core.resources import Actor, Value
from looseends_daemon.core.routing import Route
from looseends_daemon.http.access import Access, actor_of, csrf_of
from looseends_daemon.http.context import Context
from looseends_daemon.http.errors import ProblemError

LOOPBACK_NAMES = frozenset(("localhost", "127.0.0.1", "::1"))
ANY_HOST = frozenset(("/livez", "/readyz"))
"""Doors a probe asks at whatever name it knows. They hold no data."""
SAFE_METHODS = frozenset(("GET", "HEAD"))
SATISFIES = {"viewer": ("viewer", "operator"), "operator": ("operator",), "ingest": ("ingest",)}
"""Which roles open a door. An ingest token reads nothing, and no reading token writes facts: each secret does one thing."""
FORWARDING = frozenset(("forwarded", "via", "x-real-ip"))
SHOWN_CHARS_MAX = 80

_CSP = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
# A form that is sent without any referrer says `Origin: null`, so pages keep it within this origin.
_ALWAYS = {
    "Server": "looseends",
    "Content-Security-Policy": _CSP,
    "X-Content-Type-Options": "nosniff",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}


class GuardRules(Value, frozen=True):
    """What the operator decided: more names of this daemon, its public address, and whether loopback needs a token."""

    names: frozenset[str]
    origin: str | None = None
    loopback_open: bool = True

    @classmethod
    def of(cls, server: Server) -> GuardRules:
        """From `[server]`. The host of external_url is a name of ours: the links in notices use it."""
        names = set(LOOPBACK_NAMES) | {name_of(host) for host in server.allowed_hosts}
        origin = None
        if server.external_url:
            parts = urlsplit(server.external_url)
            names.add((parts.hostname or "").lower())
            origin = f"{parts.scheme}://{parts.netloc}".lower()
        return cls(names=frozenset(names - {""}), origin=origin, loopback_open=server.loopback_ingest == "open")


@lru_cache(maxsize=256)
def name_of(host: str) -> str:
    """The name in a Host header: lower case, without port, brackets and the dot at the end; "" when it is no host."""
    name, port = host.strip().lower(), ""
    if name.startswith("["):
        name, closed, port = name[1:].partition("]")
        port = port.removeprefix(":") if closed else "never closed"
    elif name.count(":") == 1:
        name, _, port = name.partition(":")
    if port and not (port.isascii() and port.isdigit()):
        return ""
    return name.removesuffix(".")


def check_host(host: str | None, path: str, local: str | None, rules: GuardRules) -> None:
    """Refuse a name that is not ours. `local` is the address the connection came in on. Raises ProblemError 421."""
    if path in ANY_HOST:
        return
    name = name_of(host or "")
    if name and (name in rules.names or name == local):
        return
    shown = (host or "")[:SHOWN_CHARS_MAX]
    ours = ", ".join(sorted(rules.names))
    detail = f'"{shown}" is not a name of this daemon ({ours}); if it should be, add it to allowed_hosts in [server]'
    raise ProblemError(421, detail=detail)


def check_site(method: str, headers: Mapping[str, str], page: bool, rules: GuardRules) -> None:
    """Refuse what another site sends through a visitor's browser. Raises ProblemError 403."""
    site = headers.get("Sec-Fetch-Site")
    if site is not None:
        linked = page and method == "GET" and site in ("cross-site", "same-site") and _follows_a_link(headers)
        if linked or site in ("same-origin", "none"):
            return
        raise _cross_site(f"Sec-Fetch-Site: {site[:SHOWN_CHARS_MAX]}")
    origin = headers.get("Origin")
    if origin is None or _same_origin(origin.lower(), headers.get("Host", ""), rules):
        return
    raise _cross_site(f"Origin: {origin[:SHOWN_CHARS_MAX]}")


def _follows_a_link(headers: Mapping[str, str]) -> bool:
    return headers.get("Sec-Fetch-Mode") == "navigate" and headers.get("Sec-Fetch-Dest") == "document"


def _same_origin(origin: str, host: str, rules: GuardRules) -> bool:
    scheme, _, rest = origin.partition("://")
    return origin == rules.origin or (scheme in ("http", "https") and rest == host.lower())


def _cross_site(what: str) -> ProblemError:
    detail = f"a web page of another site sent this request ({what}); open the page here, or use a token from a program"
    return ProblemError(403, "Cross-site request refused", detail)


def is_forwarded(headers: Mapping[str, str]) -> bool:
    """Whether a proxy says that it passed this on, so that the address we see is the proxy's."""
    for name in headers:
        lower = name.lower()
        if lower in FORWARDING or lower.startswith("x-forwarded-"):
            return True
    return False


def is_loopback(address: str) -> bool:
    """127.0.0.0/8, ::1, and the first of them written as IPv6."""
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return False
    mapped = parsed.ipv4_mapped if isinstance(parsed, ipaddress.IPv6Address) else None
    return (mapped or parsed).is_loopback


class Peer(Value, frozen=True):
    """The other end of a connection: an address, or the uid behind a unix socket. `local` and `port` are our end's."""

    address: str | None = None
    uid: int | None = None
    local: str | None = None
    port: int | None = None
    loopback: bool = False

    @classmethod
    def of(cls, transport: Any) -> Peer:
        """What the kernel says; nothing that a sender could have written."""
        sock = transport.get_extra_info("socket") if transport is not None else None
        if sock is None:
            return cls()
        if sock.family == socket.AF_UNIX:
            size = struct.calcsize("3i")
            _, uid, _ = struct.unpack("3i", sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size))
            return cls(uid=uid)
        peer = transport.get_extra_info("peername")
        local = transport.get_extra_info("sockname")
        address = peer[0] if peer else ""
        return cls(address=address or None, local=local[0].lower(), port=local[1], loopback=is_loopback(address))


def peer_of(request: web.Request) -> Peer:
    """The other end of this request's connection, asked of the kernel once for each connection."""
    protocol: Any = request.protocol
    peer: Peer | None = getattr(protocol, "peer", None)
    if peer is None:
        peer = Peer.of(request.transport)
        if hasattr(protocol, "peer"):
            protocol.peer = peer
    return peer


def cookie_name(peer: Peer) -> str:
    """Cookies know hosts, not ports: the name keeps two daemons of one host apart."""
    return f"looseends_session_{peer.port if peer.port is not None else 'unix'}"


class Guard:
    """The one place where a request becomes an Actor or a refusal."""

    def __init__(self, context: Context) -> None:
        self._access: Access = context.access
        self._rules = GuardRules.of(context.settings.server)
        self._now = context.now
        self._log = logging.getLogger("looseends.http")

    def check_origin(self, request: web.Request, route: Route | None) -> Peer:
        """Host and site, for known and unknown paths alike. Raises ProblemError 400, 403, 421."""
        peer = peer_of(request)
        if not request.raw_path.startswith("/"):
            raise ProblemError(400, "Malformed request", "the request target is a path; this is no proxy")
        check_host(request.headers.get("Host"), request.path, peer.local, self._rules)
        check_site(request.method, request.headers, route is not None and route.page, self._rules)
        return peer

    async def admit(self, request: web.Request, route: Route, peer: Peer) -> Actor | None:
        """Who asks, if the route's role lets them. Leaves `actor` and, for a session, `csrf` in the request.

        Raises ProblemError 401 or 403, for a page without a session a redirect (303) to the sign-in page.
        """
        cookie = request.cookies.get(cookie_name(peer)) if "Cookie" in request.headers else None
        actor = await self._who(request, route, peer, cookie)
        request["actor"], request["csrf"], request["peer"] = actor, "", peer
        if actor is not None and actor.channel == "session" and cookie is not None:
            request["csrf"] = csrf_of(cookie)
        if route.role == "open":
            return actor
        if actor is None:
            raise _unknown_caller(request, route)
        if actor.role not in SATISFIES[route.role]:
            raise _wrong_role(actor, route)
        return actor

    async def _who(self, request: web.Request, route: Route, peer: Peer, cookie: str | None) -> Actor | None:
        key = request.match_info.get("key", "") if route.role == "ingest" else ""
        header = f"Bearer {key}" if "." in key else request.headers.get("Authorization")
        if header is not None:
            return await self._bearer(header, route, peer)
        if route.role == "ingest":
            return self._neighbour(request, peer)
        if cookie is not None:
            token = await self._access.session(cookie, self._now())
            return None if token is None else actor_of(token, "session")
        if route.local and self._neighbour(request, peer) is not None:
            return _LOCAL_READER
        return None

    async def _bearer(self, header: str, route: Route, peer: Peer) -> Actor | None:
        scheme, _, text = header.partition(" ")
        token = await self._access.token(text) if scheme.lower() == "bearer" else None
        if token is not None:
            return actor_of(token, f"token:{token.id}")
        if route.role == "open":
            return None
        self._log.warning("a token that does not hold was sent from %s", peer.address or "the unix socket")
        # A wrong token is said, never replaced by what the caller could do without one.
        detail = (
            "this token is not valid: send `Authorization: Bearer <id>.<secret>` of a token made by `looseends token create`, "
            "or the one in <database>.token"
        )
        raise ProblemError(401, detail=detail, headers={"WWW-Authenticate": 'Bearer error="invalid_token"'})

    def _neighbour(self, request: web.Request, peer: Peer) -> Actor | None:
        """Whoever the kernel vouches for: a user of the unix socket, or a process on this host where that is allowed."""
        if is_forwarded(request.headers):
            return None
        if peer.uid is not None:
            return Actor(name=f"uid {peer.uid}", role="ingest", channel=f"uds:{peer.uid}", uid=peer.uid)
        if self._rules.loopback_open and peer.loopback:
            return _LOOPBACK
        return None


_LOOPBACK = Actor(name="loopback", role="ingest", channel="loopback")
_LOCAL_READER = Actor(name="loopback", role="viewer", channel="loopback")


def _unknown_caller(request: web.Request, route: Route) -> ProblemError:
    if route.page:
        return ProblemError(303, "Sign in first", headers={"Location": sign_in_path(request)})
    if route.role == "ingest":
        detail = (
            "events from here need a token, since they come over the network, through a proxy, or loopback_ingest is "
            '"token": make one with `looseends token create --role ingest --service NAME` and send it as Bearer'
        )
    else:
        detail = f"this needs the {route.role} role: send a token as `Authorization: Bearer`, or sign in at /sign-in"
    return ProblemError(401, detail=detail, headers={"WWW-Authenticate": "Bearer"})


def sign_in_path(request: web.Request) -> str:
    """The sign-in page that leads back to this one; to the first page where going back would repeat an act."""
    target = request.raw_path if request.method in SAFE_METHODS else "/"
    return f"/sign-in?next={quote(target, safe='/', errors='replace')}"


def _wrong_role(actor: Actor, route: Route) -> ProblemError:
    wanted = " or ".join(SATISFIES[route.role])
    detail = f'this needs the role {wanted}, and "{actor.name}" has the role {actor.role}'
    return ProblemError(403, "The role does not suffice", detail)


def check_csrf(request: web.Request, field: str) -> None:
    """The hidden field of a form against the session it was rendered for. Raises ProblemError 403."""
    wanted = str(request["csrf"])
    if wanted and not hmac.compare_digest(wanted.encode(), field.encode("utf-8", "replace")):
        detail = "this form belongs to another session: load the page again and repeat the act"
        raise ProblemError(403, "The form is out of date", detail)


def secured(response: web.StreamResponse, page: bool) -> web.StreamResponse:
    """The headers every answer carries; what a handler set itself stays."""
    headers = response.headers
    headers.update(_ALWAYS)
    headers.setdefault("Referrer-Policy", "same-origin" if page else "no-referrer")
    headers.setdefault("Cache-Control", "no-store")
    return response
