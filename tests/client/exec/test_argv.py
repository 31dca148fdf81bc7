"""Command lines and output as they are recorded: bounded, without the secrets that show themselves."""

from __future__ import annotations

import pytest

from looseends.argv import LINE_CHARS_MAX, WORDS_MAX, cleaned, shown
from looseends.errors import UsageError
from looseends.options import one, split


@pytest.mark.parametrize(
    ("command", "words", "hidden"),
    [
        (["backup", "--all"], ["backup", "--all"], ()),
        (["x", "--password", "canary1"], ["x", "--password", "[redacted]"], ("canary1",)),
        (["x", "--password=canary1"], ["x", "--password=[redacted]"], ("canary1",)),
        (["x", "--password", "--verbose"], ["x", "--password", "--verbose"], ()),
        (["env", "PGPASSWORD=canary1", "pg_dump"], ["env", "PGPASSWORD=[redacted]", "pg_dump"], ("canary1",)),
        (["curl", "-u", "me:canary1", "https://h"], ["curl", "-u", "me:[redacted]", "https://h"], ("canary1",)),
        (["mysqldump", "-pcanary1", "shop"], ["mysqldump", "-p[redacted]", "shop"], ("canary1",)),
        (["/usr/bin/mysql", "-p", "shop"], ["/usr/bin/mysql", "-p", "shop"], ()),
        (["mkdir", "-pcanary1"], ["mkdir", "-pcanary1"], ()),
        (["x", "https://me:canary1@host/p"], ["x", "https://me:[redacted]@host/p"], ()),
        (["x", "--author", "Ada", "--tokens-used", "7"], ["x", "--author", "Ada", "--tokens-used", "7"], ()),
        (["x", "--pin", "123"], ["x", "--pin", "[redacted]"], ()),
        (["x", "name with token=yes inside"], ["x", "name with token=[redacted] inside"], ()),
    ],
)
def test_secrets_are_known_by_their_names(command: list[str], words: list[str], hidden: tuple[str, ...]) -> None:
    found = shown(command)
    assert (found.words, found.hidden) == (words, hidden)


def test_what_the_user_names_is_hidden_too() -> None:
    assert shown(["x", "--zebra", "canary1", "blue.zebra=canary2"], ["zebra"]).words == [
        "x",
        "--zebra",
        "[redacted]",
        "blue.zebra=[redacted]",
    ]
    assert cleaned("the zebra: canary1, done", (), ("zebra",)) == "the zebra: [redacted], done"
    assert cleaned("it is canary1 again", ("canary1",)) == "it is [redacted] again"


def test_everything_is_bounded() -> None:
    assert len(shown(["w"] * 10_000).words) == WORDS_MAX + 1 and shown(["w"] * 10_000).words[-1] == "... and 9,800 more"
    long = shown(["x" * 100_000] * 50).words
    assert sum(map(len, long)) < LINE_CHARS_MAX + 200 and long[-1] == "... and 44 more"
    assert shown([]).words == []
    assert shown([b"\xff\xfe".decode("utf-8", "surrogateescape"), "\x1b[31m"]).words == ["\\xff\\xfe", "\x1b[31m"]


def test_options_end_where_the_command_begins() -> None:
    assert split("exec", ["--a", "1", "--a=2", "--f", "cmd", "--a", "3"], ["--a"], ["--f"]) == (
        {"--a": ["1", "2"], "--f": [""]},
        ["cmd", "--a", "3"],
    )
    assert split("exec", ["--", "--a", "--"], ["--a"]) == ({}, ["--a", "--"])
    assert split("exec", ["--a", "-5", "-"], ["--a"]) == ({"--a": ["-5"]}, ["-"])
    assert one({"--a": ["1"]}, "--a", "exec") == "1" and one({}, "--a", "exec") is None
    for words in (["--f=1"], ["-a"], ["--a"], ["--a", "--"], ["--b"]):
        with pytest.raises(UsageError, match="looseends exec: "):
            split("exec", words, ["--a"], ["--f"])
