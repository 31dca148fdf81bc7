"""Secrets that show themselves in a text, in every spelling; and texts that hold none and stay as they are."""

from __future__ import annotations

import json
import re
import time
import uuid

import pydantic
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from looseends import redact, scrub
from looseends.scrub import MARK, is_card
from looseends.scrub import scrub as clean

C = "hunter2canary"
BESIDE_A_NAME = [
    f"password={C}",
    f"Password: {C}",
    f"password => {C}",
    f"PGPASSWORD={C} psql -c 'select 1'",
    f"Pwd={C};Server=db",
    f"host=db password={C} port=5432",
    f'{{"user": "ada", "password": "{C}"}}',
    f'{{"user": "ada", "password": "a\\"{C}"}}',
    f"{{'user': 'ada', 'api_key': '{C}', 'n': 1}}",
    f"Login(user='ada', password='{C}')",
    f"d['api_key'] = '{C}'",
    f"('password', '{C}')",
    f"(b'authorization', b'{C}')",
    f'"credentials": {{"user": "x", "what": ["{C}"]}}, "rest": 1',
    f"tokens: x, token: [{C}, 2]",
    f'"password":\n    "{C}"',
    f"Authorization: Bearer {C}",
    f"Authorization: Basic dXNlcjpwYXNz {C}",
    f"Cookie: theme=dark; session={C}; x=y",
    f"Set-Cookie: id={C}; Path=/",
    f"headers={{'Authorization': 'Bearer {C}'}}",
    f"X-Api-Key: {C}",
    f"passphrase: correct horse {C}",
    f"mysql --password {C} -u root",
    f"mysql --password={C} -u root",
    f"['mysql', '--password', '{C}']",
    f"Key (token)=({C}) already exists.",
    f"clientSecret={C}",
    f"https://host/reset?token={C}&next=/",
    f"GET /x?user=ada&api_key={C} HTTP/1.1",
    f"password='{C}",
    f"auth.token = {C}",
    f"`secret`: `{C}`",
    f"<user>ada</user><password>{C}</password>",
    f'<wsse:Password Type="x">{C}</wsse:Password>',
    f"apitoken={C}",
    f"JSESSIONID={C}; x=y",
]
BY_ITS_LOOKS = [
    "4111 1111 1111 1111",
    "4111-1111-1111-1111",
    "4111111111111111",
    "pan5105105105105100.",
    "378282246310005",
    "3782 822463 10005",
    "30569309025904",
    "6011111111111117",
    "3530111333300000",
    "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.dozjgNryP4J3jVmNHl0w5N_XgL0n3I9P",
    "Bearer abc123def456",
    "bearer ABCDEFGHIJKLMNOPQRSTUV",
    "Basic dXNlcjpwYXNzd29yZA==",
    "AKIA" + "IOSFODNN7EXAMPLE",
    "ASIA" + "IOSFODNN7EXAMPLE",
    "ghp_" + "a1B2" * 9,
    "github_pat_" + "a1B2" * 8,
    "glpat-" + "a1B2c" * 4,
    "xoxb-" + "123456789012-abcdef",
    "sk_live_" + "a1B2c3D4e5F6",
    "whsec_" + "a1B2c3D4e5F6g7H8",
    "sk-ant-" + "a1B2c3D4e5F6g7H8i9J0",
    "AIza" + "a1B2c3D" * 5,
    "npm_" + "a1B2c3" * 6,
    "pypi-" + "AgEIcHlwaS5vcmcC",
    "hf_" + "a1B2c" * 6,
    "SG." + "a1B2" * 4 + "." + "a1B2" * 4,
    "SK" + "0123456789abcdef" * 2,
    "https://hooks.slack.com/services/T00000000/B00000000/" + "a1B2" * 6,
    "discord.com/api/webhooks/123456789/" + "a1B2" * 8,
    "bot123456789:AA" + "a1B2c3D4e5F6" * 2 + "a1B2c3D4e",
    "123456789:AA" + "a1B2c3D4e5F6" * 2 + "a1B2c3D4e",
    "$2b$12$" + "a1B2c3D4e5F6g7H8i9J0k1" * 2,
    "$argon2id$v=19$m=65536,t=3,p=4$c29tZXNhbHQ$RdescudvJCsgt3ub",
    "-----BEGIN RSA PRIVATE KEY-----\nMIIEpAIBAAKCAQEA7\nabc\n-----END RSA PRIVATE KEY-----",
    "-----BEGIN PRIVATE KEY-----\nMIIEpAIBAAKCAQEA7",
    "-----BEGIN PGP PRIVATE KEY BLOCK-----\n\nlQOYBF\n-----END PGP PRIVATE KEY BLOCK-----",
]
IN_URLS = [
    f"postgres://ada:{C}@db:5432/shop",
    f"redis://:{C}@h:6379/0",
    f"amqp://user:p@{C}@h//",
    f"postgres://u:pa/{C}@h/db",
    f"redis://a:{C}@h1,redis://c:{C}@h2",
    f"https://{C}longer@host/x",
    f"https://h/x?sig={C}",
    f"https://h/x?X-Amz-Signature={C}&x=1",
    f"https://maps/x?key={C}{C}",
]
NOTHING = [
    "",
    "a text",
    "ada@example.com",
    "2026-11-20T14:05:00+01:00",
    "https://example.com:8443/a/b?x=1&key=order-7#y",
    "https://token.example.com:443/x",
    "http://host:5432/x?mail=a@b.c",
    "git@github.com:org/repo.git",
    "AuthError: could not connect",
    "KeyError: 'token'",
    "jwt.exceptions.ExpiredSignatureError: Signature has expired",
    "TokenExpired: at noon",
    "550e8400-e29b-41d4-a716-446655440000",
    "12345678-1234-4123-8123-123456789012",
    "login(user, password=password)",
    "def f(token: str, x: int = 3):",
    "basic training: at once; the bearer of bad news",
    "basic authentication",
    "the bearer certificates",
    "order 1795000000000000000 of 1795000000000",
    "0000000000000000 1234567812345678",
    "0.4111111111111111",
    "deadbeef4111111111111111",
    "token=None, password='', secret=***",
    "/var/lib/uploads/2026/11/20/report-final.pdf",
    "abcdef0123456789abcdef0123456789abcdef01",
    "author: me, tokens_used=17, monkey=x, keyboard: qwertz",
    "AKIA is a prefix, eyJ too",
    "-----BEGIN CERTIFICATE-----\nMIIE\n-----END CERTIFICATE-----",
    "shopping: 3 x pins",
    "sk-circle-fade-in-and-out-again",
    "if token == expected: return",
]


@pytest.mark.parametrize("text", [*BESIDE_A_NAME, *IN_URLS])
def test_a_value_beside_a_secret_name_is_hidden(text: str) -> None:
    found = clean(text)
    assert C not in found and MARK in found
    assert clean(found) == found, "and it stays as it is from then on"
    for around in (f"before {text} after", f"x: 1\n{text}\ny: 2", f'["{text}"]', json.dumps({"body": text})):
        assert C not in clean(around), around


@pytest.mark.parametrize("text", BY_ITS_LOOKS)
def test_a_secret_is_known_by_its_looks(text: str) -> None:
    assert MARK in clean(text)
    for around in (f"before {text} after", f"({text})", f"x\n{text}\ny", f"note: {text}", f'{{"a": {json.dumps(text)}}}'):
        found = clean(around)
        assert MARK in found and text[8:-4] not in found, around
        assert clean(found) == found


@pytest.mark.parametrize("text", NOTHING)
def test_a_text_without_secrets_stays_the_very_same(text: str) -> None:
    assert clean(text) is text


def test_what_stands_beside_a_secret_can_still_be_read() -> None:
    assert clean(f'{{"user": "ada", "password": "{C}", "n": 7}}') == '{"user": "ada", "password": "[redacted]", "n": 7}'
    assert clean(f"postgres://ada:{C}@db:5432/shop") == "postgres://ada:[redacted]@db:5432/shop"
    assert clean(f"GET /x?user=ada&token={C}&page=2 failed") == "GET /x?user=ada&token=[redacted]&page=2 failed"
    assert clean("paid with 4111 1111 1111 1111 at noon") == "paid with [redacted] at noon"


def test_json_within_json_within_json_is_hidden_too() -> None:
    text = json.dumps({"password": f'x"{C}\\', "n": 1})
    for _ in range(4):
        assert C not in clean(text) and C not in clean(f"body was {text} and more")
        text = json.dumps({"body": text})


def test_what_was_redacted_in_the_arguments_goes_out_of_every_text() -> None:
    assert clean("it was canary, said canary2", ["canary2", "canary"]) == "it was [redacted], said [redacted]"
    assert clean("short", ["short"]) == MARK


def test_an_error_of_pydantic_names_the_field_and_hides_what_was_given() -> None:
    class Login(pydantic.BaseModel):
        user: int
        password: int
        inner: dict[str, int]

    given = {"user": "ada-name", "password": C, "inner": {"api_key": C, "x": "shown-x"}}
    with pytest.raises(pydantic.ValidationError) as found:
        Login.model_validate(given)
    assert C in str(found.value)
    text = clean(str(found.value))
    assert C not in text and "ada-name" in text and "shown-x" in text and "password" in text


def test_parameters_of_a_failed_statement_are_hidden() -> None:
    text = clean(f"IntegrityError\n[SQL: INSERT INTO u VALUES (?, ?)]\n[parameters: ('ada', '{C}')]\n(Background on this error)")
    assert C not in text and "INSERT INTO u" in text and "Background" in text


def test_cards_are_known_by_prefix_length_and_check_digit() -> None:
    good = ["4111111111111111", "5555555555554444", "2223003122003222", "378282246310005", "6011111111111117", "36227206271667"]
    assert all(map(is_card, good))
    assert not any(is_card(number[:-1] + str((int(number[-1]) + 1) % 10)) for number in good)
    assert not any(map(is_card, ["4111", "1795000000000000000", "0" * 16, "9" * 16, "4" * 40, "٤" * 16]))


def test_every_secret_name_holds_one_of_the_stems_that_are_looked_for() -> None:
    names = [*redact.WORDS, *redact.ENDINGS, *("_".join(pair) for pair in redact.PAIRS), *scrub._QUERY_NAMES]
    assert [name for name in names if not scrub._STEM.search(name)] == []


@pytest.mark.parametrize("name", sorted(redact.WORDS | {"_".join(pair) for pair in redact.PAIRS}))
def test_every_secret_name_hides_its_value_in_a_text(name: str) -> None:
    assert C not in clean(f"{name}={C}") and C not in clean(json.dumps({name: C}))


PIECES = st.sampled_from(
    ["password", "token", "x", "=", ":", '"', "'", "\\", "[", "]", "{", "}", "(", ")", " ", "\n", ",", "--", "://", "@", "&", "?"]
    + [
        "a" * 20,
        "4111 ",
        "eyJ",
        ".",
        "-----BEGIN RSA PRIVATE KEY-----",
        "Bearer ",
        "Basic ",
        "input_value=",
        "[parameters: (",
        "é",
        "\ud800",
    ]
)


@settings(max_examples=1_000, deadline=None)
@given(st.lists(PIECES, max_size=60).map("".join))
def test_any_text_is_cleaned_once_and_for_all(text: str) -> None:
    once = clean(text)
    assert clean(once) == once


@settings(max_examples=300, deadline=None)
@given(st.text(), st.uuids(), st.integers(0, 10**13 - 1))
def test_ids_and_small_numbers_are_never_taken_for_secrets(text: str, some: uuid.UUID, number: int) -> None:
    assert clean(str(some)) == str(some)
    assert clean(f"{number}") == f"{number}"


WORST = ["password=", "a", "'", "\\", '\\"password\\":\\"', "4", "4111 ", "--x ", "://a:", "eyJ", "eyJaaaaaaaaa.", "password:["]
WORST += [
    "[parameters: (",
    "bearer ",
    "a.",
    "x_y-",
    "input_value=",
    "-----BEGIN RSA PRIVATE KEY-----",
    "$2b$",
    "password='",
    "://a:b@",
]
WORST += [
    "<a>b</",
    "<password>",
    "<a ",
    "hooks.slack.com/services/",
    "token",
    "\n",
    "a\n",
    "basic aaaaaaaa ",
    "sk-",
    "password\n",
    '"',
    "`",
    "password: ",
    "Key (token)=(",
    "key\\\\",
]


@pytest.mark.parametrize("piece", WORST)
def test_no_text_takes_longer_than_in_proportion(piece: str) -> None:
    """Twice the text, at most about twice the work: eight times is what a quadratic pattern would need three doublings for."""

    def work(size: int) -> float:
        text = piece * (size // len(piece))
        best = 9.9
        for _ in range(3):
            begun = time.thread_time()
            clean(text)
            best = min(best, time.thread_time() - begun)
        return best

    small, large = work(8_000), work(64_000)
    assert large < 0.005 or large < 30 * small, f"{small * 1e3:.2f} ms -> {large * 1e3:.2f} ms"


def test_the_stems_are_looked_for_in_lower_case() -> None:
    assert not re.search("[A-Z]", scrub._STEM.pattern)
