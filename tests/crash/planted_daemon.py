"""`looseends` with a fault planted in it, so that the harness can be seen to notice: planted_daemon.py FAULT serve ...

answers-early   writes are answered when they have run and committed a moment later: the common shortcut
stores-halves   a batch is stored in two commits
counts-again    the ledger adds what a task is now and does not take out what it was
judges-unheard  after a restart tasks are judged whether or not their instance has been heard again
"""

from __future__ import annotations

import sys
import time
from typing import Any

from looseends_daemon import cli
from looseends_daemon.http import ingest
from looseends_daemon.store import connection, judgements, ledger

LATE_S = 0.05


def answers_early() -> None:
    """Everybody who waits is told before COMMIT."""

    def commit(self: connection.Database, group: list[connection._Job]) -> None:
        self._conn.execute("BEGIN IMMEDIATE")
        for jobs in connection._of_a_kind(group):
            connection._run_jobs(self._conn, jobs)
            for job in jobs:
                job.loop.call_soon_threadsafe(connection._settle, [job])
        time.sleep(LATE_S)
        self._conn.execute("COMMIT")

    connection.Database._commit = commit  # type: ignore[method-assign]


def stores_halves() -> None:
    """The first half of a batch is on disk a commit before the rest."""
    honest = ingest._store

    async def store(context: Any, fold: Any, batch: Any, *args: Any) -> Any:
        half = len(batch.events) // 2
        await honest(context, fold, batch._replace(events=batch.events[:half], indexes=batch.indexes[:half]), *args)
        return await honest(context, fold, batch, *args)

    ingest._store = store  # type: ignore[assignment]


def counts_again() -> None:
    """A task that moves from one term to another is counted in both."""
    honest = ledger.Moves.add

    def add(self: ledger.Moves, place: Any, environment: int, type_: int, sign: int = 1) -> None:
        if sign > 0:
            honest(self, place, environment, type_)

    ledger.Moves.add = add  # type: ignore[method-assign]


def judges_unheard() -> None:
    """Everybody counts as caught up."""
    assert callable(judgements._Judging._caught_up), "there is nothing of that name to replace"
    judgements._Judging._caught_up = lambda self, row: True  # type: ignore[method-assign]


FAULTS = {
    "answers-early": answers_early,
    "stores-halves": stores_halves,
    "counts-again": counts_again,
    "judges-unheard": judges_unheard,
}

if __name__ == "__main__":
    FAULTS[sys.argv[1]]()
    sys.exit(cli.main(sys.argv[2:]))
