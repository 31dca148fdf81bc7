"""What a query looks for inside a task: what its opening said (source, queue, trace, tags), its arguments, its error.

Rules: the narrow row has no columns for these, so they are read from the facts and the payloads of the newest TEXT_TASKS_MAX
tasks of the window, and the answer says that it got no further. `told` is a function of ours inside SQLite: every connection that
answers queries has it (`register`).
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, Protocol

from looseends_daemon.core.facts import OPENINGS
from looseends_daemon.core.query import Match, Term
from looseends_daemon.store.packed import told_in

FIELDS = {"source": "source", "queue": "queue", "trace": "trace_id"}
_SLOTS = ("started", "scheduled", "expected")
assert set(OPENINGS) == set(_SLOTS)
Piece = tuple[str, list[object]]


class Connection(Protocol):
    """What can be given a function: a connection of sqlite3, or one of aiosqlite (then the result is awaited)."""

    def create_function(self, name: str, narg: int, func: Callable[..., Any], /, *, deterministic: bool) -> Any: ...


def register(conn: Connection) -> Any:
    """Give a connection the function `told(facts, field, tag)`."""
    return conn.create_function("told", 3, told, deterministic=True)


def told(facts: bytes, field: str, tag: str) -> str | None:
    """A field of what began a task, as text: of its latest attempt that says it, started before scheduled. None: nothing said it.

    `tag` names one of the tags where `field` is "tags", and is empty otherwise.
    """
    for found in told_in(facts, field, _SLOTS):
        found = found.get(tag) if tag and isinstance(found, dict) else found
        if found is not None:
            return str(found)
    return None


def piece(term: Term, match: Match) -> Piece:
    """The condition for one value of a searched term other than a bare word."""
    if term.word == "error":
        return _error(match)
    if term.word == "args.":
        return _argument(term.detail, match)
    field, tag = ("tags", term.detail) if term.word == "tag." else (FIELDS[term.word], "")
    sql, params = _begins("told(task.facts, ?, ?)", match)
    return sql, [field, tag, *params]


def _begins(value: str, match: Match) -> Piece:
    if match.prefix:
        return f"substr({value}, 1, {len(match.text)}) = ?", [match.text]
    return f"{value} = ?", [match.text]


def _payload(condition: str, slots: str, params: list[object]) -> Piece:
    text = "CAST(payload.data AS TEXT)"
    sql = f"EXISTS (SELECT 1 FROM payload WHERE payload.task = task.id AND {slots} AND ({condition.format(data=text)}))"
    return sql, params


def _error(match: Match) -> Piece:
    """By the exception's type, with or without its module; with a star also by the beginning of its message."""
    kind = "json_extract({data}, '$.error.type')"
    exact = f"{kind} = ? OR {kind} LIKE ? ESCAPE '!'"
    inner = "".join(f"!{char}" if char in "!%_" else char for char in match.text)
    if not match.prefix:
        return _payload(exact, "payload.slot LIKE '%/failed'", [match.text, f"%.{inner}"])
    size = len(match.text)
    starts = f"substr({kind}, 1, {size}) = ? OR {kind} LIKE ? ESCAPE '!'"
    message = f"substr(json_extract({{data}}, '$.error.message'), 1, {size}) = ?"
    return _payload(f"{starts} OR {message}", "payload.slot LIKE '%/failed'", [match.text, f"%.{inner}%", match.text])


def _argument(name: str, match: Match) -> Piece:
    """By one argument's value as text: `args.order_id:7`, `args.order.id:7` for one inside another."""
    path = "$.args" + "".join("." + json.dumps(part, ensure_ascii=False) for part in name.split("."))
    found = "json_extract({data}, ?)"
    value = (
        f"CASE json_type({{data}}, ?) WHEN 'true' THEN 'true' WHEN 'false' THEN 'false' WHEN 'null' THEN 'null'"
        f" ELSE CAST({found} AS TEXT) END"
    )
    sql, params = _begins(value, match)
    return _payload(sql, "payload.slot NOT LIKE '%/failed'", [path, path, *params])
