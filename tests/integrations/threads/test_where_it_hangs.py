"""A captured task that hangs says where, in whichever thread or process its body is."""

from __future__ import annotations

from typing import Any

import pytest

PROGRAM = """
from looseends import stacks
begun = threading.Event()
def look(task):
    place = (id(task.segment), task.at)
    lines, _ = stacks.Look().stacks([place])[place]
    print([line for line in lines if not stacks.is_library(line)][-1].rpartition("/")[2], len(lines) > 1, flush=True)
    os._exit(0)
def hangs():
    import _thread
    _thread.start_new_thread(look, (looseends.current(),))
    wait_here()
def wait_here(): time.sleep(60)
if __name__ == "__main__":
"""
WAYS = {
    "thread": "threading.Thread(target=hangs).start()",
    "timer": "threading.Timer(0.01, hangs).start()",
    "thread pool": "cf.ThreadPoolExecutor(1).submit(hangs)",
    "to_thread": "asyncio.run(asyncio.to_thread(hangs))",
    "fork": "process = mp.Process(target=hangs); process.start(); process.join()",
    "spawn": "process = mp.get_context('spawn').Process(target=hangs); process.start(); process.join()",
    "process pool": "print(type(cf.ProcessPoolExecutor(1).submit(hangs).exception()).__name__)",
}


@pytest.mark.parametrize("way", WAYS)
def test_the_line_is_found(run: Any, way: str) -> None:
    told = run(PROGRAM + f"    {WAYS[way]}\n")
    assert told.output.splitlines()[0] == "shop.py:16 wait_here True", told.output
