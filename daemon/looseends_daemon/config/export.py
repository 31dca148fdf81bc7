"""Where telemetry is sent, from `[otel]` and the variables of the OpenTelemetry SDK.

Rules: an endpoint in the file is the base of all signals; without one the SDK's variables hold as the SDK reads them: that of a
signal as it stands, else the base with the signal's path. OTEL_SDK_DISABLED turns everything off.
"""

from __future__ import annotations

from collections.abc import Mapping

from looseends_daemon.config.settings import Otel
from looseends_daemon.core.resources import Value

GRPC = "grpc"
METRICS_EVERY_MS = 60_000


class Export(Value, frozen=True):
    """The address for each signal; None: it is not sent. `every`: between two of metrics (s)."""

    traces: str | None = None
    logs: str | None = None
    metrics: str | None = None
    grpc: bool = False
    every: float = METRICS_EVERY_MS / 1000

    @property
    def signals(self) -> tuple[str, ...]:
        """What is noted for a collector when it happens."""
        return tuple(name for name, url in (("span", self.traces), ("log", self.logs)) if url is not None)


def export_of(otel: Otel, environ: Mapping[str, str]) -> Export:
    """What to send where."""
    if environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return Export()
    grpc = environ.get("OTEL_EXPORTER_OTLP_PROTOCOL", "").strip().lower() == GRPC

    def address(signal: str, wanted: bool) -> str | None:
        if not wanted:
            return None
        own = environ.get(f"OTEL_EXPORTER_OTLP_{signal.upper()}_ENDPOINT", "").strip()
        if otel.endpoint is None and own:
            return own
        base = otel.endpoint or environ.get("OTEL_EXPORTER_OTLP_ENDPOINT", "").strip()
        if not base:
            return None
        return base if grpc else f"{base.rstrip('/')}/v1/{signal}"

    told = environ.get("OTEL_METRIC_EXPORT_INTERVAL", "").strip()
    every = int(told) if told.isascii() and told.isdigit() and 0 < int(told) < 10**9 else METRICS_EVERY_MS
    return Export(
        traces=address("traces", otel.traces),
        logs=address("logs", otel.logs),
        metrics=address("metrics", otel.metrics),
        grpc=grpc,
        every=every / 1000,
    )
