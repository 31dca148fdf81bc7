"""Every command explains itself: what it is for, an example that its own parser takes, within eighty columns."""

from __future__ import annotations

import argparse
import io
import re
import shlex
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout

import pytest

from looseends import cli as client
from looseends_daemon import cli

COLUMNS = 80
# An example is there to be copied: it stays whole, however long it is.
EXAMPLE = re.compile(r"^  looseends .*$", re.MULTILINE)


def parsers(parser: argparse.ArgumentParser) -> Iterator[argparse.ArgumentParser]:
    """It and every command below it."""
    yield parser
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for name, inner in action.choices.items():
                if name not in client.COMMANDS:
                    yield from parsers(inner)


def names() -> list[str]:
    return [parser.prog for parser in parsers(cli._parser(""))]


def help_of(prog: str, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("COLUMNS", str(COLUMNS))
    [found] = [parser for parser in parsers(cli._parser("")) if parser.prog == prog]
    return found.format_help()


@pytest.mark.parametrize("prog", names())
def test_a_command_says_what_it_is_for_and_gives_an_example(prog: str, monkeypatch: pytest.MonkeyPatch) -> None:
    text = help_of(prog, monkeypatch)
    [found] = [parser for parser in parsers(cli._parser("")) if parser.prog == prog]
    assert found.description and found.description.rstrip().endswith(".")
    assert EXAMPLE.search(text), text
    for action in found._actions:
        assert action.help or isinstance(action, argparse._SubParsersAction), f"{prog}: {action.dest} is not explained"


@pytest.mark.parametrize("prog", names())
def test_its_help_fits_a_terminal_of_eighty_columns(prog: str, monkeypatch: pytest.MonkeyPatch) -> None:
    text = EXAMPLE.sub("", help_of(prog, monkeypatch))
    assert [line for line in text.splitlines() if len(line) > COLUMNS] == []


@pytest.mark.parametrize("prog", [name for name in names() if name != "looseends"])
def test_its_own_parser_takes_its_examples(prog: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for found in EXAMPLE.findall(help_of(prog, monkeypatch)):
        words = shlex.split(re.split(r" > |  +", found.strip())[0].replace("$(date +%F)", "2026-11-20"))
        if "--app" not in words:  # the client's own, taken before it comes here
            said = io.StringIO()
            with redirect_stderr(said), redirect_stdout(said):
                assert hasattr(cli._parser("").parse_args(words[1:]), "run"), found


def test_a_planted_example_with_a_wrong_option_is_found() -> None:
    with redirect_stderr(io.StringIO()), pytest.raises(SystemExit):
        cli._parser("").parse_args(shlex.split("ls --sinse 2h"))
