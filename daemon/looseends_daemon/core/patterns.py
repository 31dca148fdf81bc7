"""Regular expressions whose time cannot explode: patterns that people write into matchers, run on labels they did not write.

Rules:

1. Matched from the first character to the last, as Alertmanager and RE2 do it. Time is at most states x characters: all states
   are followed at once, and nothing is ever tried again. Python's own `re` takes minutes for `(a*)*b` on thirty letters.
2. Understood: literals, `.`, `[a-z]`, `[^a-z]`, `\\d \\w \\s` and their opposites, escaped punctuation, `( )`, `(?: )`, `|`, `?`,
   `*`, `+`, `{m}`, `{m,}`, `{m,n}`, `^` and `$`. A `?` behind a quantifier changes nothing in a whole match and is taken.
3. Refused with the column: back references, look-around, flags, and whatever is over PATTERN_CHARS_MAX, STATES_MAX or DEPTH_MAX.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

PATTERN_CHARS_MAX = 200
STATES_MAX = 1_000
"""Repetitions are written out: `(ab){50}` has 100 states."""
REPEAT_MAX = 200
DEPTH_MAX = 20
_CLASSES: dict[str, Callable[[str], bool]] = {
    "d": lambda c: c.isascii() and c.isdigit(),
    "w": lambda c: c.isascii() and (c.isalnum() or c == "_"),
    "s": lambda c: c in " \t\n\r\f\v",
}
_ESCAPES = {"n": "\n", "t": "\t", "r": "\r"}
_QUANTIFIERS = {"?": (0, 1), "*": (0, None), "+": (1, None)}

Test = Callable[[str], bool]
# What is read: ("char", test), ("begin",), ("end",), ("all", parts), ("any", parts), ("repeat", part, least, most).
Node = tuple[object, ...]


class PatternError(ValueError):
    """A pattern that cannot be used; the message says where (columns from 1) and what is understood."""


def _negated(test: Test) -> Test:
    return lambda c: not test(c)


def _same(char: str) -> Test:
    return lambda c: c == char


class _Reading:
    """One pass over a pattern."""

    def __init__(self, text: str) -> None:
        self.text, self.at, self.depth = text, 0, 0

    def wrong(self, detail: str, at: int | None = None) -> PatternError:
        return PatternError(f"column {(self.at if at is None else at) + 1} of the pattern: {detail}")

    def peek(self) -> str:
        return self.text[self.at] if self.at < len(self.text) else ""

    def take(self) -> str:
        char = self.peek()
        self.at += 1
        return char

    def choice(self) -> Node:
        parts = [self.sequence()]
        while self.peek() == "|":
            self.take()
            parts.append(self.sequence())
        return parts[0] if len(parts) == 1 else ("any", parts)

    def sequence(self) -> Node:
        parts: list[Node] = []
        while self.peek() not in ("", "|", ")"):
            parts.append(self.repeated(self.atom()))
        return ("all", parts)

    def repeated(self, atom: Node) -> Node:
        begin = self.at
        bounds = self.bounds()
        if bounds is None:
            return atom
        if self.peek() == "?":
            self.take()
        if self.peek() in (*_QUANTIFIERS, "{") and self.peek():
            raise self.wrong("two quantifiers follow each other; put the first into brackets", begin)
        return ("repeat", atom, *bounds)

    def bounds(self) -> tuple[int, int | None] | None:
        if self.peek() in _QUANTIFIERS and self.peek():
            return _QUANTIFIERS[self.take()]
        if self.peek() != "{":
            return None
        begin = self.at
        inside, closed, _ = self.text[begin + 1 :].partition("}")
        least, comma, most = inside.partition(",")
        if not (closed and least.isascii() and least.isdigit() and (not most or (most.isascii() and most.isdigit()))):
            raise self.wrong("a repetition is {m}, {m,} or {m,n}; for the character itself write \\{", begin)
        if len(least) > 4 or len(most) > 4 or max(int(least), int(most or 0)) > REPEAT_MAX or (most and int(most) < int(least)):
            raise self.wrong(f"a repetition counts up to {REPEAT_MAX}, its least first", begin)
        self.at = begin + len(inside) + 2
        return int(least), int(least) if not comma else int(most) if most else None

    def atom(self) -> Node:
        begin, char = self.at, self.take()
        if char == "(":
            return self.group(begin)
        if char == "[":
            return ("char", self.bracket(begin))
        if char == "\\":
            return ("char", self.escaped())
        if char in "*+?{":
            raise self.wrong(f"nothing stands before {char!r} that could repeat; for the character itself write \\{char}", begin)
        if char in "^$":
            return ("begin",) if char == "^" else ("end",)
        return ("char", (lambda c: c != "\n") if char == "." else _same(char))

    def group(self, begin: int) -> Node:
        if self.peek() == "?":
            if self.text[self.at : self.at + 2] != "?:":
                raise self.wrong("look-around, names and flags are not understood; only ( ) and (?: ) are", begin)
            self.at += 2
        self.depth += 1
        if self.depth > DEPTH_MAX:
            raise self.wrong(f"brackets are nested deeper than {DEPTH_MAX}", begin)
        inside = self.choice()
        if self.take() != ")":
            raise self.wrong("this bracket is never closed", begin)
        self.depth -= 1
        return inside

    def escaped(self) -> Test:
        begin, char = self.at - 1, self.take()
        if char.lower() in _CLASSES and char:
            test = _CLASSES[char.lower()]
            return test if char.islower() else _negated(test)
        if char in _ESCAPES:
            return _same(_ESCAPES[char])
        if not char or char.isalnum():
            raise self.wrong(f"\\{char} is not understood; \\d \\w \\s \\D \\W \\S, \\n \\t \\r and punctuation are", begin)
        return _same(char)

    def bracket(self, begin: int) -> Test:
        negated = self.peek() == "^"
        self.at += negated
        tests: list[Test] = []
        while self.peek() != "]" or not tests:
            if not self.peek():
                raise self.wrong("this [ is never closed", begin)
            tests.append(self.member())
        self.take()
        within = tuple(tests)
        return (lambda c: not any(test(c) for test in within)) if negated else (lambda c: any(test(c) for test in within))

    def member(self) -> Test:
        begin, low = self.at, self.take()
        if low == "\\":
            if self.peek().lower() in _CLASSES or self.text[self.at + 1 : self.at + 2] != "-":
                return self.escaped()
            low = _ESCAPES.get(self.peek(), self.peek())
            self.take()
        if self.peek() != "-" or self.text[self.at + 1 : self.at + 2] in ("", "]"):
            return _same(low)
        self.take()
        high = self.take()
        if high == "\\":
            high = _ESCAPES.get(self.peek(), self.take())
        if high < low:
            raise self.wrong(f"the range {low}-{high} is the wrong way round", begin)
        return lambda c: low <= c <= high


class Pattern:
    """A compiled pattern; `compiled(text)` makes one."""

    def __init__(self, node: Node) -> None:
        # A state is (what it asks, where to go): a test goes on with the next character, the rest at once.
        self._states: list[tuple[object, tuple[int, ...]]] = []
        self._first = self._build(node, self._add("match"))

    def _add(self, asks: object, *to: int) -> int:
        if len(self._states) >= STATES_MAX:
            raise PatternError(f"the pattern takes more than {STATES_MAX} steps written out; repeat less")
        self._states.append((asks, to))
        return len(self._states) - 1

    def _build(self, node: Node, then: int) -> int:
        """The state at which `node` begins, if it goes on with the state `then`."""
        kind = node[0]
        if kind == "char":
            return self._add(node[1], then)
        if kind in ("begin", "end"):
            return self._add(kind, then)
        if kind == "any":
            return self._add("go", *(self._build(part, then) for part in _parts(node)))
        if kind == "all":
            for part in reversed(_parts(node)):
                then = self._build(part, then)
            return then
        return self._repeat(node, then)

    def _repeat(self, node: Node, then: int) -> int:
        _, part, least, most = node
        assert isinstance(part, tuple) and isinstance(least, int) and (most is None or isinstance(most, int))
        if most is None:
            loop = self._add("go", then)
            self._states[loop] = ("go", (self._build(part, loop), then))
            at = loop
        else:
            at = then
            for _ in range(most - least):
                at = self._add("go", self._build(part, at), then)
        for _ in range(least):
            at = self._build(part, at)
        return at

    def matches(self, text: str) -> bool:
        """Whether the whole of `text` fits."""
        now = self._reached([self._first], 0, len(text))
        for at, char in enumerate(text, 1):
            found = [to[0] for asks, to in (self._states[state] for state in now) if callable(asks) and asks(char)]
            if not found:
                return False
            now = self._reached(found, at, len(text))
        return 0 in now

    def _reached(self, states: list[int], at: int, end: int) -> set[int]:
        """These states and all that follow without taking a character."""
        seen: set[int] = set()
        left = list(states)
        while left:
            state = left.pop()
            if state in seen:
                continue
            seen.add(state)
            asks, to = self._states[state]
            if asks == "go" or (asks == "begin" and at == 0) or (asks == "end" and at == end):
                left.extend(to)
        return seen


def _parts(node: Node) -> list[Node]:
    parts = node[1]
    assert isinstance(parts, list)
    return parts


@lru_cache(maxsize=1_000)
def compiled(text: str) -> Pattern:
    """The pattern of this text, at most PATTERN_CHARS_MAX characters. Raises PatternError with the column."""
    if len(text) > PATTERN_CHARS_MAX:
        raise PatternError(f"a pattern is at most {PATTERN_CHARS_MAX} characters long, this one has {len(text)}")
    reading = _Reading(text)
    node = reading.choice()
    if reading.at < len(text):
        raise reading.wrong("this ) closes nothing; for the character itself write \\)")
    return Pattern(node)


@lru_cache(maxsize=10_000)
def matches(pattern: str, text: str) -> bool:
    """Whether the whole of `text` fits. Answers are remembered: the same few labels are asked about again and again."""
    return compiled(pattern).matches(text)
