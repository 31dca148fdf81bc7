"""Every hook at once, and every way of handing work over inside every other: one piece of work is one task, under its parent."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from stage import VERSIONS, Stage
from told import NOBODY, Run

from harness import Processes, wait_until

PROGRAM = """
import asyncio, concurrent.futures as cf, multiprocessing as mp, sys, threading
import looseends
looseends.install("asyncio", "starlette", "threading", "futures", "multiprocessing")
from starlette.background import BackgroundTask, BackgroundTasks

if "planted" in sys.argv:  # nothing is handed inward any more
    from looseends.context import Task
    Task.awaits = property(lambda task: None, lambda task, spec: None)

FORK = mp.get_context("fork")

@looseends.task(name="inner", key="n")
def inner(n): return n
@looseends.task(name="inner", key="n")
async def inner_async(n): return n
def outer(n): run(INNER[n], inner, n)
async def outer_async(n): await arun(INNER[n], inner, inner_async, n) if INNER[n] in LOOPED else run(INNER[n], inner, n)
if "decorated" in sys.argv:
    outer, outer_async = looseends.task(name="shop.outer")(outer), looseends.task(name="shop.outer")(outer_async)

def join(thing): thing.start(); thing.join()
def pool(made, f, n):
    with made: made.submit(f, n).result()
SYNC = {
    "thread": lambda f, n: join(threading.Thread(target=f, args=(n,))),
    "timer": lambda f, n: join(threading.Timer(0.001, f, (n,))),
    "thread pool": lambda f, n: pool(cf.ThreadPoolExecutor(1), f, n),
    "process pool": lambda f, n: pool(cf.ProcessPoolExecutor(1, mp_context=FORK), f, n),
    "process": lambda f, n: join(FORK.Process(target=f, args=(n,))),
}
async def background(f, n):
    tasks = BackgroundTasks()
    tasks.add_task(f, n)
    await tasks()
LOOPED = {
    "create_task": lambda f, af, n: asyncio.create_task(af(n)),
    "spawn": lambda f, af, n: looseends.spawn(af(n)),
    "gather": lambda f, af, n: asyncio.gather(af(n)),
    "to_thread": lambda f, af, n: asyncio.to_thread(f, n),
    "task of a thread": lambda f, af, n: asyncio.create_task(asyncio.to_thread(f, n)),
    "executor": lambda f, af, n: asyncio.get_running_loop().run_in_executor(None, f, n),
    "background": lambda f, af, n: background(f, n),
    "async background": lambda f, af, n: background(af, n),
}
async def arun(way, f, af, n): await LOOPED[way](f, af, n)
def run(way, f, n):
    if way in SYNC: SYNC[way](f, n)
    else: asyncio.run(arun(way, f, outer_async if f is outer else inner_async, n))

WAYS = [*SYNC, *LOOPED]
PAIRS = [(first, second) for first in WAYS for second in WAYS]
INNER = [second for _, second in PAIRS]
if __name__ == "__main__":
    for n, (first, second) in enumerate(PAIRS):
        run(first, outer, n)
        print(n, first, "/", second, flush=True)
"""


def play(processes: Processes, folder: Path, word: str) -> Run:
    """Run all pairs, one after the other."""
    (folder / "shop.py").write_text(PROGRAM)
    settings = {"LOOSEENDS_SPOOL_DIR": str(folder / "spool"), "LOOSEENDS_URL": NOBODY}
    return Run(processes.start(sys.executable, "shop.py", word, env=settings, cwd=folder), folder / "spool")


@pytest.mark.parametrize("outer", ["plain", "decorated"])
def test_every_way_inside_every_other_is_one_task_each(processes: Processes, tmp_path: Path, outer: str) -> None:
    told = play(processes, tmp_path, outer)
    pairs, wrong = pairs_of(told)
    assert told.code == 0 and len(pairs) == 13 * 13, told.output[-3000:]
    assert not wrong, f"{len(wrong)} of {len(pairs)}: {list(wrong.items())[:10]}"
    assert len(told.tasks) == 2 * len(pairs), {task.name for task in told.tasks}


def test_a_hook_that_does_not_hand_its_task_inward_is_found(processes: Processes, tmp_path: Path) -> None:
    _, wrong = pairs_of(play(processes, tmp_path, "planted"))
    assert len(wrong) > 100


def pairs_of(told: Run) -> tuple[list[str], dict[str, Any]]:
    """The pairs that were played, and those that are not one task each, with what was told instead."""
    pairs = [line.partition(" ")[2] for line in told.output.splitlines() if " / " in line]
    outer, inner = by_number(told, "outer"), by_number(told, "inner")
    found = {pair: (outer.get(n, []), inner.get(n, [])) for n, pair in enumerate(pairs)}
    return pairs, {pair: both for pair, both in found.items() if faults(*both)}


def by_number(told: Run, name: str) -> dict[int, list[Any]]:
    """Tasks of this name by the number of their pair."""
    found: dict[int, list[Any]] = {}
    for task in told.tasks:
        if task.name in (name, f"shop.{name}", f"shop.{name}_async"):
            found.setdefault(next(e["args"]["n"] for e in task.events if "args" in e), []).append(task)
    return found


def faults(outer: list[Any], inner: list[Any]) -> bool:
    """Whether this is anything but one task each, both done, the one the parent of the other."""
    if len(outer) != 1 or len(inner) != 1 or inner[0].parent != outer[0].id:
        return True
    return not all(
        {"started", "finished"} <= set(task.kinds) <= {"scheduled", "started", "finished"} for task in (*outer, *inner)
    )


@pytest.mark.parametrize("system", sorted(VERSIONS))
def test_a_queue_beside_every_other_hook_is_one_task_each(stages: Callable[..., Stage], system: str) -> None:
    also = "asyncio threading futures multiprocessing"
    stage = stages(system, ALSO=also)
    stage.start_worker(ALSO=also)
    jobs = [stage.send(name, 1) for name in ("ok", "both", "outer")]
    for job in jobs:
        stage.wait(job, state="succeeded")
    wait_until(lambda: len(stage.tasks("state:succeeded")) == 4, "the child of the last one to end")
    assert [(one["name"].rpartition(".")[2], one["source"]) for one in stage.tasks()].count(("both", system)) == 1
    names = sorted(one["name"].rpartition(".")[2] for one in stage.tasks())
    assert names == ["both", "ok", "ok", "outer"], "nothing that the library does for itself, and nothing twice"
    assert all(one["declared"] and one["source"] == system for one in stage.tasks())
