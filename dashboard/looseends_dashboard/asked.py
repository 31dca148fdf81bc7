"""What a visitor typed: times and queries, read or answered with the place of the mistake and what is allowed there."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import TypeVar

from looseends.wire import parse_time
from looseends_daemon.core.query import QUERY_CHARS_MAX, QueryError
from looseends_daemon.core.resources import Page, Value

T = TypeVar("T")


class QueryProblem(Value, frozen=True):
    """Why a list cannot be shown: in words, with a mark under the place, and what is allowed there."""

    title: str
    detail: str
    pointed: str = ""
    allowed: tuple[str, ...] = ()


class BadParameter(Exception):
    """A query parameter that cannot be read: its name, and in `detail` what it may be."""

    def __init__(self, name: str, detail: str) -> None:
        super().__init__(detail)
        self.name = name
        self.detail = detail


def time_of(text: str, name: str) -> int | None:
    """A bound of the window; empty is none. A `+` of a zone arrives as a blank where nobody escaped it."""
    if not text:
        return None
    try:
        return parse_time(text.replace(" ", "+") if "T" in text else text)
    except ValueError as error:
        raise BadParameter(name, f"{error}.") from None


def query_problem(q: str, error: QueryError) -> QueryProblem:
    """The mistake with a mark under its column."""
    line = "".join(c if c.isprintable() else "�" for c in q[:QUERY_CHARS_MAX])
    pointed = f"{line}\n{' ' * (error.column - 1)}^" if line and error.column <= len(line) + 1 else ""
    allowed = tuple(word.strip() or "blank" for word in error.allowed)
    return QueryProblem(title=f"Column {error.column}:", detail=error.detail, pointed=pointed, allowed=allowed)


async def listed(reading: Awaitable[Page[T]]) -> Page[T]:
    """A page of a list. A made-up cursor is the only thing a reader says with ValueError. Raises BadParameter."""
    try:
        return await reading
    except ValueError as error:
        raise BadParameter("cursor", f"It is not one of ours ({error}). Begin again at the newest.") from None


def of_parameter(error: BadParameter) -> QueryProblem:
    """A time that cannot be read."""
    return QueryProblem(title=f"“{error.name}” cannot be read.", detail=error.detail)
