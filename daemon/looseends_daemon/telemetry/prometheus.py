"""The metrics as text: Prometheus' own format, or OpenMetrics where the scraper asks for it. Runs in a thread, not on the loop.

Rules:

1. Our families are written here, byte for byte as prometheus_client would write them (tests/daemon/telemetry/test_text.py holds
   that): with its object for every line, 200 types (4,266 lines) took 27 ms, 47 in OpenMetrics, and ingest waited for the
   interpreter. This takes 3.4 ms.
2. The figures of this process, and the choice of a format, are prometheus_client's; it is imported with the first scrape. Nothing
   of its global registry is used: what a library registers there is no business of ours.
"""

from __future__ import annotations

import gzip
from collections.abc import Callable, Iterator, Sequence
from itertools import accumulate

from looseends_daemon.core.counting import BOUNDS_S
from looseends_daemon.core.metrics import Family, Labels
from looseends_daemon.core.resources import Value

GZIP_LEVEL = 1
LONG = 1e6
"""From here on numbers are written as Go does it: 1e+06."""
_ESCAPES = str.maketrans({"\\": r"\\", "\n": r"\n", '"': r"\""})
_BOUNDS = (*(str(bound) for bound in BOUNDS_S), "+Inf")


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
    # Its text comes last: in OpenMetrics it ends the page.
    body = text(families, openmetrics=content_type.startswith("application/openmetrics-text")).encode() + encode(registry)
    return Page(body=gzip.compress(body, GZIP_LEVEL) if zipped else body, content_type=content_type, gzipped=zipped)


def text(families: Sequence[Family], *, openmetrics: bool) -> str:
    """The families as text, without the end that OpenMetrics asks for."""
    return "".join(line for family in families for line in _lines(family, openmetrics))


def _lines(family: Family, openmetrics: bool) -> Iterator[str]:
    name = family.prometheus
    counter, kind = family.kind == "counter", "gauge" if family.kind == "updown" else family.kind
    headed = f"{name}_total" if counter and not openmetrics else name
    doc = family.doc.translate(_ESCAPES) if openmetrics else family.doc.replace("\\", r"\\").replace("\n", r"\n")
    yield f"# HELP {headed} {doc}\n# TYPE {headed} {kind}\n"
    if kind == "histogram":
        yield from _distributions(family, name)
        return
    if counter:
        name = f"{name}_total"
    written = _labels(family.labels)
    for sample in family.samples:
        before, after = written(sample.labels)
        inside = before + after
        yield f"{name}{{{inside}}} {_number(sample.value)}\n" if inside else f"{name} {_number(sample.value)}\n"


def _distributions(family: Family, name: str) -> Iterator[str]:
    """Counts by bucket as Prometheus wants them: each holds those before it."""
    written = _labels(family.labels, "le")
    for sample in family.samples:
        before, after = written(sample.labels)
        begin = f'{name}_bucket{{{before}{"," if before else ""}le="'
        end = f'"{"," if after else ""}{after}}} '
        counts = [f"{n}.0" if n < LONG else _number(n) for n in accumulate(sample.buckets)]
        yield "".join([f"{begin}{bound}{end}{n}\n" for bound, n in zip(_BOUNDS, counts, strict=True)])
        inside = before + ("," if before and after else "") + after
        inside = f"{{{inside}}}" if inside else ""
        yield f"{name}_count{inside} {counts[-1]}\n{name}_sum{inside} {_number(sample.value)}\n"


def _labels(names: Labels, between: str = "") -> Callable[[Labels], tuple[str, str]]:
    """What writes label values sorted by their names: those before the label `between`, and those after it."""
    order = sorted(range(len(names)), key=lambda n: names[n])
    first = [n for n in order if names[n] < between]
    second = [n for n in order if names[n] > between]

    def written(values: Labels) -> tuple[str, str]:
        one, two = ([f'{names[n]}="{values[n].translate(_ESCAPES)}"' for n in some] for some in (first, second))
        return ",".join(one), ",".join(two)

    return written


def _number(value: float) -> str:
    if abs(value) < LONG:
        return repr(float(value))
    from prometheus_client.utils import floatToGoString

    return str(floatToGoString(value))  # type: ignore[no-untyped-call]
