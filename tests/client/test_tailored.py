"""Code of its own for a function that is called with plain values: the same records, the same results, in less time."""

from __future__ import annotations

import asyncio
import inspect
import itertools
import math
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import looseends
from looseends import plain, record, slots, stacks, tailored, trouble, wrappers
from looseends.lifecycle import PROCESS
from looseends.plain import CODEC

Recorded = Callable[[], list[dict[str, Any]]]
SECRET = "password=hunter2"
ODD = [
    10**13,
    -(10**13),
    math.nan,
    math.inf,
    "",
    "x" * 13,
    "4" * 14,
    "1" * 15,
    "x" * 16,
    "a:b",
    "a=b",
    SECRET,
    "x" * 1_001,
    "x" * 200,
]
ODD += ["4111 1111 1111 1111", "\ud800", "\ud83d", "é😀", "\0", True, None, b"x", (1,), [1], {"a": 1}, object, 1j]
VALUES = st.one_of(st.integers(), st.floats(), st.text(), st.booleans(), st.none(), st.sampled_from(ODD))
KINDS = [int, str, float, bool, type(None)]
EXAMPLE: dict[type, Any] = {int: 7, str: "ada@example.com", float: 2.5, bool: True, type(None): None}


@pytest.fixture(params=["stdlib", "fast"])
def codec(request: pytest.FixtureRequest) -> Iterator[str]:
    """Both ways of writing arguments."""
    if request.param == "fast":
        pytest.importorskip("msgspec")
        CODEC.looked = False
        plain.speed_up()
    else:
        CODEC.__init__()  # type: ignore[misc]
        CODEC.looked = True
    yield request.param
    CODEC.__init__()  # type: ignore[misc]


@pytest.fixture(autouse=True)
def nobody_traces(monkeypatch: pytest.MonkeyPatch) -> None:
    """What an earlier test imported is not this one's: where OpenTelemetry is loaded, each call looks for a span."""
    monkeypatch.setattr(wrappers, "modules", {})
    monkeypatch.setattr(record, "_modules", {})


def is_tailored(function: Any) -> bool:
    return bool(function.__code__.co_filename == tailored.FILE)


def audited(count: int, is_async: bool = False, name: str = "echo") -> Any:
    """A function of so many parameters that gives its arguments back."""
    names = ", ".join(f"p{number}" for number in range(count))
    space: dict[str, Any] = {}
    define = "async def" if is_async else "def"
    exec(f"{define} echo({names}): return {names or '()'}{',' if names else ''}", space)
    return looseends.task(name=name)(space["echo"])


def call(function: Any, *args: Any) -> Any:
    """Its result, or what it raised."""
    return calls(function, [args])[0]


def calls(function: Any, several: Sequence[Sequence[Any]]) -> list[Any]:
    """The same of several calls, those of a coroutine function in one loop."""

    async def awaited() -> list[Any]:
        found = []
        for args in several:
            try:
                found.append(await function(*args))
            except Exception as error:  # noqa: BLE001 - whatever it is, both ways must raise it
                found.append(repr(error))
        return found

    if inspect.iscoroutinefunction(function):
        return asyncio.run(awaited())
    found = []
    for args in several:
        try:
            found.append(function(*args))
        except Exception as error:  # noqa: BLE001 - as above
            found.append(repr(error))
    return found


def records(name: str) -> list[tuple[Any, ...]]:
    """What stands in this process's journal of tasks with this name, as a reader of it sees it, ids and times apart."""
    found, kept = [], PROCESS.journal
    assert kept is not None
    for segment in kept.segments:
        for one in slots.records(segment.map, segment.head, kept.names, segment.side.read):
            assert one is not None, "a record is damaged"
            if one.name.name == name:
                assert one.started and one.ended >= one.started & ~7 and not one.scheduled
                found.append((one.attempt, one.parent, one.args, one.extra, one.status))
    return found


KINDS_AND_CALLS = st.lists(st.sampled_from(KINDS), max_size=4).flatmap(
    lambda kinds: st.tuples(
        st.just(kinds),
        st.lists(st.lists(VALUES, min_size=max(0, len(kinds) - 1), max_size=len(kinds) + 1), max_size=12),
    )
)
NUMBERS = itertools.count()


@pytest.mark.parametrize("is_async", [False, True])
@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(KINDS_AND_CALLS)
def test_whatever_is_passed_it_records_what_the_general_wrapper_records(
    codec: str, spool: str, is_async: bool, case: tuple[list[type], list[list[Any]]]
) -> None:
    one, other = both_ways(*case, is_async)
    assert one == other
    assert not trouble.COUNTS.get("a task took the general way")


def both_ways(kinds: list[type], rest: list[list[Any]], is_async: bool) -> list[tuple[list[str], list[Any]]]:
    """Results and records of the same calls, by the general wrapper and by code of its own."""
    typical = [EXAMPLE[kind] for kind in kinds]
    found = []
    for fits in (False, True):
        function = audited(len(kinds), is_async, f"echo.{next(NUMBERS)}")
        if not fits:
            function.__looseends__.wrapper = None
        results = list(map(repr, calls(function, [typical, typical, *rest, typical])))
        told = records(function.__looseends__.name)
        assert is_tailored(function) == fits and len(told) == 3 + len(rest)
        found.append((results, told))
    return found


@pytest.mark.parametrize(
    ("what", "fault", "args"),
    [
        ("_PLAIN", {int: "type({0}) is int"}, [10**14]),
        ("_PLAIN", {float: "type({0}) is float"}, [math.nan]),
        ("_LONG", "", ["4111 1111 1111 1111"]),
    ],
)
def test_a_check_that_is_left_out_is_seen(
    spool: str, monkeypatch: pytest.MonkeyPatch, what: str, fault: Any, args: list[Any]
) -> None:
    """Planted: were code of its own to look at less than the general wrapper, the test above would fail."""
    monkeypatch.setattr(tailored, what, {**tailored._PLAIN, **fault} if fault else fault)
    monkeypatch.setattr(tailored, "_codes", lambda kept={}: kept)
    one, other = both_ways([type(args[0])], [args], False)
    assert one != other


@pytest.mark.parametrize("is_async", [False, True])
def test_nearly_every_call_takes_the_short_way(
    codec: str, recorded: Recorded, monkeypatch: pytest.MonkeyPatch, is_async: bool
) -> None:
    """The test above would not notice if none did."""
    general = []
    kept = record.enter

    def enter(*args: Any) -> Any:
        general.append(args[1])
        return kept(*args)

    monkeypatch.setattr(wrappers, "enter", enter)
    function = audited(3, is_async)
    rare = [(7, None, 2.5), (10**13, "a", 2.5), (7, "a", math.nan), (7, "a\ud800", 2.5), (7, SECRET, 2.5), (7, "x" * 170, 2.5)]
    usual = [(1, "ada@example.com", 2.5), (2, "Ada Lovelace, 12 Main Street, London", 0.0), (3, "10:30", 1.0), (4, "é😀", -1e300)]
    for args in [*usual, *rare]:
        call(function, *args)
    own_words = [usual[3]] if codec == "stdlib" else []  # half surrogates, perhaps: looked at by itself
    assert general == [usual[0], *own_words, *rare[1:]]
    assert len(recorded()) == 20 and not trouble.COUNTS.get("a task took the general way")


@pytest.mark.parametrize("is_async", [False, True])
def test_the_function_object_stays_what_it_was(recorded: Recorded, is_async: bool) -> None:
    function = audited(2, is_async)
    before = function, function.__name__, function.__wrapped__, inspect.signature(function), inspect.iscoroutinefunction(function)
    call(function, 1, "a")
    assert is_tailored(function) and not is_tailored(function.__wrapped__)
    after = function, function.__name__, function.__wrapped__, inspect.signature(function), inspect.iscoroutinefunction(function)
    assert before == after and function.__code__ is call_alike(is_async).__code__


def call_alike(is_async: bool) -> Any:
    """Another function whose calls look the same."""
    other = audited(2, is_async)
    call(other, 2, "b")
    return other


@pytest.mark.parametrize("count", range(12))
def test_functions_of_any_number_of_parameters_are_called_with_all_of_them(recorded: Recorded, count: int) -> None:
    function = audited(count)
    args = tuple(range(count))
    assert [function(*args) for _ in range(3)] == [args] * 3
    assert is_tailored(function) == (count <= plain.SCALARS_MAX)
    assert [event["args"] for event in recorded()[::2]] == [{f"p{n}": n for n in args}] * 3


@pytest.mark.parametrize("options", [{}, {"redact": ("order",)}])
def test_a_parameter_that_is_secret_by_its_name_is_hidden_in_every_call(recorded: Recorded, options: dict[str, Any]) -> None:
    @looseends.task(name="hides", **options)
    def hides(order: int, token: str) -> None: ...

    for _ in range(3):
        hides(1, "s3cret")
    assert not is_tailored(hides) and "s3cret" not in repr(recorded())


@pytest.mark.parametrize("is_async", [False, True])
@pytest.mark.parametrize("where", ["PACKERS", "crc32", "current", "now", "make_current", "hides"])
def test_an_error_of_ours_never_reaches_the_caller_and_the_call_is_recorded_all_the_same(
    recorded: Recorded, monkeypatch: pytest.MonkeyPatch, where: str, is_async: bool
) -> None:
    function = audited(2, is_async)
    call(function, 1, "a:b")
    assert is_tailored(function)

    def broken(*args: Any) -> Any:
        raise RuntimeError("planted")

    monkeypatch.setattr(wrappers, where, broken)
    assert [call(function, n, "a:b") for n in (2, 3)] == [(2, "a:b"), (3, "a:b")]
    assert looseends.current() is None
    monkeypatch.undo()
    assert trouble.COUNTS["a task took the general way"] == 2
    ended = [event["args"] for event in recorded() if event["type"] == "started"]
    assert ended[0] == {"p0": 1, "p1": "a:b"} and ended[-1] == {"p0": 3, "p1": "a:b"}


def test_an_end_that_cannot_be_set_the_short_way_is_set_the_general_way(recorded: Recorded) -> None:
    @looseends.task(name="late")
    def late(number: int) -> None:
        task = looseends.current()
        if number and task is not None and task.segment is not None:
            task.segment.words.release()

    for number in (0, 0, 1):
        late(number)
    assert is_tailored(late) and looseends.current() is None
    assert [event["type"] for event in recorded()] == ["started", "finished"] * 3


def test_who_ended_its_own_task_is_not_ended_twice(recorded: Recorded) -> None:
    @looseends.task(name="drops")
    def drops(number: int) -> None:
        task = looseends.current()
        if number and task is not None:
            record.drop(task, "queue_full")

    for number in (0, 0, 1):
        drops(number)
    assert is_tailored(drops)
    assert [event["type"] for event in recorded()] == ["started", "finished"] * 3


@pytest.mark.parametrize("is_async", [False, True])
def test_what_it_raises_is_recorded_without_frames_of_ours_and_goes_on(recorded: Recorded, is_async: bool) -> None:
    def fails(number: int) -> None:
        raise ValueError(f"no {number}")

    async def fails_later(number: int) -> None:
        fails(number)

    function = looseends.task(name="fails")(fails_later if is_async else fails)
    assert [call(function, n) for n in range(3)] == [f"ValueError('no {n}')" for n in range(3)]
    assert is_tailored(function) and looseends.current() is None
    errors = [event["error"] for event in recorded() if event["type"] == "failed"]
    assert [error["message"] for error in errors] == ["no 0", "no 1", "no 2"]
    assert not any("looseends_task" in error["traceback"] for error in errors) and "in fails" in errors[2]["traceback"]


def test_it_is_the_current_task_of_its_body_and_the_parent_of_what_is_begun_there(recorded: Recorded) -> None:
    inner = audited(1)
    inner(0)

    @looseends.task(name="outer")
    def outer(number: int) -> str:
        inner(number)
        task = looseends.current()
        assert task is not None and task.name == "outer"
        task.progress(0.5, "half")
        return task.id

    ids = [outer(n) for n in range(3)]
    assert is_tailored(outer) and is_tailored(inner) and looseends.current() is None
    events = recorded()
    assert [event.get("parent") for event in events if event["name"] == "echo" and event["type"] == "started"] == [None, *ids]
    assert [event["task"] for event in events if event["type"] == "progress"] == ids


async def test_a_coroutine_of_it_that_is_spawned_is_one_task(recorded: Recorded) -> None:
    function = audited(2, is_async=True)
    await function(1, "a")
    assert is_tailored(function)
    assert await looseends.spawn(function(2, "b")) == (2, "b")
    events = recorded()
    assert [event["type"] for event in events] == ["started", "finished", "scheduled", "started", "finished"]
    assert events[2]["args"] == {"p0": 2, "p1": "b"} and len({event["task"] for event in events}) == 2


@pytest.mark.parametrize("is_async", [False, True])
def test_where_it_hangs_is_seen_from_outside(recorded: Recorded, is_async: bool) -> None:
    seen: list[list[str]] = []

    def look(number: int) -> None:
        task = looseends.current()
        assert task is not None and task.segment is not None
        place = id(task.segment), task.at
        thread = threading.Thread(target=lambda: seen.append(stacks.Look().stacks([place])[place][0]))
        thread.start()
        thread.join()

    async def look_later(number: int) -> None:
        look(number)

    function = looseends.task(name="looks")(look_later if is_async else look)
    for number in range(3):
        assert call(function, number) is None
    assert is_tailored(function) and len(seen) == 3
    assert len({tuple(lines) for lines in seen}) == 1, "as in its first call, which was a general one"
    assert seen[2][0].endswith("look_later" if is_async else "look") and "looseends/<" not in repr(seen)


def test_who_asked_for_the_names_of_tasks_hears_of_each(recorded: Recorded, monkeypatch: pytest.MonkeyPatch) -> None:
    heard: list[str] = []
    function = audited(1)
    function(0)
    monkeypatch.setattr(record, "_make_current", record._make_current)
    record.observe(heard.append)
    try:
        assert [function(n) for n in (1, 2)] == [(1,), (2,)]
    finally:
        record._observers.remove(heard.append)
    assert is_tailored(function) and heard == ["echo", "echo"]


@pytest.mark.parametrize("module", [True, False])
def test_where_opentelemetry_is_loaded_each_call_is_looked_at_for_its_span(
    recorded: Recorded, monkeypatch: pytest.MonkeyPatch, module: bool
) -> None:
    function = audited(1)
    function(0)
    general: list[Any] = []
    kept = record.enter
    monkeypatch.setattr(wrappers, "enter", lambda *args: general.append(args[1]) or kept(*args))
    monkeypatch.setattr(wrappers, "modules", {record.TRACE: object()} if module else {})
    function(1)
    assert general == ([(1,)] if module else [])


def test_its_names_are_all_there() -> None:
    import builtins

    for is_async in (False, True):
        text = tailored.text_for((int, str, float, bool, type(None)), is_async)
        loaded = {name for code in [tailored.code_for((int, str), is_async)] if code is not None for name in code.co_names}
        missing = {
            name for name in loaded if not hasattr(wrappers, name) and not hasattr(builtins, name) and f".{name}" not in text
        }
        assert missing == set()
    assert PROCESS is wrappers.PROCESS and wrappers.observers is record._observers
