"""The order of sacrifice: payloads, then finished rows, then failed ones, then nothing new is taken until there is room."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from looseends_daemon.core.retention import DAY_NS, EASED, Rules
from looseends_daemon.services import janitor
from looseends_daemon.services.janitor import sizes_of
from looseends_daemon.store import retention
from looseends_daemon.store.connection import StoreFull

if TYPE_CHECKING:
    from conftest import Yard

WIDE = {"order_id": 7, "text": "x" * 3_000}


async def fill(yard: Yard, count: int, kind: str = "finished") -> list[str]:
    """Tasks with 3 KB of arguments each, all of them over."""
    events, made = [], []
    for _ in range(count):
        task = yard.new_id()
        more = {"error": {"type": "E", "message": "m"}, "handled": True} if kind == "failed" else {}
        body = {"name": "n", "service": "shop", "at": yard.now, "args": WIDE, "declared": kind != "failed"}
        events += [{"type": "started", "task": task, **body}, {"type": kind, "task": task, "at": yard.now, **more}]
        made.append(task)
        yard.now += 1_000_000
    for start in range(0, len(events), 200):
        await yard.tell(None, *events[start : start + 200])
    return made


async def limit(yard: Yard, share: float) -> int:
    """Allow this share of what is used now; the bytes."""
    used = (await sizes_of(yard.database)).used
    yard.rules = Rules(finished=7 * DAY_NS, failed=90 * DAY_NS, size_bytes_max=int(used * share))
    return int(used * share)


async def loose(yard: Yard, value: int) -> None:
    """Make every task a loose end, or none, in the ledger too."""
    await yard.rows("UPDATE task SET loose = ?", value)
    for table in ("ledger", "ledger_all", "ledger_hour"):
        await yard.rows(f"UPDATE {table} SET loose = succeeded * ?", value)


async def payloads(yard: Yard) -> list[bytes]:
    """The tasks that still have their arguments, oldest first."""
    return [bytes(row[0]) for row in await yard.rows("SELECT DISTINCT task FROM payload ORDER BY task")]


async def test_the_oldest_payloads_go_first_and_no_row_with_them(yard: Yard) -> None:
    made = await fill(yard, 900)
    bound = await limit(yard, 0.6)
    await yard.clean()
    assert (await sizes_of(yard.database)).used <= bound * EASED * 1.001
    assert all(await yard.there(*made))
    left = await payloads(yard)
    everything = [bytes(row[0]) for row in await yard.rows("SELECT id FROM task ORDER BY began_at")]
    assert 0 < len(left) < 900 and left == everything[-len(left) :], "the newest keep theirs"
    assert yard.database.full is None and yard.janitor.removed == 0 and yard.janitor.given_up == 900 - len(left)


async def test_when_no_payload_is_left_finished_rows_go_and_failed_ones_stay(yard: Yard, monkeypatch: pytest.MonkeyPatch) -> None:
    failed = await fill(yard, 20, "failed")
    made = await fill(yard, 6_000)
    await yard.rows("DELETE FROM payload")
    await limit(yard, 0.75)
    await yard.clean()
    gone = yard.janitor.removed
    assert 0 < gone < 6_000
    assert all(await yard.there(*failed)), "failed ones are the last to go"
    assert not any(await yard.there(*made[: gone // 2])) and all(await yard.there(*made[-100:]))
    assert yard.database.full is None


async def test_failed_rows_go_before_anything_new_is_refused(yard: Yard, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retention, "STEP_TASKS_MAX", 20)
    await fill(yard, 300, "failed")
    await limit(yard, 0.8)
    await yard.clean()
    assert 0 < yard.janitor.removed < 300
    assert yard.database.full is None


async def test_when_nothing_may_go_new_facts_are_refused_and_everything_else_goes_on(yard: Yard) -> None:
    kept = [await yard.started(deadline="never", args=WIDE) for _ in range(100)]
    await limit(yard, 0.9)
    await yard.clean()
    assert yard.database.full is not None and "max_size" in yard.database.full
    with pytest.raises(StoreFull, match="nothing that may be removed is left"):
        await yard.done()
    await yard.detect()
    assert all(await yard.there(*kept))


async def test_it_heals_by_itself_when_there_is_room_again(yard: Yard) -> None:
    await fill(yard, 100)
    await loose(yard, 1)
    await limit(yard, 0.9)
    await yard.clean()
    assert yard.database.full is not None
    await loose(yard, 0)
    yard.now += janitor.RETRY_NS
    await yard.clean()
    assert yard.database.full is None
    await yard.done()


async def test_space_that_was_given_up_is_used_again_before_the_file_grows(yard: Yard) -> None:
    await fill(yard, 600)
    await limit(yard, 0.5)
    await yard.clean()
    file = (await sizes_of(yard.database)).file
    yard.rules = Rules(finished=7 * DAY_NS, failed=90 * DAY_NS, size_bytes_max=10 << 30)
    await fill(yard, 100)
    await yard.database.write(lambda conn: None)
    pages = (await yard.rows("PRAGMA page_count"))[0][0] * 4096
    assert pages <= file


async def test_the_file_shrinks_once_much_of_it_is_free(yard: Yard, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(janitor, "FREE_BYTES_MIN", 1 << 18)
    await fill(yard, 600)
    before = (await yard.rows("PRAGMA page_count"))[0][0]
    yard.later(8)
    await yard.clean()
    after = (await yard.rows("PRAGMA page_count"))[0][0]
    free = (await yard.rows("PRAGMA freelist_count"))[0][0]
    assert after < before / 2
    assert free * 4096 < max(1 << 18, after * 4096 * janitor.FREE_SHARE) + 4096 * janitor.SHRINK_PAGES_MAX


async def test_the_figures_say_how_it_stands(yard: Yard) -> None:
    await fill(yard, 10)
    figures = await yard.janitor.figures(yard.now)
    assert figures.sizes.used > 0 and figures.commits > 0 and figures.full is None
    assert figures.forecast.limit == yard.rules.size_bytes_max
