"""Whether somebody retrieved an exception: true at retrieval, false when nobody can any more, and true wins."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

import pytest

from harness import Processes
from looseends import journal, slots
from looseends.wire import NS

HANDLED, NOT = "failed:True", "failed:False"
CASES = {
    "awaited": ("try: await asyncio.create_task(raises())\n    except ValueError: pass", HANDLED),
    "asked for": ("t = asyncio.create_task(raises()); await asyncio.sleep(0.01); t.exception()", HANDLED),
    "gathered": ("await asyncio.gather(raises(), return_exceptions=True)", HANDLED),
    "in a group": (
        "try:\n        async with asyncio.TaskGroup() as g: g.create_task(raises())\n    except* ValueError: pass",
        HANDLED,
    ),
    "by a callback": (
        "t = asyncio.create_task(raises()); t.add_done_callback(lambda t: t.exception()); await asyncio.sleep(0.01)",
        HANDLED,
    ),
    "after a while": (
        "t = asyncio.create_task(raises()); await asyncio.sleep(0.3)\n    try: await t\n    except ValueError: pass",
        HANDLED,
    ),
    "by nobody": ("asyncio.create_task(raises()); await asyncio.sleep(0.01)", NOT),
    "by nobody, collected": (
        "asyncio.create_task(raises()); await asyncio.sleep(0.01); gc.collect(); await asyncio.sleep(0.2)",
        NOT,
    ),
    "by nobody, in a circle": (
        "t = asyncio.create_task(raises()); t.self = t; del t; await asyncio.sleep(0.01); gc.collect()",
        NOT,
    ),
    "kept and never looked at": ("kept.append(asyncio.create_task(raises())); await asyncio.sleep(0.05)", NOT),
    "in a circle, retrieved": (
        "t = asyncio.create_task(raises()); t.self = t; await asyncio.sleep(0.01); t.exception(); del t; gc.collect()",
        HANDLED,
    ),
}
PROGRAM = """
kept = []
globals().setdefault("everything_kept", []).append(kept)
async def raises(): raise ValueError("case {number}")
async def main():
    {body}
raises.__qualname__ = "case_{number}"
RUN(main())
gc.collect()
"""


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_who_retrieved_it_decides(run: Any, loop: str) -> None:
    bodies = [PROGRAM.format(number=number, body=body) for number, (body, _) in enumerate(CASES.values())]
    told = run(
        "\n".join([f"import {loop}\nRUN = {loop}.run", *bodies]).replace(
            "kept = []", "kept = []; keep = globals().setdefault('ALL', []).append; keep(kept)"
        )
    )
    for number, (case, (_, expected)) in enumerate(CASES.items()):
        assert told.kinds(f"case_{number}")[-1] == expected, f"{case}: {told.output}"
        said = f"ValueError: case {number}\n" in told.output + "\n"
        assert said == (expected == NOT), f"{case}: Python says what it always says"


def test_a_kill_between_failure_and_retrieval_leaves_it_unhandled(processes: Processes, tmp_path: Path) -> None:
    (tmp_path / "shop.py").write_text(
        'import asyncio, looseends\nlooseends.install("asyncio")\n'
        "async def raises(): raise ValueError('planted')\n"
        "async def main():\n    kept = asyncio.create_task(raises())\n    await asyncio.sleep(0.01)\n    print('failed')\n"
        "    await asyncio.sleep(60)\nasyncio.run(main())\n"
    )
    spool = tmp_path / "spool"
    env = {"LOOSEENDS_SPOOL_DIR": str(spool), "LOOSEENDS_URL": "unix:/nonexistent/s"}
    process = processes.start(sys.executable, "shop.py", env=env, cwd=tmp_path)
    process.wait_for("failed")
    process.kill()
    orphan = journal.adopt(journal.folders(str(spool))[0])
    assert orphan is not None
    (batch,) = orphan.batches()
    orphan.close()
    assert [event["type"] for event in batch] == ["scheduled", "started", "failed"]
    assert batch[-1]["handled"] is False and batch[-1]["error"]["message"] == "planted"


def test_an_unsure_failure_is_held_back_a_minute_and_then_told(monkeypatch: pytest.MonkeyPatch) -> None:
    from looseends import cursor

    class Bytes:
        map = bytearray(slots.HEADER_BYTES + slots.SLOT_BYTES)

    class Looked:
        segment = Bytes

    def missing(ended: int) -> int:
        at = slots.HEADER_BYTES + slots.ENDED_AT
        Bytes.map[at : at + 8] = slots.WORD.pack(ended)
        return cursor._missing(Looked, 0, cursor.Acked())[0]  # type: ignore[arg-type]

    now = time.monotonic_ns() & ~7
    assert missing(now | slots.UNSURE) == 0
    assert missing(now - 61 * NS | slots.UNSURE) == slots.HAS_END
    assert missing(now | slots.HANDLED) == missing(now | slots.FAILED) == slots.HAS_END


LATE = """
from looseends import handled, slots
handled.UNSURE_S = slots.UNSURE_S = {unsure}
handled.IN_PLACE_S = {in_place}
handled.LOOK_S = (0.02, 0.02)
async def raises(order_id): raise ValueError("planted")
async def main():
    kept = asyncio.create_task(raises(7))
    await asyncio.sleep(0.5)
    print(type(kept.exception()).__name__)
    await asyncio.sleep(0.3)
asyncio.run(main())
"""


def test_retrieved_after_it_was_told_it_is_told_again(run: Any) -> None:
    told = run(LATE.format(unsure=0.2, in_place=0.1))
    (task,) = told.of("raises")
    assert task.kinds == ["scheduled", "started", NOT, "scheduled", "started", HANDLED]
    first, again = task.events[:3], task.events[3:]
    assert [e["at"] for e in first] == [e["at"] for e in again], "the same facts, so that they fold into one"
    assert first[0]["args"] == again[0]["args"] == {"order_id": 7} and again[2]["error"] == first[2]["error"]


def test_failures_that_are_kept_are_bounded(run: Any) -> None:
    told = run("""
        from looseends import handled
        handled.FAILURES_MAX = 10
        kept = []
        async def raises(n): raise ValueError("planted")
        async def main():
            kept.extend(asyncio.create_task(raises(n)) for n in range(30))
            await asyncio.sleep(0.1)
            print(len(handled._failures))
            for task in kept: task.exception()
            await asyncio.sleep(0.2)
        asyncio.run(main())
    """)
    assert told.output == "10"
    assert [task.kinds[-1] for task in told.of("raises")].count(HANDLED) == 10


def test_nothing_is_kept_of_a_task_that_has_ended(run: Any) -> None:
    told = run("""
        from looseends import handled
        from looseends.integrations import asyncio as hook, unawaited
        async def work(n):
            if n % 2: raise ValueError(n)
        async def main():
            await asyncio.gather(*[work(n) for n in range(100)], return_exceptions=True)
            await asyncio.sleep(2.5)
            gc.collect()
            print(len(handled._failures), len(unawaited.MINE), len(hook._held(asyncio.get_running_loop())))
            print(sum(isinstance(o, hook.Work) for o in gc.get_objects()))
        asyncio.run(main())
    """)
    assert told.output == "0 0 0\n0"
