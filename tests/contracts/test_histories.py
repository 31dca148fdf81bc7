"""The histories that the contract stands on, against the pure functions that must satisfy them."""

from __future__ import annotations

from typing import Any

import pytest
from expecting import symbol_id
from model import Model, histories

HISTORIES = histories()
PENDING: set[str] = set()


def ready() -> list[str]:
    return [name for name, history in HISTORIES.items() if "pending" not in history]


@pytest.mark.parametrize("name", ready())
def test_a_history_ends_as_it_says(name: str) -> None:
    history = HISTORIES[name]
    model = Model(history)
    model.play()
    expect: dict[str, Any] = history["expect"]
    for symbol, wanted in expect["tasks"].items():
        found = model.task(symbol)
        if "flags" in wanted:
            wanted = {**wanted, "flags": sorted(wanted["flags"])}
        assert {field: found[field] for field in wanted} == wanted, symbol
    assert model.ledger() == expect["ledger"]
    said = {
        symbol: [[row.what, row.verdict] for row in model.judgements.get(symbol_id(history, symbol), [])]
        for symbol in expect["judgements"]
    }
    assert said == expect["judgements"]
    assert sorted(model.incidents(), key=str) == sorted(expect["incidents"], key=str)
    assert model.duplicates == expect.get("duplicates", model.duplicates)


@pytest.mark.parametrize("name", ready())
def test_every_judgement_says_why_in_words(name: str) -> None:
    model = Model(HISTORIES[name])
    model.play()
    for rows in model.judgements.values():
        assert all(len(row.reason) > 10 for row in rows), rows


def test_pending_histories_are_pending_by_name_and_no_others() -> None:
    assert {history["pending"] for history in HISTORIES.values() if "pending" in history} == PENDING


def test_a_detector_that_says_nothing_is_caught() -> None:
    """The harness must be able to fail: without judgements the stuck history does not end as it says."""
    history = HISTORIES["hang-then-late-finish"]
    silent = {**history, "steps": [step for step in history["steps"] if not step.get("judge")]}
    model = Model(silent)
    model.play()
    assert model.task("t1")["settled"] != history["expect"]["tasks"]["t1"]["settled"]
