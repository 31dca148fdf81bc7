"""An audited function stays the kind of function it was, for Python, for frameworks and for its callers."""

from __future__ import annotations

import asyncio
import contextlib
import doctest
import functools
import gc
import inspect
import pickle
import sys
import typing
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Generator, Iterator
from types import ModuleType
from typing import Any

import pytest

import looseends
from looseends import UsageError

Recorded = Callable[[], list[dict[str, Any]]]


def told(events: list[dict[str, Any]], name: str = "") -> list[str]:
    """Event types of tasks whose name ends like this, the reason beside those that have one."""
    return [f"{e['type']} {e['reason']}" if "reason" in e else e["type"] for e in events if e["name"].endswith(name)]


@looseends.task
def doubled(number: int) -> int:
    """Twice as much.

    >>> doubled(4)
    9
    """
    return number * 2


@looseends.task(name="pages", key="order_id")
def pages(order_id: int, secret: str = "") -> Generator[Any, Any, str]:
    got = yield looseends.current()
    try:
        got = yield got
    except KeyError as error:
        got = yield f"caught {error}"
    yield got
    return "done"


@looseends.task(name="rows")
async def rows(number: int) -> AsyncGenerator[Any, Any]:
    got = yield looseends.current()
    await asyncio.sleep(0)
    try:
        got = yield got
    except KeyError as error:
        got = yield f"caught {error}"
    yield got


# --- generators ---------------------------------------------------------------------------------------------------


def test_a_generator_is_one_task_from_its_first_step_to_its_end(recorded: Recorded) -> None:
    steps = pages(7)
    assert looseends.current() is None
    inside = next(steps)
    assert isinstance(inside, looseends.Task) and inside.name == "pages"
    assert looseends.current() is None, "between two steps the consumer runs, not the generator"
    assert steps.send("sent") == "sent"
    assert steps.throw(KeyError("thrown")) == "caught 'thrown'"
    assert next(steps) is None
    with pytest.raises(StopIteration) as end:
        next(steps)
    assert end.value.value == "done"
    started, finished = recorded()
    assert (started["args"], started["key"], started["task"]) == ({"order_id": 7}, "7", inside.id)
    assert told([started, finished]) == ["started", "finished"] and looseends.current() is None


def test_a_generator_that_nobody_iterates_over_is_no_task(recorded: Recorded) -> None:
    pages(1).close()
    pages(2)
    gc.collect()
    looseends.flush(0)
    assert recorded() == []


@pytest.mark.parametrize("end", ["close", "break", "forgotten"])
def test_a_generator_that_its_consumer_leaves_early_is_cancelled_as_requested(recorded: Recorded, end: str) -> None:
    inside = []

    @looseends.task(name="left")
    def left() -> Iterator[int]:
        try:
            yield 1
            yield 2
        finally:
            inside.append(looseends.current())

    steps = left()
    for _ in steps:
        break
    if end == "close":
        steps.close()  # type: ignore[attr-defined]
    del steps
    gc.collect()
    assert [task.name for task in inside if task is not None] == ["left"]
    assert told(recorded()) == ["started", "cancelled requested"] and looseends.current() is None


def test_a_generator_that_raises_failed_and_its_consumer_sees_it(recorded: Recorded) -> None:
    @looseends.task(name="breaks")
    def breaks() -> Iterator[int]:
        yield 1
        raise ValueError("in the middle")

    with pytest.raises(ValueError, match="in the middle"):
        list(breaks())
    with pytest.raises(RuntimeError, match="thrown in"):
        pages(1).throw(RuntimeError("thrown in"))  # before its first step: nothing began
    events = recorded()
    assert told(events) == ["started", "failed"]
    assert "looseends_task" not in events[1]["error"]["traceback"] and "in breaks" in events[1]["error"]["traceback"]


def test_a_generator_inside_a_task_is_its_child_and_gives_its_place_back(recorded: Recorded) -> None:
    with looseends.track("outer") as outer:
        for _ in pages(3):
            assert looseends.current() is outer
    inner = next(event for event in recorded() if event["name"] == "pages")
    assert inner["parent"] == outer.id


def test_two_generators_in_turn_each_have_their_own_task(recorded: Recorded) -> None:
    @looseends.task(name="turns")
    def turns(which: str) -> Iterator[str]:
        for _ in range(3):
            task = looseends.current()
            assert task is not None
            yield f"{which}{task.id}"

    pairs = list(zip(turns("a"), turns("b"), strict=True))
    assert len({a for a, _ in pairs}) == len({b for _, b in pairs}) == 1
    assert told(recorded()) == ["started", "finished"] * 2


def test_a_generator_that_will_not_be_closed_failed(recorded: Recorded) -> None:
    @looseends.task(name="stubborn")
    def stubborn() -> Iterator[int]:
        with contextlib.suppress(GeneratorExit):
            yield 1
        yield 2

    steps = stubborn()
    next(steps)
    with pytest.raises(RuntimeError, match="ignored GeneratorExit"):
        steps.close()  # type: ignore[attr-defined]
    assert told(recorded()) == ["started", "failed"]


def test_a_generator_may_be_a_context_manager(recorded: Recorded) -> None:
    @contextlib.contextmanager
    @looseends.task(name="managed")
    def managed() -> Iterator[int]:
        try:
            yield 5
        except KeyError:
            return

    with managed() as value:
        assert value == 5
        raise KeyError
    assert told(recorded()) == ["started", "finished"]


def test_a_generator_cannot_be_replayed_and_says_so() -> None:
    with pytest.raises(UsageError, match="a generator runs while somebody iterates over it: no replay"):
        looseends.task(replay=True)(lambda: (yield))
    with pytest.raises(UsageError, match="no replay"):
        looseends.register(rows.__wrapped__, name="rows again")  # type: ignore[attr-defined]


# --- async generators ---------------------------------------------------------------------------------------------


async def test_an_async_generator_is_one_task_and_everything_reaches_its_body(recorded: Recorded) -> None:
    steps = rows(7)
    inside = await anext(steps)
    assert isinstance(inside, looseends.Task) and looseends.current() is None
    assert await steps.asend("sent") == "sent"
    assert await steps.athrow(KeyError("thrown")) == "caught 'thrown'"
    assert await anext(steps) is None
    with pytest.raises(StopAsyncIteration):
        await anext(steps)
    events = recorded()
    assert told(events) == ["started", "finished"] and events[0]["task"] == inside.id


async def test_an_async_generator_that_is_left_early_is_cancelled_and_cleans_up_first(recorded: Recorded) -> None:
    inside = []

    @looseends.task(name="left")
    async def left() -> AsyncIterator[int]:
        try:
            yield 1
        finally:
            await asyncio.sleep(0)
            inside.append(looseends.current())

    async with contextlib.aclosing(left()) as steps:  # type: ignore[type-var]
        async for _ in steps:
            break
    assert [task.name for task in inside if task is not None] == ["left"]
    assert told(recorded()) == ["started", "cancelled requested"] and looseends.current() is None


def test_an_async_generator_that_is_open_when_its_loop_ends_is_closed_by_it(recorded: Recorded) -> None:
    async def main() -> None:
        steps = rows(1)
        await anext(steps)
        kept.append(steps)

    kept: list[Any] = []
    asyncio.run(main())
    assert told(recorded()) == ["started", "cancelled requested"]


async def test_an_async_generator_whose_consumer_is_cancelled_inside_it_is_cancelled(recorded: Recorded) -> None:
    begun = asyncio.Event()

    @looseends.task(name="waits")
    async def waits() -> AsyncIterator[int]:
        begun.set()
        await asyncio.Event().wait()
        yield 1

    async def consume() -> None:
        async for _ in waits():
            pass

    running = asyncio.create_task(consume())
    await begun.wait()
    running.cancel()
    await asyncio.wait([running])
    assert told(recorded()) == ["started", "cancelled requested"]


async def test_an_async_generator_that_raises_failed(recorded: Recorded) -> None:
    @looseends.task(name="breaks")
    async def breaks() -> AsyncIterator[int]:
        yield 1
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        _ = [one async for one in breaks()]
    assert told(recorded()) == ["started", "failed"]


# --- what it stays ------------------------------------------------------------------------------------------------


def test_each_kind_is_still_known_as_what_it_is() -> None:
    @looseends.task
    async def fetch() -> None: ...

    assert inspect.isgeneratorfunction(pages) and inspect.isasyncgenfunction(rows) and inspect.iscoroutinefunction(fetch)
    assert not inspect.isgeneratorfunction(doubled) and not inspect.iscoroutinefunction(doubled)
    assert asyncio.iscoroutinefunction(fetch) is True
    assert doubled.__doc__ is not None and doubled.__doc__.startswith("Twice") and doubled.__module__ == __name__
    assert typing.get_type_hints(doubled) == {"number": int, "return": int}
    assert list(inspect.signature(pages).parameters) == ["order_id", "secret"]


class Mailer:
    """Methods in every order of decorators."""

    def __init__(self, name: str) -> None:
        self.name = name

    @looseends.task(name="m.plain")
    def plain(self, number: int) -> str:
        return f"{self.name}{number}"

    @classmethod
    @looseends.task(name="m.class_above")
    def class_above(cls, number: int) -> str:
        return f"{cls.__name__}{number}"

    @looseends.task(name="m.class_below")
    @classmethod
    def class_below(cls, number: int) -> str:
        return f"{cls.__name__}{number}"

    @staticmethod
    @looseends.task(name="m.static_above", key="number")
    def static_above(number: int) -> int:
        return number

    @looseends.task(name="m.static_below", key="number")
    @staticmethod
    def static_below(number: int) -> int:
        return number

    @property
    @looseends.task(name="m.property")
    def shown(self) -> str:
        return self.name

    @looseends.task(name="m.steps")
    def steps(self, number: int) -> Iterator[int]:
        yield from range(number)


def test_methods_work_under_every_order_of_decorators(recorded: Recorded) -> None:
    one = Mailer("ada")
    assert (one.plain(1), one.shown, list(one.steps(2))) == ("ada1", "ada", [0, 1])
    assert (Mailer.class_above(1), one.class_above(2), Mailer.class_below(3), one.class_below(4)) == (
        "Mailer1",
        "Mailer2",
        "Mailer3",
        "Mailer4",
    )
    assert (Mailer.static_above(5), one.static_above(6), Mailer.static_below(7), one.static_below(8)) == (5, 6, 7, 8)
    started = {event["name"]: event for event in recorded() if event["type"] == "started"}
    assert len(started) == 7 and started["m.static_below"]["key"] == "8"
    assert started["m.plain"]["args"]["number"] == 1 and started["m.plain"]["args"]["self"]["$t"] == "opaque"


def test_a_decorated_function_is_pickled_by_its_name() -> None:
    assert pickle.loads(pickle.dumps(doubled)) is doubled
    assert pickle.loads(pickle.dumps(pages)) is pages


def test_a_docstring_of_a_decorated_function_is_still_a_doctest() -> None:
    found = [test for test in doctest.DocTestFinder().find(sys.modules[__name__]) if test.name.endswith(".doubled")]
    assert len(found) == 1 and found[0].examples[0].want == "9\n"
    module = ModuleType("elsewhere")
    module.doubled = doubled  # type: ignore[attr-defined]
    assert not [test for test in doctest.DocTestFinder().find(module) if test.examples], "it belongs to this module alone"


def test_single_dispatch_goes_through_it_on_both_sides(recorded: Recorded) -> None:
    @looseends.task(name="outside")
    @functools.singledispatch
    def outside(value: object) -> str:
        return "object"

    @functools.singledispatch
    def inside(value: object) -> str:
        return "object"

    @outside.register  # type: ignore[attr-defined, untyped-decorator]
    def _(value: int) -> str:
        return "int"

    @inside.register
    @looseends.task(name="inside.int")
    def _(value: int) -> str:
        return "int"

    assert (outside(1), outside("x"), inside(1), inside("x")) == ("int", "object", "int", "object")
    assert [e["name"] for e in recorded() if e["type"] == "started"] == ["outside", "outside", "inside.int"]


def test_overloads_are_found_and_the_types_stay() -> None:
    @typing.overload
    def size(value: int) -> int: ...
    @typing.overload
    def size(value: str) -> str: ...
    @looseends.task
    def size(value: Any) -> Any:
        return value

    assert len(typing.get_overloads(size)) == 2


class Callable_:
    """An object that is called."""

    def __call__(self, number: int, password: str = "") -> int:
        return number


class AsyncCallable:
    """An object whose call is a coroutine."""

    async def __call__(self, number: int) -> int:
        await asyncio.sleep(0)
        return number


async def test_partials_bound_methods_and_callable_objects_are_tasks_with_named_arguments(recorded: Recorded) -> None:
    def pay(order_id: int, card: str, total: float = 0.0) -> float:
        return total

    async def later(order_id: int, total: float) -> float:
        await asyncio.sleep(0)
        return total

    assert looseends.task(name="partial")(functools.partial(pay, 7))("4111", 2.5) == 2.5
    assert await looseends.task(name="async partial")(functools.partial(functools.partial(later), 7))(3.5) == 3.5
    assert looseends.task(name="object")(Callable_())(1, "hunter2") == 1
    assert await looseends.task(name="async object")(AsyncCallable())(4) == 4
    assert looseends.task(name="bound")(Mailer("ada").plain.__wrapped__.__get__(Mailer("bob")))(5) == "bob5"  # type: ignore[attr-defined]
    assert looseends.task(functools.partial(pay, 7))("4111") == 0.0
    events = recorded()
    args = {event["name"]: event["args"] for event in events if event["type"] == "started"}
    hidden = {"$t": "redacted"}
    assert args["partial"] == {"card": hidden, "total": 2.5} and args["object"] == {"number": 1, "password": hidden}
    assert (args["async partial"], args["async object"], args["bound"]) == ({"total": 3.5}, {"number": 4}, {"number": 5})
    assert any(name.endswith("pay") for name in args), "a partial is named by what it calls"
    assert told(events, "async object") == ["started", "finished"]


async def test_fastapi_sees_through_it(recorded: Recorded) -> None:
    fastapi = pytest.importorskip("fastapi")
    httpx = pytest.importorskip("httpx")

    async def session() -> AsyncIterator[str]:
        yield "open"

    audited_session = looseends.task(name="dependency")(session)

    async def show(item: int, session: str = fastapi.Depends(audited_session), q: str = "none") -> dict[str, Any]:
        return {"item": item, "session": session, "q": q, "task": looseends.current() is not None}

    app = fastapi.FastAPI()
    app.get("/items/{item}")(looseends.task(name="endpoint")(show))
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client:
        answer = await client.get("/items/3?q=x")
        assert answer.json() == {"item": 3, "session": "open", "q": "x", "task": True}
        assert (await client.get("/items/x?q=x")).status_code == 422
    events = recorded()
    assert told(events, "endpoint") == ["started", "finished"], "the second request never came so far"
    assert told(events, "dependency") == ["started", "finished", "started", "failed"], "FastAPI threw its error into it"
