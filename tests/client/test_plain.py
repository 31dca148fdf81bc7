"""The short way for plain arguments: whatever it writes reads back the same, with and without msgspec, and it hides nothing."""

from __future__ import annotations

import functools
import json
import math
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import looseends
from looseends import plain
from looseends.capture import Shape, encode_named
from looseends.plain import CODEC, plain_for
from looseends.rebuild import decode_args

Recorded = Callable[[], list[dict[str, Any]]]
Scalars = Callable[[tuple[Any, ...]], bytes | None]


def with_msgspec() -> Scalars:
    """`scalars` as it is after `speed_up` found msgspec, without touching what this process uses."""
    msgspec = pytest.importorskip("msgspec")

    def fast(args: tuple[Any, ...]) -> bytes | None:
        kept, CODEC.write = CODEC.write, msgspec.json.Encoder().encode
        try:
            return plain.checked_scalars(args)
        finally:
            CODEC.write = kept

    return fast


@pytest.fixture(params=["standard library", "msgspec"])
def scalars(request: pytest.FixtureRequest) -> Scalars:
    """Both ways to write scalars."""
    return with_msgspec() if request.param == "msgspec" else plain.scalars


def same(one: Any, other: Any) -> bool:
    """Equal, and of the same types all the way down (1 is not 1.0, -0.0 is not 0.0)."""
    return repr(one) == repr(other)


SCALAR = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=40), st.characters())
NESTED = st.recursive(SCALAR, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=9), inner, max_size=4))


@settings(deadline=None)
@given(st.lists(SCALAR, max_size=9).map(tuple))
def test_what_it_writes_reads_back_the_same(args: tuple[Any, ...]) -> None:
    for write in (plain.scalars, with_msgspec()):
        found = write(args)
        assert found is None or same(json.loads(found), list(args))


@settings(deadline=None)
@given(st.dictionaries(st.text(min_size=1, max_size=9), NESTED, max_size=4))
def test_the_short_way_and_the_long_way_agree(values: dict[str, Any]) -> None:
    short = plain_for(()).encode(values)
    if short is not None:
        assert same(json.loads(short), values)
    text, problem = encode_named(values)
    if problem is None:
        assert same(decode_args(json.loads(text), {}), values) or any(map(_odd, _leaves(values)))


def _leaves(value: Any) -> Iterator[Any]:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    yield value
    for one in inner:
        yield from _leaves(one)


def _odd(value: Any) -> bool:
    return isinstance(value, float) and math.isnan(value)


@pytest.mark.parametrize(
    "value",
    [1 << 60, -(1 << 60), math.nan, math.inf, -math.inf, "\ud800", "x" * 1_001, (1,), {1}, b"x", object(), 1j, True.__class__],
    ids=lambda value: "object" if type(value) is object else repr(value)[:20],  # the same in every worker
)
def test_what_json_cannot_say_or_is_large_is_for_the_long_way(scalars: Scalars, value: Any) -> None:
    assert scalars((1, value)) is None
    assert plain_for(()).encode({"inner": {"list": [value]}}) is None


class Sly(str):
    """A text that claims to be another one."""

    def __eq__(self, other: object) -> bool:
        raise AssertionError("user code ran")

    def __hash__(self) -> int:
        raise AssertionError("user code ran")


class Number(int):
    """A number with a mind of its own."""

    def __repr__(self) -> str:
        raise AssertionError("user code ran")


def test_subclasses_with_a_mind_of_their_own_are_never_asked(scalars: Scalars) -> None:
    assert scalars((Number(3),)) is None and scalars((Sly("x"),)) is None
    assert plain_for(()).encode({"a": {"b": Number(3)}}) is None
    assert plain_for(()).encode({"inner": dict.fromkeys([]) | {"a": Sly("x")}}) is None


def test_a_secret_name_at_any_depth_is_for_the_long_way() -> None:
    named: tuple[dict[Any, Any], ...] = (
        {"password": "x"},
        {"a": {"api_key": 1}},
        {"a": [{"b": [{"authToken": "x"}]}]},
        {"$t": "tuple"},
        {1: 2},
    )
    for values in named:
        assert plain_for(()).encode(values) is None
    assert plain_for(()).encode({"nickname": "x"}) is not None and plain_for(("nickname",)).encode({"nickname": "x"}) is None
    assert plain_for(()).encode({"nickname": "x"}) is not None, "one function's list hides nothing in another's"


def test_what_is_deep_long_or_goes_in_a_circle_is_for_the_long_way_at_once() -> None:
    circle: dict[str, Any] = {}
    circle["again"] = circle
    deep: Any = 1
    for _ in range(plain.DEPTH_MAX + 1):
        deep = [deep]
    for value in (circle, {"deep": deep}, {"long": [0] * 5_000_000}, {"wide": ["x" * 1_000] * 999}):
        assert lines_of(lambda value=value: plain_for(()).encode(value)) < LINES_MAX, "all of it was walked"  # type: ignore[misc]
    assert lines_of(lambda: sum(1 for _ in range(200_000))) > LINES_MAX, "planted: a walk through so many is seen"


LINES_MAX = 100 * plain.VALUES_MAX
"""What looking at as many texts as may be looked at takes, and not a fiftieth of what 5 million numbers would."""


def lines_of(work: Callable[[], Any]) -> int:
    """How many lines of Python `work` runs, which must give None or a number."""
    count = 0

    def trace(frame: Any, event: str, _: Any) -> Any:
        nonlocal count
        count += event == "line"
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        found = work()
    finally:
        sys.settrace(before)
    assert found is None or type(found) is int
    return count


def test_an_argument_that_another_thread_changes_is_written_as_it_was_looked_at() -> None:
    order: dict[str, Any] = {"lines": {"a": 1}}
    stop = threading.Event()

    def meddle() -> None:
        while not stop.is_set():
            order["lines"]["password"] = "hunter2"
            del order["lines"]["password"]

    thread = threading.Thread(target=meddle)
    thread.start()
    try:
        found = {plain_for(()).encode({"order": order}) for _ in range(20_000)}
    finally:
        stop.set()
        thread.join()
    assert found <= {None, b'{"order":{"lines":{"a":1}}}'}


def test_arguments_given_by_name_and_by_place_are_the_same_task(recorded: Recorded) -> None:
    @looseends.task(name="named", key="order_id")
    def named(order_id: int, note: str = "", *, lines: list[dict[str, Any]] | None = None, **rest: Any) -> None: ...

    named(7, "x")
    named(note="x", order_id=7)
    named(7, lines=[{"sku": "a", "count": 2}])
    named(7, extra=1)
    named(7, password="hunter2")
    started = [event for event in recorded() if event["type"] == "started"]
    assert [event["key"] for event in started] == ["7"] * 5
    assert started[0]["args"] == started[1]["args"] == {"order_id": 7, "note": "x"}
    assert started[2]["args"] == {"order_id": 7, "lines": [{"sku": "a", "count": 2}]}
    assert started[3]["args"] == {"order_id": 7, "extra": 1}
    assert started[4]["args"]["password"] == {"$t": "redacted"} and "not_replayable_because" in started[4]


@pytest.mark.parametrize("msgspec", ["there", "missing", "broken"])
def test_a_process_records_the_same_with_and_without_msgspec(msgspec: str, tmp_path: Any) -> None:
    source = f"""
        import sys, json
        if {msgspec!r} == "missing":
            sys.modules["msgspec"] = None
        if {msgspec!r} == "broken":
            sys.modules["msgspec"] = sys
        import looseends
        from looseends import journal, plain
        from looseends.lifecycle import PROCESS
        assert "msgspec" not in sys.modules or {msgspec!r} != "there"
        @looseends.task
        def f(a, b, c=None): pass
        f(1, "é\\n", 2.5); f(a={{"x": [1, {{"y": None}}]}}, b=1 << 70); f(float("nan"), "x" * 5000)
        assert plain.CODEC.fast == ({msgspec!r} == "there")
        PROCESS.goodbye(0.1)
        [orphan] = [journal.adopt(folder) for folder in journal.folders(PROCESS.settings().spool)]
        print(json.dumps([e["args"] for batch in orphan.batches() for e in batch if e["type"] == "started"]))
    """
    environment = {"LOOSEENDS_SPOOL_DIR": str(tmp_path / "spool"), "LOOSEENDS_URL": f"unix:{tmp_path}/nobody"}
    import textwrap

    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(source)], env=environment, capture_output=True, text=True, timeout=30
    )
    assert done.returncode == 0, done.stderr
    first, second, third = json.loads(done.stdout)
    assert first == {"a": 1, "b": "é\n", "c": 2.5}
    assert second == {"a": {"x": [1, {"y": None}]}, "b": {"$t": "int", "v": str(1 << 70)}}
    assert third == {"a": {"$t": "float", "v": "nan"}, "b": "x" * 5000}


def test_the_number_of_arguments_cannot_outgrow_what_a_record_holds() -> None:
    names = ", ".join(f"a{n}" for n in range(200))
    space: dict[str, Any] = {}
    exec(f"def many({names}): ...", space)
    text, problem = Shape(space["many"]).encode(("\x01" * 1_000,) * 200, {})
    assert len(text) <= plain.ARGS_BYTES_MAX and problem is not None
    nine = functools.partial(Shape(space["many"]).plain, ("\x01" * 1_000,) * plain.SCALARS_MAX, {})
    assert len(nine() or b"") <= plain.ARGS_BYTES_MAX
