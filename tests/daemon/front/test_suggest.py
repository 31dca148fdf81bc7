"""What is suggested where the caret stands."""

from __future__ import annotations

import pytest

from looseends_daemon.core import suggest
from looseends_daemon.core.query import QUERY_CHARS_MAX, parse


def offered(text: str, caret: int | None = None) -> list[str] | None:
    items = suggest.fixed(suggest.place(text, len(text) if caret is None else caret))
    return None if items is None else [item.text for item in items]


def test_words_are_offered_where_a_term_begins() -> None:
    assert "name:" in (offered("") or [])
    assert offered("na") == ["name:"]
    assert offered("is:loose -se") == ["-service:"]


def test_every_word_that_is_offered_can_be_searched_for() -> None:
    values = {"is": "loose", "state": "failed", "verdict": "lost", "older": "1h", "took": ">1s"}
    for text in offered("") or []:
        parse(text + values.get(text[:-1], "1"))


def test_fixed_values_are_offered_by_their_beginning() -> None:
    assert offered("state:f") == ["failed"]
    assert offered("is:loose state:failed,su") == ["succeeded"]
    assert offered("verdict:st") == ["stalled", "stuck"]


@pytest.mark.parametrize(
    ("text", "start", "word", "typed"),
    [
        ("name:ma", 5, "name", "ma"),
        ("is:loose name:ma", 14, "name", "ma"),
        ('name:"two wo', 5, "name", "two wo"),
        ("name:a,b", 7, "name", "b"),
        ("-host:w", 6, "host", "w"),
        ("nobody:x", 0, "", "nobody:x"),
        ("a b", 2, "", "b"),
    ],
)
def test_the_piece_under_the_caret_is_found(text: str, start: int, word: str, typed: str) -> None:
    place = suggest.place(text, len(text))
    assert (place.start, place.word, place.typed) == (start, word, typed)


def test_what_stands_behind_the_caret_is_not_looked_at() -> None:
    assert offered("st name:x", 2) == ["state:"]


@pytest.mark.parametrize("text", ['"', '""', "-", ":", "name:", 'name:"', "\x00", "x" * (QUERY_CHARS_MAX + 50), " ", "，"])
@pytest.mark.parametrize("caret", [-5, 0, 1, 10_000])
def test_nothing_typed_so_far_is_an_error(text: str, caret: int) -> None:
    place = suggest.place(text, caret)
    assert 0 <= place.start <= len(text)
    suggest.fixed(place)


def test_a_value_is_written_as_a_query_can_hold_it() -> None:
    assert [s.text for s in suggest.looked_up(["plain.name", "two words", 'a"b', "a,b"])] == [
        "plain.name",
        '"two words"',
        '"a,b"',
    ]
