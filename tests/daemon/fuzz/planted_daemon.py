"""`looseends` with a fault planted in it, so that the fuzzer can be seen to notice: planted_daemon.py FAULT serve ...

raises        a handler takes `limit` for a number without looking
chatters      every complaint about a stranger's request is a line in the log
counts-again  the ledger adds what a task is now and does not take out what it was
"""

from __future__ import annotations

import sys
from typing import Any

from looseends_daemon import cli
from looseends_daemon.http import api, quiet
from looseends_daemon.store import ledger


def raises() -> None:
    """What is no number is an exception that nobody expected."""
    assert hasattr(api, "limit_of"), "there is nothing of that name to replace"
    setattr(api, "limit_of", lambda request: int(request.query.get("limit", "50")))  # noqa: B010 - it is imported there


def chatters() -> None:
    """Nothing is left out of the log."""
    assert callable(quiet.OnceAMinute.filter), "there is nothing of that name to replace"
    quiet.OnceAMinute.filter = lambda self, record: True  # type: ignore[method-assign]


def counts_again() -> None:
    """A task that moves from one term to another is counted in both."""
    honest = ledger.Moves.add

    def add(self: ledger.Moves, place: Any, environment: int, type_: int, sign: int = 1) -> None:
        if sign > 0:
            honest(self, place, environment, type_)

    ledger.Moves.add = add  # type: ignore[method-assign]


FAULTS = {"raises": raises, "chatters": chatters, "counts-again": counts_again}

if __name__ == "__main__":
    FAULTS[sys.argv[1]]()
    sys.exit(cli.main(sys.argv[2:]))
