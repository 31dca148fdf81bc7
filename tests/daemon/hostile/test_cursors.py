"""Cursors that nobody was given: a mistake of the asker's, said as one."""

from __future__ import annotations

from typing import Any

import pytest

LISTS = ("incidents", "notices", "replays", "instances", "audit")
MADE_UP = ("zzzzzzzzzzzzzzzzzzzz", "-zzzzzzzzzzzzzzzzzzzz", "-1", "9" * 5_000)


@pytest.mark.parametrize("cursor", MADE_UP)
@pytest.mark.parametrize("name", LISTS)
async def test_a_made_up_cursor_of_a_list_is_422(house: Any, name: str, cursor: str) -> None:
    status, answer = await house.get(f"/api/v1/{name}?cursor={cursor}")
    assert (status, answer["errors"][0]["pointer"]) == (422, "/cursor")


@pytest.mark.parametrize("cursor", ["f" * 18 + ".00", "-" + "f" * 18 + ".00", "f" * 3_000 + ".00", "-1.00"])
async def test_a_made_up_cursor_of_tasks_is_422(house: Any, cursor: str) -> None:
    status, answer = await house.get(f"/api/v1/tasks?cursor={cursor}")
    assert (status, answer["errors"][0]["pointer"]) == (422, "/cursor")
