"""A daemon's store with clocks that the test sets: the wall clock, and the one that nobody can set."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from looseends.wire import NS, check_batch
from looseends_daemon.core.incidents import AlertRules
from looseends_daemon.core.policy import Policy
from looseends_daemon.core.resources import VERDICTS, Actor
from looseends_daemon.services.detector import Detector
from looseends_daemon.services.vigil import Vigil
from looseends_daemon.services.watch import Watch
from looseends_daemon.store import facts
from looseends_daemon.store.codes import word
from looseends_daemon.store.connection import Database
from looseends_daemon.store.reads import StoreReader

sys.path.insert(0, str(Path(__file__).parent))  # importlib mode needs to be told where living.py is

START = 1_795_183_200 * NS
ACTOR = Actor(name="uid 0", role="ingest", channel="uds:0", uid=0)
HOUR = 3_600.0


class Clocks:
    """Both clocks in ns; `pass_by` moves both, `set_by` only the wall clock."""

    def __init__(self) -> None:
        self.wall, self.boot = START, 50 * NS

    def wall_ns(self) -> int:
        return self.wall

    def boot_ns(self) -> int:
        return self.boot

    def which_boot(self) -> int:
        return 7

    def pass_by(self, seconds: float) -> None:
        self.wall += int(seconds * NS)
        self.boot += int(seconds * NS)

    def set_by(self, seconds: float) -> None:
        self.wall += int(seconds * NS)


class House:
    """A database, its detector and its watch, started at the clocks' time."""

    def __init__(self, database: Database, clocks: Clocks, policy: Policy) -> None:
        self.database, self.clocks, self.policy = database, clocks, policy
        self.reader = StoreReader(database, wall_ns=clocks.wall_ns)
        self._numbers = 0

    async def start(self) -> None:
        """The daemon starts (again)."""
        now = self.clocks.wall
        self.vigil = Vigil(started_at=now, grace_s=self.policy.grace, boot_ns=self.clocks.boot_ns)
        self.watch = Watch(self.database, self.vigil, self.clocks)
        self.detector = Detector(self.database, self.policy, AlertRules, started_at=now, vigil=self.vigil)
        await self.watch.begin(now)

    async def live(self, seconds: float, *, beats: bool = True) -> None:
        """The daemon runs for a while: a look each second, and every instance sends its heartbeat."""
        for _ in range(int(seconds)):
            self.clocks.pass_by(1)
            if beats:
                await self.beat()
            await self.watch.tick(self.clocks.wall)
            await self.detector.run_once(self.clocks.wall)
            await self.watch.keep(self.clocks.wall)

    async def beat(self, instance: str = "web-1", **told: int) -> Any:
        """A heartbeat of an instance that is known."""
        said = {"backlog": 0, **told}
        return await self.database.write(lambda conn: facts.touch_instance(conn, instance, ACTOR, self.clocks.wall, **said))

    async def tell(self, *events: dict[str, Any], instance: str = "web-1", off: float = 0.0, **envelope: Any) -> Any:
        """A batch of an instance whose clock is `off` seconds wrong."""
        now = self.clocks.wall
        sent_at = now + int(off * NS)
        told = {"id": instance, "service": "shop", **envelope.pop("about", {})}
        body = {"instance": told, "sent_at": sent_at, "events": [{"name": "n", "at": sent_at, **event} for event in events]}
        batch = check_batch({**body, **envelope}, now)
        assert not batch.rejected, batch.rejected
        return await self.database.write(
            lambda conn: facts.apply_batch(
                conn, batch, actor=ACTOR, now=now, policy=self.policy, delayed=self.vigil.may_have_waited(batch.sent_at, now)
            )
        )

    async def begin(self, *, deadline: float = 30, **more: Any) -> str:
        """A task begins; its id."""
        self._numbers += 1
        task = f"00000000-0000-8000-8000-{self._numbers:012}"
        await self.tell({"type": "started", "task": task, "deadline": deadline, **more})
        return task

    async def rows(self, sql: str, *params: Any) -> list[Any]:
        return await self.database.write(lambda conn: conn.execute(sql, params).fetchall())

    async def verdicts(self) -> list[str | None]:
        """Of all tasks, in order of their ids."""
        return [word(VERDICTS, row["verdict"]) for row in await self.rows("SELECT verdict FROM task ORDER BY id")]

    async def windows(self) -> list[tuple[str, float, float]]:
        """(cause, from, to) of all blind windows, oldest first, in seconds from the start."""
        page = await self.reader.blind_windows()
        return [(one.cause, (one.from_ - START) / NS, (one.to - START) / NS) for one in reversed(page.items)]


@pytest.fixture
def clocks() -> Clocks:
    return Clocks()


@pytest.fixture
async def house(tmp_path: Path, clocks: Clocks) -> AsyncIterator[House]:
    database = await Database.open(str(tmp_path / "looseends.db"))
    house = House(database, clocks, Policy())
    await house.start()
    yield house
    await database.close()
