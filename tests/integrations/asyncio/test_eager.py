"""Eager tasks (Python 3.12 on): their first step is taken inside `create_task`, and they are told of like any other."""

from __future__ import annotations

import sys
from typing import Any

DONE = ["scheduled", "started", "finished"]
BEGIN = "async def begin():\n    asyncio.get_running_loop().set_task_factory(asyncio.eager_task_factory)\n"


def test_every_end_of_an_eager_task_is_told_apart(run: Any) -> None:
    told = run(
        BEGIN
        + """
async def at_once(order_id, *, to="x"): return order_id
async def later(order_id): await asyncio.sleep(0.01)
async def raises_at_once(): raise ValueError("planted")
async def raises_later(): await asyncio.sleep(0.01); raise KeyError("planted")
async def caught(): raise ValueError("caught")
async def cancelled(): await asyncio.sleep(60)
async def timed_out(): await asyncio.sleep(60)
async def left_over(): await asyncio.sleep(60)

async def main():
    await begin()
    done = asyncio.create_task(at_once(7, to="ada"))
    print("done at once:", done.done(), done.result())
    asyncio.create_task(later(8))
    asyncio.create_task(raises_at_once())
    asyncio.create_task(raises_later())
    try: await asyncio.create_task(caught())
    except ValueError: pass
    task = asyncio.create_task(cancelled())
    await asyncio.sleep(0.05)
    task.cancel()
    try: await asyncio.wait_for(asyncio.create_task(timed_out()), 0.05)
    except TimeoutError: pass
    asyncio.create_task(left_over())
    await asyncio.sleep(0.05)

asyncio.run(main())
"""
    )
    assert "done at once: True 7" in told.output
    assert told.kinds("at_once") == DONE and told.one("at_once").args == {"order_id": 7, "to": "ada"}
    assert told.kinds("later") == DONE and told.one("later").args == {"order_id": 8}
    assert told.kinds("raises_at_once") == told.kinds("raises_later") == ["scheduled", "started", "failed:False"]
    assert told.kinds("caught") == ["scheduled", "started", "failed:True"]
    assert told.kinds("cancelled") == ["scheduled", "started", "cancelled:requested"]
    assert told.kinds("timed_out") == ["scheduled", "started", "cancelled:timeout"]
    assert told.kinds("left_over") == ["scheduled", "started", "dropped:loop_shutdown"]
    assert len(told.tasks) == 8


def test_the_start_of_an_eager_task_is_on_disk_before_its_body(run: Any) -> None:
    told = run(
        BEGIN
        + """
import os, signal
async def dies(n): os.kill(os.getpid(), signal.SIGKILL)
async def main():
    await begin()
    asyncio.create_task(dies(7))
asyncio.run(main())
"""
    )
    assert told.code == -9 and told.kinds("dies") == ["scheduled", "started"] and told.one("dies").args == {"n": 7}


def test_one_piece_of_eager_work_is_one_task_with_its_parent(run: Any) -> None:
    told = run(
        BEGIN
        + """
@looseends.task(name="mail.send")
async def send(n): return n
async def child(n): return n
async def parent():
    asyncio.create_task(child(1))
    async with asyncio.TaskGroup() as group:
        group.create_task(child(2))
        group.create_task(send(3))
    await asyncio.gather(child(4), send(5))
class Own(asyncio.Task): pass

async def main():
    await begin()
    await asyncio.create_task(parent())
    looseends.spawn(send(6))
    asyncio.get_running_loop().set_task_factory(asyncio.create_eager_task_factory(Own))
    print(type(asyncio.create_task(child(7))).__name__)
    await asyncio.sleep(0.05)
asyncio.run(main())
"""
    )
    assert "Own" in told.output
    within = [task.args["n"] for task in told.tasks if task.parent == told.one("parent").id]
    assert sorted(within) == [1, 2, 3, 4, 5]
    assert sorted(task.args["n"] for task in told.tasks if task.args) == [1, 2, 3, 4, 5, 6, 7]
    assert {task.args["n"] for task in told.of("mail.send")} == {3, 5, 6}
    for task in told.tasks:
        assert [kind for kind in task.kinds if kind != "scheduled"] == ["started", "finished"], task


if sys.version_info >= (3, 14):

    def test_a_single_task_may_be_eager_or_wait_its_turn(run: Any) -> None:
        told = run("""
            async def work(n): print("began", n)
            async def main():
                first = asyncio.create_task(work(1), eager_start=True)
                print("made", first.done())
                asyncio.get_running_loop().set_task_factory(asyncio.eager_task_factory)
                second = asyncio.create_task(work(2), eager_start=False)
                print("made", second.done())
                await second
            asyncio.run(main())
        """)
        assert told.output.split("\n") == ["began 1", "made True", "made False", "began 2"]
        assert [task.kinds for task in told.of("work")] == [DONE, DONE]
