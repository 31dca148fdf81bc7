"""Batches that wait side by side are folded as one; the database must say what it says when each is folded alone."""

from __future__ import annotations

import asyncio
import random
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from looseends.wire import NS, check_batch, uuid8
from looseends_daemon.core.policy import Policy
from looseends_daemon.core.resources import Actor
from looseends_daemon.store import facts
from looseends_daemon.store.cells import InstanceIds
from looseends_daemon.store.connection import Database
from looseends_daemon.store.facts import Applied, OwnershipRefused, apply_batch, apply_batches, cells_of
from looseends_daemon.store.files import open_file
from looseends_daemon.store.joining import Told, runs_of

NOW = 1_795_000_000 * NS
SOCKET = Actor(name="uid 7", role="ingest", channel="uds:7", uid=7)
LOOPBACK = Actor(name="loopback", role="ingest", channel="loopback")
TOKEN = Actor(name="t", role="ingest", channel="token:t", token="t", service="shop")
KINDS = ("scheduled", "started", "started", "finished", "finished", "failed", "cancelled", "progress", "dropped", "expected")
SEEDS = 60


def instance(number: int) -> dict[str, Any]:
    return {"id": f"i-{number}", "service": ("shop", "mail")[number % 2], "host": "h", "pid": number}


def event(chance: random.Random, number: int, bare: bool) -> dict[str, Any]:
    kind = chance.choice(KINDS[:-1] if chance.random() < 0.9 else KINDS)
    said: dict[str, Any] = {
        "type": kind,
        "task": uuid8((number + 1000 * (kind == "expected")).to_bytes(16, "big")),
        "name": f"job-{number % 3}",
        "at": NOW - chance.randrange(600) * NS,
        "attempt": chance.choice((1, 1, 1, 2)),
    }
    if kind in ("scheduled", "started"):
        said |= {"args": {"n": number}, "key": f"k-{number}", "queue": chance.choice((None, "q"))}
    if kind == "finished":
        said["result"] = {"n": number}
    if kind == "dropped":
        said["reason"] = "exit"
    return said | ({"service": "shop"} if bare else {"seq": number + 1})


def story(seed: int) -> list[Told]:
    """Batches as they may wait side by side: of some instances and of none, by several callers, about the same tasks."""
    chance = random.Random(seed)
    found = []
    for _ in range(chance.randrange(2, 14)):
        bare = chance.random() < 0.4
        who = chance.randrange(4)
        events = [event(chance, chance.randrange(12), bare) for _ in range(chance.randrange(1, 4))]
        body: Any = (
            events if bare else {"instance": instance(who), "sent_at": NOW, "backlog": chance.choice((0, 3)), "events": events}
        )
        actor = chance.choice((SOCKET, SOCKET, SOCKET, LOOPBACK, TOKEN))
        found.append(Told(check_batch(body, NOW), actor, NOW, proven=True))
    return found


def one_by_one(conn: sqlite3.Connection, told: Iterable[Told]) -> Iterator[Applied | str]:
    for one in told:
        conn.execute("SAVEPOINT one")
        try:
            yield apply_batch(conn, one.batch, actor=one.actor, now=one.now, policy=Policy(), proven=one.proven)
        except OwnershipRefused as refused:
            conn.execute("ROLLBACK TO one")
            yield str(refused)
        conn.execute("RELEASE one")


def together(conn: sqlite3.Connection, told: list[Told]) -> list[Applied | str]:
    """As the writer does it: all at once, and each alone if that was refused."""
    conn.execute("SAVEPOINT all_of_them")
    try:
        done: list[Applied | str] = list(apply_batches(conn, told, Policy()))
    except OwnershipRefused:
        conn.execute("ROLLBACK TO all_of_them")
        done = [answer for one in told for answer in _alone(conn, one)]
    conn.execute("RELEASE all_of_them")
    return done


def _alone(conn: sqlite3.Connection, one: Told) -> list[Applied | str]:
    return list(one_by_one(conn, [one]))


def said_by(conn: sqlite3.Connection) -> dict[str, Any]:
    """All that the database says, in words where its numbers depend on what came first."""
    ids = InstanceIds(conn)
    types = {row["id"]: (row["service"], row["name"]) for row in conn.execute("SELECT * FROM type")}
    tasks = {}
    for row in conn.execute("SELECT * FROM task").fetchall():
        shown = {name: row[name] for name in row.keys() if name not in ("facts", "type", "id")}  # noqa: SIM118 - a Row's keys
        tasks[row["id"]] = (shown, types[row["type"]], cells_of(conn, row, ids, full=True))
    told: dict[str, Any] = {"task": tasks}
    for table in ("ledger", "ledger_hour", "counter", "duration"):
        rows = [dict(row) for row in conn.execute(f"SELECT * FROM {table}")]
        told[table] = sorted(str({**row, "type": types.get(row["type"])}) for row in rows)
    for table in ("payload", "instance", "expectation", "child", "external", "blind_window", "seen"):
        told[table] = sorted(str(tuple(row)) for row in conn.execute(f"SELECT * FROM {table}"))
    return told


def differs(folder: Path, seed: int) -> bool:
    """Whether it makes a difference, in the answers or in the database, after a first half that is stored already."""
    told = story(seed)
    half = len(told) // 2
    found = []
    for name, way in (("alone", one_by_one), ("together", together)):
        conn, lock, _ = open_file(str(folder / f"{name}-{seed}.db"))
        conn.execute("PRAGMA synchronous = OFF")
        conn.execute("BEGIN")
        answers = [*way(conn, told[:half]), *way(conn, told[half:])]
        found.append((answers, said_by(conn)))
        conn.execute("ROLLBACK")
        conn.close()
        del lock
    return found[0] != found[1]


def test_folding_side_by_side_says_what_folding_one_by_one_says(tmp_path: Path) -> None:
    assert [seed for seed in range(SEEDS) if differs(tmp_path, seed)] == []


def test_a_fold_that_joins_whatever_it_gets_would_be_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(facts, "runs_of", lambda told: iter([list(told)]))
    assert any(differs(tmp_path, seed) for seed in range(SEEDS))


def test_small_batches_of_one_caller_are_folded_as_one() -> None:
    bare = [Told(check_batch([event(random.Random(n), 5, bare=True) | {"type": "started"}], NOW), SOCKET, NOW) for n in range(4)]
    assert [len(run) for run in runs_of(bare)] == [4]
    own = [
        Told(check_batch({"instance": instance(n), "events": [event(random.Random(n), n, bare=False)]}, NOW), SOCKET, NOW)
        for n in range(4)
    ]
    assert [len(run) for run in runs_of(own)] == [4]
    assert [len(run) for run in runs_of([*own, *own])] == [4, 4]
    assert [len(run) for run in runs_of([bare[0], bare[1]._replace(actor=LOOPBACK), bare[2]])] == [1, 1, 1]


async def test_one_that_raises_beside_others_is_undone_alone(tmp_path: Path) -> None:
    database = await Database.open(str(tmp_path / "d.db"))
    sizes = []

    def add(conn: sqlite3.Connection, names: Sequence[str]) -> list[int]:
        sizes.append(len(names))
        for name in names:
            conn.execute("INSERT INTO environment (name) VALUES (?)", (name,))
            if name == "bad":
                raise ValueError("not this one")
        return [len(name) for name in names]

    wishes = [database.write_together(add, name) for name in ("a", "bad", "ccc", *(f"e{n:03}" for n in range(60)))]
    answers = await asyncio.gather(*wishes, return_exceptions=True)
    stored = await database.write(lambda conn: [row[0] for row in conn.execute("SELECT name FROM environment ORDER BY id")])
    assert str(answers[1]) == "not this one"
    assert [answers[0], *answers[2:]] == [1, 3, *[4] * 60]
    assert stored == ["a", "ccc", *(f"e{n:03}" for n in range(60))]
    assert max(sizes) > 1, "nothing was written side by side"
    await database.close()
