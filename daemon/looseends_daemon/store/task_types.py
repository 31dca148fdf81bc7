"""The read side of types: core/task_types.Types over the read-only connections.

Rules: counts are sums of the ledger's own rows, durations sums of the duration table's, so that no page disagrees with the API
or the database; which type comes first is decided over all types of the window, bounded by TYPES_MAX.
"""

from __future__ import annotations

import sqlite3
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import msgspec

from looseends.wire import NEVER
from looseends_daemon.core.durations import BINS, bound_of, quantile, suggestions
from looseends_daemon.core.policy import Policy
from looseends_daemon.core.resources import Page
from looseends_daemon.core.stats import MINUTE_NS, TERMS
from looseends_daemon.core.task_types import SLICES, TYPES_MAX, Bin, Slice, TaskType, TypeStory, toml_line
from looseends_daemon.store.codes import WITH_PROCESS
from looseends_daemon.store.connection import Database
from looseends_daemon.store.durations import BY_DAY_NS_MIN, DAY_NS, HOUR_NS
from looseends_daemon.store.ledger import HOUR_MINUTES, window
from looseends_daemon.store.questions import NO_CURSOR, Question, ask_apart, mark_of, whole

_TASKS = " + ".join(TERMS)
_SUMS = ", ".join(f"sum({term}) AS {term}" for term in (*TERMS, "loose"))
_LAST = f"max(minute) FILTER (WHERE {_TASKS} > 0) AS last"
_RANKS = ("gap", "loose", "failed", "tasks")
"""Which type comes first: by the first of these that differs, the greater one."""
LOOPS_MAX = 10_000
"""Loops that are counted; beyond it the count stands still."""


class StoreTypes:
    """Implements core/task_types.Types. `policy` gives the deadlines in force."""

    def __init__(self, database: Database, policy: Callable[[], Policy]) -> None:
        self._database, self._policy = database, policy

    async def types(
        self, from_: int, to: int, *, environment: str | None = None, limit: int = 50, cursor: str | None = None
    ) -> Page[TaskType]:
        """See core/task_types.Types."""
        return await self._database.read(
            lambda conn: ask_apart(conn, _page(from_, to, environment, limit, cursor, self._policy()))
        )

    async def type_of(self, service: str, name: str, from_: int, to: int, *, environment: str | None = None) -> TypeStory | None:
        """See core/task_types.Types."""
        return await self._database.read(
            lambda conn: ask_apart(conn, _story(service, name, from_, to, environment, self._policy()))
        )


def _page(
    from_: int, to: int, environment: str | None, limit: int, cursor: str | None, policy: Policy
) -> Question[Page[TaskType]]:
    place = _place(cursor)
    only, values = _only(environment)
    first, last = _minutes(from_, to)
    origin, width = _parts(first, last)
    cells, bounds = window(first, last)
    # One pass over the ledger gives the sums and the parts: sorted by type twice, it took half as long again.
    rows = yield (
        f"SELECT type, (minute - ?) / ? AS part, {_SUMS}, sum({_TASKS}) AS tasks, {_LAST} FROM {cells}"
        f" WHERE 1{only} GROUP BY 1, 2 HAVING tasks > 0 LIMIT ?",
        (origin, width, *bounds, *values, TYPES_MAX * (SLICES + 1)),
    )
    ranked = sorted(_by_type(rows).items(), key=lambda pair: (*(-pair[1][name] for name in _RANKS), pair[0]))
    ids = [no for no, _ in ranked[place : place + limit]]
    named = yield from _named(ids)
    slices = _sliced(rows, set(ids), origin, last, width)
    newest = yield from _newest({no: dict(ranked)[no]["last"] for no in ids}, last, only, values)
    bins = yield from _bins(ids, from_, to, environment)
    loops = yield from _loops(ids)
    offered = yield from _offered()
    found = dict(ranked)
    items = [
        _type({**found[no], **named[no], "last": newest[no]}, slices[no], bins[no], loops[no], offered, policy) for no in ids
    ]
    return Page(items=items, next_cursor=mark_of(place + limit) if len(ranked) > place + limit else None)


def _by_type(rows: Iterable[sqlite3.Row]) -> dict[int, dict[str, Any]]:
    """The parts of each type added up."""
    found: dict[int, dict[str, Any]] = {}
    for row in rows:
        sums = found.setdefault(row["type"], {**dict.fromkeys((*TERMS, "loose", "tasks"), 0), "last": 0})
        for name in (*TERMS, "loose", "tasks"):
            sums[name] += row[name]
        sums["last"] = max(sums["last"], row["last"])
    return found


def _named(ids: list[int]) -> Question[dict[int, dict[str, Any]]]:
    marks, values = _marks(ids)
    rows = yield f"SELECT id, service, name, ends_alone FROM type WHERE id IN ({marks})", values
    return {row["id"]: dict(row) for row in rows}


def _story(service: str, name: str, from_: int, to: int, environment: str | None, policy: Policy) -> Question[TypeStory | None]:
    only, values = _only(environment)
    named = yield "SELECT id, service, name, ends_alone FROM type WHERE service = ? AND name = ?", (service, name)
    if not named:
        return None
    no = named[0]["id"]
    first, last = _minutes(from_, to)
    origin, width = _parts(first, last)
    cells, bounds = window(first, last, f"type = {int(no)}")
    rows = yield (
        f"SELECT type, (minute - ?) / ? AS part, {_SUMS}, sum({_TASKS}) AS tasks, {_LAST} FROM {cells}"
        f" WHERE 1{only} GROUP BY 2 HAVING tasks > 0",
        (origin, width, *bounds, *values),
    )
    sums = _by_type(rows).get(no)
    last_at = None if sums is None else (yield from _newest({no: sums["last"]}, last, only, values))[no]
    slices = _sliced(rows, {no}, origin, last, width)[no]
    bins = (yield from _bins([no], from_, to, environment))[no]
    loops = yield from _loops([no])
    counted = sums or dict.fromkeys((*TERMS, "loose", "tasks"), 0)
    counted = {**counted, **dict(named[0]), "last": last_at}
    shown = _type(counted, slices, bins, loops[no], (yield from _offered()), policy)
    found = suggestions(bins)
    best = next((one for one in found if one.best), None)
    toml = toml_line(service, name, best.deadline) if best is not None else None
    return TypeStory(type=shown, from_=from_, to=to, durations=_shown(bins), suggestions=found, toml=toml)


def _type(
    row: Mapping[str, Any], slices: list[Slice], bins: Counter[int], loops: int, offered: set[tuple[str, str]], policy: Policy
) -> TaskType:
    service, name = row["service"], row["name"]
    rule = policy.rule(service, name)
    ruled = rule is not None and rule.deadline is not None
    captured_loop = bool(loops) and not row["ends_alone"]
    deadline = policy.deadline(service, name, None, declared=not captured_loop)
    counts: dict[str, Any] = {term: row[term] or 0 for term in (*TERMS, "loose")}
    return TaskType(
        service=service,
        name=name,
        tasks=row["tasks"] or 0,
        **counts,
        last_began_at=None if row["last"] is None else row["last"] * MINUTE_NS,
        typical=quantile(bins, 0.5),
        slow=quantile(bins, 0.95),
        measured=sum(bins.values()),
        deadline=None if deadline == NEVER else deadline,
        rule=rule.match if rule is not None and ruled else None,
        offered=(service, name) in offered or ("", name) in offered,
        loops=loops,
        is_loop=captured_loop,
        slices=slices,
    )


def _shown(bins: Counter[int]) -> list[Bin]:
    """The bins from the first that holds any to the last, empty ones between them too."""
    if not bins:
        return []
    return [Bin(upto=bound_of(number), count=bins[number]) for number in range(min(bins), min(max(bins) + 1, BINS))]


def _minutes(from_: int, to: int) -> tuple[int, int]:
    return from_ // MINUTE_NS, -(-to // MINUTE_NS)


def _only(environment: str | None) -> tuple[str, list[object]]:
    if environment is None:
        return "", []
    return " AND environment IN (SELECT id FROM environment WHERE name = ?)", [environment]


def _marks(ids: Iterable[int]) -> tuple[str, list[object]]:
    values: list[object] = list(ids)
    return ", ".join("?" * len(values)), values


def _parts(first: int, last: int) -> tuple[int, int]:
    """(the minute at which the first of SLICES parts begins, how many minutes each takes); of long windows whole hours."""
    width = max(1, -(-(last - first) // SLICES))
    if width < HOUR_MINUTES:
        return first, width
    origin = first // HOUR_MINUTES * HOUR_MINUTES
    return origin, -(-(last - origin) // SLICES // HOUR_MINUTES) * HOUR_MINUTES


def _newest(hours: Mapping[int, int], last: int, only: str, values: list[object]) -> Question[dict[int, int]]:
    """In which minute the newest task of each type began, given the minute or the whole hour: hours say no more."""
    found = {}
    for no, minute in hours.items():
        rows = yield (
            f"SELECT minute FROM ledger WHERE type = ? AND minute >= ? AND minute < ?{only} AND {_TASKS} > 0"
            " ORDER BY minute DESC LIMIT 1",
            (no, minute, min(minute + HOUR_MINUTES, last), *values),
        )
        found[no] = int(rows[0]["minute"]) if rows else minute
    return found


def _sliced(rows: Iterable[sqlite3.Row], ids: set[int], origin: int, last: int, width: int) -> defaultdict[int, list[Slice]]:
    empty = [Slice(at=(origin + n * width) * MINUTE_NS) for n in range(-(-(last - origin) // width))]
    found: defaultdict[int, list[Slice]] = defaultdict(lambda: list(empty))
    for row in rows:
        if row["type"] in ids:
            part = found[row["type"]][row["part"]]
            shown = msgspec.structs.replace(part, tasks=row["tasks"], failed=row["failed"], gap=row["gap"])
            found[row["type"]][row["part"]] = shown
    return found


def _bins(ids: list[int], from_: int, to: int, environment: str | None) -> Question[defaultdict[int, Counter[int]]]:
    """Durations by type; whole hours, of windows over two days whole days: the first of them is taken whole."""
    marks, values = _marks(ids)
    only, of = _only(environment)
    table, time, span = ("duration_day", "day", DAY_NS) if to - from_ > BY_DAY_NS_MIN else ("duration", "hour", HOUR_NS)
    rows = yield (
        f"SELECT type, bin, sum(n) AS n FROM {table} WHERE type IN ({marks}) AND {time} >= ? AND {time} < ?{only} GROUP BY 1, 2",
        (*values, from_ // span, -(-to // span), *of),
    )
    found: defaultdict[int, Counter[int]] = defaultdict(Counter)
    for row in rows:
        found[row["type"]][row["bin"]] = row["n"]
    return found


def _loops(ids: list[int]) -> Question[Counter[int]]:
    """Loops that ended with their process, by type: all that are stored, up to LOOPS_MAX."""
    marks, values = _marks(ids)
    rows = yield (
        f"SELECT type, count(*) AS n FROM (SELECT type FROM task WHERE flags & {WITH_PROCESS} LIMIT {LOOPS_MAX})"
        f" WHERE type IN ({marks}) GROUP BY type",
        values,
    )
    return Counter({row["type"]: row["n"] for row in rows})


def _offered() -> Question[set[tuple[str, str]]]:
    """What live instances run again: (service, name); ("", name) where it came through a queue, from any service."""
    rows = yield (
        "SELECT DISTINCT instance.service, function.name, function.via FROM instance JOIN function"
        " ON function.instance = instance.no WHERE instance.state != 'gone' AND instance.state = 'alive'",
        (),
    )
    return {("" if row["via"] else row["service"], row["name"]) for row in rows}


def _place(cursor: str | None) -> int:
    """How many were shown before. Raises ValueError in words."""
    if cursor is None:
        return 0
    try:
        return whole(int(cursor, 36))
    except ValueError:
        raise ValueError(NO_CURSOR) from None
