"""The metrics as text: Prometheus' own format, or OpenMetrics where the scraper asks for it. Runs in a thread, not on the loop.

Rules: prometheus_client is imported with the first scrape. Nothing of its global registry is used: what a library registers there
is no business of ours, except the figures of this process.
"""

from __future__ import annotations

import gzip
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from looseends_daemon.core.counting import BOUNDS_S
from looseends_daemon.core.metrics import Family
from looseends_daemon.core.resources import Value

GZIP_LEVEL = 1


class Page(Value, frozen=True):
    """A rendered scrape."""

    body: bytes
    content_type: str
    gzipped: bool = False


def render(families: Sequence[Family], accept: str, zipped: bool) -> Page:
    """The metrics in the format that `accept` prefers; `zipped`: packed."""
    from prometheus_client import CollectorRegistry, ProcessCollector
    from prometheus_client.exposition import choose_encoder

    encode, content_type = choose_encoder(accept)
    registry = CollectorRegistry(auto_describe=False)
    ProcessCollector(registry=registry)
    registry.register(_Collector(families))
    body: bytes = encode(registry)
    return Page(body=gzip.compress(body, GZIP_LEVEL) if zipped else body, content_type=content_type, gzipped=zipped)


class _Collector:
    """Our families as prometheus_client's own."""

    def __init__(self, families: Sequence[Family]) -> None:
        self._families = families

    def collect(self) -> Iterator[Any]:
        return (_as_theirs(family) for family in self._families)

    def describe(self) -> Iterable[Any]:
        return ()


def _as_theirs(family: Family) -> Any:
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily

    if family.kind == "histogram":
        made = HistogramMetricFamily(family.prometheus, family.doc, labels=family.labels)
        for sample in family.samples:
            made.add_metric(sample.labels, _cumulated(sample.buckets), sample.value)
        return made
    kind = CounterMetricFamily if family.kind == "counter" else GaugeMetricFamily
    plain = kind(family.prometheus, family.doc, labels=family.labels)
    for sample in family.samples:
        plain.add_metric(sample.labels, sample.value)
    return plain


def _cumulated(buckets: Sequence[int]) -> list[tuple[str, float]]:
    """Counts by bucket as Prometheus wants them: each holds those before it."""
    found, total = [], 0
    for bound, n in zip((*(str(float(b)) for b in BOUNDS_S), "+Inf"), buckets, strict=True):
        total += n
        found.append((bound, float(total)))
    return found
