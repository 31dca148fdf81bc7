"""Arguments that bite: whatever they do, the call goes on, the record is made, and no code of theirs runs."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import attrs
import pytest

import looseends
from looseends import forms, trouble
from looseends.capture import encode_named

Recorded = Callable[[], list[dict[str, Any]]]
RAN: list[str] = []


def bite(name: str) -> Callable[..., Any]:
    def method(*args: Any, **options: Any) -> Any:
        RAN.append(name)
        raise RuntimeError(f"{name} ran")

    return method


SPECIAL = "repr str eq hash getattr getattribute len iter bool format contains getitem lt int index float reduce reduce_ex copy"
BITES = [f"__{word}__" for word in SPECIAL.split()] + ["__getstate__", "__deepcopy__", "__sizeof__", "__dir__", "keys", "items"]


def biting(*bases: type) -> type:
    space: dict[str, Any] = {name: bite(name) for name in BITES}
    for name in ("__class__", "__dict__", "__module__", "__doc__", "isoformat", "_value_", "key"):
        space[name] = property(bite(name))
    return type("Biting", bases, space)


def of_biting_metaclass() -> type:
    def __getattribute__(cls: type, name: str) -> Any:
        return bite(f"meta {name}")()

    names = ("__hash__", "__eq__", "__bool__", "__len__", "__instancecheck__", "__subclasscheck__", "__repr__")
    space: dict[str, Any] = {name: bite(f"meta {name}") for name in names}
    meta = type("BitingMeta", (type,), {**space, "__getattribute__": __getattribute__})
    return meta("OfBitingMeta", (), {})


@dataclass
class Sly:
    """A dataclass whose field is a property: reading it would run code."""

    number: int
    hidden: int = 0


Sly.hidden = property(bite("a field's property"), lambda self, value: None)  # type: ignore[assignment]


@attrs.define(slots=False)
class SlyAttrs:
    number: int


SlyAttrs.number = property(bite("an attrs property"), lambda self, value: None)  # type: ignore[assignment]


class Disguised:
    """Calls itself datetime."""

    isoformat = bite("isoformat")
    tzinfo = None
    fold = 0


Disguised.__module__, Disguised.__qualname__, Disguised.__name__ = "datetime", "datetime", "datetime"


def posing(**space: Any) -> Any:
    """An instance of a class that looks like one of a kind with fields."""
    return type("Posing", (), space)()


def evil() -> list[Any]:
    """All of them, made anew. (Not at the top of the module: pytest looks into what stands there.)"""
    values = [biting(base)(7) for base in (int, float)] + [biting(base)() for base in (str, dict, list, tuple, set, bytes)]
    meta = of_biting_metaclass()
    values += [biting()(), meta(), meta, Sly(1), SlyAttrs(1), Disguised()]
    values += [posing(_member_map_={}, _value2member_map_={}, _name_=property(bite("_name_")))]
    values += [posing(__dataclass_fields__={"x": object()}, x=1), posing(__pydantic_fields__={"x": 1}, x=property(bite("x")))]
    return values


@pytest.mark.parametrize("number", range(17))
def test_no_code_of_an_argument_runs_while_it_is_captured(number: int) -> None:
    values = evil()
    assert len(values) == 17
    value = values[number]
    RAN.clear()
    for args in ({"value": value}, {"value": [value, (value,)]}, {"value": {1: value}}):
        text, problem = encode_named(args)
        assert json.loads(text)["value"] is not None and problem is not None
    assert RAN == []


def test_a_call_with_such_arguments_goes_on_and_is_recorded(recorded: Recorded) -> None:
    RAN.clear()
    trouble.COUNTS.clear()
    seen: list[Any] = []

    @looseends.task(name="hostile.call")
    def call(value: Any, **more: Any) -> str:
        seen.append(value)
        return "done"

    for value in evil():
        assert call(value) == "done" and call(value=value) == "done" and call([value], x={"deep": value}) == "done"
    ran, counted, calls = list(RAN), {kind for kind in trouble.COUNTS if kind != "no answer"}, len(seen)
    seen.clear()  # the assertions below would write them out
    assert (ran, counted, calls) == ([], set(), 51)
    started = [event for event in recorded() if event["type"] == "started"]
    assert len(started) == calls and all(event["not_replayable_because"] for event in started)


class BadMessage(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no message")

    __repr__ = __str__


class SlyMessage(Exception):
    def __str__(self) -> str:
        return biting(str)("from a text of a class of its own")  # type: ignore[no-any-return]


class HugeMessage(Exception):
    def __str__(self) -> str:
        return "x" * 50_000_000


@pytest.mark.parametrize("kind", [BadMessage, SlyMessage, HugeMessage])
def test_an_exception_with_a_message_that_bites_is_still_a_failure(kind: type[Exception], recorded: Recorded) -> None:
    @looseends.task(name="hostile.raises")
    def raises(password: str) -> None:
        raise kind("x")

    with pytest.raises(kind):
        raises("canary-secret")
    failed = next(event for event in recorded() if event["type"] == "failed")
    assert failed["error"]["type"].endswith(kind.__name__) and len(json.dumps(failed)) < 60_000


def test_a_dict_that_others_change_meanwhile_is_captured_all_the_same() -> None:
    shared: dict[Any, Any] = {n: n for n in range(200)}
    stop = threading.Event()

    def churn() -> None:
        n = 0
        while not stop.is_set():
            shared[n % 400 + 200] = n
            shared.pop((n + 7) % 400 + 200, None)
            n += 1

    thread = threading.Thread(target=churn)
    thread.start()
    try:
        for _ in range(100):
            text, problem = encode_named({"shared": shared})
            assert problem is None and json.loads(text)["shared"]["$t"] == "map"
    finally:
        stop.set()
        thread.join()


def test_classes_made_by_the_thousand_are_not_remembered_for_ever() -> None:
    for n in range(2 * forms.FORMS_MAX + 10):
        encode_named({"value": type(f"Made{n}", (), {})()})
    assert len(forms._forms) <= forms.FORMS_MAX


def test_a_tracked_block_with_strange_arguments_is_tracked(recorded: Recorded) -> None:
    class Strange(dict):  # type: ignore[type-arg]
        items = bite("items")

    for args in ({1: 2, None: 3}, Strange(a=1), [("a", 1)], 7):
        with looseends.track("hostile.tracked", args) as task:  # type: ignore[arg-type]
            assert task.id
    assert len([event for event in recorded() if event["type"] == "finished"]) == 4
