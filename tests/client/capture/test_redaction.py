"""What is secret by its name, its type or its looks never reaches the journal, on any way in."""

from __future__ import annotations

import json
import pathlib
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import attrs
import msgspec
import pydantic
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from starlette.datastructures import Secret

import looseends
from looseends import plain, redact
from looseends.capture import encode_named, written
from looseends.scrub import scrub

SECRET = "canary-5f2b-of-this-test"
CARD = "4111 1111 1111 1111"
SECRET_NAMES = (
    "password db_password apiKey API_KEY api-key X-Auth-Token accessToken authorization Cookie set-cookie card_number"
    " cvv clientSecret privateKey sessionId csrfToken passWord PGPASSWORD dbpassword pw aws_secret_access_key AccountKey otp totp"
)
PLAIN_NAMES = (
    "author tokens_used discard keyboard monkey cardinal passenger secretary_name order_id pinned authored spinning description"
    " compass keys authority cookiecutter pwned"
)
Recorded = Callable[[], list[dict[str, Any]]]


@pytest.mark.parametrize("name", SECRET_NAMES.split())
def test_secret_names_are_known(name: str) -> None:
    assert redact.is_secret(name) and redact.is_secret(name), "and again, from the cache"


@pytest.mark.parametrize("name", PLAIN_NAMES.split())
def test_plain_names_stay(name: str) -> None:
    assert not redact.is_secret(name)


def test_names_may_be_added_by_the_author() -> None:
    assert redact.is_secret("memberNo", ("memberno",)) and redact.is_secret("home_address", ("address",))
    assert redact.is_secret("newMemberNo2", ("member_no",)) and not redact.is_secret("member", ("memberno",))
    assert not redact.is_secret("no_member", ("member_no",))


class Account(NamedTuple):
    user: str
    password: str


@dataclass
class Login:
    user: str
    api_key: str
    deep: dict[str, Any] = field(default_factory=dict)


@attrs.define
class Session:
    user: str
    _token: str


class Form(pydantic.BaseModel):
    user: str
    password: str
    key: pydantic.SecretStr = pydantic.SecretStr("")


class Packet(msgspec.Struct):
    user: str
    secret: str


class Password:
    def __init__(self, value: str) -> None:
        self._value = value


class DbCredentials(str):
    __slots__ = ()


BY_NAME = [
    {"password": SECRET},
    {"a": [{"Authorization": SECRET}]},
    {("a", 1): {"secret": SECRET}},
    Account("u", SECRET),
    Login("u", SECRET),
    Login("u", "k", {"token": SECRET}),
    Session("u", SECRET),
    Form(user="u", password=SECRET),
    Packet("u", SECRET),
    [Login("u", SECRET)] * 3,
]
BY_TYPE = [
    pydantic.SecretStr(SECRET),
    pydantic.SecretBytes(SECRET.encode()),
    pydantic.Secret[str](SECRET),
    Secret(SECRET),
    Password(SECRET),
    DbCredentials(SECRET),
    Form(user="u", password="", key=pydantic.SecretStr(SECRET)),
]
BY_LOOKS = [
    json.dumps({"user": "u", "password": SECRET}),
    json.dumps({"body": json.dumps({"password": SECRET})}).encode(),
    f"https://u:{SECRET}@host/",
    f"https://host/?token={SECRET}",
    pathlib.PurePosixPath(f"/x/token={SECRET}"),
    {f"password={SECRET}": 1},
    {"k": {f"password={SECRET}": {"x": object()}}},
    [f"--password={SECRET}"],
    bytearray(f"Authorization: Bearer {SECRET}".encode()),
    "x" * 9_000 + f" password={SECRET}",
    f" password={SECRET} " + "x" * 90_000,
]


@pytest.mark.parametrize(
    "value", [*BY_NAME, *BY_TYPE, *BY_LOOKS], ids=lambda value: f"{type(value).__name__}-{str(value)[:20]!a}"
)
def test_a_secret_in_a_value_is_not_written_and_said_to_be_missing(value: Any) -> None:
    for args in ({"value": value}, {"value": {"inner": [value]}}, {"value": (value, {1: value})}):
        text, problem = encode_named(args)
        assert SECRET not in text and SECRET.encode().hex() not in text
        assert problem is not None and problem.startswith("argument value") and SECRET not in problem


PIECES = st.sampled_from(
    [
        "password",
        "token",
        "=",
        ":",
        '"',
        "'",
        "--",
        "://",
        "@",
        "4111 1111 1111 1111",
        "378282246310005",
        "ghp_",
        "a1B2" * 9,
        " x ",
        ",",
    ]
    + [
        "Bearer ",
        "-----BEGIN PRIVATE KEY-----",
        "AKIA",
        "<password>",
        "</password>",
        "IOSFODNN7EXAMPLE",
        "é",
        "\n",
        "[",
        "{",
        ")=(",
        "\\",
        "1",
        "x" * 13,
    ]
)
TEXTS = st.lists(PIECES, max_size=6).map("".join) | st.text(max_size=20)


@settings(max_examples=1_000, deadline=None)
@given(
    st.lists(TEXTS | st.integers() | st.booleans() | st.floats(), max_size=4),
    st.sampled_from(["user", "api_key", "x", "password=1"]),
)
def test_the_short_way_takes_nothing_that_the_long_way_would_hide(values: list[Any], name: str) -> None:
    short = [plain.scalars(tuple(values)), plain.checked_scalars(tuple(values)), plain.plain_for(()).encode({"user": values})]
    short += [plain.plain_for(()).encode({"user": {name: values}})]
    texts = [value for value in values if type(value) is str]
    for found in short[:3]:
        assert found is None or (all(scrub(text) == text for text in texts) and written({"user": values})[1] is None)
    assert short[3] is None or written({"user": {name: values}})[1] is None


def test_card_numbers_are_hidden_as_text_and_as_number() -> None:
    for value in (CARD, CARD.replace(" ", ""), 4111111111111111, [4111111111111111], {"n": 4111111111111111}):
        text, problem = encode_named({"value": value})
        assert "1111" not in text and problem is not None and "4111" not in problem
    assert encode_named({"value": 4111111111111112}) == ('{"value":4111111111111112}', None)


def test_what_is_left_of_a_text_can_be_read_and_is_marked() -> None:
    text, problem = encode_named({"url": "postgres://ada:hunter2@db/shop"})
    assert json.loads(text)["url"] == {"$t": "redacted", "v": "postgres://ada:[redacted]@db/shop"}
    assert problem == "argument url holds what looks like a secret, which is redacted"


def test_the_reason_remembers_what_was_hidden_bounded_and_the_longest_first() -> None:
    problem: Any = encode_named(
        {"password": "abcd", "token": ["x" * 50, {"a": b"bytes1"}], "pin": 1234, "cvv": 123, "secret": "é"}
    )[1]
    assert problem.hidden == ("x" * 50, "bytes1", "abcd", "1234")
    many: Any = encode_named({"password": [f"secret-{n}" for n in range(1_000)], "token": "y" * 100_000})[1]
    assert len(many.hidden) == 20


@looseends.task(name="redaction.login", redact=("nickname",), key="user")
def login(user: Any, password: str = "", *rest: Any, **options: Any) -> None:
    task = looseends.current()
    assert task is not None
    task.progress(0.5, f"trying {password or options.get('note', '')}")
    if options.get("fail"):
        try:
            raise KeyError(password)
        except KeyError as error:
            said = SECRET if options.get("said") else options.get("note")
            raise ValueError(f"no login for {user!r} with {password}: {said}") from error


def fail(*args: Any, **options: Any) -> None:
    with pytest.raises(ValueError):
        login(*args, fail=True, **options)


def journal_files(spool: str) -> list[pathlib.Path]:
    from looseends.lifecycle import PROCESS

    PROCESS.goodbye(0.5)
    return [path for path in pathlib.Path(spool).rglob("*") if path.is_file()]


def assert_nowhere(spool: str, *secrets: str) -> None:
    found = journal_files(spool)
    assert any(b"redaction." in path.read_bytes() for path in found)
    for path in found:
        data = path.read_bytes()
        for secret in secrets:
            assert secret.encode() not in data, f"{secret} in {path.name}"


def test_no_canary_reaches_the_journal_on_any_way_in(spool: str) -> None:
    login("u", SECRET)
    login("u", password=SECRET)
    login("u", "p", {"deep": [{"Authorization": SECRET}]}, token=SECRET, nickname=SECRET, headers={"Cookie": SECRET})
    login(user={"nickname": SECRET}, password=SECRET)
    for value in [*BY_NAME, *BY_TYPE, *BY_LOOKS]:
        login(value, "p")
        login("u", "p", value)
        with looseends.track("redaction.tracked", {"value": value}, redact=("nickname",)):
            pass
    with looseends.track(
        "redaction.keys", {"db_password": SECRET}, key=f"token={SECRET}", tags={"token": SECRET, "x": f"pw={SECRET}"}
    ):
        pass
    looseends.expect("redaction.expected", key=f"password={SECRET}", args={"password": SECRET})
    assert_nowhere(spool, SECRET)


def test_what_was_redacted_goes_out_of_messages_tracebacks_and_notes(spool: str) -> None:
    """The secret has neither a telling name beside it nor a form: it is known because it was redacted in the arguments."""
    fail("u", SECRET)
    fail("u", password=SECRET)
    fail("u", "p", note=f"https://u:{SECRET}@host/")
    fail("u", "p", {"token": SECRET}, said=True)
    fail(pydantic.SecretStr(SECRET), "p", said=True)
    fail(Login("u", "k", {"token": SECRET.encode()}), "p", said=True)
    with pytest.raises(RuntimeError), looseends.track("redaction.tracked", {"secret": SECRET}) as task:
        task.progress(note=f"with {SECRET}")
        error = RuntimeError(f"refused {SECRET}")
        error.add_note(f"it was {SECRET}")
        raise error
    assert_nowhere(spool, SECRET)


async def test_a_spawned_coroutine_keeps_its_secrets_too(spool: str) -> None:
    async def send(user: str, password: str) -> None:
        raise ValueError(f"{user} {password}")

    with pytest.raises(ValueError):
        await looseends.spawn(send("u", SECRET), name="redaction.spawned")
    assert_nowhere(spool, SECRET)


def test_messages_of_a_kind_that_leaks_lose_only_the_secret(recorded: Recorded) -> None:
    with pytest.raises(ValueError):
        login("ada", SECRET, fail=True)
    events = {event["type"]: event for event in recorded()}
    error = events["failed"]["error"]
    assert error["message"] == "no login for 'ada' with [redacted]: None"
    assert "KeyError: '[redacted]'" in error["traceback"] and "in login" in error["traceback"]
    assert events["progress"]["note"] == "trying [redacted]"
    assert events["started"]["args"] == {"user": "ada", "password": {"$t": "redacted"}, "options": {"fail": True}} or (
        events["started"]["args"]["fail"] is True
    )
    assert events["started"]["key"] == "ada"


def test_a_key_made_of_a_redacted_argument_is_no_key(recorded: Recorded) -> None:
    login(CARD, "p")
    started = next(event for event in recorded() if event["type"] == "started")
    assert started.get("key") is None and "1111" not in json.dumps(started)


def test_ids_stay_ids(recorded: Recorded) -> None:
    some = uuid.uuid4()
    login(some, "")
    assert next(event for event in recorded() if event["type"] == "started")["key"] == str(some)


def test_our_own_log_lines_hold_no_secret(caplog: pytest.LogCaptureFixture) -> None:
    from looseends import trouble

    trouble._said_at.clear()
    trouble.note("a test of redaction", ValueError(f"password={SECRET} " + "x" * 100_000))
    line = caplog.messages[-1]
    assert SECRET not in line and "password=[redacted]" in line and len(line) < 5_000
