"""Small JSON bodies of machines: decoded within the server's limits, then read field by field with a pointer to each mistake.

Rules: a mistake is 422 (400 where it is no JSON) and names the field and what is allowed; all mistakes of a body are told at
once. Members nobody knows are ignored: clients and daemons of different versions work together.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Collection
from typing import Any, TypeVar

from aiohttp import web

from looseends.wire import INT_MAX, TEXT_CHARS_MAX, parse_time
from looseends_daemon.http.answers import decode_json
from looseends_daemon.http.errors import ProblemError

T = TypeVar("T")
D = TypeVar("D")


class Wrong(ValueError):
    """One field is not what it must be; the message says what is allowed."""


class Fields:
    """The members of one JSON object; mistakes are collected until `done`, which raises them together."""

    def __init__(self, value: Any, at: str = "", mistakes: list[dict[str, str]] | None = None) -> None:
        self._at = at
        self.mistakes = mistakes if mistakes is not None else []
        self._value: dict[str, Any] = value if isinstance(value, dict) else {}
        if not isinstance(value, dict):
            self.wrong("", "must be a JSON object")

    def wrong(self, name: str, detail: str) -> None:
        """Note a mistake in a member ("" is the object itself)."""
        self.mistakes.append({"pointer": f"{self._at}/{name}" if name else self._at, "detail": detail})

    def get(self, name: str, check: Callable[[Any], T], default: D) -> T | D:
        """The member, checked; `default` where it is absent, null or wrong (which is noted)."""
        value = self._value.get(name)
        if value is None:
            return default
        try:
            return check(value)
        except Wrong as wrong:
            self.wrong(name, str(wrong))
            return default

    def need(self, name: str, check: Callable[[Any], T], default: D) -> T | D:
        """Like `get`, but absent is a mistake too."""
        if self._value.get(name) is None:
            self.wrong(name, "is missing")
            return default
        return self.get(name, check, default)

    def done(self, title: str) -> None:
        """Raises ProblemError 422 with every mistake noted so far."""
        if self.mistakes:
            words = "; ".join(f"{mistake['pointer'] or 'the body'} {mistake['detail']}" for mistake in self.mistakes[:5])
            raise ProblemError(422, title, words, self.mistakes[:50])


async def document(request: web.Request) -> Any:
    """The decoded body; an empty one is an empty object. Raises ProblemError 400 for what is no JSON."""
    body = await request.read()
    return decode_json(body) if body else {}


def count(value: Any) -> int:
    """A whole number from 0."""
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= INT_MAX:
        raise Wrong("must be a whole number from 0")
    return value


def moment(value: Any) -> int:
    """A time as ns."""
    try:
        return parse_time(value)
    except ValueError as error:
        raise Wrong(str(error)) from None


def number(value: Any) -> float:
    """A finite number from 0."""
    # Compared, not converted: a whole number of 400 digits has no float.
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= sys.float_info.max:
        raise Wrong("must be a number from 0")
    return float(value)


def text_of(chars_max: int = TEXT_CHARS_MAX, empty: bool = False) -> Callable[[Any], str]:
    """Text of 1 (or 0) to `chars_max` characters without NUL."""

    def check(value: Any) -> str:
        if not isinstance(value, str) or len(value) > chars_max or not (value or empty) or "\0" in value:
            raise Wrong(f"must be text of {0 if empty else 1} to {chars_max} characters")
        return value

    return check


def word_of(words: Collection[str]) -> Callable[[Any], str]:
    """One of these words."""

    def check(value: Any) -> str:
        if not isinstance(value, str) or value not in words:
            raise Wrong(f"must be one of {', '.join(words)}")
        return value

    return check


def list_of(check: Callable[[Any], T], items_max: int) -> Callable[[Any], list[T]]:
    """An array of at most `items_max` checked values."""

    def check_all(value: Any) -> list[T]:
        if not isinstance(value, list) or len(value) > items_max:
            raise Wrong(f"must be an array of at most {items_max}")
        return [check(item) for item in value]

    return check_all
