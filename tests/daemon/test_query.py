"""The query language: what parses, what is refused with which words, and what it finds in a real database."""

from __future__ import annotations

import sqlite3
import uuid
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from looseends.wire import NS
from looseends_daemon.core.facts import Fact
from looseends_daemon.core.query import FIXED, SHOWN, WORDS, Match, Measure, QueryError, parse
from looseends_daemon.core.resources import STATES, VERDICTS
from looseends_daemon.store import search
from looseends_daemon.store.packed import InstanceIds, pack
from looseends_daemon.store.query_sql import where
from looseends_daemon.store.schema import migrate

NOW = 1_700_000_000 * NS
MINUTE = 60 * NS


def refused(text: str) -> QueryError:
    with pytest.raises(QueryError) as caught:
        parse(text)
    return caught.value


# --- reading ------------------------------------------------------------------------------------------------------


def test_an_empty_query_asks_for_everything() -> None:
    assert parse("").terms == parse(" \t ").terms == ()


def test_words_values_negation_quotes_and_stars() -> None:
    name, key, bare, not_state = parse('name:mail.*,"a b" key:"x,y" hello -state:failed,cancelled').terms
    assert name.matches == (Match(text="mail.", prefix=True), Match(text="a b"))
    assert key.matches == (Match(text="x,y"),)
    assert (bare.word, bare.matches) == ("", (Match(text="hello"),))
    assert (not_state.negated, [match.text for match in not_state.matches]) == (True, ["failed", "cancelled"])
    assert [term.column for term in (name, key, bare, not_state)] == [1, 19, 29, 35]


def test_a_quoted_star_is_a_star() -> None:
    assert parse('name:"a*b"').terms[0].matches == (Match(text="a*b"),)


def test_measures_carry_seconds_and_counts() -> None:
    older, took, attempt, second = parse("older:5m took:>=1500ms attempt:>1 attempt:2").terms
    assert older.measures == (Measure(op=">", number=300.0),)
    assert took.measures == (Measure(op=">=", number=1.5),)
    assert (attempt.measures[0].op, second.measures) == (">", (Measure(op="=", number=2),))


def test_every_word_of_the_language_parses() -> None:
    values = {"is": "loose", "state": "failed", "verdict": "lost", "older": "5m", "took": ">2s", "attempt": ">1"}
    for word in WORDS:
        assert parse(f"{word}:{values.get(word, 'x')}").terms[0].word == word
    assert parse("tag.tier:gold").terms[0].detail == "tier"
    assert parse("args.order_id:7").terms[0].detail == "order_id"


MISTAKES = {
    "nmae:x": (1, "did you mean name:?"),
    "is:open stat:failed": (9, "did you mean state:?"),
    "state:faild": (7, "did you mean state:failed?"),
    "state:xyz": (7, "one of scheduled, running"),
    "state:failed,lots": (14, "one of"),
    "is:": (4, "a value is missing"),
    "name:a,": (8, "a value is missing"),
    ",": (1, "a value is missing"),
    'name:"half': (6, "never closed"),
    'name:""': (6, "nothing between"),
    'name:"a"b': (9, "followed by a blank or a comma"),
    'na"me': (3, "not inside one"),
    "name:a*b": (7, "at the end only"),
    "*": (1, "needs something before it"),
    "-": (1, "negates the term"),
    "is:open - x": (9, "negates the term"),
    "older:soon": (7, "older:5m"),
    "older:>5m": (7, "write it like"),
    "took:2s": (6, "took:>2s"),
    "took:>2": (6, "took:>2s"),
    "attempt:one": (9, "attempt:>1"),
    "attempt:1.5": (9, "attempt:>1"),
    "older:999999999999w": (7, "write it like"),
    "http://x": (1, "quote it"),
    "tag.:x": (1, "needs a name after the dot"),
    "name:\x00": (6, "control characters"),
    "x" * 1_001: (1_001, "at most 1000 characters"),
    "x " * 31: (61, "at most 30 terms"),
    "name:" + "x," * 60: (106, "at most 50 values"),
}


@pytest.mark.parametrize("text", MISTAKES)
def test_a_mistake_names_its_column_and_the_way_out(text: str) -> None:
    column, words = MISTAKES[text]
    error = refused(text)
    assert (error.column, words in error.detail) == (column, True), str(error)


def test_a_mistake_in_a_fixed_word_lists_the_allowed_values() -> None:
    assert refused("verdict:hung").allowed == VERDICTS
    assert refused("foo:bar").allowed == SHOWN


ASKED = ("foo:bar", "tag.:x", "is:nonsense", "is:", 'is:""', "- x")


@pytest.mark.parametrize("text", ASKED)
def test_no_word_is_called_allowed_that_would_be_refused_next(text: str) -> None:
    for word in refused(text).allowed:
        given = word.removeprefix("is:") if text.startswith("is:") else word.removeprefix("-")
        tried = f"is:{given}" if text.startswith("is:") else given + {"is:": "open", "state:": "failed"}.get(given, "")
        parse(tried if not tried.endswith(":") else _filled(tried))


def _filled(word: str) -> str:
    return word + {"verdict:": "lost", "older:": "5m", "took:": ">2s", "attempt:": "2"}.get(word, "x")


PIECES = st.sampled_from(
    [*(f"{word}:" for word in WORDS), *(f"{w}:{v}" for w, values in FIXED.items() for v in values)]
    + ["tag.x:", "args.", "-", ",", '"', "*", " ", "a", "5m", ">2s", ":", ".", "é", "\ud800", "\0", "older:5m", "took:>1s", "x*"]
)


@settings(max_examples=400, deadline=None)
@given(st.one_of(st.text(), st.lists(PIECES, max_size=12).map("".join)))
def test_any_text_is_a_query_that_the_database_answers_or_a_query_error(text: str) -> None:
    conn = sqlite3.connect(":memory:", isolation_level=None)
    search.register(conn)
    try:
        migrate(conn)
        sql, params = where(parse(text), now=NOW, to=NOW)
        conn.execute(f"SELECT id FROM task WHERE {sql}", params).fetchall()
    except QueryError as error:
        assert 1 <= error.column <= len(text) + 1
        assert error.detail
    finally:
        conn.close()


# --- finding ------------------------------------------------------------------------------------------------------


def began(*attempts: dict[str, Any]) -> bytes:
    """The facts of a task whose attempts were begun with these words."""
    ids = InstanceIds()
    ids.learn(1, "i-abc")
    told = {(number, "i-abc"): {"started": Fact(at=0, said_at=0, body=body)} for number, body in enumerate(attempts, 1)}
    return pack(told, ids)


NOTHING = began({})
FACTS = {
    "a": began({"source": "starlette", "queue": "mail", "trace_id": "4bf9", "tags": {"tier": "gold", "size": "7"}}),
    "b": began({"source": "celery", "tags": {"tier": "tin"}}, {"tags": {"tier": "gold-plated"}}),
}
ARGS = b'{"args":{"order_id":7,"name":"Ada","vip":true,"order":{"id":"x-1"},"a b":null}}'


@pytest.fixture
def conn() -> Iterator[sqlite3.Connection]:
    conn = sqlite3.connect(":memory:", isolation_level=None)
    search.register(conn)
    migrate(conn)
    for number, service, name in ((1, "shop", "mail.send"), (2, "shop", "mail.sent_log"), (3, "bank", "Pay_100%")):
        conn.execute("INSERT INTO type (id, service, name) VALUES (?, ?, ?)", (number, service, name))
    conn.executemany("INSERT INTO environment (id, name) VALUES (?, ?)", [(1, "production"), (2, "staging")])
    conn.execute(
        "INSERT INTO instance (no, id, service, environment, host, release, channel, first_heard_at, last_heard_at)"
        " VALUES (1, 'i-abc', 'shop', 'production', 'web-3', '2026.1', 1, 0, 0)"
    )
    rows = [
        ("a", 1, 1, "running", None, 0, 1, 1, 10, None, "order-7"),
        ("b", 1, 2, "running", "stuck", 1, 2, None, 20, None, None),
        ("c", 2, 1, "failed", None, 1, 1, 1, 30, 2 * NS, "order-8"),
        ("d", 3, 1, "succeeded", None, 0, 1, None, 1, 90 * NS, None),
    ]
    for letter, type_, environment, state, verdict, loose, attempt, instance, minutes, took, key in rows:
        began = NOW - minutes * MINUTE
        conn.execute(
            "INSERT INTO task (id, type, environment, channel, state, verdict, loose, attempt, instance, began_at, started_at,"
            " ended_at, key, facts) VALUES (?, ?, ?, 1, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                *(id_of(letter).bytes, type_, environment, STATES.index(state)),
                *(None if verdict is None else VERDICTS.index(verdict), loose, attempt, instance),
                *(began, began, None if took is None else began + took, key, FACTS.get(letter, NOTHING)),
            ),
        )
    conn.execute("UPDATE task SET flags = ? WHERE id = ?", (16 + 1, id_of("d").bytes))
    conn.execute("INSERT INTO external (task, text) VALUES (?, 'backup-7')", (id_of("d").bytes,))
    conn.execute("INSERT INTO payload (task, slot, data) VALUES (?, '1/1/started', ?)", (id_of("a").bytes, ARGS))
    data = b'{"error":{"type":"smtplib.SMTPError","message":"Connection RESET"}}'
    conn.execute("INSERT INTO payload (task, slot, data) VALUES (?, '1/1/failed', ?)", (id_of("c").bytes, data))
    yield conn
    conn.close()


def id_of(letter: str) -> uuid.UUID:
    return uuid.UUID(letter * 32)


def find(conn: sqlite3.Connection, text: str, to: int | None = None) -> str:
    sql, params = where(parse(text), now=NOW, to=to)
    rows = conn.execute(f"SELECT id FROM task WHERE {sql} ORDER BY id", params).fetchall()
    return "".join(uuid.UUID(bytes=row[0]).hex[0] for row in rows)


FOUND = {
    "": "abcd",
    "is:loose": "bc",
    "-is:loose": "ad",
    "is:gap": "b",
    "is:open": "ab",
    "is:ran_twice": "d",
    "is:open is:loose": "b",
    "is:gap,loose": "bc",
    "state:failed,succeeded": "cd",
    "-state:failed,succeeded": "ab",
    "verdict:stuck": "b",
    "-verdict:stuck": "acd",
    "name:mail.send": "ab",
    "name:mail.sen*": "abc",
    "name:MAIL.*": "",
    'name:"Pay_100%"': "d",
    "name:Pay_1*": "d",
    "name:Pay%*": "",
    "service:shop -name:mail.send": "c",
    "environment:staging": "b",
    "instance:i-abc": "ac",
    "-instance:i-abc": "bd",
    "host:web-*": "ac",
    "release:2026.1": "ac",
    "key:order-7": "a",
    "key:order-*": "ac",
    "-key:order-7": "bcd",
    f"id:{id_of('a')}": "a",
    f"id:{id_of('a').hex.upper()}": "a",
    "id:cc*": "c",
    "id:cccc-": "",
    "id:backup-7": "d",
    "id:backup-*": "d",
    "older:15m": "bc",
    "-older:15m": "ad",
    "took:>2s": "d",
    "took:>=2s": "cd",
    "took:<1m": "c",
    "attempt:>1": "b",
    "attempt:2,1": "abcd",
    "mail": "abc",
    "PAY": "d",
    "100%": "d",
    "reset": "c",
    '"connection reset"': "c",
    "-reset": "abd",
    "source:starlette": "a",
    "source:starlette,celery": "ab",
    "-source:starlette": "bcd",
    "source:cel*": "b",
    "queue:mail": "a",
    "trace:4b*": "a",
    "tag.tier:gold": "a",
    "tag.tier:gold*": "ab",
    "tag.tier:tin": "",
    "tag.size:7": "a",
    "tag.nothing:x": "",
    "args.order_id:7": "a",
    "args.order_id:8": "",
    "args.name:Ad*": "a",
    "args.vip:true": "a",
    "args.order.id:x-1": "a",
    "args.order_id:7 state:failed": "",
    "error:SMTPError": "c",
    "error:smtplib.SMTPError": "c",
    "error:SMTP*": "c",
    "error:Error": "",
    'error:"Connection RESET"': "",
    "error:Connection*": "c",
    "error:%": "",
}


@pytest.mark.parametrize("text", FOUND)
def test_a_query_finds_what_it_says(conn: sqlite3.Connection, text: str) -> None:
    assert find(conn, text) == FOUND[text]


def test_text_is_searched_in_the_newest_tasks_of_the_window_only(
    conn: sqlite3.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("looseends_daemon.store.query_sql.TEXT_TASKS_MAX", 2)
    assert find(conn, "reset") == ""
    assert find(conn, "reset", to=NOW - 15 * MINUTE) == "c"
    assert parse("reset").searches_text and not parse("is:loose").searches_text
    assert all(parse(text).searches_text for text in ("source:x", "queue:x", "trace:x", "error:x", "tag.a:x", "args.a:7"))


def test_values_never_become_part_of_the_statement(conn: sqlite3.Connection) -> None:
    sql, params = where(parse("""name:"x' OR 1=1 --" key:?*"""), now=NOW)
    assert "OR 1=1" not in sql
    assert "x' OR 1=1 --" in params


def test_loose_ends_are_found_by_their_index(conn: sqlite3.Connection) -> None:
    sql, params = where(parse("is:loose"), now=NOW)
    statement = f"EXPLAIN QUERY PLAN SELECT id FROM task WHERE {sql} ORDER BY began_at DESC LIMIT 50"
    assert "task_loose" in " ".join(row[3] for row in conn.execute(statement, params))
