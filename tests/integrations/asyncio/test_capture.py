"""What the service itself makes a task of is recorded with its arguments and its end; what libraries do for themselves is not."""

from __future__ import annotations

from typing import Any

import pytest

DONE = ["scheduled", "started", "finished"]


@pytest.mark.cells("scheduled", "started", "finished", "failed", "cancelled", "arguments", system="asyncio")
def test_every_end_of_a_task_is_told_apart(run: Any) -> None:
    told = run("""
        async def well(order_id, *, to="x"): await asyncio.sleep(0.01)
        async def raises(): raise ValueError("planted")
        async def cancelled(): await asyncio.sleep(60)
        async def cancelled_before(): await asyncio.sleep(60)
        async def timed_out(): await asyncio.sleep(60)
        async def left_over(): await asyncio.sleep(60)

        async def main():
            asyncio.create_task(well(7, to="ada"))
            asyncio.create_task(raises())
            task = asyncio.create_task(cancelled())
            await asyncio.sleep(0.05)
            task.cancel()
            asyncio.create_task(cancelled_before()).cancel()
            try:
                await asyncio.wait_for(asyncio.create_task(timed_out()), 0.05)
            except TimeoutError:
                print("timed out")
            asyncio.create_task(left_over())
            await asyncio.sleep(0.05)

        asyncio.run(main())
    """)
    assert told.kinds("well") == DONE and told.one("well").args == {"order_id": 7, "to": "ada"}
    assert told.kinds("raises") == ["scheduled", "started", "failed:False"]
    assert told.one("raises").events[-1]["error"]["message"] == "planted"
    assert told.kinds("cancelled") == ["scheduled", "started", "cancelled:requested"]
    assert told.kinds("cancelled_before") == ["scheduled", "cancelled:requested"], "its body never ran"
    assert told.kinds("timed_out") == ["scheduled", "started", "cancelled:timeout"] and "timed out" in told.output
    assert told.kinds("left_over") == ["scheduled", "started", "dropped:loop_shutdown"]
    assert len(told.tasks) == 6, "the main coroutine is the program, not work it left to itself"
    first = told.one("well").first
    assert (first["declared"], first["source"], first["name"]) == (False, "asyncio", "shop.well")


def test_arguments_are_read_whatever_the_signature(run: Any) -> None:
    told = run("""
        class Mailer:
            async def send(self, order_id): pass

        async def open_ended(first, *more, last=None, **rest): pass
        def made(closed_over):
            async def inner(number, password): return closed_over, number
            return inner

        async def main():
            tasks = [asyncio.create_task(Mailer().send(1)), asyncio.create_task(open_ended(1, 2, 3, last=4, fifth=5)),
                     asyncio.create_task(made("hidden")(6, password="canary"))]
            await asyncio.gather(*tasks)

        asyncio.run(main())
    """)
    assert told.one("send").args["order_id"] == 1 and told.one("send").args["self"]["$t"] == "opaque"
    assert told.one("open_ended").args == {"first": 1, "more": {"$t": "tuple", "v": [2, 3]}, "last": 4, "fifth": 5}
    assert told.one("inner").args == {"number": 6, "password": {"$t": "redacted"}}
    assert "hidden" not in repr(told.one("inner").events)


def test_what_was_read_is_let_go_at_once(run: Any) -> None:
    source = """
        import weakref
        class Big: pass
        async def use(big, done):
            seen = weakref.ref(big)
            del big
            await asyncio.sleep(0)
            done.append(seen() is None)

        async def main():
            done = []
            task = asyncio.create_task(use(Big(), done))
            await task
            print("freed in mid-task:", done)

        asyncio.run(main())
    """
    bare, captured = run(source, capture=False), run(source)
    assert captured.output == bare.output == "freed in mid-task: [True]"
    assert captured.kinds("use") == DONE


def test_a_task_nobody_holds_is_held_until_it_ends(run: Any) -> None:
    source = """
        async def vanishing():
            future = asyncio.get_running_loop().create_future()
            await asyncio.sleep(0)
            asyncio.get_running_loop().call_later(0.2, done, future) if "timer" in sys.argv else None
            await future
        def done(future): future.set_result(None)

        async def main():
            asyncio.create_task(vanishing())
            await asyncio.sleep(0.05)
            gc.collect()
            await asyncio.sleep(0.05)
            print("alive:", sum("vanishing" in repr(task) for task in asyncio.all_tasks()))

        asyncio.run(main())
    """
    bare, captured = run(source, capture=False), run(source)
    assert "destroyed but it is pending" in bare.output and "alive: 0" in bare.output, "Python's own way: it vanishes"
    assert captured.output == "alive: 1", "held, without a word on standard error"
    assert captured.kinds("vanishing") == ["scheduled", "started", "dropped:loop_shutdown"]


def test_what_is_collected_with_its_loop_says_so(run: Any) -> None:
    told = run("""
        async def stranded(): await asyncio.get_running_loop().create_future()
        async def never_begun(): pass

        loop = asyncio.new_event_loop()
        async def main():
            asyncio.create_task(stranded())
            await asyncio.sleep(0)
        loop.run_until_complete(main())
        loop.create_task(never_begun())
        del loop
        gc.collect()
        print("collected")
    """)
    ends = (
        "dropped:collected",
        "dropped:loop_shutdown",
    )  # a loop that is collected closes itself, sooner or later than its tasks
    assert told.kinds("stranded")[:-1] == ["scheduled", "started"] and told.kinds("stranded")[-1] in ends
    assert told.kinds("never_begun")[:-1] == ["scheduled"], "one task, not one more for the coroutine"
    assert told.kinds("never_begun")[-1] in ends


def test_what_is_left_in_a_closed_loop_says_so(run: Any) -> None:
    told = run("""
        async def stranded(): await asyncio.sleep(60)
        loop = asyncio.new_event_loop()
        loop.create_task(stranded())
        loop.call_later(0.05, loop.stop)
        loop.run_forever()
        loop.close()
    """)
    assert told.kinds("stranded") == ["scheduled", "started", "dropped:loop_shutdown"]


def test_children_know_their_parent_across_gather_and_groups(run: Any) -> None:
    told = run("""
        async def agent(number): await asyncio.sleep(0.01)
        async def grandchild(): await asyncio.sleep(0)
        async def replenish_all():
            await asyncio.gather(*[agent(n) for n in range(9)])
            async with asyncio.TaskGroup() as group:
                group.create_task(grandchild(), name="named")
        async def main():
            await asyncio.create_task(replenish_all())
        asyncio.run(main())
    """)
    parent = told.one("replenish_all")
    assert parent.parent is None
    assert [task.parent for task in told.of("agent")] == [parent.id] * 9 and told.one("grandchild").parent == parent.id
    assert all(task.kinds == DONE for task in told.tasks) and len(told.tasks) == 11


def test_what_is_no_work_is_not_recorded(run: Any) -> None:
    told = run("""
        async def handler(reader, writer):
            writer.close()
        async def work(): return 1
        async def numbers():
            yield 1
            yield 2

        async def main():
            queue, event = asyncio.Queue(), asyncio.Event()
            waits = [asyncio.create_task(queue.get()), asyncio.create_task(event.wait()), asyncio.create_task(asyncio.sleep(0))]
            await asyncio.wait_for(work(), 1)          # awaited on the spot
            server = await asyncio.start_server(handler, "127.0.0.1", 0)
            reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
            await reader.read()
            writer.close()
            server.close()
            async for number in numbers():
                break
            for wait in waits: wait.cancel()
            await asyncio.sleep(0.01)
            print("done")
        asyncio.run(main())
    """)
    assert told.output == "done" and told.tasks == []


def test_a_coroutine_around_another_is_that_other_one(run: Any) -> None:
    told = run("""
        import anyio, time
        async def send(order_id): await asyncio.sleep(0.01)
        async def slow(): await asyncio.sleep(60)
        async def grouped(number): await asyncio.sleep(0)
        def render(page): return page

        async def main():
            await asyncio.create_task(asyncio.wait_for(send(7), 5))
            await asyncio.create_task(asyncio.to_thread(render, 3))
            try: await asyncio.create_task(asyncio.wait_for(slow(), 0.05))
            except TimeoutError: pass
            async with anyio.create_task_group() as group:
                group.start_soon(grouped, 4)
            await asyncio.shield(send(8))
        asyncio.run(main())
    """)
    assert [task.args for task in told.of("send")] == [{"order_id": 7}, {"order_id": 8}]
    assert told.one("render").args == {"page": 3} and told.one("grouped").args == {"number": 4}
    assert told.kinds("slow") == ["scheduled", "started", "failed:True"], "its TimeoutError was retrieved"
    assert told.one("slow").events[-1]["error"]["type"] == "TimeoutError"
    assert len(told.tasks) == 5 and {tuple(t.kinds) for t in told.tasks if t.name != "shop.slow"} == {tuple(DONE)}


def test_a_library_used_by_own_code_is_work_and_what_it_does_for_itself_is_not(run: Any, tmp_path: Any) -> None:
    package = tmp_path / "lib" / "site-packages" / "mailer"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text(
        "import asyncio\nasync def send(order_id):\n    await asyncio.create_task(_keep_alive())\n"
        "async def _keep_alive():\n    await asyncio.sleep(0)\n"
    )
    source = """
        sys.path.insert(0, "lib/site-packages")
        import mailer
        async def main(): await asyncio.create_task(mailer.send(7))
        asyncio.run(main())
    """
    told = run(source)
    assert [task.name for task in told.tasks] == ["mailer.send"] and told.tasks[0].args == {"order_id": 7}
    own = run(source, env={"LOOSEENDS_OWN_PACKAGES": "shop_jobs, mailer"})
    assert [task.name for task in own.tasks] == ["mailer.send", "mailer._keep_alive"]


def test_a_service_that_is_installed_as_a_package_is_own_code(run: Any, tmp_path: Any) -> None:
    package = tmp_path / "lib" / "site-packages" / "bakery"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("")
    (package / "__main__.py").write_text(
        "import asyncio, looseends\nlooseends.install('asyncio')\nfrom bakery.jobs import main\nasyncio.run(main())\n"
    )
    (package / "jobs.py").write_text(
        "import asyncio\nasync def bake(n): pass\nasync def main(): await asyncio.create_task(bake(1))\n"
    )
    told = run(
        "import runpy; sys.path.insert(0, 'lib/site-packages'); runpy.run_module('bakery', run_name='__main__')",
        capture=False,
    )
    assert [task.name for task in told.tasks] == ["bakery.jobs.bake"]


LOOPS = {
    "asyncio.run": "asyncio.run(main())",
    "a Runner": "with asyncio.Runner() as runner: runner.run(main())",
    "run_until_complete": "loop = asyncio.new_event_loop(); loop.run_until_complete(main()); loop.close()",
    "uvloop.run": "import uvloop; uvloop.run(main())",
    "uvloop made before": "loop = EARLY.new_event_loop(); loop.run_until_complete(main()); loop.close()",
    "uvloop as the policy": "import uvloop; asyncio.set_event_loop_policy(uvloop.EventLoopPolicy()); asyncio.run(main())",
    "a thread": "import threading; t = threading.Thread(target=lambda: asyncio.run(main())); t.start(); t.join()",
}


@pytest.mark.parametrize("way", LOOPS)
def test_every_loop_is_seen(run: Any, way: str) -> None:
    early = "import uvloop as EARLY\n" if "EARLY" in LOOPS[way] else ""
    told = run(
        "\n".join(
            [
                early + 'looseends.install("asyncio")',
                "async def work(n): await asyncio.sleep(0.01)",
                "async def left(): await asyncio.sleep(60)",
                "async def main():",
                "    await asyncio.create_task(work(1))",
                "    asyncio.get_running_loop().create_task(left())",
                "    await asyncio.sleep(0.01)",
                LOOPS[way],
                *(["gc.collect()"]),
            ]
        ),
        capture=False,
    )
    assert told.code == 0 and told.kinds("work") == DONE and told.one("work").args == {"n": 1}
    assert told.kinds("left")[-1] == "dropped:loop_shutdown"
    assert len(told.tasks) == 2


def test_a_loop_that_runs_already_is_seen(run: Any) -> None:
    told = run(
        """
        import threading
        async def before(): await asyncio.sleep(0.3)
        async def after(): pass
        async def elsewhere(): pass
        loop = asyncio.new_event_loop()
        threading.Thread(target=loop.run_forever, daemon=True).start()
        async def main():
            early = asyncio.create_task(before())
            await asyncio.sleep(0)
            looseends.install("asyncio")
            await asyncio.create_task(after())
            await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(elsewhere(), loop))
            await early
        asyncio.run(main())
        """,
        capture=False,
    )
    assert told.kinds("after") == DONE and told.kinds("elsewhere") == DONE
    assert told.of("before") == [], "begun before anybody looked"
