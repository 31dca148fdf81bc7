"""What is wrong with an answer, in words; nothing, for an answer as it should be.

Rules: the daemon may refuse whatever it likes, but in one form, and never because something inside it broke. What is found in
one answer is found without a look at any other.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from fuzz_line import Case, Reply

MEMBERS = {"type": str, "title": str, "status": int, "detail": str}
INSIDE = ("Traceback (most recent call last)", 'File "/', "sqlite3.", "site-packages")
"""Words of the inside. Nothing that the fuzzer sends holds them, so an error answer that does tells of the daemon."""
OTHER_KINDS = {"report.csv": "text/csv", "stream": "text/event-stream"}
"""Doors of the API that answer with something else than JSON, by the last part of their path."""
WAITING = 503
"""The only answer above 499 that says what to do: come back later."""


def faults(case: Case, reply: Reply) -> list[str]:
    """Everything that is wrong with this answer to this request."""
    if reply.status == 0:
        return [reply.body.decode("utf-8", "replace")]
    return [*_status(reply), *_always(reply), *(_refusal(case, reply) if reply.status >= 400 else _answer(case, reply))]


def _status(reply: Reply) -> Iterator[str]:
    if reply.status >= 500 and reply.status != WAITING:
        yield f"status {reply.status}"
    if reply.status == 405 and not reply.headers.get("allow"):
        yield "405 without Allow"
    if reply.status in (301, 302, 303, 307, 308) and not _leads_home(reply.headers.get("location", "")):
        yield f"leads elsewhere: {reply.headers.get('location')!r}"


def _leads_home(location: str) -> bool:
    return location.startswith("/") and not location.startswith(("//", "/\\"))


def _always(reply: Reply) -> Iterator[str]:
    for name in ("x-content-type-options", "content-security-policy"):
        if name not in reply.headers:
            yield f"without the header {name}"
    if "access-control-allow-origin" in reply.headers:
        yield "a CORS header"


def _refusal(case: Case, reply: Reply) -> Iterator[str]:
    text = reply.body.decode("utf-8", "replace")
    yield from (f"tells of the inside ({words})" for words in INSIDE if words in text)
    if reply.kind == "text/html" and not _path(case).startswith("/api/"):
        yield from _page(case, reply)
    elif _is_readiness(case, reply) or _rejects_everything(case, reply):
        return
    elif reply.kind != "application/problem+json":
        yield f"a refusal as {reply.kind or 'nothing'}"
    elif case.method != "HEAD":
        yield from _problem(reply)


def _is_readiness(case: Case, reply: Reply) -> bool:
    return _path(case) == "/readyz" and reply.status == WAITING and reply.kind == "text/plain"


def _rejects_everything(case: Case, reply: Reply) -> bool:
    """The usual answer of a batch of which nothing was taken."""
    if (_path(case), reply.status, reply.kind) != ("/api/v1/events", 422, "application/json"):
        return False
    document = json.loads(reply.body)
    return bool(document["rejected"]) and document["accepted"] == 0


def _problem(reply: Reply) -> Iterator[str]:
    document, unread = _read(reply)
    if unread:
        yield unread
        return
    for name, kind in MEMBERS.items():
        if not isinstance(document.get(name), kind) or not document[name]:
            yield f"a problem whose {name} is {document.get(name)!r}"
    if document.get("status") != reply.status:
        yield f"a problem of status {document.get('status')} in an answer of status {reply.status}"
    for entry in document.get("errors", []):
        if not isinstance(entry.get("pointer"), str) or not entry.get("detail"):
            yield f"an entry without pointer or detail: {entry}"


def _answer(case: Case, reply: Reply) -> Iterator[str]:
    if case.method == "HEAD" or reply.status in (204, 304) or reply.status in range(300, 400):
        if reply.body:
            yield f"{reply.status} to {case.method} with {len(reply.body)} bytes of a body"
    elif reply.kind == "application/json":
        unread = _read(reply)[1]
        if unread:
            yield unread
    elif reply.kind == "text/html":
        yield from _page(case, reply)
    elif _path(case).startswith("/api/") and reply.kind != OTHER_KINDS.get(_path(case).rpartition("/")[2]):
        yield f"an answer as {reply.kind or 'nothing'}"


def _page(case: Case, reply: Reply) -> Iterator[str]:
    if case.method == "HEAD":
        return
    text = reply.body.decode("utf-8", "replace").lower()
    if "\ufffd".encode() not in reply.body and "\ufffd" in text:
        yield "a page that is not UTF-8"
    if not text.lstrip().startswith("<!doctype html") or "</html>" not in text:
        yield "a page without beginning or end"


def _read(reply: Reply) -> tuple[Any, str]:
    """(the document, "") or (None, why it cannot be read)."""
    try:
        return json.loads(reply.body.decode(), parse_constant=_no_constant), ""
    except ValueError as error:
        return None, f"JSON that cannot be read: {error}"


def _no_constant(word: str) -> None:
    raise ValueError(f"{word} is no JSON")


def _path(case: Case) -> str:
    return case.target.partition(b"?")[0].decode("latin-1")
