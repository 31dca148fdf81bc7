"""The same histories on real SQLite: what the pure functions say is what is stored, and the ledger is always the count."""

from __future__ import annotations

from typing import Any

import pytest
from model import histories
from stored import Stored

READY = {name: history for name, history in histories().items() if "pending" not in history}


@pytest.mark.parametrize("name", sorted(READY))
def test_a_stored_history_ends_as_it_says(name: str) -> None:
    history: dict[str, Any] = READY[name]
    stored = Stored(history)
    stored.play()
    expect = history["expect"]
    for symbol, wanted in expect["tasks"].items():
        if "flags" in wanted:
            wanted = {**wanted, "flags": sorted(wanted["flags"])}
        found = stored.task(symbol)
        assert {field: found[field] for field in wanted} == wanted, symbol
    assert stored.ledger() == expect["ledger"]
    assert {symbol: stored.said(symbol) for symbol in expect["judgements"]} == expect["judgements"]
    assert stored.duplicates == expect.get("duplicates", stored.duplicates)
    assert stored.audited == len(history["steps"])


def test_a_ledger_that_drifts_is_caught() -> None:
    stored = Stored(READY["normal"])
    stored.play()
    stored.conn.execute("UPDATE ledger SET succeeded = succeeded + 1")
    with pytest.raises(AssertionError):
        stored.audit_ledger()
