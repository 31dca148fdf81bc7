"""What capture must not change, and a program in which our own code is broken: it must not notice."""

from __future__ import annotations

import pytest
from told import Run

PROGRAM = """
import logging; logging.disable(logging.CRITICAL)
{planted}
def well(n): return n
def raises(): raise ValueError("planted")
@looseends.task
def deco(n): return n
def show(*what): print(*what, flush=True)

async def main():
    loop = asyncio.get_running_loop()
    show("loop", await asyncio.to_thread(well, 1), await loop.run_in_executor(None, deco, 2))
    try: await loop.run_in_executor(None, raises)
    except ValueError as error: show(error)

if __name__ == "__main__":
    threading.excepthook = lambda given: show("hook", given.exc_value)
    for thread in (threading.Thread(target=raises), threading.Thread(target=deco, args=(1,)), threading.Timer(0.01, raises)):
        thread.start()
        thread.join()
    off = threading.Timer(60, raises)
    off.start()
    off.cancel()
    asyncio.run(main())
    for pool in (cf.ThreadPoolExecutor(1), cf.ProcessPoolExecutor(1, mp_context=mp.get_context("fork"))):
        show([pool.submit(body, 3).result() for body in (well, deco)], type(pool.submit(raises).exception()).__name__)
        show(pool.submit(well, 3).exception(), list(pool.map(well, range(3))), pool.submit(well, 1).cancel() in (True, False))
        pool.shutdown()
    context = mp.get_context("spawn")
    for body in (well, deco):
        process = context.Process(target=body, args=(1,))
        process.start()
        process.join()
        show(process.exitcode)
    process = context.Process(target=time.sleep, args=(60,))
    process.start()
    process.kill()
    process.join()
    show(process.exitcode, process.is_alive())
    process.close()
"""
PLANTED = """
def planted(*args, **kwargs): raise RuntimeError("planted in a hook")
from looseends import handled, record
from looseends.integrations import calls, children, exits, futures, multiprocessing, retrieval, threading as threads
for owner, names in {faults}.items():
    for name in names: setattr(eval(owner), name, planted)
"""
FAULTS = [
    {"calls": ["read"]},
    {"calls.Work": ["__init__"]},
    {"record": ["begin"]},
    {"calls.Journal": ["start", "end"], "calls.Work": ["close"]},
    {"calls.Work": ["enter", "begun", "over", "cancelled"]},
    {"futures.Pooled": ["failed", "finished"], "retrieval": ["failed"]},
    {"children": ["words", "Begun"], "exits": ["watch"], "multiprocessing": ["exit_code"]},
    {"children.Begun": ["finished", "failed", "raised"], "children": ["hand_over", "_parent"]},
    {"handled": ["follow", "_decide", "_keep"], "retrieval": ["_handed_on", "_hear"], "exits.EXITS": ["look"]},
    {"calls.OWN": ["has"], "calls": ["unwrapped", "spec_of", "audited"]},
]


@pytest.mark.parametrize("faults", FAULTS, ids=lambda faults: "+".join(f"{k}.{v[0]}" for k, v in faults.items()))
def test_a_hook_that_raises_inside_reaches_nobody(run, faults: dict[str, list[str]]) -> None:  # type: ignore[no-untyped-def]
    bare = run(PROGRAM.format(planted=""), hooks="")
    broken: Run = run(PROGRAM.format(planted=PLANTED.format(faults=faults)))
    assert "['ValueError" not in bare.output and "hook planted" in bare.output and "-9 False" in bare.output
    assert broken.output == bare.output and broken.code == bare.code == 0


def test_the_planted_faults_are_met_and_without_them_all_is_told(run) -> None:  # type: ignore[no-untyped-def]
    whole: Run = run(PROGRAM.format(planted=""))
    assert {task.name.rpartition(".")[2] for task in whole.tasks} == {"well", "raises", "deco", "sleep"}
    assert len(whole.tasks) > 20
    for faults in FAULTS[:3]:
        broken: Run = run(PROGRAM.format(planted=PLANTED.format(faults=faults)))
        assert not [task for task in broken.tasks if not task.first["declared"]]


def test_a_second_install_says_so_and_changes_nothing(run) -> None:  # type: ignore[no-untyped-def]
    told: Run = run("""
        start, submit, result = threading.Thread.start, cf.ThreadPoolExecutor.submit, cf.Future.result
        for system in ("threading", "futures", "multiprocessing"): looseends.install(system)
        print(start is threading.Thread.start, submit is cf.ThreadPoolExecutor.submit, result is cf.Future.result)
    """)
    assert told.output.count("was called before in this process; nothing changed") == 3 and "True True True" in told.output


def test_a_python_that_lacks_what_is_hooked_is_left_alone_and_said_so(run) -> None:  # type: ignore[no-untyped-def]
    told: Run = run(
        """
        del threading.Thread._bootstrap_inner
        before = threading.Thread.start
        looseends.install("threading")
        print(threading.Thread.start is before)
        """,
        hooks="",
    )
    assert "this Python has nothing to hook into" in told.output and "True" in told.output


def test_installing_imports_no_more_than_the_system_itself_needs(run) -> None:  # type: ignore[no-untyped-def]
    heavy = {"asyncio", "multiprocessing", "concurrent"}
    code = f"import sys, looseends; looseends.install('threading'); print({heavy} & set(sys.modules))"
    told: Run = run(f"import subprocess; print(subprocess.check_output([sys.executable, '-c', {code!r}], text=True))", hooks="")
    assert "set()" in told.output, told.output
