"""Files of other versions: the frozen past opens and shows everything, a later migration happens whole or not at all."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import importlib.util
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from harness import ROOT
from looseends_daemon import config
from looseends_daemon.app import all_routes, running
from looseends_daemon.core.query import IS_WORDS, PREFIX_WORDS, WORDS
from looseends_daemon.core.resources import STATES, VERDICTS
from looseends_daemon.store import checkup, retention, schema
from looseends_daemon.store.connection import Database
from looseends_daemon.store.files import connect
from looseends_daemon.store.schema import StoreError, migrations

FIXTURES = ROOT / "tests/fixtures"
FROZEN = sorted(FIXTURES.glob("frozen-*.db.gz"))
VALUES = {"older": "1m", "took": ">1s", "attempt": ">1", "id": "backup-7", "is": "loose", "state": "failed", "verdict": "lost"}


def unpacked(frozen: Path, folder: Path) -> str:
    """A frozen database, ready to be opened."""
    path = folder / "frozen.db"
    path.write_bytes(gzip.decompress(frozen.read_bytes()))
    return str(path)


def frozen_ids() -> dict[str, str]:
    """The ids in it, by name."""
    spec = importlib.util.spec_from_file_location("make_frozen", FIXTURES / "make_frozen.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    ids: dict[str, str] = module.IDS
    return ids


def queries() -> list[str]:
    """One query for every word that can be searched, and every value of those with fixed ones."""
    plain = [f"{word}:{VALUES.get(word, 'mail')}" for word in WORDS if word != "incident"]
    fixed = [*(f"is:{word}" for word in IS_WORDS), *(f"state:{s}" for s in STATES), *(f"verdict:{v}" for v in VERDICTS)]
    return ["", "smtp", "-state:failed", "name:mail.*", *plain, *fixed]


def paths_of(routes: list[Any], found: dict[str, str]) -> Iterator[str]:
    """Every path that is read by GET, its placeholders filled in with what is there."""
    skipped = ("/sign-in", "/static", "/api/v1/stream")
    for route in routes:
        if route.method != "GET" or route.role == "ingest" or route.path.startswith(skipped):
            continue
        thing = next((name for name in found if f"/{name}s/{{" in route.path), None)
        if "{" not in route.path:
            yield route.path
        elif thing is not None:
            yield f"{route.path.partition('{')[0]}{found[thing]}{route.path.partition('}')[2]}"


async def things(daemon: Any) -> dict[str, str]:
    """The id of one of each kind of thing."""
    reader = daemon.context().reader
    lists = {"incident": reader.incidents, "notice": reader.notices, "replay": reader.replays, "instance": reader.instances}
    found = {name: (await read()).items for name, read in lists.items()}
    assert all(found.values()), f"the frozen database lacks {[name for name, items in found.items() if not items]}"
    return {name: items[0].id for name, items in found.items()} | {"task": frozen_ids()["lost"]}


@pytest.mark.parametrize("frozen", FROZEN, ids=lambda path: path.name)
async def test_every_page_and_every_query_opens_a_database_of_then(frozen: Path, tmp_path: Path) -> None:
    path = await asyncio.to_thread(unpacked, frozen, tmp_path)
    settings = config.with_flags(config.load(None, {"HOME": str(tmp_path)}), listen=("127.0.0.1:0",), path=path)
    async with running(settings) as daemon:
        assert daemon.listener is not None
        base = daemon.listener.addresses[0]
        token = await asyncio.to_thread(lambda: Path(f"{path}.token").read_text().strip())
        asked = list(paths_of(all_routes(daemon.context()), await things(daemon)))
        async with aiohttp.ClientSession(base, headers={"Authorization": f"Bearer {token}"}) as session:
            bad = [words for place in asked if (words := await refused(session, place, {}))]
            for place in ("/api/v1/tasks", "/tasks"):
                bad += [words for q in queries() if (words := await refused(session, place, {"q": q}))]
        assert not bad, "\n".join(bad)
        assert len(asked) > 20, asked
        assert await daemon.database.write(retention.recount) == []


async def refused(session: aiohttp.ClientSession, place: str, query: dict[str, str]) -> str | None:
    """What went wrong with one request; None: nothing did."""
    async with session.get(place, params=query, allow_redirects=False) as answer:
        text = await answer.text()
        # The address of an act leads a reader back to its page; only the way to the sign-in page would mean a refusal.
        led_back = answer.status == 303 and not answer.headers["Location"].startswith("/sign-in")
        return None if answer.status == 200 or led_back else f"GET {place} {query}: {answer.status} {text[:300]}"


@pytest.mark.parametrize("frozen", FROZEN, ids=lambda path: path.name)
async def test_a_database_of_then_has_the_schema_of_now_once_it_was_opened(frozen: Path, tmp_path: Path) -> None:
    path = await asyncio.to_thread(unpacked, frozen, tmp_path)
    await (await Database.open(path)).close()
    with contextlib.closing(sqlite3.connect(path)) as conn:
        faults = checkup.missing_schema(conn)
    # As long as a schema is not released its migration is still written; then the frozen file is made anew.
    assert not faults, f"{', '.join(faults)} differ: add a migration, or (unreleased) run python tests/fixtures/make_frozen.py"


def test_every_schema_has_its_frozen_database() -> None:
    assert [path.name for path in FROZEN] == [f"frozen-{number:04}.db.gz" for number in range(1, len(migrations()) + 1)]


Plant = Callable[[str], None]


@pytest.fixture
def plant(monkeypatch: pytest.MonkeyPatch) -> Plant:
    """Add a later migration with this SQL."""
    known = migrations()

    def later(sql: str) -> None:
        for module in (schema, checkup):
            monkeypatch.setattr(module, "migrations", lambda: [*known, (f"{len(known) + 1:04}_planted", sql)])

    return later


async def test_a_later_migration_is_done_once_and_written_down(tmp_path: Path, plant: Plant) -> None:
    path = await asyncio.to_thread(unpacked, FROZEN[-1], tmp_path)
    plant("ALTER TABLE task ADD COLUMN colour TEXT;\n")
    for _ in range(2):
        await (await Database.open(path)).close()
    with contextlib.closing(connect(path)) as conn:
        assert [row[0] for row in conn.execute("SELECT name FROM migration")][-1].endswith("_planted")
        assert conn.execute("SELECT count(*) FROM task WHERE colour IS NULL").fetchone()[0] > 5


async def test_a_migration_that_fails_half_way_leaves_the_file_as_it_was(tmp_path: Path, plant: Plant) -> None:
    path = await asyncio.to_thread(unpacked, FROZEN[-1], tmp_path)
    version = len(migrations())
    with contextlib.closing(connect(path)) as conn:
        before = list(conn.iterdump())
    plant("ALTER TABLE task ADD COLUMN colour TEXT;\nDELETE FROM payload;\nINSERT INTO nowhere VALUES (1);\n")
    with pytest.raises(StoreError, match="no such table: nowhere"):
        await Database.open(path)
    with contextlib.closing(connect(path)) as conn:
        assert list(conn.iterdump()) == before
        assert conn.execute("PRAGMA user_version").fetchone()[0] == version


async def test_the_version_before_refuses_what_a_later_one_has_migrated(
    tmp_path: Path, plant: Plant, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = await asyncio.to_thread(unpacked, FROZEN[-1], tmp_path)
    with monkeypatch.context():
        plant("CREATE TABLE later (a);\n")
        await (await Database.open(path)).close()
    monkeypatch.undo()
    with pytest.raises(StoreError, match="newer looseends") as refusal:
        await Database.open(path)
    assert "backup" in (refusal.value.hint or "")


def test_the_words_of_the_queries_are_all_there() -> None:
    assert {query.partition(":")[0] for query in queries()} >= {"name", "older", "took", "is"} and PREFIX_WORDS
