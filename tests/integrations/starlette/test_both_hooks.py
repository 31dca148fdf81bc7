"""FastAPI with every hook at once: one piece of work is one task, each task knows its request, an early return is missed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hooked import ask

from harness import free_port

SERVICE = """
import asyncio, functools, sys
import looseends
looseends.install("asyncio", "starlette")
from fastapi import APIRouter, BackgroundTasks, FastAPI, HTTPException, Request
from fastapi.responses import JSONResponse, RedirectResponse
from starlette.background import BackgroundTask

app = FastAPI()

async def plain_async(n): await asyncio.sleep(0.01)
def plain_sync(n): return n
@looseends.task(name="deco.async", key="n")
async def deco_async(n): await asyncio.sleep(0.01); return n
@looseends.task(name="deco.sync")
def deco_sync(n): return n
async def outer(n): await deco_async(n)
async def nested(n): await asyncio.create_task(plain_async(n))
async def raises(n): raise ConnectionError("planted")

@app.post("/pairs/{what}")
async def pairs(what: str, tasks: BackgroundTasks):
    if what == "background-decorated": tasks.add_task(deco_async, 1); tasks.add_task(deco_sync, 2)
    if what == "background-plain": tasks.add_task(plain_async, 1); tasks.add_task(plain_sync, 2)
    if what == "background-that-creates": tasks.add_task(nested, 1)
    if what == "create-decorated": asyncio.create_task(deco_async(1))
    if what == "create-plain": asyncio.create_task(plain_async(1))
    if what == "spawn-decorated": looseends.spawn(deco_async(1))
    if what == "spawn-plain": looseends.spawn(plain_async(1))
    if what == "gather-decorated": await asyncio.gather(deco_async(1), deco_async(2))
    if what == "create-around-decorated": asyncio.create_task(outer(1))
    if what == "await-decorated": await deco_async(1)
    if what == "thread-decorated": asyncio.create_task(asyncio.to_thread(deco_sync, 1))
    if what == "wait-for-decorated": asyncio.create_task(asyncio.wait_for(deco_async(1), 5))
    if what == "group-of-decorated":
        async with asyncio.TaskGroup() as group: group.create_task(deco_async(1))
    if what == "track-around-create":
        with looseends.track("tracked"): await asyncio.create_task(plain_async(1))
    if what == "created-that-raises": asyncio.create_task(raises(1))
    return {}

@app.post("/sync-endpoint")
def sync_endpoint(tasks: BackgroundTasks):
    tasks.add_task(plain_sync, 1)
    return {}

class Server:
    pass

@looseends.expects("mail.send_receipt")
@app.post("/register")
async def register(tasks: BackgroundTasks, email: str = "", how: str = "background"):
    if email == "refused": raise HTTPException(422)
    if email == "broken": raise RuntimeError("endpoint")
    if not email: return {"error": "Email required"}
    if how == "background": tasks.add_task(send_receipt, email)
    if how == "create": asyncio.create_task(send_receipt(email))
    if how == "spawn": looseends.spawn(send_receipt(email))
    if how == "inline": await send_receipt(email)
    if how == "later": tasks.add_task(by_the_way, email)
    if how == "redirect": return RedirectResponse("/", 303)
    return {}

@looseends.task(name="mail.send_receipt", key="email")
async def send_receipt(email): await asyncio.sleep(0.01)
async def by_the_way(email): looseends.spawn(send_receipt(email))

router = APIRouter(prefix="/included")
@router.post("/register")
@looseends.expects("mail.send_receipt", "audit.write")
def included(tasks: BackgroundTasks): return {}
app.include_router(router)
inner = FastAPI()
@inner.post("/register")
@looseends.expects("mail.send_receipt")
async def mounted(): return {}
app.mount("/inner", inner)

import uvicorn
uvicorn.run(app, port=int(sys.argv[1]), log_level="info", loop=sys.argv[2])
"""


class Service:
    """The service under uvicorn."""

    def __init__(self, daemon: Any, folder: Path, loop: str = "asyncio") -> None:
        self.port, self.daemon = free_port(), daemon
        self.process = daemon.python(SERVICE, folder, str(self.port), loop)
        self.process.wait_for("Uvicorn running on")

    def post(self, path: str) -> int:
        """Ask, and wait for the answer."""
        return ask(self.port, "POST", path)

    def told(self, path: str, count: int) -> list[tuple[str, str]]:
        """(name, state) of every task of this request, once they have all ended."""
        label = f"POST {path.partition('?')[0]}"

        def ended() -> object:
            tasks = [task for task in self.daemon.tasks() if task["request"] == label]
            return len(tasks) >= count and all(task["ended_at"] for task in tasks) and tasks

        tasks = self.daemon.wait(ended, f"{count} tasks of {label}")
        return sorted((task["name"], task["state"]) for task in tasks)


PAIRS = {
    "background-decorated": ["deco.async", "deco.sync"],
    "background-plain": ["shop.plain_async", "shop.plain_sync"],
    "background-that-creates": ["shop.nested", "shop.plain_async"],
    "create-decorated": ["deco.async"],
    "create-plain": ["shop.plain_async"],
    "spawn-decorated": ["deco.async"],
    "spawn-plain": ["shop.plain_async"],
    "gather-decorated": ["deco.async", "deco.async"],
    "create-around-decorated": ["deco.async", "shop.outer"],
    "thread-decorated": ["deco.sync"],
    "wait-for-decorated": ["deco.async"],
    "group-of-decorated": ["deco.async"],
    "track-around-create": ["shop.plain_async"],
}


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_one_piece_of_work_is_one_task_whatever_hooks_see_it(daemon: Any, tmp_path: Path, loop: str) -> None:
    service = Service(daemon, tmp_path, loop)
    for what, names in PAIRS.items():
        assert service.post(f"/pairs/{what}") == 200
        found = [(name, state) for name, state in service.told(f"/pairs/{what}", len(names)) if name != "tracked"]
        assert found == [(name, "succeeded") for name in names], what
    assert service.post("/pairs/created-that-raises") == 200
    assert service.told("/pairs/created-that-raises", 1) == [("shop.raises", "failed")]
    assert service.post("/sync-endpoint") == 200
    assert service.told("/sync-endpoint", 1) == [("shop.plain_sync", "succeeded")]
    expected = sum(map(len, PAIRS.values())) + 2 + 1  # what began in `track` has no request of its own: the block has
    assert len(daemon.tasks()) == expected, [(t["name"], t["request"]) for t in daemon.tasks()]
    nested = daemon.tasks("name:shop.nested")[0]
    assert nested["children"] == {"total": 1, "ended": 1} and nested["declared"] is True
    assert {t["declared"] for t in daemon.tasks("name:deco.async")} == {True}
    assert [t["name"] for t in daemon.tasks("is:loose")] == ["shop.raises"]


MET = ["background", "create", "spawn", "inline", "later"]


def test_an_early_return_is_missed_and_nothing_else_is(daemon: Any, tmp_path: Path) -> None:
    service = Service(daemon, tmp_path)
    for how in MET:
        assert service.post(f"/register?email=ada@example.com&how={how}") == 200
    assert service.post("/register?email=refused") == 422
    assert service.post("/register?email=broken") == 500
    daemon.wait(lambda: len(daemon.tasks("state:succeeded name:mail.send_receipt")) == len(MET), "the receipts")

    assert service.post("/register") == 200, "the article's early return answers well"
    missed = daemon.wait_for("verdict:missed")[0]
    assert missed["name"] == "mail.send_receipt" and missed["key"].startswith("POST /register ")
    assert service.post("/register?email=x&how=redirect") == 303
    daemon.wait_for("verdict:missed", 2)
    assert service.post("/inner/register") == 200
    daemon.wait_for("verdict:missed", 3)
    assert service.post("/included/register") == 200
    daemon.wait_for("verdict:missed", 5)
    assert {t["name"] for t in daemon.tasks("verdict:missed")} == {"mail.send_receipt", "audit.write"}
    assert len(daemon.tasks("is:loose")) == 5


def test_under_load_a_miss_is_told_for_the_request_that_missed(daemon: Any, tmp_path: Path) -> None:
    import concurrent.futures

    service = Service(daemon, tmp_path)
    paths = [f"/register?email={n}@x&how=background" if n % 10 else "/register" for n in range(100)]
    with concurrent.futures.ThreadPoolExecutor(10) as pool:
        assert set(pool.map(service.post, paths)) == {200}
    daemon.wait_for("verdict:missed", 10)
    daemon.wait(lambda: len(daemon.tasks("state:succeeded name:mail.send_receipt")) == 90, "90 receipts")
    assert len(daemon.tasks("is:loose")) == 10, "the receipts of other requests meet nobody else's expectation"


def test_a_wrong_expectation_is_an_error_where_it_is_written() -> None:
    import looseends

    for wrong in ((), ("",), (7,), ("x" * 201,)):
        with pytest.raises(looseends.UsageError, match=r"looseends\.expects"):
            looseends.expects(*wrong)  # type: ignore[arg-type]
    with pytest.raises(looseends.UsageError, match="takes names of tasks first"):
        looseends.expects(lambda: None)  # type: ignore[arg-type]
    with pytest.raises(looseends.UsageError, match="stands on an endpoint, not on int"):
        looseends.expects("mail.send_receipt")(7)  # type: ignore[type-var]
