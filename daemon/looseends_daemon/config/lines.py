"""Where in a TOML text a key stands, which tomllib does not tell. Pure.

The text must already have been parsed as a whole. Its statements are then cut out line by line, each ending at the
first line where tomllib takes it alone: tomllib itself is the tokenizer, so strings and arrays over several lines hold
no traps.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from typing import Any

Path = tuple[str | int, ...]


def lines_of(text: str) -> dict[Path, int]:
    """Every table, entry of an array of tables and key of this text -> its line, counted from 1."""
    found: dict[Path, int] = {}
    counts: dict[Path, int] = {}
    here: Path = ()
    for number, statement, header in _statements(text):
        if header:
            here = _enter(statement, counts, array=header == "[[")
            found.setdefault(here, number)
            if header == "[[":
                found.setdefault(here[:-1], number)
        else:
            for path in _paths(statement):
                found.setdefault(here + path, number)
    return found


def _statements(text: str) -> Iterator[tuple[int, dict[str, Any], str]]:
    """(first line, the statement parsed alone, "[", "[[" or "" for a key)."""
    waiting, first = "", 1
    # Not splitlines(): it also cuts at U+2028 and friends, which may stand inside a TOML string.
    for number, line in enumerate(text.split("\n"), 1):
        if not waiting:
            first = number
        waiting += line + "\n"
        try:
            statement = tomllib.loads(waiting)
        except tomllib.TOMLDecodeError:
            continue
        stripped = waiting.lstrip()
        if statement:
            yield first, statement, "[[" if stripped.startswith("[[") else "[" if stripped.startswith("[") else ""
        waiting = ""


def _enter(statement: dict[str, Any], counts: dict[Path, int], *, array: bool) -> Path:
    """The path of a header, with the index of each array of tables it lies in."""
    names: list[str] = []
    node: Any = statement
    while isinstance(node, dict) and node:
        name = next(iter(node))
        names.append(name)
        node = node[name]
    path: Path = ()
    for depth, name in enumerate(names):
        path += (name,)
        if array and depth == len(names) - 1:
            counts[path] = counts.get(path, -1) + 1
        if path in counts:
            path += (counts[path],)
    return path


def _paths(node: Any, above: Path = ()) -> Iterator[Path]:
    for key, value in node.items():
        yield (*above, key)
        if isinstance(value, dict):
            yield from _paths(value, (*above, key))
