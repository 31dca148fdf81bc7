"""Ended tasks as spans in a real collector's form: ids, times, parents, resources, links; and nothing lost when it is down."""

from __future__ import annotations

import asyncio
import time
import uuid
from typing import Any

import pytest

from looseends.wire import NS
from looseends_daemon.config import export_of
from looseends_daemon.config.settings import Otel
from looseends_daemon.services import exporter
from looseends_daemon.store import outgoing

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


def otel(collector: Any, more: str = "") -> str:
    return f'[otel]\nendpoint = "{collector.url}"\nmetrics = false\n{more}'


def event(kind: str, task: str, at: int, **fields: Any) -> dict[str, Any]:
    return {"type": kind, "task": task, "name": "mail.send", "at": at, **fields}


async def test_an_ended_task_is_a_span_with_its_own_ids_and_times(open_house: Any, collector: Any) -> None:
    house = await open_house(otel(collector))
    task, begun = str(uuid.uuid4()), time.time_ns() - 60 * NS
    await house.tell(
        event(
            "started", task, begun + 1, trace_id=TRACE, span_id=SPAN, key="order-7", tags={"tier": "gold"}, args={"card": "4111"}
        ),
        event("finished", task, begun + 5 * NS, duration=5.0, result={"sent": 1}),
    )
    await house.until(collector.spans, "a span")
    (span,) = collector.spans()
    assert (span["trace_id"], span["parent_span_id"], span["name"]) == (TRACE, SPAN, "run mail.send")
    assert (int(span["start_time_unix_nano"]), int(span["end_time_unix_nano"])) == (begun + 1, begun + 5 * NS)
    assert span["attributes"] == {
        "looseends.task.id": task,
        "looseends.task.name": "mail.send",
        "looseends.task.attempt": 1,
        "looseends.task.outcome": "succeeded",
        "looseends.task.key": "order-7",
        "looseends.tag.tier": "gold",
    }
    assert (
        span["resource"].items()
        >= {
            "service.name": "shop-web",
            "service.instance.id": "i-1",
            "service.version": "7",
            "deployment.environment.name": "staging",
            "host.name": "web-3",
            "process.pid": 42,
        }.items()
    )
    assert "4111" not in str(collector.requests)


async def test_a_failure_is_an_error_with_its_exception_as_a_log_record(open_house: Any, collector: Any) -> None:
    house = await open_house(otel(collector))
    task, now = str(uuid.uuid4()), time.time_ns() - NS
    error = {"type": "smtplib.SMTPError", "message": "mailbox full", "traceback": "Traceback ..."}
    await house.tell(event("started", task, now), event("failed", task, now + 1000, error=error))
    await house.until(lambda: collector.spans() and collector.logs(), "a span and a log record")
    (span,), (log,) = collector.spans(), collector.logs()
    assert span["status"] == {"message": "mailbox full", "code": "STATUS_CODE_ERROR"}
    assert span["attributes"]["error.type"] == "smtplib.SMTPError"
    assert span["trace_id"] == task.replace("-", "") and span["parent_span_id"] == ""
    assert (log["trace_id"], log["span_id"]) == (span["trace_id"], span["span_id"])
    assert (log["event_name"], log["severity_text"]) == ("looseends.task.exception", "ERROR")
    assert log["attributes"]["exception.stacktrace"] == "Traceback ..."
    assert log["resource"] == span["resource"]


async def test_a_task_begun_in_a_task_is_its_child_whoever_ends_first(open_house: Any, collector: Any) -> None:
    house = await open_house(otel(collector))
    top, child, grandchild = (str(uuid.uuid4()) for _ in range(3))
    now = time.time_ns() - 9 * NS
    await house.tell(event("started", top, now, trace_id=TRACE, span_id=SPAN))
    await house.tell(event("started", child, now + 1, parent=top))
    await house.tell(event("started", grandchild, now + 2, parent=child), event("finished", grandchild, now + 3))
    await house.until(lambda: len(collector.spans()) == 1, "the grandchild's span")
    await house.tell(event("finished", top, now + 5), event("finished", child, now + 9))
    await house.until(lambda: len(collector.spans()) == 3, "three spans")
    by = {span["attributes"]["looseends.task.id"]: span for span in collector.spans()}
    assert {span["trace_id"] for span in by.values()} == {TRACE}
    assert by[child]["parent_span_id"] == by[top]["span_id"]
    assert by[grandchild]["parent_span_id"] == by[child]["span_id"]


async def test_a_retry_is_one_span_at_its_last_attempt(open_house: Any, collector: Any) -> None:
    house = await open_house(otel(collector))
    task, now = str(uuid.uuid4()), time.time_ns() - 9 * NS
    await house.tell(event("started", task, now), event("failed", task, now + 1, will_retry=True))
    await house.tell(event("started", task, now + 2, attempt=2), event("finished", task, now + 3, attempt=2))
    await house.until(collector.spans, "a span")
    (span,) = collector.spans()
    assert (span["attributes"]["looseends.task.attempt"], span["attributes"]["looseends.task.outcome"]) == (2, "succeeded")


async def test_lost_work_is_a_span_and_its_late_end_a_log_record(open_house: Any, collector: Any) -> None:
    house = await open_house(otel(collector))
    task = str(uuid.uuid4())
    await house.tell(event("started", task, time.time_ns() - NS))
    await house.tell(event("dropped", task, time.time_ns() - 1000, reason="collected"))
    await house.until(lambda: collector.spans() and collector.logs(), "a span and a log record")
    (span,), (log,) = collector.spans(), collector.logs()
    assert span["attributes"]["looseends.task.outcome"] == "lost" and span["status"]["code"] == "STATUS_CODE_ERROR"
    assert log["event_name"] == "looseends.task.lost" and log["attributes"]["looseends.verdict.reason"]
    await house.tell(event("finished", task, time.time_ns()))
    await house.until(lambda: len(collector.logs()) == 2, "the late end")
    assert collector.logs()[1]["event_name"] == "looseends.task.finished_late"
    assert len(collector.spans()) == 1


async def test_work_with_a_span_of_its_own_is_not_exported_again(open_house: Any, collector: Any) -> None:
    house = await open_house(otel(collector))
    own, ours, now = str(uuid.uuid4()), str(uuid.uuid4()), time.time_ns() - NS
    await house.tell(
        event("started", own, now, source="opentelemetry", trace_id=TRACE, span_id=SPAN),
        event("started", ours, now, parent=own),
        event("finished", own, now + 1),
        event("finished", ours, now + 2),
    )
    await house.until(collector.spans, "a span")
    (span,) = collector.spans()
    assert (span["attributes"]["looseends.task.id"], span["trace_id"], span["parent_span_id"]) == (ours, TRACE, SPAN)


async def test_an_end_that_overtook_its_start_waits_for_it(
    open_house: Any, collector: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("looseends_daemon.store.outgoing.START_S", 1)
    house = await open_house(otel(collector))
    task, now = str(uuid.uuid4()), time.time_ns() - 9 * NS
    await house.tell(event("finished", task, now + NS))
    await house.tell(event("started", task, now, trace_id=TRACE, span_id=SPAN))
    await house.until(collector.spans, "a span")
    (span,) = collector.spans()
    assert (span["trace_id"], int(span["start_time_unix_nano"])) == (TRACE, now)


async def test_a_collector_that_was_down_gets_everything_once_and_ingest_never_waits(open_house: Any, collector: Any) -> None:
    house = await open_house(otel(collector))
    collector.status = 503
    tasks = [str(uuid.uuid4()) for _ in range(600)]
    for n in range(0, 600, 200):
        now = time.time_ns()
        await house.tell(
            *(event("started", task, now - 9) for task in tasks[n : n + 200]),
            *(event("finished", task, now - 1) for task in tasks[n : n + 200]),
        )
    await house.until(lambda: house.daemon.notes(), "a word about the collector")
    assert house.daemon.not_ready() == []
    collector.status = 200
    await house.until(lambda: len(collector.spans()) >= 600, "all spans", 60.0)
    found = [span["attributes"]["looseends.task.id"] for span in collector.spans()]
    assert sorted(found) == sorted(tasks)
    await house.until(lambda: not house.daemon.notes(), "the word to be taken back")


async def test_a_record_that_nobody_takes_does_not_hold_up_the_others(open_house: Any, collector: Any) -> None:
    house = await open_house(otel(collector, "logs = false\n"))
    collector.refuse = lambda message: b"poison" in message.SerializeToString()
    now = time.time_ns() - NS
    poison, good = str(uuid.uuid4()), [str(uuid.uuid4()) for _ in range(5)]
    await house.tell(event("started", poison, now, key="poison"), event("finished", poison, now + 1))
    await house.tell(*(event("started", task, now) for task in good), *(event("finished", task, now + 1) for task in good))
    await house.until(lambda: len(collector.spans()) == 5, "the good ones")
    assert 'looseends_otlp_records_total{outcome="given_up",signal="span"} 1.0' in await house.scrape()
    assert await house.daemon.database.write(lambda conn: conn.execute("SELECT count(*) FROM outgoing").fetchone()[0]) == 0


async def test_a_collector_that_never_answers_delays_neither_ingest_nor_the_stop(open_house: Any, collector: Any) -> None:
    house = await open_house(otel(collector))
    collector.hold.clear()
    task, now = str(uuid.uuid4()), time.time_ns() - NS
    await house.tell(event("started", task, now), event("finished", task, now + 1))
    await asyncio.sleep(1.2)  # until it is surely being waited for
    began = time.monotonic()
    await house.tell(event("started", str(uuid.uuid4()), now))
    assert time.monotonic() - began < 2.0
    began = time.monotonic()
    again = await open_house()  # the first one stops
    assert time.monotonic() - began < 4.0
    collector.hold.set()
    again = await open_house(otel(collector))
    await again.until(lambda: {s["attributes"]["looseends.task.id"] for s in collector.spans()} == {task}, "the span")


async def test_too_many_that_wait_are_given_up_oldest_first_and_counted(open_house: Any, collector: Any) -> None:
    collector.status = 503
    house = await open_house(otel(collector))
    tasks, now = [str(uuid.uuid4()) for _ in range(10)], time.time_ns() - NS
    await house.tell(*(event("started", t, now) for t in tasks), *(event("finished", t, now + 1) for t in tasks))
    assert await house.daemon.database.write(lambda conn: outgoing.relieve(conn, "span", 4)) == 6
    collector.status = 200
    await house.until(lambda: len(collector.spans()) == 4, "the newest")
    assert {span["attributes"]["looseends.task.id"] for span in collector.spans()} <= set(tasks)


async def test_a_collector_that_stays_down_does_not_let_more_wait_than_may(
    open_house: Any, collector: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exporter, "RELIEVE_EVERY_S", 0.0)
    monkeypatch.setattr(exporter, "relieve", lambda conn, signal: outgoing.relieve(conn, signal, 4))
    collector.status = 503
    house = await open_house(otel(collector, "logs = false\n"))
    await house.until(lambda: house.daemon.exports.bodies, "the export")
    for _ in range(2):  # the second when the collector is known to be down
        tasks, now = [str(uuid.uuid4()) for _ in range(10)], time.time_ns() - NS
        await house.tell(*(event("started", t, now) for t in tasks), *(event("finished", t, now + 1) for t in tasks))
        await house.until(lambda: house.daemon.notes(), "a word about the collector")
    pending = 'looseends_otlp_pending{signal="span"} 4.0'
    deadline = time.monotonic() + 30
    while pending not in await house.scrape():
        assert time.monotonic() < deadline
    collector.status = 200
    await house.until(lambda: len(collector.spans()) == 4, "the newest")
    assert {span["attributes"]["looseends.task.id"] for span in collector.spans()} <= set(tasks)


async def test_without_an_endpoint_nothing_is_noted_and_nothing_imported(open_house: Any) -> None:
    house = await open_house()
    task, now = str(uuid.uuid4()), time.time_ns() - NS
    await house.tell(event("started", task, now), event("finished", task, now + 1))
    assert await house.daemon.database.write(lambda conn: conn.execute("SELECT count(*) FROM outgoing").fetchone()[0]) == 0
    assert house.daemon.exports.bodies == []


@pytest.mark.parametrize(
    ("environ", "wanted"),
    [
        ({}, (None, None, None)),
        (
            {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4318/"},
            ("http://c:4318/v1/traces", "http://c:4318/v1/logs", "http://c:4318/v1/metrics"),
        ),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://t/x"}, ("http://t/x", None, None)),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4318", "OTEL_SDK_DISABLED": "true"}, (None, None, None)),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4317", "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}, ("http://c:4317",) * 3),
    ],
)
def test_the_variables_of_the_sdk_say_where(environ: dict[str, str], wanted: tuple[str | None, ...]) -> None:
    found = export_of(Otel(), environ)
    assert (found.traces, found.logs, found.metrics) == wanted
    file = export_of(Otel(endpoint="http://file:1", logs=False), environ)
    if environ.get("OTEL_SDK_DISABLED") is None:
        assert file.traces is not None and file.traces.startswith("http://file:1") and file.logs is None


async def test_the_metrics_are_pushed_by_the_same_names(open_house: Any, collector: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_METRIC_EXPORT_INTERVAL", "200")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "x-team=shop")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_COMPRESSION", "gzip")
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "k8s.cluster.name=eu-1")
    house = await open_house(f'[otel]\nendpoint = "{collector.url}"\n')
    task, now = str(uuid.uuid4()), time.time_ns() - NS
    await house.tell(event("started", task, now), event("finished", task, now + 1, duration=0.02))

    def counted() -> bool:
        pushed = any(path == "/v1/metrics" for path, _, _ in collector.requests)
        return pushed and "looseends.task.duration" in collector.metrics()

    await house.until(counted, "a push that counts the task")
    metrics = collector.metrics()
    started = metrics["looseends.task.started"].sum
    assert started.is_monotonic and started.data_points[0].as_double == 1.0
    took = metrics["looseends.task.duration"]
    assert (took.unit, took.histogram.data_points[0].count, took.histogram.data_points[0].sum) == ("s", 1, 0.02)
    assert took.histogram.data_points[0].bucket_counts[2] == 1
    _, headers, _ = collector.requests[0]
    assert (headers["x-team"], headers["content-encoding"]) == ("shop", "gzip")
    await house.until(collector.spans, "a span")
    assert collector.spans()[0]["resource"]["k8s.cluster.name"] == "eu-1"
    assert collector.spans()[0]["resource"]["service.name"] == "shop-web"


async def test_a_yes_whose_removal_was_cut_off_is_sent_once_more_as_the_same_span(
    open_house: Any, collector: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    remove: Any = outgoing.taken
    cut: list[Any] = []

    def cut_off_once(*args: Any) -> None:
        if not cut:
            cut.append(args)
            raise OSError("killed between the collector's yes and the commit")
        remove(*args)

    monkeypatch.setattr(exporter, "taken", cut_off_once)
    house = await open_house(otel(collector))
    task, now = str(uuid.uuid4()), time.time_ns() - NS
    await house.tell(event("started", task, now), event("finished", task, now + 1))
    await house.until(lambda: len(collector.spans()) == 2, "the span to be sent again")
    first, second = collector.spans()
    assert first == second
