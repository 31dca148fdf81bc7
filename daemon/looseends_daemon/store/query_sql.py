"""A parsed query as the WHERE part of a statement over `task`.

Rules: every value is a bound parameter; the predicate of a partial index stands there literally (`loose = 1`), since SQLite
never proves it from a parameter; a term is true, or it is not: what is unknown about a task (NULL) does not match, and the
negation of what does not match does. Searched terms look into the newest TEXT_TASKS_MAX tasks before `to` only.
"""

from __future__ import annotations

from collections.abc import Callable
from uuid import UUID

from looseends.wire import NS
from looseends_daemon.core.query import Match, Measure, Query, Term
from looseends_daemon.core.resources import FLAGS, STATES, VERDICTS
from looseends_daemon.store import search
from looseends_daemon.store.codes import EXPECTED

COUNTED = f"(task.flags & {EXPECTED} = 0 OR task.verdict IS NOT NULL)"
"""An expectation that was met after all is no task; it is found by its id alone."""
TEXT_TASKS_MAX = 100_000
"""How far back arguments and errors are searched, in tasks of the window."""

Piece = tuple[str, list[object]]
# Nobody who began it was there to see it end: its parent ended before it, or was lost while it has no end.
_ORPHAN = (
    "EXISTS (SELECT 1 FROM child JOIN task AS parent ON parent.id = child.parent WHERE child.task = task.id"
    " AND (parent.ended_at < task.ended_at OR task.ended_at IS NULL"
    f" AND (parent.ended_at IS NOT NULL OR parent.verdict = {VERDICTS.index('lost')})))"
)
_IS = {
    "loose": "task.loose = 1",
    "gap": "task.verdict IS NOT NULL",
    "open": "task.state < 3",
    "orphan": _ORPHAN,
    "overlap": f"task.flags & {1 << FLAGS.index('overlap')} != 0",
    "ran_twice": f"task.flags & {1 << FLAGS.index('ran_twice')} != 0",
}
_FLOOR = "task.began_at >= coalesce((SELECT t.began_at FROM task AS t {window}ORDER BY t.began_at DESC LIMIT 1 OFFSET ?), 0)"


def where(query: Query, *, now: int, to: int | None = None) -> tuple[str, list[object]]:
    """(SQL, parameters) for `SELECT ... FROM task WHERE <SQL>`. `to` is the end of the window in ns."""
    sql: list[str] = []
    params: list[object] = []
    for term in query.terms:
        piece, values = _term(term, now, to)
        sql.append(f"({piece}) IS NOT 1" if term.negated else f"({piece})")
        params += values
    return " AND ".join((COUNTED, *sql)), params


def _any(pieces: list[Piece]) -> Piece:
    return " OR ".join(sql for sql, _ in pieces), [value for _, values in pieces for value in values]


def _term(term: Term, now: int, to: int | None) -> Piece:
    if term.measures:
        return _any([_MEASURES[term.word](measure, now) for measure in term.measures])
    if term.word == "":
        return _any([_text(match, to) for match in term.matches])
    if term.is_searched:
        floor, bounds = _newest(to)
        sql, params = _any([search.piece(term, match) for match in term.matches])
        return f"{floor} AND ({sql})", [*bounds, *params]
    return term_sql(term)


def term_sql(term: Term) -> Piece:
    """The condition of one term that is neither searched nor a measure, as it stands in `where`."""
    return _any([_MATCHES[term.word](match) for match in term.matches])


def _begins(column: str, match: Match) -> Piece:
    """Equal, or beginning with. A range would be wrong at the end of the code points; these tables are small."""
    if match.prefix:
        return f"substr({column}, 1, ?) = ?", [len(match.text), match.text]
    return f"{column} = ?", [match.text]


def _via(outer: str, table: str, id_column: str, column: str) -> Callable[[Match], Piece]:
    def piece(match: Match) -> Piece:
        sql, params = _begins(column, match)
        return f"task.{outer} IN (SELECT {id_column} FROM {table} WHERE {sql})", params

    return piece


def _key(match: Match) -> Piece:
    return _begins("task.key", match)


def _id(match: Match) -> Piece:
    """A task's UUID (whole, or its first digits with a star), or the text its sender calls it by."""
    sql, params = _begins("text", match)
    pieces = [(f"task.id IN (SELECT task FROM external WHERE {sql})", params)]
    digits = match.text.replace("-", "").lower()
    if len(digits) <= 32 and digits and all(digit in "0123456789abcdef" for digit in digits):
        if match.prefix:
            low, high = UUID(digits.ljust(32, "0")).bytes, UUID(digits.ljust(32, "f")).bytes
            pieces.append(("task.id BETWEEN ? AND ?", [low, high]))
        elif len(digits) == 32:
            pieces.append(("task.id = ?", [UUID(digits).bytes]))
    return _any(pieces)


def _parent(match: Match) -> Piece:
    """Of the tasks that name this one as their parent: by its UUID, or by the text its sender calls it by."""
    sql, params = _id(match)
    return f"task.id IN (SELECT task FROM child WHERE parent IN (SELECT id FROM task WHERE {sql}))", params


def _is(match: Match) -> Piece:
    return _IS[match.text], []


def _state(match: Match) -> Piece:
    return "task.state = ?", [STATES.index(match.text)]


def _verdict(match: Match) -> Piece:
    return "task.verdict = ?", [VERDICTS.index(match.text)]


def _text(match: Match, to: int | None) -> Piece:
    """A bare word: somewhere in the name, or in the arguments and errors of the newest tasks of the window."""
    floor, bounds = _newest(to)
    found = "EXISTS (SELECT 1 FROM payload WHERE payload.task = task.id AND instr(lower(CAST(payload.data AS TEXT)), ?) > 0)"
    name = "task.type IN (SELECT id FROM type WHERE instr(lower(type.name), ?) > 0)"
    needle = "".join(c.lower() if c.isascii() else c for c in match.text)  # as SQLite's lower() does it
    return f"{name} OR ({floor} AND {found})", [needle, *bounds, needle]


def _newest(to: int | None) -> Piece:
    """That a task is one of the newest of the window."""
    window = "" if to is None else "WHERE t.began_at < ? "
    return _FLOOR.format(window=window), [TEXT_TASKS_MAX] if to is None else [to, TEXT_TASKS_MAX]


def _older(measure: Measure, now: int) -> Piece:
    return "task.began_at < ?", [now - int(measure.number * NS)]


def _took(measure: Measure, now: int) -> Piece:
    taken = "task.ended_at - coalesce(task.started_at, task.began_at)"
    return f"{taken} {measure.op} ?", [int(measure.number * NS)]


def _attempt(measure: Measure, now: int) -> Piece:
    return f"task.attempt {measure.op} ?", [int(measure.number)]


_MATCHES: dict[str, Callable[[Match], Piece]] = {
    "is": _is,
    "state": _state,
    "verdict": _verdict,
    "name": _via("type", "type", "id", "name"),
    "service": _via("type", "type", "id", "service"),
    "environment": _via("environment", "environment", "id", "name"),
    "instance": _via("instance", "instance", "no", "id"),
    "host": _via("instance", "instance", "no", "host"),
    "release": _via("instance", "instance", "no", "release"),
    "incident": _via("incident", "incident", "no", "id"),
    "key": _key,
    "id": _id,
    "parent": _parent,
}
_MEASURES: dict[str, Callable[[Measure, int], Piece]] = {"older": _older, "took": _took, "attempt": _attempt}
