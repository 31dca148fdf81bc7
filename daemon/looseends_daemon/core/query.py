"""The query language of pages, API and command line: text -> a small tree, or a QueryError that says where and what instead.

    query  = term { blank term }
    term   = ["-"] [ word ":" ] value { "," value }
    value  = '"' any text '"'  |  text without blank, comma or quote; a "*" may end it, and matches any rest

Rules:

1. Terms are joined by "and", values by "or", "-" negates its term. There is nothing else to learn.
2. A mistake is never "no results": an unknown word, an unknown value of a word with fixed values, a half-open quote or a
   star in the middle raises QueryError with the column (from 1) and the allowed words.
3. SEARCHED terms look inside a task. That is done for the newest tasks only, and the answer says so; an act that must be exact
   refuses them.
4. Pure. Times stay durations here; the caller brings `now`.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Sequence

from looseends_daemon.core.resources import STATES, VERDICTS, Value

QUERY_CHARS_MAX = 1_000
TERMS_MAX = 30
VALUES_MAX = 50
NUMBER_DIGITS_MAX = 12

IS_WORDS = ("loose", "gap", "open", "orphan", "ran_twice", "overlap")
FIXED: dict[str, tuple[str, ...]] = {"is": IS_WORDS, "state": STATES, "verdict": VERDICTS}
"""Words with a fixed set of values."""
TEXT_WORDS = (
    *("name", "service", "environment", "host", "instance", "release"),
    *("source", "queue", "key", "id", "parent", "incident", "trace", "error"),
)
MEASURE_WORDS = ("older", "took", "attempt")
WORDS = (*FIXED, *TEXT_WORDS, *MEASURE_WORDS)
PREFIX_WORDS = ("tag.", "args.")
SEARCHED = ("", "source", "queue", "trace", "error", *PREFIX_WORDS)
SHOWN = (*(f"{word}:" for word in WORDS), *(f"{stem}x:" for stem in PREFIX_WORDS))
"""What is named as allowed."""
UNITS_S = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3_600.0, "d": 86_400.0, "w": 604_800.0}
BEST = "is:loose, state:failed, name:mail.*"

_WORD = re.compile(r"([A-Za-z_][A-Za-z0-9_]*(?:\.[^\s:,\"]*)?):")
_UNFIT = re.compile("[\x00-\x08\x0a-\x1f\x7f\ud800-\udfff]")
_MEASURE = re.compile(rf"(>=|<=|>|<|=)?(\d{{1,{NUMBER_DIGITS_MAX}}}(?:\.\d{{1,6}})?)([a-z]*)", re.ASCII)


class QueryError(Exception):
    """A query that cannot be read or not be answered. `column` counts from 1; `allowed` are the words that fit there."""

    def __init__(self, detail: str, column: int = 1, allowed: Sequence[str] = ()) -> None:
        super().__init__(f"column {column}: {detail}")
        self.detail = detail
        self.column = column
        self.allowed = tuple(allowed)


class Match(Value, frozen=True):
    """One value of a term: this text, or with `prefix` anything that begins with it."""

    text: str
    prefix: bool = False


class Measure(Value, frozen=True):
    """A comparison: `op` is one of > >= < <= =; `number` is seconds for older and took, a count for attempt."""

    op: str
    number: float


class Term(Value, frozen=True):
    """One condition. `word` is "" for bare words; `detail` is the x of tag.x and args.x; `column` is where it stands."""

    word: str
    column: int
    detail: str = ""
    negated: bool = False
    matches: tuple[Match, ...] = ()
    measures: tuple[Measure, ...] = ()

    @property
    def is_searched(self) -> bool:
        """Whether it looks inside tasks, which is done for the newest ones only."""
        return self.word in SEARCHED


class Query(Value, frozen=True):
    """All of these terms must hold; none at all means every task."""

    terms: tuple[Term, ...] = ()

    @property
    def searches_text(self) -> bool:
        """Whether tasks have to be looked into, which is done for the newest ones only."""
        return any(term.is_searched for term in self.terms)


def parse(text: str) -> Query:
    """Read a query of at most QUERY_CHARS_MAX characters. Raises QueryError, and nothing else, for any text."""
    if len(text) > QUERY_CHARS_MAX:
        raise QueryError(f"a query is at most {QUERY_CHARS_MAX} characters long", QUERY_CHARS_MAX + 1)
    unfit = _UNFIT.search(text)
    if unfit is not None:
        raise QueryError("control characters and half surrogate pairs cannot be searched for", unfit.start() + 1)
    terms: list[Term] = []
    at = _blanks(text, 0)
    while at < len(text):
        if len(terms) == TERMS_MAX:
            raise QueryError(f"a query holds at most {TERMS_MAX} terms", at + 1)
        term, at = _term(text, at)
        terms.append(term)
        at = _blanks(text, at)
    return Query(terms=tuple(terms))


def _blanks(text: str, at: int) -> int:
    while at < len(text) and text[at].isspace():
        at += 1
    return at


def _term(text: str, at: int) -> tuple[Term, int]:
    column = at + 1
    negated = text[at] == "-"
    at += negated
    if at == len(text) or text[at].isspace():
        raise QueryError('"-" negates the term that follows it without a blank', column, [f"-{word}" for word in SHOWN])
    word, detail, at = _word(text, at)
    values, at = _values(text, at, word)
    measures = tuple(_measure(word, value, place) for value, place, _ in values) if word in MEASURE_WORDS else ()
    matches = () if measures else tuple(_match(word, *value) for value in values)
    term = Term(word=word, column=column, detail=detail, negated=negated, matches=matches, measures=measures)
    return term, at


def _word(text: str, at: int) -> tuple[str, str, int]:
    """The word before a colon: ("name", "", place after it); ("", "", at) for a bare word."""
    found = _WORD.match(text, at)
    if found is None:
        return "", "", at
    name = found[1]
    stem, dot, detail = name.partition(".")
    if dot and f"{stem}." in PREFIX_WORDS:
        if not detail:
            raise QueryError(f'{name} needs a name after the dot, as in "{name}x:"', at + 1, SHOWN)
        return f"{stem}.", detail, found.end()
    if name in WORDS:
        return name, "", found.end()
    raise _unknown(name, at + 1)


def _unknown(name: str, column: int) -> QueryError:
    close = difflib.get_close_matches(name.lower(), WORDS, n=1, cutoff=0.6)
    hint = f"did you mean {close[0]}:?" if close else f'to search for a text with a colon, quote it: "{name}:..."'
    return QueryError(f"{name}: is no word of this language; {hint}", column, SHOWN)


Found = tuple[str, int, bool]
"""A value as written: its text, its place in the query (from 0), whether it was quoted."""


def _values(text: str, at: int, word: str) -> tuple[list[Found], int]:
    values: list[Found] = []
    while True:
        if len(values) == VALUES_MAX:
            raise QueryError(f"a term holds at most {VALUES_MAX} values", at + 1)
        value, end, quoted = _value(text, at, word)
        values.append((value, at, quoted))
        at = end
        if at == len(text) or text[at].isspace():
            return values, at
        if text[at] != ",":
            raise QueryError("a quoted text is followed by a blank or a comma", at + 1, [",", " "])
        at += 1


def _value(text: str, at: int, word: str) -> tuple[str, int, bool]:
    if at < len(text) and text[at] == '"':
        end = text.find('"', at + 1)
        if end < 0:
            raise QueryError("this quote is never closed", at + 1, ['"'])
        if end == at + 1:
            raise QueryError("there is nothing between these quotes", at + 1, _fitting(word))
        return text[at + 1 : end], end + 1, True
    end = at
    while end < len(text) and text[end] not in ',"' and not text[end].isspace():
        end += 1
    if end < len(text) and text[end] == '"':
        raise QueryError("a quote stands around a whole value, not inside one", end + 1, ['"'])
    if end == at:
        raise QueryError("a value is missing here", at + 1, _fitting(word) or (_example(word),))
    return text[at:end], end, False


def _fitting(word: str) -> tuple[str, ...]:
    """The values of a word with fixed ones that can be searched for."""
    return FIXED.get(word, ())


def _example(word: str) -> str:
    examples = {"older": "older:5m", "took": "took:>2s", "attempt": "attempt:>1", "": BEST}
    return examples.get(word, f"{word}x*" if word in PREFIX_WORDS else f"{word}:x*")


def _match(word: str, value: str, place: int, quoted: bool) -> Match:
    if word in FIXED:
        return Match(text=_fixed(word, value, place))
    if quoted:
        return Match(text=value)
    star = value.find("*")
    if star < 0:
        return Match(text=value)
    if star < len(value) - 1:
        raise QueryError('"*" stands at the end only; quote the value to search for a star', place + star + 1, ["x*"])
    if star == 0:
        raise QueryError('"*" needs something before it', place + 1, [_example(word)])
    return Match(text=value[:-1], prefix=True)


def _fixed(word: str, value: str, place: int) -> str:
    if value in FIXED[word]:
        return value
    words = _fitting(word)
    close = difflib.get_close_matches(value.lower(), words, n=1, cutoff=0.5)
    hint = f"did you mean {word}:{close[0]}?" if close else f"one of {', '.join(words)}"
    raise QueryError(f"{word}:{value} is unknown; {hint}", place + 1, words)


def _measure(word: str, value: str, place: int) -> Measure:
    found = _MEASURE.fullmatch(value)
    reader: Callable[[str, str, str], Measure | None] = {"older": _older, "took": _took, "attempt": _attempt}[word]
    measure = reader(found[1] or "", found[2], found[3]) if found is not None else None
    if measure is None:
        forms = {
            "older": ("older:5m", "older:2h", "older:7d"),
            "took": ("took:>2s", "took:<=500ms", "took:>1h"),
            "attempt": ("attempt:2", "attempt:>1"),
        }[word]
        raise QueryError(f"{word}:{value} cannot be read; write it like {', '.join(forms)}", place + 1, forms)
    return measure


def _older(op: str, number: str, unit: str) -> Measure | None:
    seconds = _seconds(number, unit)
    return None if op or seconds is None else Measure(op=">", number=seconds)


def _took(op: str, number: str, unit: str) -> Measure | None:
    seconds = _seconds(number, unit)
    return None if not op or seconds is None else Measure(op=op, number=seconds)


def _attempt(op: str, number: str, unit: str) -> Measure | None:
    return None if unit or "." in number else Measure(op=op or "=", number=int(number))


SECONDS_MAX = 3_155_760_000.0
"""A hundred years; more would leave the whole numbers of the database."""


def _seconds(number: str, unit: str) -> float | None:
    seconds = float(number) * UNITS_S[unit] if unit in UNITS_S else None
    return None if seconds is None or seconds > SECONDS_MAX else seconds
