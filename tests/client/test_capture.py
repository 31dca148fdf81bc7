"""Arguments to JSON and back, and what must never get there."""

from __future__ import annotations

import datetime as dt
import decimal
import enum
import fractions
import ipaddress
import json
import math
import os
import pathlib
import threading
import uuid
import zoneinfo
from collections import deque
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

import looseends
from looseends import capture, rebuild, redact, spec
from looseends.capture import Shape, encode_named
from looseends.rebuild import DecodeError, decode_args
from looseends.wire import check_batch


class Colour(enum.Enum):
    RED = "r"


class Size(enum.IntEnum):
    BIG = 3


class Point(NamedTuple):
    x: int
    y: int


@dataclass
class Order:
    number: int
    colour: Colour
    parts: list[Point] = field(default_factory=list)
    password: str = ""


TYPES = {f"{kind.__module__}:{kind.__qualname__}": kind for kind in (Colour, Size, Point, Order)}
UTC = dt.UTC
VALUES: list[Any] = [
    None,
    True,
    0,
    -(2**53),
    2**53 + 1,
    -(10**300),
    1.5,
    math.inf,
    -math.inf,
    "",
    "text",
    "é\n\0\u2028",
    "\ud800",
    "\ud83d\ude00",
    b"",
    b"\xff\0",
    bytearray(b"ab"),
    [],
    [1, [2, [3]]],
    (),
    (1, (2,)),
    {1, 2},
    frozenset({"a"}),
    deque([1, 2], 5),
    {},
    {"a": {"b": [1]}},
    {"$t": "int", "v": "7"},
    {"$t": [1]},
    {1: "a", (2, 3): "b", None: 4},
    {"\ud800": 1},
    {"k" * 300: 1},
    1 + 2j,
    dt.datetime(2026, 11, 20, 14, 5, 31, 7),  # noqa: DTZ001 - one without a zone is what is meant
    dt.datetime(2026, 11, 20, 14, 5, tzinfo=UTC),
    dt.datetime(2026, 10, 25, 2, 30, tzinfo=zoneinfo.ZoneInfo("Europe/Berlin"), fold=1),
    dt.date(2026, 11, 20),
    dt.time(12, 30),
    dt.timedelta(days=-3, microseconds=5),
    uuid.UUID(int=5),
    decimal.Decimal("1.10"),
    fractions.Fraction(1, 3),
    pathlib.PurePosixPath("/a/b"),
    ipaddress.ip_address("::1"),
    Colour.RED,
    Size.BIG,
    Point(1, 2),
    Order(7, Colour.RED, [Point(3, 4)]),
]


@pytest.mark.parametrize("value", VALUES, ids=lambda value: f"{type(value).__name__}-{str(value)[:12]!a}")
def test_values_come_back_equal_and_of_their_type(value: Any) -> None:
    shown = Order(value.number, value.colour, value.parts) if isinstance(value, Order) else value
    text, problem = encode_named({"value": shown})
    if isinstance(value, Order):
        assert problem == "argument value.password is redacted"
        return
    assert problem is None
    json.loads(text.encode("ascii"))
    back = decode_args(json.loads(text), TYPES)["value"]
    expected = pathlib.Path(value) if isinstance(value, pathlib.PurePath) else value
    assert back == expected and type(back) is type(expected)
    if isinstance(value, dt.datetime):
        assert (back.tzinfo, back.fold) == (value.tzinfo, value.fold)


def test_a_dataclass_comes_back_through_the_allow_list() -> None:
    @dataclass
    class Plain:
        number: int
        colour: Colour
        parts: list[Point]

    value = Plain(7, Colour.RED, [Point(3, 4)])
    text, problem = encode_named({"value": value})
    assert problem is None
    name = f"{Plain.__module__}:{Plain.__qualname__}"
    assert decode_args(json.loads(text), {**TYPES, name: Plain})["value"] == value
    with pytest.raises(DecodeError, match=r"argument value is a .*Plain, which this service has not registered"):
        decode_args(json.loads(text), TYPES)


class Lazy:
    """Its representation and its properties must not run."""

    def __repr__(self) -> str:
        raise AssertionError("repr was called")

    __str__ = __repr__

    def __getattr__(self, name: str) -> Any:
        raise AssertionError(f"{name} was read")


@pytest.mark.parametrize(
    "value",
    [object(), Lazy(), threading.Lock(), lambda: None, len, (n for n in ()), open(os.devnull), type, math, 1 << 100_000],  # noqa: SIM115
    ids=lambda value: type(value).__name__,
)
def test_what_has_no_written_form_leaves_class_path_and_reason(value: Any) -> None:
    text, problem = encode_named({"order": {"item": [1, value]}})
    assert problem is not None and problem.startswith("argument order.item[1] is ")
    assert json.loads(text)["order"]["item"][1]["$t"] == "opaque"
    with pytest.raises(DecodeError, match=r"argument order\.item\[1\] was not recorded"):
        decode_args(json.loads(text), {})
    if hasattr(type(value), "readline"):
        value.close()


def test_circles_depth_breadth_and_size_have_bounds() -> None:
    circle: list[Any] = []
    circle += [circle, circle]
    deep: Any = 1
    for _ in range(500):
        deep = {"a": deep}
    wide = list(range(1_000_000))
    long = "x" * 10_000_000
    many = {f"k{n}": "y" * 1000 for n in range(500)}
    for value in (circle, deep, wide, long, many, {(1, n): deep for n in range(50)}):
        text, problem = encode_named({"value": value})
        assert len(text) <= capture.ARGS_BYTES_MAX and problem is not None
        event = {"type": "started", "task": str(uuid.uuid4()), "name": "n", "service": "s", "args": json.loads(text)}
        assert check_batch([event], 1_795_000_000_000_000_000).rejected == []


JSONISH = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(st.characters(codec=None)) | st.binary(),
    lambda inner: (
        st.lists(inner, max_size=5)
        | st.tuples(inner, inner)
        | st.dictionaries(st.text(st.characters(codec=None), max_size=8) | st.integers(), inner, max_size=5)
    ),
    max_leaves=20,
)


@given(JSONISH)
def test_whatever_is_encoded_without_a_problem_comes_back_the_same(value: Any) -> None:
    text, problem = encode_named({"value": value})
    event = {"type": "started", "task": str(uuid.UUID(int=1)), "name": "n", "service": "s", "args": json.loads(text)}
    assert check_batch([event], 1_795_000_000_000_000_000).rejected == []
    if problem is None:
        back = decode_args(json.loads(text), {})["value"]
        assert back == value and repr(back) == repr(value)


@given(
    st.recursive(
        st.none() | st.integers() | st.text(max_size=5),
        lambda x: (
            st.lists(x, max_size=3)
            | st.fixed_dictionaries(
                {"$t": st.sampled_from([*rebuild._BUILDERS, "enum", "dataclass", "opaque", "os:system", 3]), "v": x}
            )
        ),
        max_leaves=10,
    )
)
def test_decoding_hostile_json_gives_values_or_a_decode_error(value: Any) -> None:
    try:
        decode_args({"value": value}, TYPES)
    except DecodeError as error:
        assert "argument value" in str(error)


@pytest.mark.parametrize("name", ["os:system", "subprocess:Popen", "builtins:eval", "builtins:dict"])
def test_no_class_is_built_by_its_name_alone(name: str) -> None:
    for tag in ("enum", "dataclass", "namedtuple", "model", "partial", "function"):
        with pytest.raises(DecodeError):
            decode_args({"value": {"$t": tag, "class": name, "v": {"args": "true"}}}, TYPES)


def test_classes_named_in_annotations_are_allowed_and_nothing_is_evaluated() -> None:
    def function(order: Order, size: Size | None, other: "__import__('os').system('false')", *rest: "list[Point]") -> None: ...  # type: ignore[valid-type]  # noqa: UP037

    assert set(spec.annotated_types(function)) == {Order, Size, Point, Colour}


# --- redaction ----------------------------------------------------------------------------------------------------

SECRET = "canary-5f2b"
SECRET_NAMES = (
    "password db_password apiKey API_KEY api-key X-Auth-Token accessToken authorization Cookie set-cookie card_number"
    " cvv clientSecret privateKey sessionId csrfToken passWord"
)
PLAIN_NAMES = (
    "author tokens_used discard keyboard monkey cardinal passenger secretary_name order_id pinned authored spinning description"
)


@pytest.mark.parametrize("name", SECRET_NAMES.split())
def test_secret_names_are_known(name: str) -> None:
    assert redact.is_secret(name) and redact.is_secret(name), "and again, from the cache"


@pytest.mark.parametrize("name", PLAIN_NAMES.split())
def test_plain_names_stay(name: str) -> None:
    assert not redact.is_secret(name)


def test_names_may_be_added_by_the_author() -> None:
    assert redact.is_secret("memberNo", ("memberno",)) and redact.is_secret("home_address", ("address",))
    assert not redact.is_secret("member", ("memberno",))


class Account(NamedTuple):
    user: str
    password: str


@dataclass
class Login:
    user: str
    api_key: str


def test_no_canary_reaches_the_journal_on_any_way_in(spool: str) -> None:
    @looseends.task(name="login", redact=("nickname",))
    def login(user: str, password: str, *rest: Any, **options: Any) -> None:
        raise_later = None
        del raise_later

    login("u", SECRET)
    login("u", password=SECRET)
    login("u", "p", {"deep": [{"Authorization": SECRET}]}, token=SECRET, nickname=SECRET, headers={"Cookie": SECRET})
    login(user={"nickname": SECRET}, password=SECRET)  # type: ignore[arg-type]
    login(Account("u", SECRET), "p")  # type: ignore[arg-type]
    login(Login("u", SECRET), "p")  # type: ignore[arg-type]
    with looseends.track("tracked", {"db_password": SECRET, "x": {("a", 1): {"secret": SECRET}}}):
        pass
    from looseends.lifecycle import PROCESS

    PROCESS.goodbye(0.5)
    found = [path for path in pathlib.Path(spool).rglob("*") if path.is_file()]
    assert any(b"login" in path.read_bytes() for path in found)
    for path in found:
        assert SECRET.encode() not in path.read_bytes(), f"in {path.name}"


# --- names of arguments -------------------------------------------------------------------------------------------


def test_values_get_the_names_of_their_parameters() -> None:
    def f(a: int, b: int = 2, *rest: int, c: int = 3, **more: int) -> None: ...

    shape = Shape(f)
    assert shape.encode((1,), {}) == ("[1]", None)
    assert shape.named((1, 2, 3, 4), {"c": 5, "d": 6}) == {"a": 1, "b": 2, "rest": (3, 4), "c": 5, "d": 6}
    assert shape.named((), {"a": 1, "rest": 2}) == {"a": 1, "more": {"rest": 2}}


def test_callables_without_code_still_record_something() -> None:
    assert json.loads(Shape(len).encode(([1],), {})[0]) == {"args": {"$t": "tuple", "v": [[1]]}}


NUMBERS = [0, -7, 1 << 53, True, False, None, 0.0, -0.0, 1e300, 5e-324, 12.5]
TEXTS = ["", "ada@example.com", 'quote " and \\ and \n', "é\u2028\x7f\0"]


def test_plain_values_are_written_as_the_json_module_writes_them() -> None:
    def takes(*values: object) -> None: ...

    def takes_two(one: object, two: object) -> None: ...

    for one in [*NUMBERS, *TEXTS]:
        text, problem = Shape(takes_two).encode((one, "x"), {})
        assert (text, problem) == (json.dumps([one, "x"], separators=(",", ":")), None)
    assert Shape(takes).encode((1,), {})[0].startswith("{"), "what *values holds has one name"
