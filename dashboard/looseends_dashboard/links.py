"""Addresses of lists: the query language as the pages write it, and the same list in the API."""

from __future__ import annotations

import re
from collections.abc import Mapping
from urllib.parse import quote, urlencode

from looseends.wire import NAME_CHARS_MAX, format_time
from looseends_daemon.core.matchers import Matcher
from looseends_daemon.core.resources import Incident

_PLAIN = re.compile(r"[\w./-]+", re.ASCII)
_UNQUOTABLE = re.compile('["\x00-\x1f\x7f\ud800-\udfff]')


def term(key: str, value: str) -> str:
    """One word of the query language, quoted where it must be; "" for a value that no query can hold (a quote, or too long)."""
    if len(value) > NAME_CHARS_MAX:
        return ""
    if _PLAIN.fullmatch(value):
        return f"{key}:{value}"
    return "" if _UNQUOTABLE.search(value) or not value else f'{key}:"{value}"'


def address(base: str, asked: Mapping[str, str]) -> str:
    """A path with what is asked of it."""
    return f"{base}?{urlencode(asked, quote_via=quote)}" if asked else base


def window(from_: int | None, to: int | None, first: str = "from", last: str = "to") -> dict[str, str]:
    """A window as parameters; a bound that is None is left out."""
    return {name: format_time(at) for name, at in ((first, from_), (last, to)) if at is not None}


def href(q: str = "", from_: int | None = None, to: int | None = None, cursor: str | None = None, base: str = "/tasks") -> str:
    """The address of a list of tasks; `base` may be the API's."""
    asked: dict[str, str] = {"q": q} if q else {}
    asked |= window(from_, to)
    if cursor is not None:
        asked["cursor"] = cursor
    return address(base, asked)


def plan(q: str, from_: int | None = None, to: int | None = None) -> str:
    """Where a replay of all of these tasks is planned: nothing runs before somebody has seen the plan."""
    return href(q, from_, to, base="/replays/new")


def matching(**labels: str | None) -> str:
    """What a silence of just this would match on; a label that is None or empty is left out."""
    return ", ".join(str(Matcher(label=label, operator="=", value=value)) for label, value in labels.items() if value)


def type_path(service: str, name: str, base: str = "/types") -> str:
    """The address of a type; `base` may be the API's."""
    return f"{base}/{quote(service, safe='')}/{quote(name, safe='')}"


def cause_query(incident: Incident) -> str:
    """The query that finds an incident's tasks, settled ones too."""
    return term("incident", incident.id)
