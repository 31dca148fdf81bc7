"""docs/reference.md says what the served OpenAPI document says: no door is missing, none is invented."""

from __future__ import annotations

import asyncio
import importlib.util
from typing import Any

import pytest

from harness import ROOT

PAGE = ROOT / "docs/reference.md"


@pytest.fixture(scope="module")
def maker() -> Any:
    """The script that writes the page."""
    spec = importlib.util.spec_from_file_location("reference", ROOT / "docs/site/reference.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def document(maker: Any) -> dict[str, Any]:
    """What a daemon serves."""
    made: dict[str, Any] = asyncio.run(maker.served())
    return made


def test_the_page_is_what_the_daemon_serves(maker: Any, document: dict[str, Any]) -> None:
    written = PAGE.read_text(encoding="utf-8")
    assert written == maker.page(document), "run docs/site/reference.py"


def test_every_door_and_every_type_has_its_heading(document: dict[str, Any]) -> None:
    text = PAGE.read_text(encoding="utf-8")
    doors = [f"### `{method.upper()} {path}`" for path, methods in document["paths"].items() for method in methods]
    types = [f"### {name}" for name in document["components"]["schemas"]]
    lines = text.splitlines()
    assert len(doors) > 50 and [one for one in (*doors, *types) if lines.count(one) != 1] == []


def test_a_door_that_is_new_changes_the_page(maker: Any, document: dict[str, Any]) -> None:
    more = {**document["paths"], "/api/v1/planted": document["paths"]["/api/v1/tasks"]}
    assert "GET /api/v1/planted" in maker.page({**document, "paths": more})
