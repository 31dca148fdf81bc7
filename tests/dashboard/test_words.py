"""How numbers, times and foreign text are said."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from looseends.wire import NS, parse_time
from looseends_dashboard import words

NOW = parse_time("2026-11-20T14:10:00Z")


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (0, "0 ms"),
        (0.0004, "under 1 ms"),
        (0.24, "240 ms"),
        (0.9996, "1.00 s"),
        (1.24, "1.24 s"),
        (31.25, "31.2 s"),
        (59.96, "1 min"),
        (190, "3 min 10 s"),
        (7_500, "2 h 5 min"),
        (273_600, "3 d 4 h"),
        (None, ""),
    ],
)
def test_a_duration_is_said_in_at_most_two_units(seconds: float | None, said: str) -> None:
    assert words.duration(seconds) == said


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(0, "just now"), (12, "12 s ago"), (200, "3 min ago"), (7300, "2 h ago"), (200_000, "2 d ago"), (-30, "in 30 s")],
)
def test_an_age_is_said_in_one_unit(seconds: int, said: str) -> None:
    assert words.ago(NOW - seconds * NS, NOW) == said


def test_a_clock_names_the_day_only_when_it_is_another_one() -> None:
    assert words.clock(NOW, NOW) == "14:10:00"
    assert words.clock(parse_time("2026-11-19T23:59:59Z"), NOW) == "19 Nov 23:59:59"
    assert words.clock(parse_time("2025-01-02T03:04:05Z"), NOW) == "2 Jan 2025 03:04:05"


def test_a_datetime_attribute_has_milliseconds_as_html_allows() -> None:
    assert words.iso(parse_time("2026-11-20T14:05:31.250999Z")) == "2026-11-20T14:05:31.250Z"


def test_control_and_direction_characters_become_visible() -> None:
    shown = words.visible("a\x00\x1b\x85\u202eb\u2066\ufeff\ufffe\U0001ffff\ud800")
    assert shown == "a⟨U+0000⟩⟨U+001B⟩⟨U+0085⟩⟨U+202E⟩b⟨U+2066⟩⟨U+FEFF⟩⟨U+FFFE⟩⟨U+1FFFF⟩⟨U+D800⟩"


def test_ordinary_text_of_any_script_stays_as_it_is() -> None:
    text = "Grüße\n\t日本語 עברית 👩‍💻"
    assert words.visible(text) == text


def test_a_long_text_is_cut_and_says_by_how_much() -> None:
    assert words.visible("x" * 25, 10) == "xxxxxxxxxx… (15 more characters)"


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@given(JSON)
def test_json_for_copying_is_exact_and_holds_no_unsafe_character(value: object) -> None:
    text = words.json_text(value)
    assert json.loads(text) == value
    assert words.visible(text, len(text)) == text


@given(st.text(alphabet=st.characters()))
def test_visible_text_is_stable(text: str) -> None:
    once = words.visible(text)
    assert words.visible(once, len(once)) == once
