"""A purge removes what is named and over, and nothing else; counted first, audited, in bounded calls."""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest

from looseends_daemon import config
from looseends_daemon.app import running
from looseends_daemon.core.query import QueryError
from looseends_daemon.core.retention import DAY_NS, Rules
from looseends_daemon.store import purge
from looseends_daemon.store.purge import Wish

if TYPE_CHECKING:
    from conftest import Yard

LOOSEENDS = Path(sys.executable).with_name("looseends")


async def go(yard: Yard, q: str = "", **more: Any) -> Any:
    """Purge as ada."""
    wish = Wish(q=q, **{"to": yard.now + 1, **more})
    return await purge.purge(yard.database, wish, "ada", lambda: yard.now)


async def test_only_what_is_named_and_over_goes(yard: Yard) -> None:
    mail = await yard.done()
    other = await yard.done(name="report")
    open_ = await yard.started(deadline="never")
    failed = await yard.done("failed")
    await yard.detect()
    counted = await purge.count(yard.database, Wish(q="name:mail.*", to=yard.now + 1), yard.now)
    assert (counted.tasks, counted.removable, counted.open, counted.loose) == (3, 1, 1, 1)
    done = await go(yard, "name:mail.*")
    assert (done.removed, done.more) == (1, False)
    assert await yard.there(mail, other, open_, failed) == [False, True, True, True]
    await yard.audit()


async def test_a_window_holds_on_both_ends(yard: Yard) -> None:
    tasks = []
    for _ in range(4):
        tasks.append(await yard.done())
        yard.later(1)
    begins = [row[0] for row in await yard.rows("SELECT began_at FROM task ORDER BY began_at")]
    await go(yard, from_=begins[1], to=begins[3])
    assert await yard.there(*tasks) == [True, False, False, True]


async def test_two_audit_rows_say_who_removed_what_and_how_much(yard: Yard) -> None:
    await yard.done()
    await go(yard, "service:shop")
    rows = [tuple(row) for row in await yard.rows("SELECT actor, act, subject, detail FROM audit ORDER BY n")]
    assert [(actor, act, detail) for actor, act, _, detail in rows] == [
        ("ada", "purge", "begun"),
        ("ada", "purge", "removed 1 tasks"),
    ]
    assert all("service:shop" in subject for _, _, subject, _ in rows)


async def test_a_call_is_bounded_and_says_that_there_is_more(yard: Yard, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(purge, "STEP_TASKS_MAX", 5)
    for _ in range(12):
        await yard.done()
    wish = Wish(to=yard.now + 1)
    results: list[purge.Purged] = []
    while not results or results[-1].more:
        results.append(await purge.purge(yard.database, wish, "ada", lambda: yard.now, tasks_max=5))
        await yard.audit()
    assert [done.removed for done in results] == [5, 5, 2]


async def test_counting_in_slices_gives_the_same(yard: Yard, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(30):
        await yard.done("failed" if number % 3 else "finished", declared=False)
        yard.now += 1_000 * (number % 4)
    await yard.detect()
    wish = Wish(to=yard.now + 1)
    whole = await purge.count(yard.database, wish, yard.now)
    monkeypatch.setattr(purge, "COUNT_TASKS_MAX", 4)
    assert await purge.count(yard.database, wish, yard.now) == whole
    assert whole.tasks == 30


async def test_a_query_that_reaches_only_the_newest_is_refused(yard: Yard) -> None:
    with pytest.raises(QueryError, match="cannot search text"):
        await go(yard, "smtp")


@pytest.fixture
async def daemon(tmp_path: Path, state_dir: Path) -> Any:
    """A real daemon and a session as its operator."""
    path = str(tmp_path / "served.db")
    settings = config.with_flags(
        config.load(None, {"HOME": str(tmp_path)}), listen=("127.0.0.1:0", f"unix:{state_dir}/s"), path=path
    )
    async with running(settings) as served:
        assert served.listener is not None
        token = await asyncio.to_thread(lambda: Path(f"{path}.token").read_text().strip())
        async with aiohttp.ClientSession(served.listener.addresses[0], headers={"Authorization": f"Bearer {token}"}) as session:
            yield served, session


async def post(session: aiohttp.ClientSession, body: Any, key: str) -> tuple[int, Any]:
    """POST /api/v1/purge."""
    async with session.post("/api/v1/purge", json=body, headers={"Idempotency-Key": key}) as answer:
        return answer.status, await answer.json(content_type=None)


async def tell(session: aiohttp.ClientSession, *events: dict[str, Any]) -> tuple[int, str, str]:
    """POST events as plain loopback does; status, detail, Retry-After."""
    async with (
        aiohttp.ClientSession(session._base_url) as plain,
        plain.post("/api/v1/events", json={"events": list(events)}) as answer,
    ):
        return answer.status, (await answer.json(content_type=None)).get("detail", ""), answer.headers.get("Retry-After", "")


TAKEN = (200, "", "")
SHELL = {"task": "b-1", "service": "cron", "name": "backup"}


async def test_over_http_it_counts_first_and_acts_once_for_each_key(daemon: Any) -> None:
    _, session = daemon
    assert await tell(session, {"type": "started", **SHELL}, {"type": "finished", **SHELL}) == TAKEN
    assert await post(session, {"q": "service:cron"}, "key-count-1") == (
        200, {"tasks": 1, "removable": 1, "open": 0, "loose": 0, "removed": 0, "more": True},
    )  # fmt: skip
    for _ in range(2):
        assert await post(session, {"q": "service:cron", "confirm": True}, "key-go-go") == (200, {"removed": 1, "more": False})


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({}, ""),
        ({"q": "  "}, ""),
        ({"q": 7}, "/q"),
        ({"q": "servce:cron"}, "/q"),
        ({"query": "x"}, "/query"),
        ({"to": "yesterday"}, "/to"),
        ({"q": "a:b", "confirm": "yes"}, "/confirm"),
        ([], ""),
    ],
)
async def test_a_mistake_is_named_and_nothing_is_removed(daemon: Any, body: Any, pointer: str) -> None:
    _, session = daemon
    status, answer = await post(session, body, "key-wrong-1")
    assert status == 422 and answer["errors"][0]["pointer"] == pointer, answer


async def test_a_full_storage_answers_503_with_the_reason_and_readyz_says_so(daemon: Any) -> None:
    served, session = daemon
    allowed, served.retention = served.retention, Rules(finished=DAY_NS, failed=DAY_NS, size_bytes_max=1)
    while await served.janitor.run_once(time.time_ns()) is not None:
        pass
    status, detail, wait = await tell(session, {"type": "started", **SHELL})
    assert (status, wait) == (503, "5") and "the storage is full" in detail
    async with session.get("/readyz") as answer:
        assert answer.status == 503 and "the storage is full" in await answer.text()
    async with session.get("/api/v1/tasks") as answer:
        assert answer.status == 200, "reading goes on"
    served.retention = allowed
    await served.janitor.run_once(time.time_ns())
    assert await tell(session, {"type": "started", **SHELL}) == TAKEN


async def test_the_figures_are_there_for_everybody_who_may_look(daemon: Any) -> None:
    _, session = daemon
    async with session.get("/api/v1/storage") as answer:
        figures = await answer.json()
    assert figures["sizes"]["used"] > 0 and figures["checkpoints"]["failed"] == 0 and figures["full"] is None


def run(*args: str | Path, home: Path) -> subprocess.CompletedProcess[str]:
    """The command line."""
    env = {"PATH": "/usr/bin:/bin", "HOME": str(home), "XDG_STATE_HOME": str(home)}
    return subprocess.run([LOOSEENDS, *args], capture_output=True, text=True, timeout=30, env=env)


async def test_the_command_works_on_a_stopped_file_and_removes_nothing_without_yes(yard: Yard, tmp_path: Path) -> None:
    for _ in range(3):
        await yard.done()
    await yard.started(deadline="never")
    path = yard.database.path
    await yard.database.close()
    looked = run("purge", "service:shop", "--before", "2030-01-01T00:00:00Z", "--db", path, home=tmp_path)
    assert looked.returncode == 0 and "3 of 4 tasks would be removed; 1 open and 0 loose ends stay" in looked.stdout, looked
    assert (
        json.loads(
            run("purge", "service:shop", "--before", "2030-01-01T00:00:00Z", "--db", path, "--json", home=tmp_path).stdout
        )["removed"]
        == 0
    )
    done = json.loads(
        run("purge", "service:shop", "--before", "2030-01-01T00:00:00Z", "--db", path, "--yes", "--json", home=tmp_path).stdout
    )
    assert done == {"tasks": 4, "removable": 3, "open": 1, "loose": 0, "removed": 3}
    for args, words in (
        (("purge", "--db", path), "say what shall go"),
        (("purge", "smtp", "--db", path), "cannot search text"),
        (("purge", "--before", "soon", "--db", path), "'soon' cannot be read"),
        (("purge", "a", "--db", str(tmp_path / "nowhere.db")), "cannot be read"),
    ):
        wrong = run(*args, home=tmp_path)
        assert wrong.returncode in (1, 2) and words in wrong.stderr and wrong.stderr.count("\n") == 1, wrong


async def test_on_a_running_daemon_the_command_goes_through_its_api(processes: Any, state_dir: Path, port: int) -> None:
    served = processes.start(LOOSEENDS, "serve", "--listen", f"127.0.0.1:{port}")
    served.wait_for(re.escape(f"http://127.0.0.1:{port}"))
    file = state_dir / "c.toml"
    file.write_text(f'[server]\nlisten = ["127.0.0.1:{port}"]\n')
    async with aiohttp.ClientSession(f"http://127.0.0.1:{port}") as session:
        assert await tell(session, {"type": "started", **SHELL}, {"type": "finished", **SHELL}) == TAKEN
    done = run("purge", "service:cron", "--yes", "--json", "-c", file, home=state_dir)
    assert json.loads(done.stdout or "{}").get("removed") == 1, done
    backed = run("backup", "--json", "-c", file, str(state_dir / "b.db"), home=state_dir)
    assert json.loads(backed.stdout)["tasks"] == 0, backed
    refused = run("restore", "-c", file, str(state_dir / "b.db"), home=state_dir)
    assert refused.returncode == 1 and "already served" in refused.stderr
    assert served.stop() == 0
    restored = run("restore", "--json", "-c", file, str(state_dir / "b.db"), home=state_dir)
    assert Path(json.loads(restored.stdout)["aside"]).exists(), restored  # noqa: ASYNC240
