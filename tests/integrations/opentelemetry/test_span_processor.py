"""A real tracer with our processor, in a process of its own: which spans become tasks, how they end, that nothing is raised."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from harness import Processes, wait_until
from looseends import journal
from looseends.errors import UsageError
from looseends.integrations.opentelemetry import LooseEndsSpanProcessor

HEAD = """
import looseends, sys, time
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.trace import SpanKind, Status, StatusCode
from looseends.integrations.opentelemetry import LooseEndsSpanProcessor
provider = TracerProvider()
provider.add_span_processor(LooseEndsSpanProcessor(match=["job.*"]))
tracer = provider.get_tracer("shop")
ids = lambda span: f"{span.get_span_context().trace_id:032x} {span.get_span_context().span_id:016x}"
"""


@pytest.fixture
def run(processes: Processes, state_dir: Path) -> Callable[..., tuple[str, list[list[dict[str, Any]]]]]:
    """Run a program; its output, and for each task it recorded its events."""

    def go(program: str, kill_at: str = "") -> tuple[str, list[list[dict[str, Any]]]]:
        env = {"LOOSEENDS_URL": f"unix:{state_dir}/nobody.sock", "LOOSEENDS_SPOOL_DIR": str(state_dir / "spool")}
        process = processes.start(sys.executable, "-c", HEAD + program, env=env)
        if kill_at:
            process.wait_for(kill_at)
            process.signal(signal.SIGKILL)
        assert process.wait() == (-signal.SIGKILL if kill_at else 0), process.output
        tasks: dict[str, list[dict[str, Any]]] = {}
        for folder in journal.folders(str(state_dir / "spool")):
            orphan: Any = wait_until(lambda f=folder: journal.adopt(f), "the journal")  # type: ignore[misc]
            for event in (event for batch in orphan.batches() for event in batch):
                tasks.setdefault(event["task"], []).append(event)
            orphan.close()
        return process.output, list(tasks.values())

    return go


def test_chosen_spans_are_tasks_with_the_ids_of_their_spans(run: Any) -> None:
    output, tasks = run("""
with tracer.start_as_current_span("GET /orders", kind=SpanKind.SERVER):
    with tracer.start_as_current_span("job.reindex") as span:
        print(ids(span))
    with tracer.start_as_current_span("orders process", kind=SpanKind.CONSUMER) as span:
        print(ids(span))
    with tracer.start_as_current_span("SELECT"):
        pass
""")
    told = {task[0]["name"]: task for task in tasks}
    assert sorted(told) == ["job.reindex", "orders process"]
    started = [told[name][0] for name in ("job.reindex", "orders process")]
    assert [f"{one['trace_id']} {one['span_id']}" for one in started] == output.splitlines()
    assert {one["source"] for one in started} == {"opentelemetry"} and {one["deadline"] for one in started} == {"never"}
    assert [[event["type"] for event in task] for task in told.values()] == [["started", "finished"]] * 2


def test_an_exception_and_an_error_status_are_failures_without_secrets(run: Any) -> None:
    _, tasks = run("""
try:
    with tracer.start_as_current_span("job.mail"):
        raise ValueError("no route to postgres://shop:hunter22@db/shop")
except ValueError:
    pass
with tracer.start_as_current_span("job.bill") as span:
    span.set_status(Status(StatusCode.ERROR, "card refused"))
""")
    mail, bill = ({task[0]["name"]: task[1] for task in tasks}[name] for name in ("job.mail", "job.bill"))
    assert (mail["type"], mail["error"]["type"]) == ("failed", "ValueError")
    assert (
        "hunter22" not in str(tasks) and "no route to" in mail["error"]["message"] and "Traceback" in mail["error"]["traceback"]
    )
    assert bill["error"] == {"type": "SpanError", "message": "card refused"}


def test_a_span_that_dies_with_its_process_has_a_start_and_no_end(run: Any) -> None:
    _, tasks = run(
        """
with tracer.start_as_current_span("job.long"):
    print("inside", flush=True)
    time.sleep(60)
""",
        kill_at="inside",
    )
    assert [[event["type"] for event in task] for task in tasks] == [["started"]]


def test_what_is_audited_inside_a_span_is_its_child_and_nothing_is_recorded_twice(run: Any) -> None:
    _, tasks = run("""
@looseends.task(name="inner")
def inner(): pass
@looseends.task(name="outer")
def outer():
    with tracer.start_as_current_span("consume", kind=SpanKind.CONSUMER):  # a worker's span of what is a task already
        pass
with tracer.start_as_current_span("job.run") as span:
    inner()
outer()
""")
    assert sorted(task[0]["name"] for task in tasks) == ["inner", "job.run", "outer"]
    by = {task[0]["name"]: task[0] for task in tasks}
    assert by["inner"]["span_id"] == by["job.run"]["span_id"]


def test_nothing_is_raised_into_the_tracer_whatever_goes_wrong(run: Any) -> None:
    output, tasks = run("""
def broken(span): raise RuntimeError("choose")
provider.add_span_processor(LooseEndsSpanProcessor(choose=broken))
with tracer.start_as_current_span("job.fine"):
    pass
ours = LooseEndsSpanProcessor(choose=lambda span: True)
ours.on_start(None); ours.on_end(None); ours.on_end(object()); ours.on_start(object())
with tracer.start_as_current_span("job.\\ud800 \\x00 odd" + "x" * 5000):
    pass
assert ours.force_flush(1) in (True, False)
ours.shutdown()
print("lived")
""")
    assert "lived" in output
    assert len(tasks) == 2 and {len(task) for task in tasks} == {2}


def test_names_with_ids_in_them_do_not_fill_the_table_of_names(run: Any) -> None:
    _, tasks = run("""
for n in range(1100):
    with tracer.start_as_current_span(f"job.{n}"):
        pass
""")
    names = {task[0]["name"] for task in tasks}
    assert len(names) == 1001 and "(other spans)" in names


@pytest.mark.parametrize("wrong", [{"match": [7]}, {"choose": "yes"}, {"deadline": "soon"}, {"match": [""]}])
def test_a_wrong_option_is_said_when_the_processor_is_made(wrong: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        LooseEndsSpanProcessor(**wrong)
