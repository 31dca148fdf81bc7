"""A thread or timer that the service's own code starts is one task, from its start to its end, whatever that is."""

from __future__ import annotations

from typing import Any

import pytest

DONE = ["scheduled", "started", "finished"]


@pytest.mark.cells("scheduled", "started", "finished", "failed", "arguments", system="threading")
def test_every_end_of_a_thread_is_told_apart(run: Any) -> None:
    told = run("""
        def well(order_id, *, to="x"): time.sleep(0.01)
        def raises(): raise ValueError("planted")
        def leaves(): sys.exit(3)
        def leaves_well(): sys.exit()
        def left_over(): time.sleep(60)
        class Worker(threading.Thread):
            def run(self): pass

        threads = [threading.Thread(target=well, args=(7,), kwargs={"to": "ada"}), threading.Thread(target=raises),
                   threading.Thread(target=leaves), threading.Thread(target=leaves_well), Worker()]
        for thread in threads: thread.start()
        for thread in threads: thread.join()
        threading.Thread(target=left_over, daemon=True).start()
        time.sleep(0.1)
        print("main ends")
    """)
    assert told.kinds("well") == DONE and told.one("well").args == {"order_id": 7, "to": "ada"}
    assert told.kinds("raises") == ["scheduled", "started", "failed"]
    assert told.one("raises").events[-1]["error"]["message"] == "planted"
    assert told.kinds("leaves")[-1] == "failed" and told.kinds("leaves_well") == DONE
    assert told.kinds("left_over") == ["scheduled", "started", "dropped:exit"]
    assert told.kinds("Worker.run") == DONE and len(told.tasks) == 6
    first = told.one("well").first
    assert (first["declared"], first["source"], first["name"]) == (False, "threading", "shop.well")


@pytest.mark.cells("scheduled", "started", "cancelled", "arguments", system="threading")
def test_a_timer_starts_when_its_time_has_come_or_is_cancelled(run: Any) -> None:
    told = run("""
        def remind(order_id): print("reminded")
        def never(): pass
        def raises(): raise ValueError("planted")
        class Repeating(threading.Timer):
            def run(self):
                while not self.finished.wait(self.interval):
                    self.function(*self.args, **self.kwargs)

        looseends.init()  # the journal is open by now: its making takes a while on a busy machine
        timers = [threading.Timer(0.2, remind, (7,)), threading.Timer(60, never), threading.Timer(0.01, raises)]
        repeating = Repeating(0.01, print, ("again",))
        for timer in (*timers, repeating): timer.start()
        timers[1].cancel()
        for timer in timers: timer.join()
        repeating.cancel()
        repeating.join()
    """)
    due = told.one("remind")
    assert due.kinds == DONE and due.args == {"order_id": 7} and "reminded" in told.output
    assert due.events[0]["eta"] - due.events[0]["at"] > 150_000_000
    assert due.events[1]["at"] - due.events[0]["at"] > 150_000_000, "its start is when it ran, not when it began to wait"
    assert told.kinds("never") == ["scheduled", "cancelled:requested"]
    assert told.kinds("raises")[-1] == "failed"
    assert told.kinds("Repeating.run") == DONE and "eta" not in told.one("Repeating.run").first
    assert len(told.tasks) == 4


def test_an_excepthook_of_the_services_own_is_called_as_ever_and_tracebacks_are_the_same(run: Any) -> None:
    source = """
        def raises(): raise ValueError("planted")
        def start():
            thread = threading.Thread(target=raises, name="by name")
            thread.start()
            thread.join()
            print(sorted(name for name in vars(thread) if "loose" in name))
        start()
        threading.excepthook = lambda given: print("hook:", given.exc_type.__name__, given.thread.name)
        start()
    """
    bare, captured = run(source, hooks=""), run(source)
    assert "Traceback" in bare.output and "hook: ValueError by name" in bare.output
    assert captured.output == bare.output, "every line of the traceback, and nothing of ours on the thread"
    assert [task.kinds[-1] for task in captured.of("raises")] == ["failed", "failed"]


def test_a_thread_knows_the_task_it_was_started_in_and_nothing_else_crosses(run: Any) -> None:
    told = run("""
        import decimal
        var = contextvars.ContextVar("var", default="not set")
        def inner(): print("inner sees", var.get(), decimal.getcontext().prec)
        def outer():
            var.set("outer's")
            decimal.getcontext().prec = 5
            for make in (threading.Thread, functools.partial(threading.Timer, 0.01)):
                thread = make(target=inner) if make is threading.Thread else make(inner)
                thread.start()
                thread.join()
            copied = threading.Thread(target=contextvars.copy_context().run, args=(inner,))
            copied.start()
            copied.join()
        thread = threading.Thread(target=outer)
        thread.start()
        thread.join()
    """)
    outer = told.one("outer")
    assert [(task.parent, task.kinds) for task in told.of("inner")] == [(outer.id, DONE)] * 3
    assert told.output.splitlines() == ["inner sees not set 28", "inner sees not set 28", "inner sees outer's 5"]


def test_a_decorated_function_in_a_thread_is_one_task(run: Any) -> None:
    told = run("""
        @looseends.task(name="deco", key="n")
        def deco(n):
            looseends.current().progress(0.5)
            if n == 9: raise ValueError("planted")
        @looseends.task(name="deco.async")
        async def deco_async(): pass
        import warnings; warnings.simplefilter("ignore")

        threads = [threading.Thread(target=deco, args=(1,)), threading.Timer(0.01, deco, (2,)),
                   threading.Thread(target=functools.partial(deco, 3)), threading.Thread(target=deco, args=(9,)),
                   threading.Thread(target=contextvars.copy_context().run, args=(deco, 4)),
                   threading.Thread(target=deco_async)]
        for thread in threads: thread.start()
        for thread in threads: thread.join()
    """)
    assert sorted((task.first["key"], tuple(task.kinds)) for task in told.of("deco")) == [
        *((str(n), ("scheduled", "started", "progress", "finished")) for n in (1, 2, 3, 4)),
        ("9", ("scheduled", "started", "progress", "failed")),
    ]
    assert {task.first["source"] for task in told.of("deco")} == {"threading"}
    assert told.kinds("deco.async") == ["scheduled", "dropped:collected"], "a thread gets a coroutine back, and drops it"


def test_threads_of_libraries_are_no_work_and_those_they_run_for_the_service_are(run: Any) -> None:
    told = run("""
        import http.server, logging.handlers, queue, socketserver, urllib.request
        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self): self.send_response(200); self.end_headers()
            def log_message(self, *args): pass
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        def serve(): server.serve_forever(0.01)
        threading.Thread(target=serve).start()
        urllib.request.urlopen(f"http://127.0.0.1:{server.server_port}/").close()
        listener = logging.handlers.QueueListener(queue.Queue())
        listener.start()
        listener.stop()
        server.shutdown()
        server.server_close()
        sleeper = threading.Thread(target=time.sleep, args=(0.01,))
        sleeper.start()
        sleeper.join()
    """)
    assert told.kinds("serve") == DONE and told.kinds("sleep") == DONE and len(told.tasks) == 2


def test_what_goes_wrong_in_a_thread_call_is_the_callers_as_ever(run: Any) -> None:
    source = """
        def work(): pass
        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
        try: thread.start()
        except RuntimeError as error: print(error)
        class Broken(threading.Thread):
            def __init__(self): pass
        try: Broken().start()
        except RuntimeError as error: print(error)
        threading.Thread().start()
        import _thread
        threading._start_new_thread = lambda *args: (_ for _ in ()).throw(RuntimeError("can't start new thread"))
        try: threading.Thread(target=work).start()
        except RuntimeError as error: print(error, threading._limbo)
    """
    bare, captured = run(source, hooks=""), run(source)
    assert captured.output == bare.output and "can't start new thread" in bare.output
    assert [task.kinds for task in captured.of("work")] == [DONE, ["scheduled", "failed"]]
