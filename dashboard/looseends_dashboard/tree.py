"""Recorded JSON as a tree to unfold: arguments and results.

Rules: bounded in nodes and depth, and it says so where it stops; what was redacted or could not be recorded is marked as
such and never looks like a value.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

from looseends_daemon.core.resources import Value
from looseends_dashboard import words

NODES_MAX = 400
DEPTH_MAX = 16
LEAF_CHARS_MAX = 2_000
OPEN_DEPTH = 2
TAG = "$t"
"""The reserved key under which the client writes what JSON has no word for."""


class Node(Value, frozen=True):
    """One line of the tree. `kind` is object, array, text, number, word, redacted, opaque or cut."""

    key: str
    kind: str
    text: str
    children: tuple[Node, ...] = ()
    open: bool = False


class _Budget:
    """How many nodes may still be drawn, and how long each text may be."""

    def __init__(self, chars_max: int = LEAF_CHARS_MAX) -> None:
        self.left = NODES_MAX
        self.chars_max = chars_max

    def take(self) -> bool:
        self.left -= 1
        return self.left >= 0


def tree(value: Any) -> Node:
    """Any JSON value as nodes, at most NODES_MAX of them."""
    return _node("", value, 0, _Budget())


def brief(value: Any, chars_max: int = 90) -> str:
    """Arguments in one short line, as a call is written: order_id=7, card=<redacted>."""
    parts = []
    pairs = value.items() if isinstance(value, dict) and TAG not in value else [("", value)]
    for key, item in itertools.islice(pairs, chars_max // 2):
        parts.append(f"{words.short(str(key), 40)}={_said(item)}" if key else _said(item))
    return words.short(", ".join(parts), chars_max)


def _said(value: Any) -> str:
    node = _node("", value, DEPTH_MAX - 1, _Budget(chars_max=60))
    if node.kind in ("text", "number", "word"):
        return f'"{node.text}"' if node.kind == "text" else node.text
    return f"<{node.kind}>" if node.kind in ("redacted", "opaque", "cut") else f"<{node.text}>"


def _node(key: str, value: Any, depth: int, budget: _Budget) -> Node:
    if isinstance(value, dict) and isinstance(value.get(TAG), str):
        return _tagged(key, value, depth, budget)
    if isinstance(value, dict | list):
        return _branch(key, value, "", depth, budget)
    if isinstance(value, str):
        return Node(key=key, kind="text", text=words.visible(value, budget.chars_max))
    kind = "word" if value is None or isinstance(value, bool) else "number"
    return Node(key=key, kind=kind, text=words.short(words.json_text(value, None), budget.chars_max))


def _branch(key: str, value: dict[str, Any] | list[Any], said: str, depth: int, budget: _Budget) -> Node:
    kind, unit = ("object", "field") if isinstance(value, dict) else ("array", "item")
    text = (f"{said}, " if said else "") + words.plural(len(value), unit)
    if depth >= DEPTH_MAX:
        return Node(key=key, kind="cut", text=f"{text}, nested too deep for this page: see the JSON")
    children = tuple(_children(value, depth + 1, budget))
    return Node(key=key, kind=kind, text=text, children=children, open=depth < OPEN_DEPTH)


def _children(value: dict[str, Any] | list[Any], depth: int, budget: _Budget) -> Iterator[Node]:
    pairs = value.items() if isinstance(value, dict) else enumerate(value)
    for place, (key, item) in enumerate(pairs):
        if not budget.take():
            yield Node(key="", kind="cut", text=f"{words.number(len(value) - place)} more, see the JSON")
            return
        yield _node(words.short(str(key)), item, depth, budget)


def _tagged(key: str, value: dict[str, Any], depth: int, budget: _Budget) -> Node:
    """What the client writes where JSON has no word for a value: a secret, an object, a tuple, a date."""
    tag, held, name = value[TAG], value.get("v"), words.short(str(value.get("class", "")), 80)
    if tag == "redacted":
        shown = f": {words.visible(held, budget.chars_max)}" if isinstance(held, str) else ""
        return Node(key=key, kind="redacted", text=f"redacted before it left the process{shown}")
    if tag == "opaque":
        return Node(key=key, kind="opaque", text=f"{name}, {words.short(str(value.get('why', 'not recorded')))}")
    if tag == "cut" and isinstance(held, str):
        text = f"{words.visible(held, budget.chars_max)}… (cut by the client, {value.get('chars')} characters in all)"
        return Node(key=key, kind="text", text=text)
    if tag in ("int", "float") and isinstance(held, str):
        return Node(key=key, kind="number", text=words.visible(held, budget.chars_max))
    if isinstance(held, dict | list):
        return _branch(key, held, name or words.short(tag, 40), depth, budget)
    rest = {field: item for field, item in value.items() if field != TAG}
    text = held if isinstance(held, str) and len(rest) == 1 else words.json_text(rest, None)
    return Node(key=key, kind="number", text=f"{words.visible(text, budget.chars_max)} ({words.short(tag, 40)})")
