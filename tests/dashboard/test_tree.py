"""Recorded JSON as a tree."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from looseends_dashboard.tree import DEPTH_MAX, NODES_MAX, Node, brief, tree


def count(node: Node) -> int:
    return 1 + sum(count(child) for child in node.children)


def leaf(value: Any) -> Node:
    return tree({"x": value}).children[0]


def test_a_call_is_said_in_one_line() -> None:
    args = {"order_id": 7, "to": "ada@example.com", "card": {"$t": "redacted"}, "items": [1, 2]}
    assert brief(args) == 'order_id=7, to="ada@example.com", card=<redacted>, items=<2 items>'


def test_a_redacted_value_never_looks_like_a_value() -> None:
    assert leaf({"$t": "redacted"}).kind == "redacted"
    text = leaf({"$t": "redacted", "v": "postgres://ada:[redacted]@db/shop"})
    assert (text.kind, text.text) == ("redacted", "redacted before it left the process: postgres://ada:[redacted]@db/shop")
    assert leaf("[redacted]").kind == "text"


def test_what_could_not_be_recorded_says_its_class_and_why() -> None:
    node = leaf({"$t": "opaque", "class": "sqlalchemy.Session", "why": "which has no written form"})
    assert (node.kind, node.text) == ("opaque", "sqlalchemy.Session, which has no written form")


def test_a_text_cut_by_the_client_says_so() -> None:
    assert leaf({"$t": "cut", "v": "abc", "chars": 90_000}).text == "abc… (cut by the client, 90000 characters in all)"


def test_a_tuple_a_class_and_a_date_keep_their_names() -> None:
    assert leaf({"$t": "tuple", "v": [1, 2]}).text == "tuple, 2 items"
    assert leaf({"$t": "dataclass", "class": "shop:Order", "v": {"id": 7}}).text == "shop:Order, 1 field"
    assert leaf({"$t": "datetime", "v": "2026-11-20T14:05:00"}).text == "2026-11-20T14:05:00 (datetime)"
    assert leaf({"$t": "int", "v": "9007199254740993"}).text == "9007199254740993"


def test_a_huge_value_is_bounded_and_says_what_is_left_out() -> None:
    node = tree(list(range(100_000)))
    assert count(node) <= NODES_MAX + 2
    assert node.children[-1].kind == "cut"
    assert node.children[-1].text == "99,600 more, see the JSON"


def test_a_deep_value_ends_in_words() -> None:
    value: Any = "core"
    for _ in range(200):
        value = [value]
    node = tree(value)
    for _ in range(DEPTH_MAX):
        node = node.children[0]
    assert node.kind == "cut"


JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from(["$t", "v", "class", "why", "a"]), inner),
)


@given(JSON)
def test_any_recorded_value_can_be_drawn(value: Any) -> None:
    assert tree(value).kind
    assert len(brief(value)) <= 90
