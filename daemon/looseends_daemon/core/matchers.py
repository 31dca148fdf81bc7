"""Matchers as Alertmanager writes them: `service="shop-web", name=~"mail\\..*", severity!="info"`. Pure.

Rules: all matchers of a list must fit; a label that is absent is the empty text; a pattern (`=~`, `!~`) fits the whole value or
not at all, in bounded time (core/patterns.py says which patterns there are). A mistake is a MatcherError that names the place and
what is allowed: a misspelt label must not look like a matcher that fits nothing.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence

from looseends_daemon.core.patterns import PatternError, compiled, matches
from looseends_daemon.core.resources import Value

LABELS = ("service", "name", "environment", "instance", "problem", "severity")
OPERATORS = ("=", "!=", "=~", "!~")
VALUE_CHARS_MAX = 200
MATCHERS_MAX = 20
EXAMPLE = 'service="shop-web"'
_MATCHER = re.compile(r'([A-Za-z_]\w{0,50})\s*(=~|!~|!=|=)\s*("(?:[^"\\]|\\.)*"|[^\s",{}]+)', re.ASCII)
_ESCAPE = re.compile(r"\\(.)", re.DOTALL)


class MatcherError(ValueError):
    """A text that is no matcher; the message names the place and what is allowed."""


class Matcher(Value, frozen=True):
    """One condition on one label. Made by `matcher` or `matchers`."""

    label: str
    operator: str
    value: str

    def fits(self, labels: Mapping[str, str | None]) -> bool:
        """Whether these labels fulfil it; one that is None or missing counts as the empty text."""
        text = labels.get(self.label) or ""
        if self.operator in ("=", "!="):
            return (text == self.value) == (self.operator == "=")
        return matches(self.value, text) == (self.operator == "=~")

    def __str__(self) -> str:
        quoted = self.value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
        return f'{self.label}{self.operator}"{quoted}"'


def fit(all_of: Sequence[Matcher], labels: Mapping[str, str | None]) -> bool:
    """Whether labels fulfil every matcher."""
    return all(one.fits(labels) for one in all_of)


def matcher(text: str) -> Matcher:
    """One matcher. Raises MatcherError."""
    found = matchers(text)
    if len(found) != 1:
        raise MatcherError(f"{text[:60]!r} holds {len(found)} matchers; write one, such as {EXAMPLE}")
    return found[0]


def matchers(text: str) -> tuple[Matcher, ...]:
    """All matchers of a text, joined by commas, in braces or not. Raises MatcherError."""
    inside = text.strip()
    if inside.startswith("{") and inside.endswith("}"):
        inside = inside[1:-1].strip().removesuffix(",")
    found: list[Matcher] = []
    at = 0
    while at < len(inside):
        one = _MATCHER.match(inside, at)
        if one is None:
            raise MatcherError(
                f"{inside[at : at + 40]!r} is no matcher; write label, operator ({' '.join(OPERATORS)}), value: {EXAMPLE}"
            )
        found.append(_checked(one[1], one[2], one[3]))
        at = _comma(inside, one.end())
    return tuple(found)


def _comma(text: str, at: int) -> int:
    """Where the next matcher begins."""
    rest = text[at:].lstrip()
    if not rest:
        return len(text)
    if not rest.startswith(",") or not rest[1:].strip():
        raise MatcherError(
            f"after a matcher comes a comma and the next one, not {rest[:40]!r}; values with blanks stand in quotes"
        )
    return len(text) - len(rest[1:].lstrip())


def _checked(label: str, operator: str, written: str) -> Matcher:
    if label not in LABELS:
        near = difflib.get_close_matches(label, LABELS, n=1, cutoff=0.6)
        hint = f"did you mean {near[0]}?" if near else f"known are {', '.join(LABELS)}"
        raise MatcherError(f"no label {label!r}; {hint}")
    value = _ESCAPE.sub(_unescaped, written[1:-1]) if written.startswith('"') else written
    if len(value) > VALUE_CHARS_MAX:
        raise MatcherError(f"the value of {label} is longer than {VALUE_CHARS_MAX} characters")
    if operator in ("=~", "!~"):
        try:
            compiled(value)
        except PatternError as error:
            raise MatcherError(f"{label}{operator}: {error}") from None
    return Matcher(label=label, operator=operator, value=value)


def _unescaped(found: re.Match[str]) -> str:
    """`\\"`, `\\\\` and `\\n` are one character; another backslash is the pattern's own: `mail\\..*` needs no second one."""
    return {'"': '"', "\\": "\\", "n": "\n"}.get(found[1], found[0])
