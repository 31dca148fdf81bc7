"""From a real loop to the daemon's row, with the right verdict, on the same host with a shared spool."""

from __future__ import annotations

import signal
import time
from pathlib import Path
from typing import Any

import pytest
from hooked import Daemon

from harness import Processes

HEAD = "import asyncio, os, signal, sys\nimport looseends\nlooseends.install('asyncio')\n"
# What a process begins in its first ten seconds may be a loop. A test says that it is older instead of waiting for it.
OLDER = HEAD + "from looseends.lifecycle import PROCESS\nPROCESS.born -= 11_000_000_000\n"
SERVICE = (
    OLDER
    + """
async def well(n): await asyncio.sleep(0.01)
async def raises(): raise ConnectionError("planted")
async def hangs(): await asyncio.sleep(3600)
async def cancelled(): await asyncio.sleep(3600)
async def forgotten(order_id): pass
async def retried(attempt):
    if attempt < 3: raise TimeoutError("planted")

async def main():
    asyncio.create_task(well(1))
    for attempt in (1, 2, 3):
        try: await asyncio.create_task(retried(attempt))
        except TimeoutError: pass
    asyncio.create_task(raises())
    task = asyncio.create_task(cancelled())
    await asyncio.sleep(0.05)
    task.cancel()
    forgotten(7)
    asyncio.create_task(hangs())
    await asyncio.sleep(0.1)
    print("running", flush=True)
    await asyncio.sleep(3600)
asyncio.run(main())
"""
)


@pytest.mark.cells("finished", "failed", "cancelled", "lost", system="asyncio")
def test_success_failure_retry_and_kill_get_their_rows(daemon: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    service = daemon.python(SERVICE, tmp_path)
    service.wait_for("running")
    daemon.wait_for("state:running name:shop.hangs")
    killed = time.monotonic()
    service.kill()
    lost = daemon.wait_for("verdict:lost")[0]
    took = time.monotonic() - killed
    with capsys.disabled():
        print(f"\n  SIGKILL to verdict of a captured task: {took:.2f} s (bar 1 s on a quiet machine)")
    rows = {(t["name"], t["state"], t["verdict"], t["loose"]) for t in daemon.tasks()}
    assert rows == {
        ("shop.well", "succeeded", None, False),
        ("shop.retried", "failed", None, False),  # somebody caught it: counted, and nobody is called
        ("shop.retried", "succeeded", None, False),
        ("shop.raises", "failed", None, True),
        ("shop.cancelled", "cancelled", None, False),
        ("shop.forgotten", "scheduled", "never_started", True),
        ("shop.hangs", "running", "lost", True),
    }
    assert lost["name"] == "shop.hangs" and lost["declared"] is False and lost["source"] == "asyncio"
    forgotten = daemon.tasks("name:shop.forgotten")[0]
    assert forgotten["args"] == {"order_id": 7} and forgotten["tags"]["never_awaited"].endswith("shop.py:24")
    assert len(daemon.tasks("name:shop.retried")) == 3, "asyncio knows no retries: each try is a task of its own"
    ledger = daemon.ledger()
    assert (ledger["tasks"], ledger["loose"], ledger["gap"]) == (8, 3, 2)


LOOPER = (
    HEAD
    + """
async def poll_partner():
    while True: await asyncio.sleep(0.05)
async def keep_cache():
    while True: await asyncio.sleep(3600)
async def main():
    polling = asyncio.create_task(poll_partner())
    asyncio.create_task(keep_cache())
    await asyncio.sleep(0.1)
    print("up", flush=True)
    stopped = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopped.set)
    await stopped.wait()
    polling.cancel()                      # the careful one; the other is left to the end of the loop
asyncio.run(main())
"""
)


def test_a_loop_over_ten_deploys_is_no_loss(daemon: Any, tmp_path: Path) -> None:
    ends = [signal.SIGTERM] * 8 + [signal.SIGKILL] * 2
    for number in ends:
        service = daemon.python(LOOPER, tmp_path)
        service.wait_for("up")
        daemon.wait(lambda: len(daemon.tasks("state:running")) == 2, "both loops to be known")
        service.signal(number)
        service.wait()
        daemon.wait(lambda: not daemon.tasks("is:open"), "its end to be judged")
    assert daemon.tasks("is:gap") == daemon.tasks("is:loose") == daemon.notices() == []
    assert daemon.ledger()["cancelled"] == 2 * len(ends)


FAN_OUT = (
    HEAD
    + """
async def agent(number):
    if number == 4: await asyncio.sleep(3600)
async def after_thought(): await asyncio.sleep(0.3)
async def replenish_all():
    await asyncio.gather(*[agent(n) for n in range(9)])
async def short_lived(): asyncio.create_task(after_thought())
async def main():
    asyncio.create_task(replenish_all())
    await asyncio.create_task(short_lived())
    await asyncio.sleep(0.5)
    print("up", flush=True)
    await asyncio.sleep(3600)
asyncio.run(main())
"""
)


def test_eight_of_nine_children_ended_and_an_orphan_is_found(daemon: Any, tmp_path: Path) -> None:
    daemon.python(FAN_OUT, tmp_path).wait_for("up")
    daemon.wait_for("state:succeeded name:shop.after_thought")
    parent = daemon.wait(
        lambda: next((t for t in daemon.tasks("name:shop.replenish_all") if t["children"]["ended"] == 8), None), "8 ended"
    )
    assert parent["children"] == {"total": 9, "ended": 8} and parent["state"] == "running"
    status, page = daemon.get(f"/tasks/{parent['id']}")
    assert status == 200 and "8 of 9 ended" in page
    child = daemon.tasks("name:shop.agent state:running")[0]
    assert child["parent"] == parent["id"] and child["args"] == {"number": 4}
    status, page = daemon.get(f"/tasks/{child['id']}")
    assert f"/tasks/{parent['id']}" in page
    assert [task["name"] for task in daemon.tasks("is:orphan")] == ["shop.after_thought"], "its parent ended before it"
    assert len(daemon.tasks("-is:orphan")) == 11
    status, page = daemon.get("/tasks?q=is:orphan")
    assert status == 200 and "after_thought" in page and "replenish_all" not in page


def test_a_lost_parent_leaves_orphans(daemon: Any, tmp_path: Path) -> None:
    service = daemon.python(FAN_OUT.replace(HEAD, OLDER), tmp_path)
    service.wait_for("up")
    daemon.wait_for("state:running name:shop.agent")
    service.kill()
    daemon.wait(lambda: len(daemon.tasks("verdict:lost")) == 2, "parent and child lost")
    assert {t["name"] for t in daemon.tasks("is:orphan")} == {"shop.agent", "shop.after_thought"}


def test_where_a_captured_task_hangs_is_named(processes: Processes, state_dir: Path, tmp_path: Path) -> None:
    daemon = Daemon(processes, state_dir, '[[task]]\nmatch = "shop/*"\ndeadline = "3s"')
    source = (
        HEAD
        + """
async def ask_partner(): await asyncio.get_running_loop().create_future()
async def send_receipt(order_id):
    await asyncio.sleep(0)
    await ask_partner()
looseends.register(send_receipt)          # with functions to offer it is asked each second
async def main():
    asyncio.create_task(send_receipt(7))
    await asyncio.sleep(3600)
asyncio.run(main())
"""
    )
    daemon.python(source, tmp_path)
    stuck = daemon.wait_for("verdict:stuck")[0]
    assert "shop.py:5 ask_partner" in stuck["reason"], stuck["reason"]
    assert [line.split(" ")[-1] for line in stuck["progress"]["stack"]][-2:] == ["send_receipt", "ask_partner"]
