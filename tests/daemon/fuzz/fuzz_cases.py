"""Requests that somebody might send: made from the route table, good but for one or two things.

Rules: the doors come from `app.all_routes`, the parameters of the API from what the daemon itself names as known, and the ids
from what it lists, so a new door is asked from the day it is there. A request with one mistake gets further in than one with ten.
"""

from __future__ import annotations

import gzip
import itertools
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote, urlencode

from fuzz_line import Case
from fuzz_odd import KINDS, METHODS, ODD_HEADERS, ODD_IDS, ODD_VALUES, QUERIES
from fuzz_values import BROKEN, COUNTS, JSON, NEARLY, TEXTS, TIMES, Values, events, spoiled
from hypothesis import strategies as st

from looseends_daemon.core.orders import ANSWERS, OUTCOMES
from looseends_daemon.http.instances import GOODBYE

SENDING: tuple[tuple[str, ...], ...] = (
    *((), (), ("body",), ("body",), ("body",), ("body",), ("broken",), ("query",), ("path",), ("path",), ("header",)),
    *(("method",), ("caller",), ("kind",), ("packed",), ("body", "path"), ("query", "header"), ("path", "method")),
)
"""What is not as it should be in a request that carries a body."""
LOOKING: tuple[tuple[str, ...], ...] = (
    *((), (), ("query",), ("query",), ("query",), ("query",), ("path",), ("path",), ("header",)),
    *(("method",), ("caller",), ("body",), ("query", "header"), ("path", "query"), ("path", "method")),
)
"""Likewise in one that does not."""


@dataclass(frozen=True)
class Door:
    """A row of the route table, as far as an asker may know it."""

    method: str
    path: str
    role: str
    page: bool

    @property
    def name(self) -> str:
        return f"{self.method} {self.path}"

    @property
    def takes_body(self) -> bool:
        return self.method not in ("GET", "HEAD")


@dataclass
class Book:
    """What the asker knows: doors, ids by the collection they stand in, headers by caller, parameters by door."""

    doors: list[Door]
    token: str
    parameters: dict[str, list[str]]
    ids: dict[str, list[str]] = field(default_factory=dict)
    callers: dict[str, tuple[tuple[bytes, bytes], ...]] = field(default_factory=dict)
    csrf: str = ""
    keys: Iterator[int] = field(default_factory=itertools.count)

    def known(self, collection: str) -> Values:
        """The ids of a collection; nothing is known of one that lists nothing."""
        return st.sampled_from(self.ids.get(collection) or ["none-of-these"])


class Cases:
    """Strategies over one book. `any` makes requests, `good` those without a mistake for one door."""

    def __init__(self, book: Book) -> None:
        self.book = book
        self._members = _members(book)
        self._bodies = {door.name: self._document(door) for door in book.doors if door.takes_body}

    def any(self) -> st.SearchStrategy[Case]:
        """Requests to all doors, most of them with something wrong."""

        @st.composite
        def case(draw: st.DrawFn) -> Case:
            door = draw(st.sampled_from(self.book.doors))
            return self._case(draw, door, frozenset(draw(st.sampled_from(SENDING if door.takes_body else LOOKING))))

        return case()

    def good(self, door: Door) -> st.SearchStrategy[Case]:
        """Requests to one door without a mistake."""

        @st.composite
        def case(draw: st.DrawFn) -> Case:
            return self._case(draw, door, frozenset(draw(st.just(()))))

        return case()

    def _case(self, draw: st.DrawFn, door: Door, twists: frozenset[str]) -> Case:
        body = self._body(draw, door, twists)
        return Case(
            door=door.name,
            method=draw(st.sampled_from(METHODS)) if "method" in twists else door.method,
            target=self._path(draw, door, twists) + self._query(draw, door, twists),
            headers=tuple(self._headers(draw, door, twists)),
            body=body if body is None or "packed" not in twists else _packed(draw, body),
        )

    def _path(self, draw: st.DrawFn, door: Door, twists: frozenset[str]) -> bytes:
        pieces, before = [], ""
        for piece in door.path.split("/"):
            if not piece.startswith("{"):
                pieces.append(piece)
            elif "path" in twists:
                pieces.append(draw(st.sampled_from(ODD_IDS)))
            else:
                collection = before if piece == "{id}" else piece[1:-1]
                pieces.append(quote(draw(self.book.known(collection)), safe=""))
            before = piece
        path = "/".join(pieces)
        if "path" in twists and "{" not in door.path:
            path += draw(st.sampled_from(("", "/", "/x", "//", "%20", "/..", "/%2e", ";x", "%00")))
        return path.encode("latin-1")

    def _query(self, draw: st.DrawFn, door: Door, twists: frozenset[str]) -> bytes:
        names = self.book.parameters.get(door.name, [])
        if "query" not in twists:
            chosen = draw(st.lists(st.sampled_from(names), unique=True, max_size=3)) if names else []
            return _question([(name, draw(self._parameter(name))) for name in chosen])
        name = draw(st.sampled_from((*names, *names, "limits", "", "\xff")))
        value = draw(st.one_of(st.sampled_from(ODD_VALUES), TEXTS.map(quote), st.sampled_from(QUERIES).map(quote)))
        again = draw(st.sampled_from(("", "", f"&{name}=1", "&", "&&=", ";", "#x", "?")))
        return f"?{name}={value}{again}".encode("latin-1")

    def _parameter(self, name: str) -> Values:
        known = {
            "q": st.sampled_from(QUERIES),
            "from": TIMES,
            "to": TIMES,
            "limit": st.integers(1, 500),
            "bucket": st.sampled_from(("1m", "10m", "1h", "1d")),
            "state": st.sampled_from(("pending", "open", "resolved")),
            "window": st.sampled_from(("1h", "24h", "7d", "30d")),
            "incident": self.book.known("incidents"),
            "cursor": self.book.known("cursor"),
        }
        return known.get(name, TEXTS)

    def _headers(self, draw: st.DrawFn, door: Door, twists: frozenset[str]) -> Iterator[tuple[bytes, bytes]]:
        odd = draw(st.lists(st.sampled_from(ODD_HEADERS), min_size=1, max_size=2)) if "header" in twists else []
        replaced = {name for name, _ in odd}
        if "Host" not in replaced:
            yield b"Host", b"localhost"
        who = draw(st.sampled_from(sorted(self.book.callers))) if "caller" in twists else self._caller(draw, door)
        yield from self.book.callers[who]
        if door.takes_body:
            kind = _FORM if door.page else b"application/json"
            yield b"Content-Type", draw(st.sampled_from(KINDS)) if "kind" in twists else kind
            if not door.page and "Idempotency-Key" not in replaced:
                yield b"Idempotency-Key", self._key(draw).encode()
            if "packed" in twists:
                yield b"Content-Encoding", b"gzip"
        for name, value in odd:
            yield name.encode(), value

    def _caller(self, draw: st.DrawFn, door: Door) -> str:
        if door.role == "ingest":
            return draw(st.sampled_from(("nobody", "nobody", "service")))
        return draw(st.sampled_from(("operator", "session"))) if door.page else "operator"

    def _key(self, draw: st.DrawFn) -> str:
        return "always-the-same" if draw(st.integers(0, 19)) == 0 else f"fuzz-{next(self.book.keys):08}"

    def _body(self, draw: st.DrawFn, door: Door, twists: frozenset[str]) -> bytes | None:
        if not door.takes_body:
            return draw(st.sampled_from((None, b"", b"{}"))) if "body" in twists else None
        if "broken" in twists:
            return draw(st.one_of(st.sampled_from(BROKEN), st.binary(max_size=20)))
        document = draw(self._bodies[door.name])
        if door.page:
            fields = {**document, "csrf": self.book.csrf, "idempotency_key": self._key(draw)}
            if "body" in twists:
                fields[draw(st.sampled_from(sorted(fields)))] = draw(st.one_of(st.sampled_from(NEARLY), TEXTS))
            return urlencode(fields, doseq=True, errors="surrogatepass").encode()
        return draw(spoiled(document)) if "body" in twists else json.dumps(document).encode()

    def _document(self, door: Door) -> Values:
        """Good bodies for a door; for one that nobody wrote down, anything that some door takes."""
        instances = self.book.known("instances")
        if door.path == "/api/v1/events":
            return events(self.book.known("tasks"), instances)
        tail = f"{door.method} {door.path.rpartition('/')[2]}"
        if tail == "PUT functions":
            function = st.fixed_dictionaries({"name": st.just("mail.send")}, optional=self._members["function"])
            return st.lists(function, max_size=3)
        pool = {name: values for members in self._members.values() for name, values in members.items()}
        members = self._members.get(tail, pool)
        needed = {name: members[name] for name in REQUIRED.get(tail, ())}
        return st.fixed_dictionaries(needed, optional={name: members[name] for name in members if name not in needed})


BOMB = gzip.compress(b" " * (8 << 20), 9, mtime=0)
_FORM = b"application/x-www-form-urlencoded"
REQUIRED = {
    "POST claim": ("instance",),
    "POST result": ("fence", "outcome"),
    "POST resolve": ("as", "note"),
    "POST dismiss": ("note",),
    "POST purge": ("q",),
    "POST theme": ("theme",),
    "POST sign-in": ("token",),
}


def _members(book: Book) -> dict[str, dict[str, Values]]:
    """What the documents of each door may hold, by method and the last piece of its path."""
    note = TEXTS
    return {
        "PUT heartbeat": {
            **dict.fromkeys(("last_seq", "open", "ended", "dropped", "backlog"), COUNTS),
            "at": TIMES,
            "loop_lag_ms": st.sampled_from((0, 1.5, 1e300)),
        },
        "DELETE {id}": {
            "reason": st.sampled_from(sorted(GOODBYE)),
            "last_seq": COUNTS,
            "open": st.lists(book.known("tasks"), max_size=3),
            "void": st.lists(COUNTS, max_size=3),
        },
        "POST claim": {"instance": book.known("instances")},
        "POST result": {"fence": COUNTS, "outcome": st.sampled_from(OUTCOMES), "detail": note},
        "POST resolve": {"as": st.sampled_from(ANSWERS), "note": note},
        "POST replay": {"args": st.dictionaries(TEXTS, JSON, max_size=3), "note": note, "confirm": st.lists(TEXTS, max_size=2)},
        "POST dismiss": {"note": note},
        "POST purge": {
            "q": st.sampled_from(QUERIES),
            "from": TIMES,
            "to": TIMES,
            "confirm": st.sampled_from((False, False, False, True)),
        },
        "POST sign-in": {"token": st.just(book.token), "next": st.sampled_from(("/", "/tasks", "//evil.example", "/\\evil", ""))},
        "POST sign-out": {"x": TEXTS},
        "POST theme": {
            "theme": st.sampled_from(("auto", "light", "dark")),
            "back": st.sampled_from(("/", "/tasks?q=é", "//x", "\r\n")),
        },
        "function": {
            "signature": TEXTS,
            "code": TEXTS,
            "replay": st.sampled_from(("yes", "ask")),
            "caution": TEXTS,
            "via": TEXTS,
        },
    }


def _question(pairs: list[tuple[str, Any]]) -> bytes:
    return b"?" + urlencode(pairs).encode() if pairs else b""


def _packed(draw: st.DrawFn, body: bytes) -> bytes:
    whole = gzip.compress(body, 1, mtime=0)
    return draw(st.sampled_from((whole, whole, whole[:-9], whole + b"x", whole + whole, b"\x1f\x8b", BOMB, body)))
