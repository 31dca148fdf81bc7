"""The metrics: their names, labels and values, made from figures of the store. Pure; Prometheus and OTLP both render these.

Rules:

1. A family has one OTel name (`looseends.task.started`); its Prometheus name follows from it as the SDK's own exporter makes
   it: dots become underscores, `s` adds `_seconds`, `By` adds `_bytes`, counters add `_total`.
2. Counters are read from rows that only grow. Gauges are counted from what is there now.
3. Types beyond the first `names_max` are one, named `_other`; so are services and environments that only they have.
   Attribution is by order of first sight, so that it never changes and no counter ever falls.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping

from looseends.wire import NS
from looseends_daemon.core.counting import BOUNDS_S
from looseends_daemon.core.resources import SETTLEMENTS, STATES, VERDICTS, Value

OTHER = "_other"
ENVIRONMENTS_MAX = 50
Labels = tuple[str, ...]


class Type(Value, frozen=True):
    """A type of task as the store numbers it."""

    id: int
    service: str
    name: str


class Figures(Value, frozen=True):
    """What the store knows, as numbers. Keys of types are (environment id, type id, label), type 0: beyond the cap.

    `counts`: (what, environment, type, label) -> n. `open`: (environment, type, state, verdict) -> (n, oldest began_at in ns).
    `loose`: (environment, type, problem) -> n. `otlp`: waiting by signal. Times in ns.
    """

    types: tuple[Type, ...] = ()
    environments: Mapping[int, str] = {}
    counts: tuple[tuple[str, int, int, str, int], ...] = ()
    open: tuple[tuple[int, int, int, int | None, int, int], ...] = ()
    loose: tuple[tuple[str, int, str, int], ...] = ()
    incidents: tuple[tuple[str, str, int], ...] = ()
    notices: tuple[tuple[str, int], ...] = ()
    instances: tuple[tuple[str, str, str, int], ...] = ()
    otlp: tuple[tuple[str, int], ...] = ()
    since: int = 0


class Process(Value, frozen=True):
    """What the running daemon knows of itself: sizes in bytes, whether all of it works."""

    version: str
    ready: bool
    file_bytes: int
    queued_bytes: int


class Sample(Value, frozen=True):
    """One series: its label values in the order of the family, and its value; of a histogram the counts by bucket and the sum."""

    labels: Labels
    value: float = 0.0
    buckets: tuple[int, ...] = ()


class Family(Value, frozen=True):
    """One metric. `kind`: counter, gauge, updown (a gauge that may be summed) or histogram; `unit` as UCUM has it."""

    name: str
    kind: str
    unit: str
    doc: str
    labels: Labels
    samples: tuple[Sample, ...]

    @property
    def prometheus(self) -> str:
        """Its name there, without the `_total` that counters get when they are written."""
        unit = {"s": "_seconds", "By": "_bytes"}.get(self.unit, "")
        bare = self.name.replace(".", "_")
        return bare if bare.endswith(unit) else bare + unit


TYPE = ("environment", "service", "name")
INSTANCE = ("environment", "service", "state")


def families(figures: Figures, process: Process, now: int) -> list[Family]:
    """Every metric, in the order in which they are documented."""
    return [*_tasks(figures, now), *_loose_ends(figures), *_house(figures, process)]


class _Places:
    """(environment id, type id) -> label values, with what is beyond the caps folded into `_other`."""

    def __init__(self, figures: Figures) -> None:
        self._types = {one.id: (one.service, one.name) for one in figures.types}
        kept = sorted(figures.environments)[:ENVIRONMENTS_MAX]
        self._environments = {number: figures.environments[number] for number in kept}
        self._words = set(self._environments.values())
        self._services = {one.service for one in figures.types}

    def of(self, environment: int, type_: int) -> Labels:
        return (self._environments.get(environment, OTHER), *self._types.get(type_, (OTHER, OTHER)))

    def word(self, environment: str) -> str:
        return environment if environment in self._words else OTHER

    def service(self, service: str) -> str:
        return service if service in self._services else OTHER


def _summed(pairs: Iterable[tuple[Labels, float]]) -> tuple[Sample, ...]:
    sums: defaultdict[Labels, float] = defaultdict(float)
    for labels, value in pairs:
        sums[labels] += value
    return tuple(Sample(labels=labels, value=sums[labels]) for labels in sorted(sums))


def _tasks(figures: Figures, now: int) -> list[Family]:
    places = _Places(figures)
    counted: defaultdict[str, list[tuple[Labels, float]]] = defaultdict(list)
    for what, environment, type_, label, n in figures.counts:
        place = places.of(environment, type_)
        counted[what].append(((*place, label) if what == "finished" else place, n))
    active, gap, oldest = _open(figures, places)
    ages = tuple(Sample(labels=labels, value=max(0.0, (now - at) / NS)) for labels, at in sorted(oldest.items()))
    task = "looseends.task"
    return [
        _family(f"{task}.scheduled", "counter", "{task}", "Attempts that were scheduled.", TYPE, _summed(counted["scheduled"])),
        _family(f"{task}.started", "counter", "{task}", "Executions that started.", TYPE, _summed(counted["started"])),
        _family(
            f"{task}.finished",
            "counter",
            "{task}",
            "Executions that ended, by how. What was lost is never counted here.",
            (*TYPE, "outcome"),
            _summed(counted["finished"]),
        ),
        _family(
            f"{task}.duration", "histogram", "s", "Time from start to end of what succeeded or failed.", TYPE, _durations(figures)
        ),
        _family(f"{task}.active", "updown", "{task}", "Tasks without an end now, by state.", (*TYPE, "state"), active),
        _family(f"{task}.gap", "updown", "{task}", "Tasks without an end that have a verdict now.", (*TYPE, "verdict"), gap),
        _family(f"{task}.oldest_active.age", "gauge", "s", "Age of the oldest task without an end.", TYPE, ages),
    ]


def _open(figures: Figures, places: _Places) -> tuple[tuple[Sample, ...], tuple[Sample, ...], dict[Labels, int]]:
    active: list[tuple[Labels, float]] = []
    gap: list[tuple[Labels, float]] = []
    oldest: dict[Labels, int] = {}
    for environment, type_, state, verdict, n, began_at in figures.open:
        place = places.of(environment, type_)
        active.append(((*place, STATES[state]), n))
        if verdict is not None:
            gap.append(((*place, VERDICTS[verdict]), n))
        oldest[place] = min(oldest.get(place, began_at), began_at)
    return _summed(active), _summed(gap), oldest


def _durations(figures: Figures) -> tuple[Sample, ...]:
    places = _Places(figures)
    buckets: defaultdict[Labels, list[int]] = defaultdict(lambda: [0] * (len(BOUNDS_S) + 1))
    sums: defaultdict[Labels, int] = defaultdict(int)
    for what, environment, type_, label, n in figures.counts:
        place = places.of(environment, type_)
        if what == "duration":
            buckets[place][int(label)] += n
        elif what == "duration_us":
            sums[place] += n
    return tuple(Sample(labels=place, value=sums[place] / 1e6, buckets=tuple(buckets[place])) for place in sorted(buckets))


def _loose_ends(figures: Figures) -> list[Family]:
    places = _Places(figures)
    types = {one.id: (one.service, one.name) for one in figures.types}
    settled = (
        ((*places.of(e, t), SETTLEMENTS[int(label)]), float(n)) for what, e, t, label, n in figures.counts if what == "settled"
    )
    verdicts = (
        ((*places.of(e, t), VERDICTS[int(label)]), float(n)) for what, e, t, label, n in figures.counts if what == "verdict"
    )
    loose = (((places.word(e), *types.get(t, (OTHER, OTHER)), problem), float(n)) for e, t, problem, n in figures.loose)
    return [
        _family(
            "looseends.loose_end.open",
            "updown",
            "{task}",
            "Loose ends that nobody settled yet.",
            (*TYPE, "problem"),
            _summed(loose),
        ),
        _family(
            "looseends.loose_end.settled",
            "counter",
            "{task}",
            "Loose ends that were settled, by how.",
            (*TYPE, "settled"),
            _summed(settled),
        ),
        _family(
            "looseends.task.verdicts", "counter", "{verdict}", "Verdicts that were given.", (*TYPE, "verdict"), _summed(verdicts)
        ),
        _family(
            "looseends.incident.open",
            "updown",
            "{incident}",
            "Incidents that are open now.",
            ("problem", "severity"),
            _summed(((problem, severity), float(n)) for problem, severity, n in figures.incidents),
        ),
    ]


def _house(figures: Figures, process: Process) -> list[Family]:
    places = _Places(figures)
    counted: defaultdict[str, list[tuple[str, float]]] = defaultdict(list)
    for what, _, _, label, n in figures.counts:
        counted[what].append((label, float(n)))

    def paired(what: str) -> tuple[Sample, ...]:
        """Labels of the form "outcome whose" as (whose, outcome)."""
        return _summed((tuple(reversed(label.split(" ", 1))), n) for label, n in counted[what])

    instances = (((places.word(e), places.service(s), state), float(n)) for e, s, state, n in figures.instances)
    dropped = (((places.service(service),), n) for service, n in counted["dropped"])
    events = (((outcome,), n) for outcome, n in counted["event"])
    rows: list[tuple[str, str, str, str, Labels, tuple[Sample, ...]]] = [
        ("notice.pending", "updown", "{notice}", "Notices not yet delivered.", ("endpoint",), _of(figures.notices)),
        ("notice.attempts", "counter", "{attempt}", "Delivery attempts.", ("endpoint", "outcome"), paired("attempt")),
        ("ingest.events", "counter", "{event}", "Events that arrived.", ("outcome",), _summed(events)),
        ("client.dropped", "counter", "{event}", "Records that clients could not keep.", ("service",), _summed(dropped)),
        ("client.instances", "updown", "{instance}", "Instances not gone.", INSTANCE, _summed(instances)),
        ("otlp.pending", "updown", "{record}", "Records no collector has taken yet.", ("signal",), _of(figures.otlp)),
        ("otlp.records", "counter", "{record}", "Records exported or given up.", ("signal", "outcome"), paired("otlp")),
        ("store.size", "gauge", "By", "Size of the database and its log.", (), _one(process.file_bytes)),
        ("store.queued", "gauge", "By", "Bytes that wait to be written.", (), _one(process.queued_bytes)),
        ("ready", "gauge", "1", "1 while nothing keeps the daemon from its work, as /readyz says.", (), _one(process.ready)),
        ("build_info", "gauge", "1", "The version that runs.", ("version",), _one(1, process.version)),
    ]
    return [_family(f"looseends.{name}", *rest) for name, *rest in rows]  # type: ignore[arg-type]


def _one(value: float, *labels: str) -> tuple[Sample, ...]:
    return (Sample(labels=labels, value=float(value)),)


def _of(rows: Iterable[tuple[str, int]]) -> tuple[Sample, ...]:
    return _summed(((name,), float(n)) for name, n in rows)


def _family(name: str, kind: str, unit: str, doc: str, labels: Labels, samples: tuple[Sample, ...]) -> Family:
    return Family(name=name, kind=kind, unit=unit, doc=doc, labels=labels, samples=samples)
