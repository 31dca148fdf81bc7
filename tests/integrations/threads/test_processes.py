"""A process that the service's own code starts, and a call in a process pool, is one task, told by child and parent together."""

from __future__ import annotations

from typing import Any

import pytest

METHODS = ("fork", "spawn", "forkserver")
LATER = "failed:later"
"""What a pool's child says of a failure: its parent will know whether anybody asked for the exception."""
DONE = ["scheduled", "started", "finished"]

WORK = """
def say(*words): os.write(1, (" ".join(map(str, words)) + "\\n").encode())
def well(order_id, *, to="x"): say("well", os.getpid() != int(os.environ.get("PARENT", "0")))
def raises(): raise ValueError("planted")
def leaves(): sys.exit(3)
def killed(): os.kill(os.getpid(), signal.SIGKILL)
def vanishes(): os._exit(0)
def hangs(): time.sleep(60)
@looseends.task(name="deco", key="n")
def deco(n):
    looseends.current().progress(0.5)
    if n == 9: raise ValueError("planted")
    return n
"""


def ends(told: Any, name: str) -> list[str]:
    """How every task of this name ended."""
    return [last(task) for task in told.of(name)]


def errors(task: Any) -> list[dict[str, str]]:
    """The errors of a task, by whomever they were told."""
    return [event["error"] for event in task.events if event["type"] == "failed"]


def last(task: Any) -> str:
    """How it ended, in whichever journal that stands."""
    ends = ("finished", "failed", "cancelled", "dropped")
    found = [kind for kind in task.kinds if kind.split(":")[0] in ends and kind != LATER]
    return found[0] if len(found) == 1 else f"{found}"


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.cells("scheduled", "started", "finished", "failed", "cancelled", "arguments", system="multiprocessing")
def test_every_end_of_a_process_is_told_apart(run: Any, method: str) -> None:
    told = run(
        WORK
        + f"""
class Worker(mp.get_context("{method}").Process):
    def run(self): say("worker runs", "run" not in vars(self))

if __name__ == "__main__":
    os.environ["PARENT"] = str(os.getpid())
    context = mp.get_context("{method}")
    made = [context.Process(target=well, args=(7,), kwargs=dict(to="ada"))]
    made += [context.Process(target=target) for target in (raises, leaves, killed, vanishes, hangs)] + [Worker()]
    for process in made: process.start()
    for process in made[:5]: process.join()
    made[5].terminate()
    for process in made: process.join()
    print([process.exitcode for process in made])
"""
    )
    assert "[0, 1, 3, -9, 0, -15, 0]" in told.output and "well True" in told.output and "worker runs True" in told.output
    well = told.one("well")
    assert set(well.kinds) == set(DONE) and well.args == {"order_id": 7, "to": "ada"}
    assert {event["source"] for event in well.events if "source" in event} == {"multiprocessing"}
    assert ends(told, "raises") == ends(told, "leaves") == ["failed"] and ends(told, "hangs") == ["cancelled:requested"]
    assert ends(told, "Worker.run") == ["finished"]
    raised, killed, vanished = (errors(told.one(name)) for name in ("raises", "killed", "vanishes"))
    assert raised[0]["type"] == "ValueError" and "planted" in raised[0]["traceback"]
    assert "was killed by SIGKILL" in killed[0]["message"]
    assert "ended with exit code 0 before its work did" in vanished[0]["message"]
    assert len(told.tasks) == 7 and len(raised) == len(killed) == len(vanished) == 1


@pytest.mark.parametrize("method", METHODS)
def test_a_decorated_function_in_a_process_is_one_task(run: Any, method: str) -> None:
    told = run(
        WORK
        + f"""
if __name__ == "__main__":
    context = mp.get_context("{method}")
    with looseends.track("around"):
        made = [context.Process(target=deco, args=(1,)), context.Process(target=functools.partial(deco, 9))]
        for process in made: process.start()
        for process in made: process.join()
        with cf.ProcessPoolExecutor(1, mp_context=context) as pool:
            print(pool.submit(deco, 2).result(), list(pool.map(deco, [3, 4])), list(pool.map(deco, [5, 6], chunksize=2)))
"""
    )
    around = told.one("around")
    rows = sorted((task.first["key"], last(task)) for task in told.of("deco"))
    assert rows == [*((str(n), "finished") for n in range(1, 7)), ("9", "failed")], told.tasks
    assert {task.parent for task in told.of("deco") if task.first["key"] in "12349"} == {around.id}
    assert "2 [3, 4] [5, 6]" in told.output and len(told.tasks) == 8


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.cells("scheduled", "started", "finished", "failed", "cancelled", "arguments", system="process pools")
def test_every_end_of_a_call_in_a_process_pool_is_told_apart(run: Any, method: str) -> None:
    told = run(
        WORK
        + f"""
def asked(): raise KeyError("asked")
def mapped(n): return n
def waits(n):
    open(f"begun-{{n}}", "w").close()
    time.sleep(60 if n == 0 else 0)
if __name__ == "__main__":
    context = mp.get_context("{method}")
    with cf.ProcessPoolExecutor(1, mp_context=context) as pool:
        pool.submit(well, 7, to="ada").result()
        kept = pool.submit(raises)
        try: pool.submit(asked).result()
        except KeyError as error: print("asked", "_RemoteTraceback" in repr(error.__cause__))
        print(list(pool.map(mapped, range(4), chunksize=2)))
        try: pool.submit(well, lambda: 0).result()
        except Exception as error: print("cannot be sent:", type(error).__name__)
    pool = cf.ProcessPoolExecutor(1, mp_context=context)
    futures = [pool.submit(waits, n) for n in range(4)]
    print("cancelled", pool.submit(waits, 9).cancel())
    while not os.path.exists("begun-0"): time.sleep(0.01)
    os.kill(next(iter(pool._processes)), signal.SIGKILL)
    print([type(future.exception()).__name__ for future in futures])
"""
    )
    assert "['BrokenProcessPool', 'BrokenProcessPool', 'BrokenProcessPool', 'BrokenProcessPool']" in told.output
    assert "asked True" in told.output and "[0, 1, 2, 3]" in told.output
    first, unsent = told.of("well")
    assert set(first.kinds) == set(DONE) and first.args == {"order_id": 7, "to": "ada"} and last(unsent) == "failed:True"
    assert ends(told, "raises") == ["failed:False"] and ends(told, "asked") == ["failed:True"]
    assert all(LATER in told.kinds(name) and "started" in told.kinds(name) for name in ("raises", "asked"))
    assert [[call["v"] for call in task.args["chunk"]] for task in told.of("mapped")] == [[[0], [1]], [[2], [3]]]
    assert ends(told, "mapped") == ["finished"] * 2 and "cancelled True" in told.output
    assert sorted(ends(told, "waits")) == ["cancelled:requested", *["dropped:pool_broken"] * 4]
    assert sorted("started" in task.kinds for task in told.of("waits")) == [False, False, False, False, True]


def test_a_process_that_never_comes_to_its_work_is_a_failure(run: Any) -> None:
    told = run(
        WORK
        + """
if __name__ == "__main__":
    context = mp.get_context("spawn")
    try: context.Process(target=lambda: 0).start()
    except Exception as error: print("refused", type(error).__name__)
    process = context.Process(target=well, args=(1,))
    process.start()
    process.join()
    print(process.exitcode)
elif "planted" in os.environ: raise ImportError("planted")
""",
        env={"planted": "1"},
    )
    assert "refused" in told.output and last(told.one("<lambda>")) == "failed"
    assert "ended with exit code 1 before its work did" in errors(told.one("well"))[0]["message"]
    assert "started" not in told.one("well").kinds


def test_a_child_that_the_exit_ends_is_dropped_and_one_nobody_waits_for_is_told(run: Any) -> None:
    told = run(
        WORK
        + """
if __name__ == "__main__":
    mp.Process(target=hangs, daemon=True).start()
    mp.Process(target=killed).start()
    time.sleep(0.3)
    print("main ends")
"""
    )
    assert ends(told, "hangs") == ["dropped:exit"]
    assert "SIGKILL" in errors(told.one("killed"))[0]["message"]


def test_the_users_join_is_never_robbed_of_its_exit_code(run: Any) -> None:
    told = run(
        """
        def killed(): os.kill(os.getpid(), 9)
        wrong = 0
        for _ in range(100):
            process = mp.Process(target=killed)
            process.start()
            process.join()
            wrong += process.exitcode != -9
        print("wrong", wrong, "descriptors", len(os.listdir("/proc/self/fd")) < 40)
        """
    )
    assert told.output == "wrong 0 descriptors True"
    messages = {error["message"].partition(") ")[2] for task in told.of("killed") for error in errors(task)}
    assert messages == {"was killed by SIGKILL"} and len(told.of("killed")) == 100


def test_workers_of_pools_and_managers_are_no_work(run: Any) -> None:
    told = run(
        WORK
        + """
if __name__ == "__main__":
    with mp.Pool(1) as pool: print(pool.map(abs, [-1]), pool.apply(deco, (2,)))
    with mp.Manager() as manager: print(manager.list([1]))
"""
    )
    assert "[1] 2" in told.output and {task.name for task in told.tasks} == {"deco"}, told.tasks


def test_a_process_class_that_leaves_us_out_of_its_pickle_is_known_by_its_exit_code(run: Any) -> None:
    told = run(
        """
        class Lean(mp.get_context("spawn").Process):
            def __getstate__(self): return {name: value for name, value in vars(self).items() if name.startswith("_")}
            def run(self): os.write(1, b"ran\\n"); sys.exit(int(self.name == "bad"))
        if __name__ == "__main__":
            for name in ("good", "bad"):
                process = Lean(name=name)
                process.start()
                process.join()
                print(process.exitcode)
        """
    )
    assert told.output.split() == ["ran", "0", "ran", "1"]
    assert ends(told, "Lean.run") == ["finished", "failed"] and "exit code 1" in errors(told.of("Lean.run")[1])[0]["message"]
