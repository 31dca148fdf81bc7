"""Tracebacks told the quick way read as Python prints them."""

from __future__ import annotations

import traceback
from collections.abc import Callable
from typing import Any

import pytest

from looseends import tracebacks
from looseends.record import describe


class Odd(Exception):
    def __str__(self) -> str:
        return "line one\nline two"


def deep(left: int) -> Any:
    return (deep(left - 1) if left else 1 / 0) + 1


def chained() -> None:
    try:
        raise KeyError("first")
    except KeyError as error:
        raise ValueError("second") from error


def in_a_handler() -> None:
    try:
        raise KeyError("first")
    except KeyError:
        raise ValueError("second")  # noqa: B904 - the context is what is tested


def hushed() -> None:
    try:
        raise KeyError("first")
    except KeyError:
        raise ValueError("second") from None


def noted() -> None:
    error = ValueError("with a note")
    error.add_note("read me")
    raise error


def grouped() -> None:
    raise ExceptionGroup("two", [ValueError("a"), KeyError("b")])


def unknown() -> None:
    raise AttributeError("x") from None


def said(words: str, kind: type[BaseException] = ValueError) -> Callable[[], None]:
    def fail() -> None:
        raise kind(words)

    return fail


def near() -> None:
    colour = 1
    print(colour, color)  # type: ignore[name-defined]  # noqa: F821 - the suggestion is what is tested


def syntax() -> None:
    compile("a b", "x.py", "exec")


KINDS = [said("plain"), said(""), said("odd", Odd), said("é ☃ \x00 \ud800"), chained, in_a_handler, hushed, noted, grouped]
KINDS += [unknown, near, syntax, lambda: deep(2), lambda: deep(3), lambda: deep(60), said("out", SystemExit)]


def caught(fail: Callable[[], Any]) -> BaseException:
    try:
        fail()
    except BaseException as error:  # noqa: BLE001 - it is what is asked for
        return error
    raise AssertionError("it did not fail")


@pytest.mark.parametrize("fail", KINDS)
def test_it_reads_as_python_prints_it_the_first_time_and_every_time(fail: Callable[[], Any]) -> None:
    for _ in range(2):
        error = caught(fail)
        printed = "".join(traceback.format_exception(type(error), error, error.__traceback__, limit=-tracebacks.FRAMES_MAX))
        clean = printed.replace("\0", "\\0").encode("utf-8", "backslashreplace").decode()
        assert describe(error)["traceback"] == clean[-16_384:]


def test_a_place_that_failed_before_is_not_read_again(monkeypatch: pytest.MonkeyPatch) -> None:
    fail = said("again")
    first = describe(caught(fail))
    monkeypatch.setattr(traceback, "format_tb", lambda *_: pytest.fail("it was read again"))
    assert describe(caught(fail)) == first


def test_secrets_are_in_neither_line_nor_message() -> None:
    def fail() -> None:
        raise ValueError("password=hunter2-planted")  # the source line holds it too

    told = describe(caught(fail))
    assert "hunter2" not in str(told) and "ValueError" in told["traceback"]
    hidden = describe(caught(said("it was sesame-42")), hidden=("sesame-42",))
    assert "sesame" not in str(hidden)


def test_what_is_remembered_has_a_bound() -> None:
    known = tracebacks.Known()
    for number in range(tracebacks.PLACES_MAX + tracebacks.KINDS_MAX):
        scope: dict[str, Any] = {}
        exec(compile("def fail():\n raise error", f"f{number}.py", "exec"), scope)
        kind = type(f"E{number}", (Exception,), {})
        scope["error"] = kind("x")
        trace = caught(scope["fail"]).__traceback__
        assert trace is not None and trace.tb_next is not None
        known.texts_of([trace.tb_next])
        known.kind_of(kind)
    assert len(known._texts) <= tracebacks.PLACES_MAX and len(known._kinds) <= tracebacks.KINDS_MAX
