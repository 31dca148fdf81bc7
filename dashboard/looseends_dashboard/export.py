"""Tasks as a file: CSV for a spreadsheet, NDJSON for a program.

Rules:

1. A spreadsheet runs what looks like a formula. A CSV cell that begins like one gets an apostrophe before it, as spreadsheets
   write text themselves; control and direction characters become visible marks. NDJSON is the API's resource, exact.
2. Rows are read and sent page by page: nothing is gathered, and who stops reading stops the reading.
3. At most ROWS_MAX rows. The header `Looseends-More` and the file's name say so beforehand where that may cut.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from aiohttp import web

from looseends.wire import format_time
from looseends_daemon.core.resources import Page, Task, encode
from looseends_dashboard import words

ROWS_MAX = 50_000
PAGE_ROWS = 200
KINDS = {"csv": "text/csv", "ndjson": "application/x-ndjson"}
CELL_CHARS_MAX = 32_000
"""A spreadsheet's cell holds 32,767 characters."""
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠", "|", "%")
_TIMES = ("scheduled_at", "started_at", "began_at", "ended_at", "due_at")
_PLAIN = (
    "id",
    "external_id",
    "name",
    "service",
    "environment",
    "state",
    "verdict",
    "reason",
    "settled",
    "key",
    "source",
    "queue",
)
COLUMNS = (
    *_PLAIN,
    *("loose", "attempt", *_TIMES, "duration", "host", "pid", "instance", "release", "args", "error_type", "error_message"),
    *("incident", "trace_id", "url"),
)
More = Callable[[str | None], Awaitable[Page[Task]]]


def inert(text: str) -> str:
    """Foreign text as a cell that no spreadsheet runs."""
    shown = words.visible(text, CELL_CHARS_MAX)
    return f"'{shown}" if shown.lstrip(" \u00a0").startswith(_FORMULA) else shown


def cells(task: Task) -> list[str]:
    """One row of the CSV; numbers and times of ours as they are."""
    where, error = task.instance, task.error
    known: dict[str, Any] = {name: getattr(task, name) for name in (*_PLAIN, "incident", "trace_id", "url")}
    known |= {"host": where.host if where else None, "instance": where.id if where else None}
    known |= {"release": where.release if where else None}
    known |= {"error_type": error.type if error else None, "error_message": error.message if error else None}
    known["args"] = None if task.args is None else words.json_text(task.args, None)
    row = {name: inert(value) if isinstance(value, str) else "" for name, value in known.items()}
    for name in _TIMES:
        at = getattr(task, name)
        row[name] = "" if at is None else format_time(at)
    row |= {"loose": "yes" if task.loose else "no", "attempt": str(task.attempt)}
    row["duration"] = "" if task.duration is None else f"{task.duration:.6f}".rstrip("0").rstrip(".")
    row["pid"] = str(where.pid) if where and where.pid is not None else ""
    return [row[name] for name in COLUMNS]


def _csv(rows: Sequence[Sequence[str]]) -> bytes:
    text = io.StringIO()
    csv.writer(text, lineterminator="\r\n").writerows(rows)
    return text.getvalue().encode()


def _packed(kind: str, tasks: Sequence[Task]) -> bytes:
    if kind == "csv":
        return _csv([cells(task) for task in tasks])
    return "".join(f"{words.json_text(encode(task), None)}\n" for task in tasks).encode()


async def send(request: web.Request, kind: str, first: Page[Task], more: More) -> web.StreamResponse:
    """Stream what matches, newest first, beginning with a page that was read already."""
    cut = first.next_cursor is not None
    name = f"tasks-newest-{ROWS_MAX}.{kind}" if cut else f"tasks.{kind}"
    response = web.StreamResponse(
        headers={
            "Content-Type": f"{KINDS[kind]}; charset=utf-8",
            "Content-Disposition": f'attachment; filename="{name}"',
            "Content-Security-Policy": "default-src 'none'",
            "X-Content-Type-Options": "nosniff",
            "Cache-Control": "no-store",
            "Looseends-More": f"at most the newest {ROWS_MAX} rows" if cut else "no",
        }
    )
    await response.prepare(request)
    if request.method == "HEAD":
        return response
    if kind == "csv":
        await response.write(_csv([COLUMNS]))
    page, sent = first, 0
    while True:
        part = page.items[: ROWS_MAX - sent]
        await response.write(_packed(kind, part))
        sent += len(part)
        if page.next_cursor is None or sent >= ROWS_MAX:
            break
        page = await more(page.next_cursor)
    await response.write_eof()
    return response
