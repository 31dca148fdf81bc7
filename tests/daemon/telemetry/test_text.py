"""The text of /metrics is written by us; prometheus_client says what it has to be, byte for byte."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import accumulate
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.exposition import choose_encoder

from looseends_daemon.core.counting import BOUNDS_S
from looseends_daemon.core.metrics import Family, Figures, Process, Sample, families
from looseends_daemon.telemetry.prometheus import render, text

OPENMETRICS = "application/openmetrics-text; version=1.0.0"
ACCEPTS = ("text/plain", OPENMETRICS)


class Theirs:
    """Our families as prometheus_client's own objects, one for every line."""

    def __init__(self, families: Sequence[Family]) -> None:
        self.families = families

    def collect(self) -> Iterator[Any]:
        return (as_theirs(family) for family in self.families)

    def describe(self) -> Sequence[Any]:
        return ()


def as_theirs(family: Family) -> Any:
    if family.kind == "histogram":
        made = HistogramMetricFamily(family.prometheus, family.doc, labels=family.labels)
        bounds = [*(str(float(bound)) for bound in BOUNDS_S), "+Inf"]
        for sample in family.samples:
            counts = map(float, accumulate(sample.buckets))
            made.add_metric(sample.labels, list(zip(bounds, counts, strict=True)), sample.value)
        return made
    kind = CounterMetricFamily if family.kind == "counter" else GaugeMetricFamily
    plain = kind(family.prometheus, family.doc, labels=family.labels)
    for sample in family.samples:
        plain.add_metric(sample.labels, sample.value)
    return plain


def reference(made: Sequence[Family], accept: str) -> str:
    registry = CollectorRegistry(auto_describe=False)
    registry.register(Theirs(made))
    encode, _ = choose_encoder(accept)
    body: bytes = encode(registry)
    return body.decode().removesuffix("# EOF\n")


def ours(made: Sequence[Family], accept: str) -> str:
    return text(made, openmetrics=accept == OPENMETRICS)


WORDS = st.text(st.characters(codec="utf-8"), max_size=12) | st.sampled_from(['"', "\\", "\n", "\\n", "a\nb", "ü{}", ""])
LABELS = ["environment", "service", "name", "outcome", "zone", "le_", "l", "lf"]
NAMES = st.lists(st.sampled_from(LABELS), unique=True, max_size=5)
NUMBERS = st.floats() | st.integers(0, 10**17).map(float) | st.sampled_from([999999.0, 1e6, 1234567.5])


@st.composite
def a_family(draw: st.DrawFn) -> Family:
    kind = draw(st.sampled_from(["counter", "gauge", "updown", "histogram"]))
    labels = tuple(draw(NAMES))
    values = draw(st.lists(st.tuples(*(WORDS for _ in labels)), unique=True, max_size=3))
    samples = []
    for value in values:
        n = len(BOUNDS_S) + 1
        one, step = draw(st.integers(0, 10**6)), draw(st.sampled_from([0, 1, 7, 10**5]))
        buckets = tuple(one + step * (bucket % 3) for bucket in range(n)) if kind == "histogram" else ()
        samples.append(Sample(labels=value, value=draw(NUMBERS), buckets=buckets))
    unit = draw(st.sampled_from(["s", "By", "1", "{task}"]))
    return Family(name="looseends.a_thing", kind=kind, unit=unit, doc=draw(WORDS), labels=labels, samples=tuple(samples))


@pytest.mark.parametrize("accept", ACCEPTS)
@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(made=st.lists(a_family(), max_size=3))
def test_the_text_is_what_prometheus_client_writes(accept: str, made: list[Family]) -> None:
    assert ours(made, accept) == reference(made, accept)


@pytest.mark.parametrize("accept", ACCEPTS)
def test_every_metric_there_is_reads_the_same(accept: str) -> None:
    process = Process(version="1.2", ready=True, file_bytes=10**9, queued_bytes=0)
    made = families(Figures(), process, now=0)
    assert len(made) > 15 and ours(made, accept) == reference(made, accept)
    page = render(made, accept, False).body.decode()
    assert page.startswith(ours(made, accept)) and "process_resident_memory_bytes" in page
    assert page.endswith("# EOF\n") == (accept == OPENMETRICS)


def test_a_planted_fault_in_the_text_is_found() -> None:
    made = [Family(name="looseends.x", kind="gauge", unit="1", doc="d", labels=("b", "a"), samples=(Sample(labels=("1", '"')),))]
    assert ours(made, "text/plain") == reference(made, "text/plain")
    assert ours(made, "text/plain").replace(r"\"", '"') != reference(made, "text/plain")
