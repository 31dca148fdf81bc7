"""The trace a task belongs to: recorded where the program uses OpenTelemetry, and no reason to import it where it does not."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest

import looseends
from looseends import record, trouble

Recorded = Callable[[], list[dict[str, Any]]]
trace = pytest.importorskip("opentelemetry.trace")
sdk = pytest.importorskip("opentelemetry.sdk.trace")


@looseends.task(name="traced")
def traced(order_id: int, note: str = "") -> None: ...


@looseends.task(name="traced.later")
async def traced_later(order_id: int) -> None: ...


async def test_a_task_carries_the_span_it_was_begun_in(recorded: Recorded) -> None:
    tracer = sdk.TracerProvider().get_tracer("tests")
    traced(1)
    with tracer.start_as_current_span("request") as span:
        traced(2)
        traced(3, "x" * 200)
        with looseends.track("block", {"a": 1}):
            pass
        spawned = looseends.spawn(traced_later(4))
    await spawned
    found = span.get_span_context()
    ids = {"trace_id": f"{found.trace_id:032x}", "span_id": f"{found.span_id:016x}"}
    events = [event for event in recorded() if event["type"] in ("scheduled", "started")]
    begun = {(event["name"], event["args"].get("order_id")): event for event in events}
    assert "trace_id" not in begun["traced", 1]
    assert len(begun) == 5
    for (_, number), event in begun.items():
        if number != 1:
            assert {name: event[name] for name in ids} == ids, event
    assert begun["traced", 3]["args"]["note"] == "x" * 200


def test_a_span_that_misbehaves_costs_the_trace_and_nothing_else(recorded: Recorded) -> None:
    class Odd(trace.NonRecordingSpan):  # type: ignore[name-defined, misc]
        def get_span_context(self) -> Any:
            raise RuntimeError("no context today")

    with trace.use_span(Odd(trace.INVALID_SPAN_CONTEXT)):
        traced(1)
    events = recorded()
    assert [event["type"] for event in events] == ["started", "finished"] and "trace_id" not in events[0]
    assert trouble.COUNTS["a trace could not be read"] == 1


def test_nothing_of_opentelemetry_is_imported_for_it(tmp_path: Any) -> None:
    source = (
        "import sys, looseends\n"
        "with looseends.track('x'): pass\n"
        "assert not [m for m in sys.modules if m.startswith('opentelemetry')]\n"
    )
    environment = {"LOOSEENDS_SPOOL_DIR": str(tmp_path / "spool"), "LOOSEENDS_URL": f"unix:{tmp_path}/nobody"}
    done = subprocess.run([sys.executable, "-c", source], env=environment, capture_output=True, text=True, timeout=30)
    assert done.returncode == 0, done.stderr
    assert record.TRACE in sys.modules, "this process is one that uses it"
