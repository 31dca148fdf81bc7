"""The daemon under load, killed at random instants and started again, and what each kill left behind.

Rules: the same database all the while. After every restart the batches answered since the last kill must be there, and each
batch whose answer never came must be there whole or not at all; then the load goes on, and sends those again first.
"""

from __future__ import annotations

import random
import sqlite3
import time
from dataclasses import dataclass, field
from functools import partial

from crash import books
from crash.daemons import Daemon, tcp_connection
from crash.load import Plan, Writer
from wired import unix_connection

WRITERS = 6
INSTANT_S = (0.05, 0.4)
PARK_S = 20.0
SMALL_BYTES = 32 << 20
LARGE_EVERY = 20
"""Up to this size the whole file is checked after every kill, above it after every twentieth: the check reads all of it."""


@dataclass
class Figures:
    """What was counted. Lists hold what must not be, in words."""

    seed: int
    kills: int = 0
    kills_inside: int = 0
    """Kills after which at least one batch was stored and not answered: they fell between the commit and its answer."""
    stored_unanswered: int = 0
    not_stored: int = 0
    acknowledged: int = 0
    tasks: int = 0
    lost: list[str] = field(default_factory=list)
    torn: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        return (
            f"{self.kills} kills, {self.kills_inside} of them inside a commit; {self.acknowledged:,} events acknowledged, "
            f"{len(self.lost)} of them lost; unanswered batches: {self.stored_unanswered} stored, {self.not_stored} not, "
            f"{len(self.torn)} torn; {self.tasks:,} tasks; seed {self.seed}"
        )


class Storm:
    """Writers on a daemon. `begin`, any number of `strike`, `end`; then read `figures`."""

    def __init__(self, daemon: Daemon, seed: int) -> None:
        self.daemon, self.figures = daemon, Figures(seed)
        self._chance, base = random.Random(seed), time.time_ns()
        doors = (partial(tcp_connection, daemon.port), partial(unix_connection, daemon.socket))
        self.writers = [Writer(Plan(seed, n, base), doors[n % len(doors)]) for n in range(WRITERS)]
        self._looked: dict[Writer, int] = {}

    def begin(self) -> None:
        """Daemon up, load on."""
        self.daemon.start()
        for writer in self.writers:
            writer.start()

    def strike(self) -> None:
        """Kill under load, start again, look what is there, and have the load go on."""
        before = self.answers()
        self.daemon.wait_until(lambda: self.answers() >= before + WRITERS or self._trouble(), "load to flow")
        time.sleep(self._chance.uniform(*INSTANT_S))
        self.daemon.kill()
        assert all(writer.wait_parked(PARK_S) for writer in self.writers), "a writer did not notice that its daemon is dead"
        self.figures.kills += 1
        self.daemon.start()
        with self.daemon.look() as conn:
            self._look_at_answered(conn)
            inside = [self._look_at_unanswered(conn, writer) for writer in self.writers]
            self._look_at_file(conn)
        self.figures.kills_inside += any(inside)
        for writer in self.writers:
            writer.go_on()

    def end(self) -> None:
        """Load off, everything answered: the whole account."""
        for writer in self.writers:
            writer.finish()
        for writer in self.writers:
            writer.join(PARK_S)
            assert not writer.is_alive(), f"{writer.name} did not end"
        self._look_at_answers()
        done = [(writer.plan, len(writer.answered)) for writer in self.writers]
        self.daemon.wait_until(self._judged, "every failure to be judged")
        with self.daemon.look() as conn:
            self.figures.wrong += books.everything(conn, done)
            self.figures.tasks = sum(books.counted(conn).values())

    # --- looking ---

    def answers(self) -> int:
        """How many batches were answered so far."""
        return sum(len(writer.answered) for writer in self.writers)

    def _trouble(self) -> list[str]:
        return [f"{writer.name}: {words}" for writer in self.writers for words in writer.trouble]

    def _judged(self) -> bool:
        with self.daemon.look() as conn:
            return not conn.execute("SELECT 1 FROM task WHERE check_at IS NOT NULL LIMIT 1").fetchall()

    def _look_at_answered(self, conn: sqlite3.Connection) -> None:
        """What was acknowledged since the last look is there."""
        for writer in self.writers:
            first, self._looked[writer] = self._looked.get(writer, 0), len(writer.answered)
            for answered in writer.answered[first:]:
                gone = books.missing(conn, writer.plan.told(answered.batch))
                self.figures.lost += [f"{writer.name}, batch {answered.batch}: {one.event()}" for one in gone]

    def _look_at_unanswered(self, conn: sqlite3.Connection, writer: Writer) -> bool:
        """Whether the batch that got no answer was stored."""
        if writer.unanswered is None:
            return False
        told = writer.plan.told(writer.unanswered)
        gone = books.missing(conn, told)
        if gone and len(gone) < len(told):
            self.figures.torn.append(f"{writer.name}, batch {writer.unanswered}: {len(gone)} of {len(told)} events missing")
        self.figures.stored_unanswered += not gone
        self.figures.not_stored += len(gone) == len(told)
        return not gone

    def _look_at_file(self, conn: sqlite3.Connection) -> None:
        """The file is whole, and its ledger and its tasks say the same, right after a kill as at any time."""
        if self.daemon.database.stat().st_size <= SMALL_BYTES or self.figures.kills % LARGE_EVERY == 0:
            found = books.damage(conn) + books.miscounted(conn)
            self.figures.wrong += [f"kill {self.figures.kills}: {words}" for words in found]

    def _look_at_answers(self) -> None:
        """A batch sent once is new; sent again it is new as a whole, or known as a whole."""
        self.figures.wrong += self._trouble()
        for writer in self.writers:
            for n, said in enumerate(writer.answered):
                size = len(writer.plan.told(said.batch))
                self.figures.acknowledged += size
                known = said.duplicates == size and said.accepted == 0 and said.again
                if said.batch != n or not (known or (said.accepted == size and said.duplicates == 0)):
                    self.figures.wrong.append(f"{writer.name}: batch {n} of {size} events was answered {said}")
