"""What may stand at a place in a query: the words of the language, their fixed values, or values to be looked up.

Rules: pure; suggesting never refuses, whatever was typed so far. What is replaced is the piece the caret stands in, from its
beginning to the caret: nothing behind the caret is touched.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from looseends_daemon.core.query import FIXED, QUERY_CHARS_MAX, WORDS
from looseends_daemon.core.resources import Value

SUGGESTIONS_MAX = 10
_PLAIN = re.compile(r"[^\s,\"*]+")
HINTS = {
    "is": "loose, gap, open, orphan",
    "state": "what the facts say",
    "verdict": "what was concluded: lost, stuck, missed",
    "name": "mail.send_receipt or mail.*",
    "service": "the service that reported it",
    "environment": "production, staging",
    "host": "the machine it ran on",
    "instance": "the process it ran in, by its id",
    "release": "the release that ran it",
    "key": "what its author called it by",
    "id": "its id, or the beginning of it with *",
    "incident": "the incident it belongs to",
    "older": "older:5m, older:2h",
    "took": "took:>2s, took:<=500ms",
    "attempt": "attempt:>1",
}


class Place(Value, frozen=True):
    """Where the caret stands: the piece [start, caret) of the text, the word before its colon ("": none), what is typed of it."""

    start: int
    word: str
    typed: str
    negated: bool = False


class Suggestion(Value, frozen=True):
    """One thing to write in place of the piece, and what it means. `more`: something has to follow it."""

    text: str
    hint: str = ""
    more: bool = False


def place(text: str, caret: int) -> Place:
    """The piece the caret stands in. A caret outside the text stands at its end."""
    text = text[:QUERY_CHARS_MAX]
    caret = min(max(caret, 0), len(text))
    start = _piece_start(text, caret)
    piece = text[start:caret]
    negated = piece.startswith("-")
    word, colon, value = piece[negated:].partition(":")
    if not colon or word not in WORDS:
        return Place(start=start, word="", typed=piece[negated:], negated=negated)
    typed = value.rpartition(",")[2]
    return Place(start=caret - len(typed), word=word, typed=typed.removeprefix('"'), negated=negated)


def _piece_start(text: str, caret: int) -> int:
    """After the last blank before the caret that no quote holds."""
    start, quoted = 0, False
    for at in range(caret):
        if text[at] == '"':
            quoted = not quoted
        elif text[at].isspace() and not quoted:
            start = at + 1
    return start


def fixed(at: Place) -> list[Suggestion] | None:
    """What can be said without looking anything up; None: the values of `at.word` have to be looked up."""
    typed = at.typed.lower()
    if at.word in FIXED:
        return [Suggestion(text=value) for value in FIXED[at.word] if value.startswith(typed)]
    if at.word:
        return None
    sign = "-" if at.negated else ""
    known = [word for word in WORDS if word.startswith(typed)]
    return [Suggestion(text=f"{sign}{word}:", hint=HINTS.get(word, ""), more=True) for word in known]


def looked_up(values: Sequence[str]) -> list[Suggestion]:
    """Values as they are to be written: quoted where they must be; what no query can hold is left out."""
    return [Suggestion(text=value if _PLAIN.fullmatch(value) else f'"{value}"') for value in values if '"' not in value]
