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
from looseends_daemon.store.durations import HOUR_NS
from looseends_daemon.store.questions import NO_CURSOR, Question, ask_async, mark_of, whole

_TASKS = " + ".join(f"ledger.{term}" for term in TERMS)
_SUMS = ", ".join(f"sum(ledger.{term}) AS {term}" for term in (*TERMS, "loose"))
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
            lambda conn: ask_async(conn, _page(from_, to, environment, limit, cursor, self._policy()))
        )

    async def type_of(self, service: str, name: str, from_: int, to: int, *, environment: str | None = None) -> TypeStory | None:
        """See core/task_types.Types."""
        return await self._database.read(
            lambda conn: ask_async(conn, _story(service, name, from_, to, environment, self._policy()))
        )


def _page(
    from_: int, to: int, environment: str | None, limit: int, cursor: str | None, policy: Policy
) -> Question[Page[TaskType]]:
    place = _place(cursor)
    only, values = _only(environment)
    first, last = _minutes(from_, to)
    width = _width(first, last)
    # One pass over the ledger gives the sums and the parts: sorted by type twice, it took half as long again.
    rows = yield (
        f"SELECT type, (minute - ?) / ? AS part, {_SUMS}, sum({_TASKS}) AS tasks, max(minute) AS last FROM ledger"
        f" WHERE minute >= ? AND minute < ?{only} GROUP BY 1, 2 HAVING tasks > 0 LIMIT ?",
        (first, width, first, last, *values, TYPES_MAX * (SLICES + 1)),
    )
    ranked = sorted(_by_type(rows).items(), key=lambda pair: (*(-pair[1][name] for name in _RANKS), pair[0]))
    ids = [no for no, _ in ranked[place : place + limit]]
    named = yield from _named(ids)
    slices = _sliced(rows, set(ids), first, last, width)
    bins = yield from _bins(ids, from_, to, environment)
    loops = yield from _loops(ids)
    offered = yield from _offered()
    found = dict(ranked)
    items = [_type({**found[no], **named[no]}, slices[no], bins[no], loops[no], offered, policy) for no in ids]
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
    rows = yield (
        f"SELECT type.id, type.service, type.name, type.ends_alone, {_SUMS}, sum({_TASKS}) AS tasks, max(minute) AS last"
        f" FROM type LEFT JOIN ledger ON ledger.type = type.id AND minute >= ? AND minute < ?{only}"
        " WHERE type.service = ? AND type.name = ? GROUP BY type.id",
        (*_minutes(from_, to), *values, service, name),
    )
    if not rows:
        return None
    no = rows[0]["id"]
    slices = yield from _slices(no, from_, to, environment)
    bins = (yield from _bins([no], from_, to, environment))[no]
    loops = yield from _loops([no])
    shown = _type(dict(rows[0]), slices, bins, loops[no], (yield from _offered()), policy)
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


def _width(first: int, last: int) -> int:
    """How many minutes one of SLICES parts takes."""
    return max(1, -(-(last - first) // SLICES))


def _slices(no: int, from_: int, to: int, environment: str | None) -> Question[list[Slice]]:
    """The window of one type in SLICES equal parts."""
    first, last = _minutes(from_, to)
    width = _width(first, last)
    only, of = _only(environment)
    rows = yield (
        f"SELECT type, (minute - ?) / ? AS part, sum({_TASKS}) AS tasks, sum(failed) AS failed, sum(gap) AS gap FROM ledger"
        f" WHERE minute >= ? AND minute < ? AND type = ?{only} GROUP BY 2",
        (first, width, first, last, no, *of),
    )
    return _sliced(rows, {no}, first, last, width)[no]


def _sliced(rows: Iterable[sqlite3.Row], ids: set[int], first: int, last: int, width: int) -> defaultdict[int, list[Slice]]:
    empty = [Slice(at=(first + n * width) * MINUTE_NS) for n in range(-(-(last - first) // width))]
    found: defaultdict[int, list[Slice]] = defaultdict(lambda: list(empty))
    for row in rows:
        if row["type"] in ids:
            part = found[row["type"]][row["part"]]
            shown = msgspec.structs.replace(part, tasks=row["tasks"], failed=row["failed"], gap=row["gap"])
            found[row["type"]][row["part"]] = shown
    return found


def _bins(ids: list[int], from_: int, to: int, environment: str | None) -> Question[defaultdict[int, Counter[int]]]:
    """Durations by type; whole hours, so the first hour of a window is taken whole."""
    marks, values = _marks(ids)
    only, of = _only(environment)
    rows = yield (
        f"SELECT type, bin, sum(n) AS n FROM duration WHERE type IN ({marks}) AND hour >= ? AND hour < ?{only} GROUP BY 1, 2",
        (*values, from_ // HOUR_NS, -(-to // HOUR_NS), *of),
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
