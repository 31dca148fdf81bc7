"""Addresses of lists: the query language as the pages write it, and the same list in the API."""

from __future__ import annotations

import re
from urllib.parse import quote, urlencode

from looseends.wire import NAME_CHARS_MAX, format_time
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


def href(q: str = "", from_: int | None = None, to: int | None = None, cursor: str | None = None, base: str = "/tasks") -> str:
    """The address of a list of tasks; `base` may be the API's."""
    asked: dict[str, str] = {"q": q} if q else {}
    if from_ is not None:
        asked["from"] = format_time(from_)
    if to is not None:
        asked["to"] = format_time(to)
    if cursor is not None:
        asked["cursor"] = cursor
    return f"{base}?{urlencode(asked, quote_via=quote)}" if asked else base


def cause_query(incident: Incident) -> str:
    """The query that finds an incident's tasks, settled ones too."""
    return term("incident", incident.id)
