"""What a killed process leaves in its journal reaches the database, and the instance is gone no sooner than that."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import harness
from looseends import journal
from looseends.wire import NS
from looseends_daemon.core.policy import Policy
from looseends_daemon.services import adopter as module
from looseends_daemon.services.adopter import Adopter

SERVICE = Path(__file__).with_name("service.py")
INSTANCE = "01234567-89ab-8def-8123-456789abcdef"


@pytest.fixture
def spool(tmp_path: Path) -> Path:
    folder = tmp_path / "spool"
    folder.mkdir(mode=0o700)
    return folder


@pytest.fixture
def serve(processes: harness.Processes, spool: Path) -> Callable[..., harness.Process]:
    """Start a service on this spool and have it do some lines."""

    def start(*lines: str) -> harness.Process:
        env = {"LOOSEENDS_SPOOL_DIR": str(spool), "LOOSEENDS_URL": "http://127.0.0.1:9"}
        process = processes.start(sys.executable, SERVICE, env=env, stdin=True)
        process.wait_for("ready")
        for line in lines:
            process.say(line)
            process.wait_for("ok", timeout_s=60)
        return process

    return start


def killed(service: harness.Process) -> None:
    """SIGKILL, and nothing of it left open here."""
    service.kill()
    service.hang_up()


async def until_adopted(watcher: Adopter, number: int) -> int:
    """Passes until `number` journals are in; how many it took."""
    for passes in range(1, 2_000):
        due = await watcher.run_once(time.time_ns())
        if watcher.adopted >= number:
            return passes
        await asyncio.sleep(max(0, min(due - time.time_ns(), NS // 20)) / NS)
    raise AssertionError(f"{watcher.adopted} of {number} journals were adopted")


async def tasks(world: Any) -> dict[str, tuple[int, str]]:
    rows = await world.rows(
        "SELECT ty.name, t.state, i.state AS instance FROM task t"
        " JOIN type ty ON ty.id = t.type JOIN instance i ON i.no = t.instance"
    )
    return {row["name"]: (row["state"], row["instance"]) for row in rows}


async def test_a_killed_process_is_gone_and_its_tasks_are_known_that_no_daemon_ever_heard_of(
    world: Any, spool: Path, serve: Callable[..., harness.Process]
) -> None:
    service = serve("begin nightly.report", "end", "begin mail.send")
    woken: list[int] = []
    watcher = Adopter(world.database, [str(spool)], Policy(), lambda: woken.append(1))
    await watcher.run_once(time.time_ns())
    assert watcher.adopted == 0, "a process that lives is left alone"
    killed(service)
    await until_adopted(watcher, 1)
    assert await tasks(world) == {"nightly.report": (3, "gone"), "mail.send": (1, "gone")}
    (row,) = await world.rows("SELECT reason, adopted FROM instance")
    assert row["adopted"] == 1 and "without saying goodbye" in row["reason"]
    assert await world.rows("SELECT 1 FROM task WHERE state = 1 AND check_at IS NULL") == [], "the detector must look"
    assert os.listdir(spool) == [] and woken


async def test_while_its_lock_is_held_an_instance_needs_no_lease(
    world: Any, spool: Path, serve: Callable[..., harness.Process]
) -> None:
    service = serve("begin mail.send")
    (folder,) = journal.folders(str(spool))
    told = journal.read_instance(folder)
    assert told is not None
    world.now = time.time_ns()
    await world.tell(told)
    watcher = Adopter(world.database, [str(spool)], Policy(unreachable_after=1.0))
    for _ in range(5):
        await watcher.run_once(world.later(4))
    (row,) = await world.rows("SELECT state, journal FROM instance")
    assert tuple(row) == ("alive", folder)
    killed(service)
    await until_adopted(watcher, 1)
    (row,) = await world.rows("SELECT state, reason FROM instance")
    assert row["state"] == "gone" and "last heard" in row["reason"]


async def test_an_instance_out_of_sight_is_unreachable_after_its_lease_and_not_before(world: Any) -> None:
    await world.instance()
    watcher = Adopter(world.database, [], Policy(unreachable_after=10.0))
    for _ in range(6):
        await watcher.run_once(world.now)
        world.later(2)
    world.later(-2)
    assert (await world.rows("SELECT state FROM instance"))[0]["state"] == "alive"
    await watcher.run_once(world.later(1))
    (row,) = await world.rows("SELECT state, reason FROM instance")
    assert row["state"] == "unreachable" and row["reason"].startswith("not heard for 10 s: ")


async def test_a_lease_begins_anew_when_the_daemon_starts_and_after_it_was_frozen(world: Any) -> None:
    await world.instance()
    watcher = Adopter(world.database, [], Policy(unreachable_after=10.0))
    await watcher.run_once(world.later(3600))
    for _ in range(3):
        await watcher.run_once(world.later(3))
    await watcher.run_once(world.later(3600))
    assert (await world.rows("SELECT state FROM instance"))[0]["state"] == "alive"
    for _ in range(4):
        await watcher.run_once(world.later(3))
    assert (await world.rows("SELECT state FROM instance"))[0]["state"] == "unreachable"


async def test_a_clock_that_is_set_back_ends_no_lease(world: Any) -> None:
    await world.instance()
    watcher = Adopter(world.database, [], Policy(unreachable_after=10.0))
    await watcher.run_once(world.later(1))
    await watcher.run_once(world.later(-3600))
    await watcher.run_once(world.later(3600))
    assert (await world.rows("SELECT state FROM instance"))[0]["state"] == "alive"


async def test_what_said_goodbye_keeps_its_own_words(world: Any, spool: Path, serve: Callable[..., harness.Process]) -> None:
    service = serve("begin mail.send")
    (folder,) = journal.folders(str(spool))
    told = journal.read_instance(folder)
    assert told is not None
    world.now = time.time_ns()
    await world.tell(told)
    await world.gone(told)
    killed(service)
    await until_adopted(Adopter(world.database, [str(spool)], Policy()), 1)
    (row,) = await world.rows("SELECT reason, adopted FROM instance")
    assert tuple(row) == ("killed", 1)


async def test_a_journal_of_a_tokens_instance_is_taken_over_all_the_same(
    world: Any, spool: Path, serve: Callable[..., harness.Process]
) -> None:
    service = serve("begin mail.send")
    (folder,) = journal.folders(str(spool))
    told = journal.read_instance(folder)
    assert told is not None
    world.now = time.time_ns()
    by_token = world.service.__class__(name="shop", role="ingest", channel="token:in_1", service="shop", token="in_1")
    await world.tell(told, actor=by_token)
    killed(service)
    await until_adopted(Adopter(world.database, [str(spool)], Policy()), 1)
    assert await tasks(world) == {"mail.send": (1, "gone")}


async def test_a_large_journal_takes_several_passes_and_nobody_waits_for_it(
    world: Any, spool: Path, serve: Callable[..., harness.Process]
) -> None:
    killed(serve("many 12000"))
    killed(serve("begin mail.send"))
    watcher = Adopter(world.database, [str(spool)], Policy())
    aged = time.time_ns() + module.YOUNG_NS
    assert await watcher.run_once(aged) == aged, "there is more to do at once"
    assert (await tasks(world))["mail.send"] == (1, "gone") and watcher.adopted == 1
    await until_adopted(watcher, 2)
    assert (await world.rows("SELECT count(*) AS n FROM task"))[0]["n"] == 12_001


async def test_a_daemon_that_stops_in_the_middle_leaves_the_rest_to_the_next(
    world: Any, spool: Path, serve: Callable[..., harness.Process]
) -> None:
    killed(serve("many 12000"))
    first = Adopter(world.database, [str(spool)], Policy())
    while not await world.rows("SELECT 1 FROM task LIMIT 1"):
        await first.run_once(time.time_ns())
    assert first.adopted == 0
    first.close()
    assert (await world.rows("SELECT state FROM instance"))[0]["state"] == "alive", "not gone before all of it is told"
    await until_adopted(Adopter(world.database, [str(spool)], Policy()), 1)
    assert (await world.rows("SELECT count(*) AS n FROM task WHERE state = 3"))[0]["n"] == 12_000


async def test_a_folder_that_is_no_journal_is_left_where_it_is(world: Any, spool: Path, caplog: pytest.LogCaptureFixture) -> None:
    hostile = spool / INSTANCE
    hostile.mkdir()
    (hostile / "lock").symlink_to("/etc/passwd")
    (hostile / "instance.json").write_text('{"id": 1}')
    (spool / "notes").mkdir()
    (spool / INSTANCE.replace("0", "1")).symlink_to(hostile)
    watcher = Adopter(world.database, [str(spool), str(spool / "nowhere")], Policy())
    at = time.time_ns() + module.YOUNG_NS
    for n in range(5):
        await watcher.run_once(at + n * NS)
    assert watcher.adopted == 0 and (hostile / "instance.json").exists()
    assert len([record for record in caplog.records if "cannot be adopted" in record.message]) == 1, "said once a minute"


async def test_the_hollow_folder_of_a_process_killed_while_it_made_it_is_removed_after_a_minute(world: Any, spool: Path) -> None:
    hollow, kept = spool / INSTANCE, spool / INSTANCE.replace("0", "1")
    for folder, names in ((hollow, ("lock", "instance.tmp")), (kept, ("lock", "00000001.seg"))):
        folder.mkdir(mode=0o700)
        for name in names:
            (folder / name).touch(mode=0o600)
    watcher = Adopter(world.database, [str(spool)], Policy())
    await watcher.run_once(time.time_ns() + 30 * NS)
    assert hollow.exists(), "its maker may still go on"
    await watcher.run_once(time.time_ns() + 120 * NS)
    assert not hollow.exists()
    assert kept.exists(), "a segment may hold somebody's only trace"


async def test_a_folder_just_made_is_not_taken_from_under_a_starting_process(world: Any, spool: Path) -> None:
    (spool / INSTANCE).mkdir()
    watcher = Adopter(world.database, [str(spool)], Policy())
    now = os.stat(spool / INSTANCE).st_mtime_ns + module.YOUNG_NS // 2
    await watcher.run_once(now)
    assert watcher._refused == {}


async def test_a_journal_that_cannot_be_read_to_its_end_is_not_taken_for_one_that_ended(
    world: Any, spool: Path, serve: Callable[..., harness.Process], monkeypatch: pytest.MonkeyPatch
) -> None:
    killed(serve("many 1500", "begin mail.send"))
    read = journal.Orphan.batches

    def breaks(orphan: journal.Orphan) -> Iterator[list[dict[str, Any]]]:
        yield next(read(orphan))
        raise OSError("Input/output error")

    monkeypatch.setattr(journal.Orphan, "batches", breaks)
    watcher = Adopter(world.database, [str(spool)], Policy())
    at = time.time_ns() + module.YOUNG_NS
    with pytest.raises(OSError, match="Input/output"):
        await watcher.run_once(at)
    await watcher.run_once(at + NS)
    assert watcher.adopted == 0 and len(os.listdir(spool)) == 1
    assert (await world.rows("SELECT state FROM instance"))[0]["state"] == "alive"
    monkeypatch.undo()
    await watcher.run_once(at + module.REFUSED_NS)
    assert watcher.adopted == 1
    assert (await tasks(world))["mail.send"] == (1, "gone")


async def test_no_lease_ends_while_a_journal_is_being_read(
    world: Any, spool: Path, serve: Callable[..., harness.Process], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "BATCHES_MAX", 1)
    killed(serve("many 5000"))
    watcher = Adopter(world.database, [str(spool)], Policy(unreachable_after=2.0))
    at = time.time_ns() + module.YOUNG_NS
    for n in range(4):
        await watcher.run_once(at + n * 3 * NS)
        assert (await world.rows("SELECT state FROM instance"))[0]["state"] == "alive"
