"""Patterns and matchers: what they fit, what they refuse and where, and that no pattern takes long."""

from __future__ import annotations

import random
import re

import pytest

from looseends_daemon.core.matchers import MatcherError, fit, matcher, matchers
from looseends_daemon.core.patterns import PATTERN_CHARS_MAX, PatternError, compiled, matches

CATASTROPHES = ["(a*)*b", "(a|aa)+b", "(a|a?)+b", "(.*)(.*)(.*)(.*)b", "(a?){50}a{50}b", "((a{0,6}){0,6}){0,6}b"]


def pattern(chance: random.Random, depth: int) -> str:
    """A random pattern that Python's own `re` understands alike."""
    kind = chance.random()
    if depth == 0 or kind < 0.35:
        return chance.choice(["a", "b", ".", "[ab]", "[^a]", "[a-c1]", r"\d", r"\W", r"\.", "1", "^", "$"])
    if kind < 0.6:
        return pattern(chance, depth - 1) + pattern(chance, depth - 1)
    if kind < 0.75:
        return f"({pattern(chance, depth - 1)}|{pattern(chance, depth - 1)})"
    return f"(?:{pattern(chance, depth - 1)})" + chance.choice(["*", "+", "?", "{2}", "{1,3}", "{0,2}", "{1,}", "*?"])


def test_ten_thousand_random_patterns_fit_what_pythons_own_fit() -> None:
    chance = random.Random(20_261_120)
    fitted = 0
    for _ in range(10_000):
        wanted = pattern(chance, 3)
        text = "".join(chance.choice("ab1.") for _ in range(chance.randint(0, 6)))
        expected = re.fullmatch(wanted, text) is not None
        assert compiled(wanted).matches(text) == expected, (wanted, text)
        fitted += expected
    assert fitted > 1_000, "a test in which nothing ever fits shows nothing"


@pytest.mark.parametrize("wanted", CATASTROPHES)
def test_a_pattern_that_would_take_pythons_own_for_ever_comes_to_an_end(wanted: str) -> None:
    """Some hundredths of a second each; with backtracking this test would not end on any machine."""
    assert not compiled(wanted).matches("a" * 200)


@pytest.mark.parametrize(
    ("wanted", "says"),
    [
        ("(a", "column 1 of the pattern: this bracket is never closed"),
        ("a)", "column 2 of the pattern: this ) closes nothing"),
        ("ab[c", "column 3 of the pattern: this [ is never closed"),
        ("a**", "column 2 of the pattern: two quantifiers follow each other"),
        ("*a", "nothing stands before '*' that could repeat"),
        ("(?=a)", "look-around, names and flags are not understood"),
        ("(?i)a", "look-around, names and flags are not understood"),
        (r"(a)\1", r"column 4 of the pattern: \1 is not understood"),
        ("a{9999}", "counts up to 200"),
        ("a{3,1}", "its least first"),
        ("a{x}", r"write \{"),
        ("[z-a]", "the range z-a is the wrong way round"),
        ("a\\", "is not understood"),
        ("(" * 30 + ")" * 30, "nested deeper than 20"),
        ("((a{200}){200}){200}", "more than 1000 steps"),
        ("a" * (PATTERN_CHARS_MAX + 1), "at most 200 characters"),
    ],
)
def test_what_is_not_understood_is_refused_with_the_place(wanted: str, says: str) -> None:
    with pytest.raises(PatternError, match=re.escape(says)):
        compiled(wanted)


def test_any_text_at_all_is_a_pattern_or_a_refusal() -> None:
    chance = random.Random(7)
    for _ in range(20_000):
        text = "".join(chance.choice("ab()[]{}|*+?.\\^$-,01d") for _ in range(chance.randint(0, 12)))
        try:
            matches(text, "ab01")
        except PatternError:
            continue


LABELS = {"service": "shop-web", "name": "mail.send", "environment": "production", "instance": None, "problem": "stuck"}


@pytest.mark.parametrize(
    ("text", "fits"),
    [
        ('service="shop-web"', True),
        ("service=shop-web", True),
        ('service!="shop-web"', False),
        (r'name=~"mail\..*"', True),
        ('name=~"mail"', False),
        ('name!~"audit.*"', True),
        ('instance=""', True),
        ('instance=~".+"', False),
        ('severity!="info"', True),
        ('{service="shop-web", name=~"mail.*|audit.*",}', True),
        ('service="shop-web", problem="lost"', False),
    ],
)
def test_matchers_fit_as_alertmanagers_do(text: str, fits: bool) -> None:
    assert fit(matchers(text), LABELS) is fits


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('servce="x"', "no label 'servce'; did you mean service?"),
        ('host="x"', "known are service, name"),
        ("shop-web", "is no matcher; write label, operator (= != =~ !~), value"),
        ('service="a" name="b"', "after a matcher comes a comma"),
        ('service="a",', "after a matcher comes a comma"),
        ('service=~"(a"', "service=~: column 1 of the pattern"),
        ('service="' + "a" * 201 + '"', "longer than 200 characters"),
    ],
)
def test_a_text_that_is_no_matcher_is_refused_in_words(text: str, says: str) -> None:
    with pytest.raises(MatcherError, match=re.escape(says)):
        matchers(text)


def test_a_matcher_is_written_as_it_is_read() -> None:
    for text in ('name="a \\"b\\" \\\\ c"', 'name=~"mail\\\\..*"', 'service!=""'):
        assert str(matcher(text)) == text
        assert matcher(str(matcher(text))) == matcher(text)
