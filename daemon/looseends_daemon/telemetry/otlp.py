"""Records in the form of the OpenTelemetry SDK, and its exporters. The only file that imports the SDK, and only when made.

Rules:

1. Everything here blocks and is called from one worker thread, never from the event loop.
2. The exporters read the SDK's own variables (headers, certificates, compression, timeout); the address is handed in. Whether
   the collector took a batch is given back: what is made of a no is not decided here.
3. gRPC is imported only where OTEL_EXPORTER_OTLP_PROTOCOL asks for it: it costs 14 MiB and twice the time.
"""

from __future__ import annotations

import importlib
import logging
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from looseends_daemon.config.export import Export
from looseends_daemon.core.counting import BOUNDS_S
from looseends_daemon.core.metrics import Family, Sample
from looseends_daemon.core.spans import Log, Span

TIMEOUT_S = 5.0
"""Of one request, where OTEL_EXPORTER_OTLP_TIMEOUT says nothing."""
RESOURCES_MAX = 1_000
_EXPORTERS = {
    "traces": ("trace_exporter", "OTLPSpanExporter"),
    "logs": ("_log_exporter", "OTLPLogExporter"),
    "metrics": ("metric_exporter", "OTLPMetricExporter"),
}
_SEVERITIES = {"INFO": 9, "WARN": 13, "ERROR": 17}


class Otlp:
    """The exporters of the signals that are sent. Making it imports the SDK: raises ImportError, and ValueError for a setting
    that the SDK cannot read."""

    def __init__(self, export: Export, version: str, instance: str) -> None:
        # The exporters say each failed try in a log of their own; whoever calls us says it once a minute.
        logging.getLogger("opentelemetry").setLevel(logging.CRITICAL)
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.util.instrumentation import InstrumentationScope

        self._scope = InstrumentationScope("looseends", version)
        self._base = Resource.create({"service.name": "looseends", "service.version": version, "service.instance.id": instance})
        # What OTEL_RESOURCE_ATTRIBUTES says holds for every service that this daemon speaks for, its name and instance apart.
        ours = {name: value for name, value in self._base.attributes.items() if not name.startswith("service.")}
        self._shared = Resource(ours)
        self._resources: dict[tuple[tuple[str, Any], ...], Any] = {}
        self._exporters = {signal: _exporter(export, signal) for signal in _EXPORTERS if getattr(export, signal) is not None}

    def send(self, signal: str, records: Sequence[Any]) -> bool:
        """Export spans ("span") or log records ("log"); whether the collector took them."""
        if signal == "span":
            return _took(self._exporters["traces"].export([self._span(record) for record in records]))
        return _took(self._exporters["logs"].export([self._log(record) for record in records]))

    def send_metrics(self, families: Sequence[Family], since: int, now: int) -> bool:
        """Export the metrics as cumulative sums since `since` (ns)."""
        from opentelemetry.sdk.metrics.export import MetricsData, ResourceMetrics, ScopeMetrics

        metrics = [_metric(family, since, now) for family in families if family.samples]
        scope = ScopeMetrics(scope=self._scope, metrics=metrics, schema_url="")
        resource = ResourceMetrics(resource=self._base, scope_metrics=[scope], schema_url="")
        return _took(self._exporters["metrics"].export(MetricsData(resource_metrics=[resource])))

    def close(self) -> None:
        """Let go of the connections, and of a retry that waits."""
        for exporter in self._exporters.values():
            exporter.shutdown()

    def _resource(self, attributes: Mapping[str, Any]) -> Any:
        """The resource of an instance, made once: making and hashing one takes as long as all the rest of a span."""
        key = tuple(attributes.items())
        found = self._resources.get(key)
        if found is None:
            if len(self._resources) >= RESOURCES_MAX:
                self._resources.clear()
            found = self._resources[key] = _kept(self._shared, attributes)
        return found

    def _span(self, span: Span) -> Any:
        from opentelemetry.sdk.trace import ReadableSpan
        from opentelemetry.trace import Link, SpanKind, Status, StatusCode

        trace, own = span.ids
        link = () if span.link is None else (Link(_context(*span.link, remote=True), {"looseends.link.type": "replay_of"}),)
        return ReadableSpan(
            name=span.name,
            context=_context(trace, own),
            parent=_context(trace, span.parent, remote=True) if span.parent else None,
            resource=self._resource(span.resource),
            attributes=dict(span.attributes),
            links=link,
            kind=SpanKind.CONSUMER if span.queued else SpanKind.INTERNAL,
            status=Status(StatusCode.UNSET) if span.failed is None else Status(StatusCode.ERROR, span.failed),
            start_time=span.start,
            end_time=span.end,
            instrumentation_scope=self._scope,
        )

    def _log(self, log: Log) -> Any:
        from opentelemetry._logs import LogRecord, SeverityNumber
        from opentelemetry.sdk._logs import ReadableLogRecord
        from opentelemetry.trace import NonRecordingSpan, set_span_in_context

        record = LogRecord(
            timestamp=log.at,
            observed_timestamp=log.at,
            context=set_span_in_context(NonRecordingSpan(_context(*log.ids))),
            severity_text=log.severity,
            severity_number=SeverityNumber(_SEVERITIES[log.severity]),
            body=log.body,
            attributes=dict(log.attributes),
            event_name=log.event,
        )
        return ReadableLogRecord(record, self._resource(log.resource), self._scope)


def _kept(shared: Any, attributes: Mapping[str, Any]) -> Any:
    """A resource that knows its hash: the encoder asks for it with every span, and the SDK's is made of JSON each time."""
    from opentelemetry.sdk.resources import Resource

    class Kept(Resource):
        def __hash__(self) -> int:
            return number

    merged = shared.merge(Resource(dict(attributes)))
    number = hash(merged)
    return Kept(dict(merged.attributes), merged.schema_url)


def maker(export: Export, version: str, instance: str) -> Callable[[], Otlp]:
    """What makes the exporters when they are first needed."""
    return lambda: Otlp(export, version, instance)


def _context(trace: int, span: int, remote: bool = False) -> Any:
    from opentelemetry.trace import SpanContext, TraceFlags

    return SpanContext(trace, span, remote, TraceFlags(TraceFlags.SAMPLED))


def _exporter(export: Export, signal: str) -> Any:
    module, name = _EXPORTERS[signal]
    way = "grpc" if export.grpc else "http"
    made = getattr(importlib.import_module(f"opentelemetry.exporter.otlp.proto.{way}.{module}"), name)
    told = any(os.environ.get(f"OTEL_EXPORTER_OTLP_{part}TIMEOUT") for part in ("", f"{signal.upper()}_"))
    return made(endpoint=getattr(export, signal), **({} if told else {"timeout": TIMEOUT_S}))


def _took(result: Any) -> bool:
    return bool(result.name == "SUCCESS")


def _metric(family: Family, since: int, now: int) -> Any:
    from opentelemetry.sdk.metrics.export import AggregationTemporality, Gauge, Histogram, Metric, NumberDataPoint, Sum

    names = [_ATTRIBUTES.get(name, name) for name in family.labels]
    cumulative = AggregationTemporality.CUMULATIVE
    data: Any
    if family.kind == "histogram":
        points = [_distribution(sample, names, since, now) for sample in family.samples]
        data = Histogram(data_points=points, aggregation_temporality=cumulative)
    else:
        numbers = [
            NumberDataPoint(
                attributes=dict(zip(names, sample.labels, strict=True)),
                start_time_unix_nano=since,
                time_unix_nano=now,
                value=sample.value,
            )
            for sample in family.samples
        ]
        if family.kind == "gauge":
            data = Gauge(data_points=numbers)
        else:
            data = Sum(data_points=numbers, aggregation_temporality=cumulative, is_monotonic=family.kind == "counter")
    return Metric(name=family.name, description=family.doc, unit=family.unit, data=data)


_ATTRIBUTES = {
    "service": "looseends.service.name",
    "name": "looseends.task.name",
    "environment": "deployment.environment.name",
}
"""Labels whose bare name would be taken for the daemon's own service."""


def _distribution(sample: Sample, names: Sequence[str], since: int, now: int) -> Any:
    from opentelemetry.sdk.metrics.export import HistogramDataPoint

    return HistogramDataPoint(
        attributes=dict(zip(names, sample.labels, strict=True)),
        start_time_unix_nano=since,
        time_unix_nano=now,
        count=sum(sample.buckets),
        sum=sample.value,
        bucket_counts=sample.buckets,
        explicit_bounds=BOUNDS_S,
        min=None,  # type: ignore[arg-type]  # not known; the encoder leaves it out
        max=None,  # type: ignore[arg-type]
    )
