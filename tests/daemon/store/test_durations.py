"""How long tasks took: bins that move with the tasks, read back by type, and the deadlines that follow from them."""

from __future__ import annotations

import random
import tomllib
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from looseends.wire import NS, check_batch, uuid8
from looseends_daemon.core.durations import BINS, BOUNDS_S, TASKS_MIN, bin_of, bound_of, quantile, slower, suggestions
from looseends_daemon.core.policy import Policy, TaskRule
from looseends_daemon.core.resources import Actor
from looseends_daemon.core.task_types import span, toml_line
from looseends_daemon.store import durations, facts
from looseends_daemon.store.connection import Database
from looseends_daemon.store.task_types import StoreTypes

START = 1_795_000_000 * NS
CALLER = Actor(name="loopback", role="ingest", channel="loopback")
INSTANCE = {"id": "i-1", "service": "shop", "environment": "production", "host": "h", "pid": 1}


async def tell(database: Database, *events: dict[str, Any], at: int = START + 7200 * NS) -> None:
    batch = check_batch({"instance": INSTANCE, "events": list(events)}, at)
    assert not batch.rejected
    await database.write(lambda conn: facts.apply_batch(conn, batch, actor=CALLER, now=at, policy=Policy()))


def event(kind: str, number: int, at: float, name: str = "mail.send", **more: Any) -> dict[str, Any]:
    return {"type": kind, "task": uuid8(number.to_bytes(16, "big")), "name": name, "at": START + round(at * NS), **more}


async def test_the_bins_are_a_count_of_the_tasks_whatever_order_their_facts_come_in(tmp_path: Path) -> None:
    database = await Database.open(str(tmp_path / "d.db"))
    chance = random.Random(7)
    told = []
    for number in range(120):
        begin = chance.uniform(0, 6000)
        end = begin + chance.choice((0.001, 0.2, 3, 40, 700))
        told.append(event("started", number, begin))
        told.append(event(chance.choice(("finished", "finished", "failed", "cancelled")), number, end))
        told.append(event("scheduled", number, begin - chance.uniform(0, 3000)))  # moves the hour of begin
    chance.shuffle(told)
    for n in range(0, len(told), 30):
        await tell(database, *told[n : n + 30])
        assert await database.write(durations.recount) == []
    counted = await database.write(lambda conn: conn.execute("SELECT sum(n) FROM duration").fetchone()[0])
    ended = await database.write(lambda conn: conn.execute("SELECT count(*) FROM task WHERE state = 3").fetchone()[0])
    assert counted == ended > 40
    by_day = await database.write(lambda conn: conn.execute("SELECT sum(n) FROM duration_day").fetchone()[0])
    assert by_day == counted
    await database.close()


async def test_a_wrong_bin_would_be_found(tmp_path: Path) -> None:
    database = await Database.open(str(tmp_path / "d.db"))
    await tell(database, event("started", 1, 0), event("finished", 1, 2))
    await database.write(lambda conn: conn.execute("UPDATE duration SET bin = bin + 1"))
    assert len(await database.write(durations.recount)) == 2
    await database.write(lambda conn: conn.execute("UPDATE duration SET bin = bin - 1"))
    assert await database.write(durations.recount) == []
    await database.write(lambda conn: conn.execute("UPDATE duration_day SET n = n + 1"))
    assert len(await database.write(durations.recount)) == 1
    await database.close()


async def test_a_success_that_turns_out_to_be_a_failure_leaves_its_bin(tmp_path: Path) -> None:
    database = await Database.open(str(tmp_path / "d.db"))
    await tell(database, event("started", 1, 0), event("finished", 1, 2))
    await tell(database, event("failed", 1, 3))
    assert await database.write(lambda conn: conn.execute("SELECT count(*) FROM duration").fetchone()[0]) == 0
    await database.close()


async def test_types_are_read_with_their_counts_durations_and_deadlines(tmp_path: Path) -> None:
    database = await Database.open(str(tmp_path / "d.db"))
    for n in range(40):
        await tell(database, event("started", n, n), event("finished", n, n + 1.1))
    await tell(database, event("started", 99, 50, name="odd/name [x]"), event("failed", 99, 51, error={"type": "E"}))
    types = StoreTypes(database, lambda: Policy(rules=(TaskRule(match="shop/mail.*", deadline=12.0),)))
    window = (START - 3600 * NS, START + 3600 * NS)
    page = await types.types(*window)
    assert [row.name for row in page.items] == ["odd/name [x]", "mail.send"]
    mail = page.items[1]
    assert (mail.tasks, mail.succeeded, mail.measured, mail.typical, mail.deadline) == (40, 40, 40, 1.2, 12.0)
    assert mail.rule == "shop/mail.*"
    assert sum(part.tasks for part in mail.slices) == 40
    story = await types.type_of("shop", "mail.send", *window)
    assert story is not None
    assert [(bin_.upto, bin_.count) for bin_ in story.durations] == [(1.2, 40)]
    assert [one.caught for one in story.suggestions] == [0] * len(story.suggestions)
    assert story.toml is not None and tomllib.loads(story.toml)["task"][0]["match"] == "shop/mail.send"
    assert await types.type_of("shop", "nobody", *window) is None
    empty = await types.type_of("shop", "mail.send", START - 9000 * NS, START - 8000 * NS)
    assert empty is not None and empty.type.tasks == 0
    await database.close()


async def test_a_list_of_types_goes_on_where_it_ended(tmp_path: Path) -> None:
    database = await Database.open(str(tmp_path / "d.db"))
    for n in range(7):
        await tell(database, event("started", n, n, name=f"t{n}"))
    types = StoreTypes(database, Policy)
    seen: list[str] = []
    cursor = None
    while True:
        page = await types.types(START, START + 3600 * NS, limit=3, cursor=cursor)
        seen += [row.name for row in page.items]
        cursor = page.next_cursor
        if cursor is None:
            break
    assert sorted(seen) == [f"t{n}" for n in range(7)]
    with pytest.raises(ValueError, match="next_cursor"):
        await types.types(START, START + 3600 * NS, cursor="?")
    await database.close()


def test_neighbouring_bounds_differ_by_a_third_at_most_and_are_deadlines_one_can_write() -> None:
    assert list(BOUNDS_S) == sorted(set(BOUNDS_S))
    for low, high in zip(BOUNDS_S, BOUNDS_S[1:], strict=False):
        assert high / low <= 1.41
    assert all(len(span(bound)) <= 6 for bound in BOUNDS_S)
    assert bin_of(-5) == 0
    assert bound_of(BINS - 1) is None
    assert all(bin_of(round(bound * NS)) == n for n, bound in enumerate(BOUNDS_S))


def test_what_a_suggested_deadline_would_have_caught_is_the_count_of_the_slower_ones() -> None:
    chance = random.Random(3)
    seconds = [chance.lognormvariate(0, 1.5) for _ in range(5_000)]
    bins = Counter(bin_of(round(one * NS)) for one in seconds)
    found = suggestions(bins)
    assert sum(one.best for one in found) == 1
    for one in found:
        assert one.caught == sum(second > one.deadline for second in seconds)
        assert one.caught == slower(bins, one.deadline)
    assert found[0].caught >= found[-1].caught == 0
    typical = quantile(bins, 0.5)
    assert typical is not None and typical / 1.41 <= sorted(seconds)[2_500] <= typical


def test_too_few_tasks_suggest_nothing() -> None:
    assert suggestions({5: TASKS_MIN - 1}) == []
    assert suggestions({}) == []


def test_the_toml_line_matches_the_type_and_no_other() -> None:
    for name in ("mail.send", "odd*name", 'say "hi"\\', "a[b]?", "x\ny"):
        read = tomllib.loads(toml_line("shop", name, 90.0))["task"][0]
        assert read["deadline"] == "90s"
        policy = Policy(rules=(TaskRule(match=read["match"], deadline=90.0),))
        assert policy.rule("shop", name) is not None
        assert policy.rule("shop", name + "z") is None
