"""A call that the service's own code gives to a thread pool is one task, and its failure is known to be handled or not."""

from __future__ import annotations

from typing import Any

import pytest

DONE = ["scheduled", "started", "finished"]
HANDLED, UNHANDLED = ["scheduled", "started", "failed:True"], ["scheduled", "started", "failed:False"]


@pytest.mark.cells("scheduled", "started", "finished", "failed", "cancelled", "arguments", system="thread pools")
def test_every_end_of_a_call_in_a_thread_pool_is_told_apart(run: Any) -> None:
    told = run("""
        def well(order_id, *, to="x"): time.sleep(0.01)
        def forgotten(): raise ValueError("planted")
        def asked(): raise ValueError("asked")
        def excepted(): raise ValueError("excepted")
        def collected(): raise ValueError("collected")
        def mapped(n): return 1 / n
        def waits(): time.sleep(0.2)
        def called_off(): pass

        pool = cf.ThreadPoolExecutor(2)
        pool.submit(well, 7, to="ada").result()
        kept = pool.submit(forgotten)
        try: pool.submit(asked).result()
        except ValueError: pass
        print(type(pool.submit(excepted).exception()).__name__)
        pool.submit(collected)
        try: print(list(pool.map(mapped, [1, 0])))
        except ZeroDivisionError as error: print(error)
        blockers = [pool.submit(waits), pool.submit(waits)]
        while not all(blocker.running() for blocker in blockers): time.sleep(0.001)
        print(pool.submit(called_off).cancel())
        pool.submit(called_off)
        pool.shutdown(cancel_futures=True)
        try: pool.submit(well, 8)
        except RuntimeError as error: print(error)
    """)
    assert told.of("well")[0].kinds == DONE and told.of("well")[0].args == {"order_id": 7, "to": "ada"}
    assert told.of("well")[1].kinds == ["scheduled", "failed"], "the caller was told that the pool is shut down"
    assert told.kinds("forgotten") == UNHANDLED and told.one("forgotten").events[-1]["error"]["message"] == "planted"
    assert told.kinds("asked") == told.kinds("excepted") == HANDLED and told.kinds("collected") == UNHANDLED
    assert sorted(task.kinds for task in told.of("mapped")) == sorted([DONE, HANDLED])
    assert [task.kinds for task in told.of("called_off")] == [["scheduled", "cancelled:requested"]] * 2
    assert [task.kinds for task in told.of("waits")] == [DONE] * 2 and len(told.tasks) == 12
    first = told.of("well")[0].first
    assert (first["declared"], first["source"], first["start_within"]) == (False, "futures", "never")
    assert told.output.splitlines() == [
        "ValueError",
        "division by zero",
        "True",
        "cannot schedule new futures after shutdown",
    ]


@pytest.mark.cells("scheduled", "started", "finished", "failed", "arguments", system="thread pools")
def test_the_loops_executor_and_to_thread_are_told_with_who_awaited_them(run: Any) -> None:
    source = """
        def well(n): time.sleep(0.01)
        def caught(n): raise ValueError(n)
        def forgotten(n): raise ValueError(n)
        def dropped(n): raise ValueError(n)
        @looseends.task(name="deco")
        def deco(n): pass

        async def main():
            loop = asyncio.get_running_loop()
            await loop.run_in_executor(None, well, 1)
            await asyncio.to_thread(well, 2)
            for call in (loop.run_in_executor(None, caught, 1), asyncio.to_thread(caught, 2)):
                try: await call
                except ValueError: pass
            kept = loop.run_in_executor(None, forgotten, 1)
            loop.run_in_executor(None, dropped, 1)
            await loop.run_in_executor(None, functools.partial(deco, 1))
            await asyncio.to_thread(deco, 2)
            await loop.getaddrinfo("127.0.0.1", 80)
            await asyncio.sleep(0.05)
            gc.collect()
        asyncio.run(main())
    """
    for hooks in ('"futures"', '"asyncio", "futures", "threading"'):
        told = run(source, hooks=hooks)
        assert [(task.args, task.kinds) for task in told.of("well")] == [({"n": 1}, DONE), ({"n": 2}, DONE)]
        assert [task.kinds for task in told.of("caught")] == [HANDLED] * 2
        assert told.kinds("forgotten") == told.kinds("dropped") == UNHANDLED
        assert [(task.args, task.kinds) for task in told.of("deco")] == [({"n": 1}, DONE), ({"n": 2}, DONE)]
        assert len(told.tasks) == 8, told.tasks


def test_a_thread_that_is_made_an_asyncio_task_is_one_task_of_the_one_or_the_other_hook(run: Any) -> None:
    source = """
        def render(n):
            if n == 9: raise ValueError(n)
        @looseends.task(name="deco")
        def deco(n): pass
        async def main():
            tasks = [asyncio.create_task(asyncio.to_thread(render, n)) for n in (1, 9)]
            tasks.append(asyncio.create_task(asyncio.to_thread(deco, 3)))
            tasks.append(asyncio.create_task(asyncio.wait_for(asyncio.to_thread(render, 4), 5)))
            await asyncio.wait_for(asyncio.to_thread(render, 5), 5)
            await asyncio.wait(tasks)
        asyncio.run(main())
    """
    both, alone = run(source, hooks='"asyncio", "futures"'), run(source, hooks='"futures"')
    for told in (both, alone):
        assert sorted((task.args["n"], task.kinds[-1].split(":")[0]) for task in told.tasks) == [
            (1, "finished"),
            (3, "finished"),
            (4, "finished"),
            (5, "finished"),
            (9, "failed"),
        ], told.tasks
    assert [task.kinds for task in both.of("render") if task.args == {"n": 9}] == [UNHANDLED], "nobody asked the asyncio task"


def test_the_current_task_is_the_parent_in_a_pool_and_the_pools_thread_forgets_it(run: Any) -> None:
    told = run("""
        var = contextvars.ContextVar("var", default="not set")
        def inner(n): print(n, var.get(), looseends.current().name)
        def outer():
            var.set("outer's")
            list(pool.map(inner, [1]))
            pool.submit(contextvars.copy_context().run, inner, 2).result()
        def idle(): print("idle", looseends.current())
        pool = cf.ThreadPoolExecutor(1)
        with cf.ThreadPoolExecutor(1) as other: other.submit(outer).result()
        with looseends.track("around"): pool.submit(outer_less := inner, 3).result()
        cf.Future()
        pool._work_queue.put(type("Item", (), {"run": lambda self: idle()})())
        pool.shutdown()
    """)
    outer, around = told.one("outer"), told.one("around")
    assert [task.parent for task in told.of("inner")] == [outer.id, outer.id, around.id]
    assert told.output.splitlines() == ["1 not set shop.inner", "2 outer's shop.inner", "3 not set shop.inner", "idle None"]


def test_a_decorated_function_in_a_pool_is_one_task_and_declared(run: Any) -> None:
    told = run("""
        @looseends.task(name="deco", key="n")
        def deco(n):
            if n == 9: raise ValueError("planted")
            return n
        with cf.ThreadPoolExecutor(2) as pool:
            print(pool.submit(deco, 1).result(), list(pool.map(deco, [2, 3])), type(pool.submit(deco, 9).exception()).__name__)
            print(pool.submit(contextvars.copy_context().run, deco, 4).result())
    """)
    assert sorted((task.first["key"], tuple(task.kinds)) for task in told.of("deco")) == [
        *((str(n), tuple(DONE)) for n in (1, 2, 3, 4)),
        ("9", ("scheduled", "started", "failed")),
    ]
    assert {task.first["declared"] for task in told.tasks} == {True} and len(told.tasks) == 5
    assert told.output.splitlines() == ["1 [2, 3] ValueError", "4"]


def test_a_thread_pool_that_breaks_says_what_it_will_not_run(run: Any) -> None:
    told = run("""
        def work(n): pass
        def broken(): time.sleep(0.1); raise RuntimeError("no database")
        import logging; logging.disable(logging.CRITICAL)
        pool = cf.ThreadPoolExecutor(1, initializer=broken)
        futures = [pool.submit(work, n) for n in range(3)]
        print([type(future.exception()).__name__ for future in futures])
        try: pool.submit(work, 3)
        except cf.BrokenExecutor as error: print("refused")
    """)
    assert "refused" in told.output
    assert [task.kinds for task in told.of("work")] == [["scheduled", "dropped:pool_broken"]] * 4


def test_a_failure_that_is_asked_for_after_it_was_told_is_told_again(run: Any) -> None:
    told = run("""
        from looseends import handled
        def fails(): raise ValueError("planted")
        with cf.ThreadPoolExecutor(1) as pool: future = pool.submit(fails)
        [failure] = handled._failures.values()
        failure.ended -= 61 * 10**9                  # as if a minute had passed: the record may have been sent
        print(type(future.exception()).__name__)
    """)
    [one] = {task.id for task in told.tasks}
    assert "failed:True" in told.tasks[0].kinds, (one, told.tasks)


def test_a_pool_that_a_library_uses_for_itself_is_no_work(run: Any) -> None:
    told = run("""
        import http.server, urllib.request, multiprocessing.dummy
        async def main():
            loop = asyncio.get_running_loop()
            server = await asyncio.start_server(lambda r, w: w.close(), "localhost", 0)
            await asyncio.open_connection("localhost", server.sockets[0].getsockname()[1])
            server.close()
        asyncio.run(main())
        own = cf.ThreadPoolExecutor(1)
        own.submit(time.sleep, 0).result()
    """)
    assert [task.name for task in told.tasks] == ["time.sleep"], "what the service itself hands over is its work"


def test_nothing_of_a_call_lives_longer_than_without_us(run: Any) -> None:
    source = """
        import weakref
        class Big:
            def method(self): return 1
        def use(big): return 1
        pool = cf.ThreadPoolExecutor(1)
        for make in (lambda big: (use, big), lambda big: (big.method,), lambda big: (functools.partial(use, big),)):
            big = Big()
            seen = weakref.ref(big)
            future = pool.submit(*make(big))
            future.result()
            pool.submit(int).result()
            del big
            print(seen() is None)
        class Exc(Exception): pass
        def fails(): raise Exc()
        future = pool.submit(fails)
        try: future.result()
        except Exc as error: seen = weakref.ref(error)
        del future
        pool.submit(int).result()
        print(seen() is None)
    """
    bare, captured = run(source, hooks=""), run(source)
    assert captured.output == bare.output and bare.output.count("True") >= 3
