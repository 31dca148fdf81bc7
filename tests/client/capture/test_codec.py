"""Every kind of value to JSON and back: equal, and of its type; what is not on the list is refused in words."""

from __future__ import annotations

import collections
import datetime as dt
import decimal
import enum
import fractions
import functools
import importlib.util
import ipaddress
import json
import math
import os
import pathlib
import re
import subprocess
import threading
import types
import uuid
import zoneinfo
from collections import deque
from dataclasses import InitVar, dataclass, field
from typing import Any, ClassVar, NamedTuple

import attrs
import msgspec
import numpy as np
import pydantic
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import looseends
from harness import ROOT
from looseends import capture, rebuild, spec
from looseends.capture import Shape, encode_named
from looseends.plain import scalars
from looseends.rebuild import DecodeError, decode_args
from looseends.values import importable_name
from looseends.wire import check_batch

NOW = 1_795_000_000_000_000_000


class Colour(enum.Enum):
    RED = "r"


class Size(enum.IntEnum):
    BIG = 3


class Word(enum.StrEnum):
    YES = "yes"


class Right(enum.Flag):
    READ = 1
    WRITE = 2


class Point(NamedTuple):
    x: int
    y: int


class Named(collections.namedtuple("Named", "left right")):
    """The older way to make one."""

    __slots__ = ()


@dataclass
class Order:
    number: int
    colour: Colour
    parts: list[Point] = field(default_factory=list)
    seen: ClassVar[int] = 0
    total: int = field(init=False, default=7)


@dataclass(frozen=True, slots=True)
class Line:
    sku: str
    count: int = 1


@dataclass
class BigOrder(Order):
    pass


class Parcel(BigOrder):
    """A subclass with nothing of its own."""


@attrs.define
class Address:
    street: str
    _zip: int = 0


@attrs.frozen(slots=False)
class City:
    name: str


class Money(pydantic.BaseModel):
    amount: decimal.Decimal
    currency: str = pydantic.Field(default="EUR", alias="cur")


class Invoice(pydantic.BaseModel):
    id: uuid.UUID
    total: Money
    lines: list[Line] = []


class Open(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="allow")
    a: int


class Ids(pydantic.RootModel[list[int]]):
    pass


class Packet(msgspec.Struct):
    kind: str
    size: int = 0


def send(order_id: int) -> int:
    return order_id


KINDS = (Colour, Size, Word, Right, Point, Named, Order, Line, BigOrder, Parcel, Address, City)
MODELS = (Money, Invoice, Open, Ids, Packet)
ALLOWED: dict[str, Any] = {f"{kind.__module__}:{kind.__qualname__}": kind for kind in (*KINDS, *MODELS)}
ALLOWED[f"{__name__}:send"] = send
BERLIN = zoneinfo.ZoneInfo("Europe/Berlin")
PLAIN: list[Any] = [
    None,
    True,
    False,
    0,
    -1,
    10**12,
    2**53,
    -(2**53),
    2**53 + 1,
    -(10**300),
    1.5,
    -0.0,
    5e-324,
    math.inf,
    -math.inf,
]
TEXTS: list[Any] = ["", "text", "é\n\0\u2028", "\ud800", "\ud83d\ude00", "😀", "a: b", "x=1", "$t", "k" * 2_000, "é" * 2_000]
BYTES: list[Any] = [b"", b"\xff\0", bytearray(b"ab"), b"plain text"]
BOXES: list[Any] = [
    [],
    [1, [2, [3]]],
    (),
    (1, (2,)),
    {1, 2},
    set(),
    frozenset({"a", "b"}),
    deque([1, 2], 5),
    deque(),
    {},
    {"a": {"b": [1]}},
    {"$t": "int", "v": "7"},
    {"$t": [1]},
    {"$t": "opaque"},
    {1: "a", (2, 3): "b", None: 4, 2.5: {1: 2}},
    {"\ud800": 1},
    {"k" * 300: 1},
    collections.OrderedDict([("b", 1), ("a", 2)]),
    collections.Counter("aab"),
    collections.defaultdict(list, {"a": [1]}),
    collections.defaultdict(None, {1: 2}),
    types.SimpleNamespace(a=1, b=[2]),
    range(3),
    range(10, 0, -(10**30)),
    slice(1, None, 2),
]
TIMES: list[Any] = [
    dt.datetime(2026, 11, 20, 14, 5, 31, 7),  # noqa: DTZ001 - one without a zone is what is meant
    dt.datetime(2026, 11, 20, 14, 5, tzinfo=dt.UTC),
    dt.datetime(2026, 11, 20, 14, 5, tzinfo=dt.timezone(dt.timedelta(hours=-3, seconds=7))),
    dt.datetime(2026, 10, 25, 2, 30, tzinfo=BERLIN, fold=1),
    dt.datetime(1, 1, 1),  # noqa: DTZ001
    dt.datetime(9999, 12, 31, 23, 59, 59, 999_999),  # noqa: DTZ001
    dt.date(2026, 11, 20),
    dt.time(12, 30),
    dt.time(2, 30, tzinfo=BERLIN, fold=1),
    dt.timedelta(days=-3, microseconds=5),
    dt.UTC,
    dt.timezone(dt.timedelta(minutes=90), "half past"),
    BERLIN,
]
NUMBERS: list[Any] = [
    1 + 2j,
    complex(math.inf, -0.0),
    decimal.Decimal("1.10"),
    decimal.Decimal("-0"),
    decimal.Decimal("Infinity"),
    fractions.Fraction(-1, 3),
    np.int8(-5),
    np.int64(5),
    np.uint64(2**64 - 1),
    np.float16(1.5),
    np.float32(0.1),
    np.float64(0.1),
    np.float64(math.inf),
    np.bool_(True),
    np.complex64(1 + 2j),
    np.str_("text"),
]
NAMES: list[Any] = [
    uuid.UUID(int=5),
    pathlib.Path("/a/b"),
    pathlib.PurePosixPath("/a/b"),
    pathlib.PureWindowsPath("C:/a"),
    ipaddress.ip_address("10.0.0.1"),
    ipaddress.ip_address("fe80::1%eth0"),
    ipaddress.ip_network("10.0.0.0/8"),
    ipaddress.ip_network("2001:db8::/32"),
    ipaddress.ip_interface("10.0.0.1/8"),
    re.compile("a+", re.I),
    re.compile(b"a+"),
]
OURS: list[Any] = [
    Colour.RED,
    Size.BIG,
    Word.YES,
    Right.READ,
    Right.READ | Right.WRITE,
    Right(0),
    Point(1, 2),
    Named(1, (2,)),
    Order(7, Colour.RED, [Point(3, 4)]),
    Line("s"),
    BigOrder(1, Colour.RED),
    Parcel(1, Colour.RED),
    Address("Main Street", 12),
    City("Bonn"),
    Money(amount=decimal.Decimal("1.20"), cur="USD"),
    Invoice(id=uuid.UUID(int=7), total=Money(amount=decimal.Decimal(1)), lines=[Line("a", 2)]),
    Open(a=1, b=[2]),  # type: ignore[call-arg]
    Ids([1, 2]),
    Packet("x", 3),
    send,
    Order,
    functools.partial(send, 3),
]
VALUES = [*PLAIN, *TEXTS, *BYTES, *BOXES, *TIMES, *NUMBERS, *NAMES, *OURS]


def there_and_back(value: Any) -> Any:
    """Through the codec, as the wire and the store take it; fails where it could not be replayed."""
    text, problem = encode_named({"value": value})
    assert problem is None, problem
    event = {"type": "started", "task": str(uuid.UUID(int=1)), "name": "n", "service": "s", "args": json.loads(text)}
    assert check_batch([event], NOW).rejected == []
    return decode_args(json.loads(text.encode("ascii")), ALLOWED)["value"]


@pytest.mark.parametrize("value", VALUES, ids=lambda value: f"{type(value).__name__}-{str(value)[:12]!a}")
def test_a_value_comes_back_equal_and_of_its_type(value: Any) -> None:
    back = there_and_back(value)
    assert type(back) is type(value)
    if isinstance(value, functools.partial):
        assert (back.func, back.args, back.keywords) == (value.func, value.args, value.keywords)
        return
    assert back == value and repr(back) == repr(value)
    if isinstance(value, dt.datetime | dt.time):
        assert (back.tzinfo, back.fold) == (value.tzinfo, value.fold)
    if isinstance(value, deque):
        assert back.maxlen == value.maxlen
    if isinstance(value, collections.defaultdict):
        assert back.default_factory is value.default_factory


def test_not_a_number_comes_back_as_none() -> None:
    for value in (math.nan, decimal.Decimal("NaN"), np.float32("nan")):
        back = there_and_back(value)
        assert type(back) is type(value) and back != back


def test_the_list_of_values_has_every_tag_that_can_be_rebuilt() -> None:
    written = json.dumps([json.loads(encode_named({"value": value})[0]) for value in VALUES])
    tags = {match[1] for match in re.finditer(r'"\$t": "(\w+)"', written)}
    known = {*rebuild._BUILDERS, *rebuild.CLASS_TAGS, "ref"}
    assert known <= tags, f"no value of {known - tags} is tried"


def test_every_tag_is_in_the_documentation() -> None:
    page = (ROOT / "docs/capture.md").read_text()
    assert [tag for tag in (*rebuild._BUILDERS, *rebuild.CLASS_TAGS, "ref") if f"`{tag}`" not in page] == []


def test_everything_at_once_comes_back() -> None:
    values = [value for value in VALUES if not isinstance(value, functools.partial) and len(str(value)) < 1_000]
    assert repr(there_and_back(values)) == repr(values)


SCALARS = (
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(st.characters(codec=None)) | st.binary()
)
RICH = (
    SCALARS
    | st.decimals(allow_nan=False)
    | st.fractions()
    | st.complex_numbers(allow_nan=False)
    | st.uuids()
    | st.datetimes(timezones=st.none() | st.just(BERLIN) | st.just(dt.UTC))
    | st.dates()
    | st.times()
    | st.timedeltas()
    | st.ip_addresses()
    | st.sampled_from(OURS)
)
NESTED = st.recursive(
    RICH,
    lambda inner: (
        st.lists(inner, max_size=5)
        | st.tuples(inner, inner)
        | st.dictionaries(st.text(st.characters(codec=None), max_size=8) | st.integers(), inner, max_size=5)
        | st.builds(lambda a, b: types.SimpleNamespace(a=a, b=b), inner, inner)
        | st.builds(Point, inner, inner)
        | st.builds(Address, inner, inner)
        | st.frozensets(st.integers() | st.text(max_size=3), max_size=4)
    ),
    max_leaves=20,
)


@settings(max_examples=300, deadline=None)
@given(NESTED)
def test_whatever_is_encoded_without_a_problem_comes_back_the_same(value: Any) -> None:
    text, problem = encode_named({"value": value})
    event = {"type": "started", "task": str(uuid.UUID(int=1)), "name": "n", "service": "s", "args": json.loads(text)}
    assert check_batch([event], NOW).rejected == []
    if problem is None:
        back = decode_args(json.loads(text), ALLOWED)["value"]
        assert encode_named({"value": back}) == (text, None)
        if "partial" not in text:  # two partials of the same are not equal
            assert back == value and type(back) is type(value)


# --- what is refused ----------------------------------------------------------------------------------------------

EVIL = [
    "os:system",
    "posix:system",
    "subprocess:Popen",
    "subprocess:run",
    "builtins:eval",
    "builtins:exec",
    "builtins:__import__",
    "builtins:open",
    "builtins:dict",
    "pickle:loads",
    "importlib:import_module",
    "ctypes:CDLL",
    "looseends:shutdown",
]


@pytest.mark.parametrize("name", EVIL)
def test_nothing_is_built_or_called_by_its_name_alone(name: str) -> None:
    for tag in [*rebuild.CLASS_TAGS, "ref", "partial", "function", "object", name]:
        for inner in ({"args": "true"}, "true", ["true"]):
            with pytest.raises(DecodeError, match="argument value"):
                decode_args({"value": {"$t": tag, "class": name, "v": inner}}, ALLOWED)
    ref = {"$t": "ref", "v": name}
    for value in (
        {"$t": "partial", "v": [ref, [], {}]},
        {"$t": "defaultdict", "make": name, "v": []},
        [ref],
        {"$t": "map", "v": [[ref, 1]]},
    ):
        with pytest.raises(DecodeError):
            decode_args({"value": value}, ALLOWED)


def test_dangerous_functions_as_arguments_are_named_and_not_handed_over_again(tmp_path: pathlib.Path) -> None:
    for evil in (os.system, subprocess.Popen, subprocess.run, eval, functools.partial(os.system, f"touch {tmp_path}/x")):
        text, _ = encode_named({"run": evil})
        with pytest.raises(DecodeError, match="which this service has not registered"):
            decode_args({"run": json.loads(text)["run"]}, ALLOWED)
    assert list(tmp_path.iterdir()) == []


def test_what_is_allowed_is_built_only_as_what_it_is() -> None:
    """A registered function is handed over, never called; an allowed class is never built as another kind of class."""
    called: list[Any] = []
    allowed = {**ALLOWED, "m:f": called.append}
    for tag in rebuild.CLASS_TAGS:
        for name in ("m:f", f"{__name__}:send", f"{__name__}:Order"):
            if tag == "dataclass" and name.endswith("Order"):
                continue
            with pytest.raises(DecodeError, match="which is no "):
                decode_args({"value": {"$t": tag, "class": name, "v": {"x": 1}}}, allowed)
    assert called == []
    assert decode_args({"value": {"$t": "ref", "v": "m:f"}}, allowed)["value"] == called.append


HOSTILE = [
    {"$t": [1]},
    {"$t": {"$t": 1}},
    {"$t": None},
    {"$t": "fraction", "v": "1e999999999"},
    {"$t": "int", "v": "9" * 100_000},
    {"$t": "int", "v": 10**400},
    {"$t": "numpy", "v": ["os", "1"]},
    {"$t": "numpy", "v": ["int64", "9" * 9_000]},
    {"$t": "numpy", "v": []},
    {"$t": "zone", "v": "../../../etc/passwd"},
    {"$t": "regex", "v": ["(", 0]},
    {"$t": "deque", "max": -1, "v": []},
    {"$t": "namespace", "v": [1]},
    {"$t": "set", "v": [[1]]},
    {"$t": "map", "v": [[[1], 2]]},
    {"$t": "partial", "v": [1, [], {}]},
    {"$t": "timezone", "v": [{"$t": "timedelta", "v": [9, 0, 0]}]},
    {"$t": "attrs", "class": f"{__name__}:Address", "v": {"nobody": 1}},
    {"$t": "model", "class": f"{__name__}:Invoice", "v": {"id": "no uuid"}},
    {"$t": "enum", "class": f"{__name__}:Colour", "v": "BLUE"},
    {"$t": "flag", "class": f"{__name__}:Right", "v": "x"},
]


@pytest.mark.parametrize("value", HOSTILE, ids=lambda value: str(value)[:60])
def test_hostile_json_is_refused_with_the_place(value: Any) -> None:
    with pytest.raises(DecodeError, match=r"argument value\.in\[1\]"):
        decode_args({"value": {"in": [0, value]}}, ALLOWED)


@given(
    st.recursive(
        st.none() | st.integers() | st.text(max_size=5) | st.sampled_from(list(ALLOWED)),
        lambda x: (
            st.lists(x, max_size=3)
            | st.fixed_dictionaries(
                {"$t": st.sampled_from([*rebuild._BUILDERS, *rebuild.CLASS_TAGS, "ref", "opaque", "os:system", 3]), "v": x},
                optional={"class": st.sampled_from([*ALLOWED, "os:system"]), "max": x, "make": x, "fold": x, "zone": x},
            )
        ),
        max_leaves=10,
    )
)
@settings(max_examples=300, deadline=None)
def test_decoding_any_json_gives_values_or_a_decode_error(value: Any) -> None:
    try:
        decode_args({"value": value}, ALLOWED)
    except DecodeError as error:
        assert "argument value" in str(error)


def test_a_class_that_nobody_registered_is_named_with_the_way_out() -> None:
    text, problem = encode_named({"value": Order(7, Colour.RED)})
    assert problem is None
    with pytest.raises(
        DecodeError, match=r"argument value is a .*:Order, which this service has not registered: looseends.register"
    ):
        decode_args(json.loads(text), {})


def test_a_validation_error_of_a_rebuilt_model_repeats_no_secret() -> None:
    class Login(pydantic.BaseModel):
        api_token: int

    name = f"{Login.__module__}:{Login.__qualname__}"
    value = {"$t": "model", "class": name, "v": {"api_token": "canary-no-number"}}
    with pytest.raises(DecodeError, match="api_token") as found:
        decode_args({"value": value}, {name: Login})
    assert "canary" not in str(found.value)


# --- registered functions and classes -----------------------------------------------------------------------------


def test_classes_named_in_annotations_are_allowed_and_nothing_is_evaluated() -> None:
    def function(
        order: Order,
        size: Size | None,
        other: "__import__('os').system('false')",  # type: ignore[valid-type]  # noqa: UP037
        address: Address,
        money: "Invoice",  # noqa: UP037
        *rest: "list[Point]",  # noqa: UP037
    ) -> None: ...

    assert set(spec.annotated_types(function)) == {Order, Size, Point, Colour, Address, Invoice, Money, Line}


@looseends.task(name="codec.receipt", replay=True)
def receipt(order: Order, then: Any = None) -> None: ...


def test_a_registered_function_may_be_an_argument_of_another() -> None:
    assert importable_name(receipt) == f"{__name__}:receipt"
    text, problem = encode_named({"then": receipt, "order": Order(7, Colour.RED)})
    assert problem is None
    back = decode_args(json.loads(text), spec.REGISTRY.types())
    assert back == {"then": receipt, "order": Order(7, Colour.RED)}


# --- names of arguments -------------------------------------------------------------------------------------------


def test_values_get_the_names_of_their_parameters() -> None:
    def f(a: int, b: int = 2, *rest: int, c: int = 3, **more: int) -> None: ...

    shape = Shape(f)
    assert shape.encode((1,), {}) == ("[1]", None)
    assert shape.named((1, 2, 3, 4), {"c": 5, "d": 6}) == {"a": 1, "b": 2, "rest": (3, 4), "c": 5, "d": 6}
    assert shape.named((), {"a": 1, "rest": 2}) == {"a": 1, "more": {"rest": 2}}


class Mailer:
    def __init__(self, host: str, password: str = "") -> None: ...

    def __call__(self, to: str, token: str = "") -> None: ...


def test_classes_callable_objects_and_partials_have_names_for_their_arguments_too() -> None:
    def f(a: int, password: str, c: int = 3) -> None: ...

    assert Shape(Mailer).named(("h", "p"), {}) == {"host": "h", "password": "p"}
    assert Shape(Mailer("h")).named(("ada", "t"), {}) == {"to": "ada", "token": "t"}
    assert Shape(functools.partial(f, 1)).named(("p",), {"c": 4}) == {"password": "p", "c": 4}
    for shape, secret in ((Shape(Mailer), "p" * 20), (Shape(functools.partial(f, 1)), "q" * 20)):
        text, problem = shape.encode(("h", secret), {}) if shape.params[0] == "host" else shape.encode((secret,), {})
        assert secret not in text and problem == "argument password is redacted"


def test_callables_without_code_still_record_something() -> None:
    assert json.loads(Shape(len).encode(([1],), {})[0]) == {"args": {"$t": "tuple", "v": [[1]]}}


NUMBERS_IN_JSON = [0, -7, 10**12, True, False, None, 0.0, -0.0, 1e300, 5e-324, 12.5]
TEXTS_IN_JSON = ["", "ada@example.com", 'quote " and \\ and \n', "é\u2028\x7f\0"]


def test_plain_values_are_written_as_the_json_module_writes_them() -> None:
    def takes(*values: object) -> None: ...

    def takes_two(one: object, two: object) -> None: ...

    for one in [*NUMBERS_IN_JSON, *TEXTS_IN_JSON]:
        assert scalars((one, "x")) == json.dumps([one, "x"], separators=(",", ":")).encode()
        text, problem = Shape(takes_two).encode((one, "x"), {})
        assert problem is None and json.loads(text) in ([one, "x"], {"one": one, "two": "x"})
    assert Shape(takes).encode((1,), {})[0].startswith("{"), "what *values holds has one name"


# --- what has no form ---------------------------------------------------------------------------------------------


@dataclass
class Made:
    number: int
    factor: InitVar[int] = 1


class OwnInit(Order):
    def __init__(self) -> None:
        super().__init__(1, Colour.RED)


class Zone(dt.tzinfo):
    def utcoffset(self, when: Any) -> dt.timedelta:
        raise AssertionError("it was asked")


class Counted(int):
    pass


class Texts(str):
    __slots__ = ()


WHY = [
    (object(), "has no written form"),
    (threading.Lock(), "has no written form"),
    (lambda: None, "which no module holds by a name"),
    (importlib.util.find_spec("json"), "has no written form"),
    ("x".upper, "which no module holds by a name"),
    (Mailer("h").__call__, "a bound method"),
    ((n for n in ()), "which is used up by reading it"),
    (math, "has no written form"),
    (1 << 100_000, "a number of over 10,000 bits"),
    (memoryview(b"x"), "pass bytes(value)"),
    (b"x" * 20_000, "20,000 bytes long"),
    (Counted(7), "a subclass of int with no written form; pass int(value)"),
    (Texts("x"), "a subclass of str with no written form; pass str(value)"),
    (Made(1), "made from more than its fields"),
    (OwnInit(), "whose constructor is its own"),
    (dt.datetime(2026, 1, 1, tzinfo=Zone()), "in a time zone of class"),
    (collections.defaultdict(lambda: 1), "made by a function of its own"),
    (np.zeros(3), "has no written form"),
    (np.datetime64("2026-01-01"), "has no written form"),
    (complex, None),
]


@pytest.mark.parametrize(("value", "why"), WHY, ids=lambda value: type(value).__name__)
def test_what_has_no_written_form_leaves_class_path_and_reason(value: Any, why: str | None) -> None:
    text, problem = encode_named({"order": {"item": [1, value]}})
    if why is None:
        assert problem is None
        return
    assert problem is not None and problem.startswith("argument order.item[1] is ") and why.strip() in problem
    assert json.loads(text)["order"]["item"][1]["$t"] == "opaque"
    with pytest.raises(DecodeError, match=r"argument order\.item\[1\] was not recorded"):
        decode_args(json.loads(text), {})


def test_a_row_of_a_session_is_named_as_such() -> None:
    class Base:
        __mapper__ = object()

    class User(Base):
        pass

    problem = encode_named({"user": User()})[1]
    assert problem is not None and "a row of a database session; pass its id" in problem


def test_circles_depth_breadth_and_size_have_bounds() -> None:
    circle: list[Any] = []
    circle += [circle, circle]
    deep: Any = 1
    for _ in range(500):
        deep = {"a": deep}
    wide = list(range(1_000_000))
    flat = {n: n for n in range(1_000_000)}
    keyed = {f"k{n}": n for n in range(1_000_000)}
    long = "x" * 10_000_000
    many = {f"k{n}": "y" * 1000 for n in range(500)}
    for value in (circle, deep, wide, flat, keyed, long, many, set(wide), tuple(wide), {(1, n): deep for n in range(50)}):
        text, problem = encode_named({"value": value})
        assert len(text) <= capture.ARGS_BYTES_MAX and problem is not None
        event = {"type": "started", "task": str(uuid.uuid4()), "name": "n", "service": "s", "args": json.loads(text)}
        assert check_batch([event], NOW).rejected == []


def test_the_same_set_is_the_same_text_in_every_process() -> None:
    assert encode_named({"v": {"b", "a", "c"}})[0] == '{"v":{"$t":"set","v":["a","b","c"]}}'
