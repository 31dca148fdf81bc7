"""What capture must not change: factories, contexts, names, stacks, warnings, and a service in which our own code is broken."""

from __future__ import annotations

import ast
from typing import Any

import pytest

DONE = ["scheduled", "started", "finished"]


def test_a_task_factory_of_the_services_own_is_called_as_ever(run: Any) -> None:
    source = """
        seen = []
        def factory(loop, coro, **kwargs):
            seen.append(sorted(kwargs))
            return asyncio.Task(coro, loop=loop, **kwargs)
        def old_style(loop, coro):
            return asyncio.Task(coro, loop=loop)
        async def work(): pass

        async def main():
            loop = asyncio.get_running_loop()
            print("before:", loop.get_task_factory())
            loop.set_task_factory(factory)
            await asyncio.create_task(work(), name="mine")
            await asyncio.create_task(work(), context=contextvars.copy_context())
            print(seen, loop.get_task_factory() is factory)
            loop.set_task_factory(old_style)
            await asyncio.create_task(work())
            print("old style works")

        asyncio.run(main())
    """
    bare, captured = run(source, capture=False), run(source)
    assert captured.output == bare.output and "old style works" in bare.output
    assert [task.kinds for task in captured.of("work")] == [DONE] * 3


def test_names_contexts_and_stacks_are_the_services_own(run: Any) -> None:
    source = """
        import traceback
        var = contextvars.ContextVar("var", default="outer")
        async def work():
            var.set("inner")
            await asyncio.sleep(0.05)
        async def fails(): raise KeyError("k")

        async def main():
            task = asyncio.create_task(work(), name="by name")
            print(task.get_name(), task.get_coro().__qualname__, type(task).__name__)
            await asyncio.sleep(0.01)
            print([(frame.f_code.co_name) for frame in task.get_stack()])
            await task
            print(var.get())
            shared = contextvars.copy_context()
            await asyncio.create_task(work(), context=shared)
            print(shared[var])
            try: await asyncio.create_task(fails())
            except KeyError as error: print([step.name for step in traceback.extract_tb(error.__traceback__)])
            try: asyncio.create_task("no coroutine")
            except TypeError as error: print(error)
        asyncio.run(main())
    """
    bare, captured = run(source, capture=False), run(source)
    assert captured.output == bare.output and "a coroutine was expected" in bare.output
    assert [task.kinds for task in captured.of("work")] == [DONE] * 2


def test_pythons_own_warnings_stay_where_they_are(run: Any) -> None:
    source = """
        async def forgotten(order_id): pass
        async def raises(): raise ValueError("planted")

        async def main():
            forgotten(7)
            forgotten(8)
            asyncio.create_task(raises())
            await asyncio.sleep(0.05)
            gc.collect()
            loop = asyncio.get_running_loop()
            loop.set_exception_handler(lambda loop, context: print("handler:", context["message"]))
            asyncio.create_task(raises())
            await asyncio.sleep(0.05)
            gc.collect()
        asyncio.run(main())
    """
    bare, captured = run(source, capture=False), run(source)
    assert "never awaited" in bare.output and "never retrieved" in bare.output

    assert captured.output == bare.output, "every line, and the same lines of the service"


def test_a_coroutine_that_was_never_awaited_is_told_with_its_line(run: Any) -> None:
    told = run("""
        async def forgotten(order_id): pass
        @looseends.task(name="mail.receipt", key="order_id")
        async def receipt(order_id): pass

        async def main():
            for order_id in range(3):
                forgotten(order_id)
            receipt(9)
            closed = forgotten(4)
            closed.close()
        warnings.simplefilter("ignore")
        asyncio.run(main())
    """)
    assert [task.kinds for task in told.of("forgotten")] == [["scheduled", "dropped:collected"]] * 3, "each time, not once a line"
    assert [task.args for task in told.of("forgotten")] == [{"order_id": n} for n in range(3)]
    assert told.of("forgotten")[0].first["tags"]["never_awaited"].endswith("shop.py:11")
    receipt = told.one("mail.receipt")
    assert (
        receipt.kinds == ["scheduled", "dropped:collected"] and receipt.first["key"] == "9" and receipt.first["declared"] is True
    )
    assert len(told.tasks) == 4


def test_debug_mode_names_the_services_lines_and_none_of_ours(run: Any) -> None:
    source = """
        async def raises(): raise ValueError("planted")
        async def main():
            asyncio.create_task(raises())
            await asyncio.sleep(0.01)
            gc.collect()
        asyncio.run(main())
    """
    env = {"PYTHONASYNCIODEBUG": "1"}
    bare, captured = run(source, capture=False, env=env), run(source, env=env)
    said = [line for line in captured.output.splitlines() if not line.startswith("Executing")]  # slow callbacks of a busy machine
    assert said == [line for line in bare.output.splitlines() if not line.startswith("Executing")]
    assert "Object created at" in bare.output


def test_a_loop_that_does_things_in_its_own_way_is_seen_once(run: Any) -> None:
    told = run("""
        class Inherits(asyncio.SelectorEventLoop):
            def create_task(self, coro, **kwargs):
                return super().create_task(coro, **kwargs)
            def call_exception_handler(self, context): print(context["message"])
        class Alone(asyncio.SelectorEventLoop):
            def create_task(self, coro, *, name=None, context=None):
                return asyncio.Task(coro, loop=self, name=name)
        async def work(): raise ValueError("planted")
        async def main():
            asyncio.create_task(work())
            await asyncio.sleep(0.01)
            gc.collect()
        for kind in (Inherits, Alone):
            with asyncio.Runner(loop_factory=kind) as runner: runner.run(main())
    """)
    assert [task.kinds for task in told.of("work")] == [["scheduled", "started", "failed:False"]] * 2


FAULTS = [
    "asyncio.read",
    "asyncio.caller_of",
    "asyncio.note_request",
    "asyncio.record.begin",
    "asyncio.record.start",
    "asyncio.record.end",
    "asyncio.record.drop",
    "asyncio._held",
    "asyncio._cancelled",
    "asyncio._ran_out",
    "asyncio.handled.failed",
    "asyncio.handled.unretrieved",
    "asyncio.handled.loop_closed",
    "asyncio.handled._look",
    "asyncio.handled._decide",
    "asyncio.Journal.end",
    "coroutines._of_function",
    "coroutines._kind",
    "coroutines.OWN.has",
    "coroutines.encode_named",
    "unawaited._tell",
    "unawaited._place",
    "callers.label_of",
]
SERVICE = """
    import logging, os
    logging.getLogger("looseends").disabled = logging.getLogger("asyncio").disabled = True
    warnings.simplefilter("ignore")
    async def work(n, *more): await asyncio.sleep(0.001); return n
    async def raises(): raise ValueError("planted")
    async def slow(): await asyncio.sleep(60)
    class Exploding:
        def __getattr__(self, name): raise RuntimeError("fault of ours")
    def planted(*args, **kwargs): raise RuntimeError("fault of ours")

    async def main():
        print(await asyncio.gather(*[work(n, 1) for n in range(5)]))
        try: await asyncio.create_task(raises())
        except ValueError as error: print(error)
        lost = asyncio.create_task(raises())
        await asyncio.sleep(0.12)
        del lost
        work(1)
        try: await asyncio.wait_for(asyncio.create_task(slow()), 0.02)
        except TimeoutError: print("timed out")
        task = asyncio.create_task(slow()); await asyncio.sleep(0); task.cancel()
        try: await task
        except asyncio.CancelledError: print("cancelled")
        asyncio.create_task(slow())
        await asyncio.sleep(0)

    def plant(fault):
        import importlib
        module, *path, last = fault.split(".")
        owner = importlib.import_module("looseends.integrations." + module)
        for part in path: owner = getattr(owner, part)
        getattr(owner, last)                       # a fault that names nothing would prove nothing
        setattr(owner, last, Exploding() if last.isupper() else planted)

    def in_a_child(fault):
        reading, writing = os.pipe()
        if not (pid := os.fork()):
            os.dup2(writing, 1), os.dup2(writing, 2)
            plant(fault)
            asyncio.run(main())
            print("end", flush=True)
            sys.stdout.flush()
            os._exit(0)
        os.close(writing)
        return fault, pid, reading

    if len(sys.argv) == 1:
        asyncio.run(main())
        print("end")
    for fault, pid, reading in [in_a_child(fault) for fault in sys.argv[1:]]:
        said = open(reading).read()
        print((fault, said, os.waitpid(pid, 0)[1]))
"""
SAID = "[0, 1, 2, 3, 4]\nplanted\ntimed out\ncancelled\nend"


def test_no_fault_of_ours_reaches_the_service(run: Any) -> None:
    assert run(SERVICE, capture=False).output == SAID
    found = [ast.literal_eval(line) for line in run(SERVICE, *FAULTS).output.splitlines()]
    assert [fault for fault, _, _ in found] == FAULTS
    for fault, said, code in found:
        assert (said.strip(), code) == (SAID, 0), f"{fault} raises inside"


@pytest.mark.parametrize("spool", ["/proc/nothing/here", "/dev/null/spool"])
def test_a_spool_that_cannot_be_written_changes_nothing(run: Any, spool: str) -> None:
    env = {"LOOSEENDS_SPOOL_DIR": spool, "TMPDIR": spool}
    assert run(SERVICE, env=env).output == SAID


def test_switched_off_it_records_nothing_and_changes_nothing(run: Any) -> None:
    told = run(SERVICE, env={"LOOSEENDS_DISABLED": "1"})
    assert told.output == SAID and told.tasks == []


def test_a_second_install_is_one_clear_line(run: Any) -> None:
    told = run("""
        async def work(): pass
        looseends.install("asyncio")
        async def main(): await asyncio.create_task(work())
        asyncio.run(main())
    """)
    assert told.output.splitlines() == ["looseends: install('asyncio') was called before in this process; nothing changed"]
    assert told.kinds("work") == DONE


def test_a_loop_class_that_cannot_be_wrapped_is_said_and_left_alone(run: Any) -> None:
    told = run("""
        class Sealed(type):
            def __setattr__(cls, name, value): raise TypeError("immutable")
        class Loop(asyncio.AbstractEventLoop, metaclass=Sealed):
            def create_task(self, coro, **kwargs): return "mine"
        print(Loop().create_task(None))
    """)
    assert told.output.splitlines()[-1] == "mine" and "cannot be wrapped" in told.output


def test_a_forked_child_leaves_its_parents_tasks_alone(run: Any) -> None:
    told = run("""
        import os
        async def work(): await asyncio.sleep(0.2)
        async def main():
            task = asyncio.create_task(work())
            await asyncio.sleep(0.05)
            pid = os.fork()
            if pid == 0:
                os._exit(0)
            os.waitpid(pid, 0)
            await task
        asyncio.run(main())
    """)
    assert told.kinds("work") == DONE
