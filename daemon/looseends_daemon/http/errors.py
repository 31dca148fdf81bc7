"""What a request can be refused with: one exception, one body (RFC 9457 `application/problem+json`).

Rules: `title` is the same for every refusal of its kind, `detail` names the place and the way out; `errors` holds one entry
per mistake, with a JSON pointer into the body or `/<name>` of a query parameter. Nothing of the inside (a traceback, a path of
this program, SQL) ever reaches a user.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any

from looseends.errors import LooseEndsError
from looseends_daemon.core.query import QueryError
from looseends_daemon.core.resources import CommandRefused

Entry = Mapping[str, Any]


class ProblemError(Exception):
    """A request that is refused. `status` 400..599; `errors` entries are `{"pointer", "detail"}`; `headers` go along."""

    def __init__(
        self,
        status: int,
        title: str = "",
        detail: str = "",
        errors: Sequence[Entry] = (),
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(detail or title)
        self.status = status
        self.title = title or phrase(status)
        self.detail = _sound(detail)
        self.errors = [{name: _sound(value) for name, value in entry.items()} for entry in errors]
        self.headers = dict(headers or {})

    def body(self) -> dict[str, Any]:
        """The problem document. `type` is about:blank: the status says what kind it is, the detail what to do."""
        document = {"type": "about:blank", "title": self.title, "status": self.status, "detail": self.detail}
        return {**document, "errors": self.errors} if self.errors else document


class ListenError(LooseEndsError):
    """An address that cannot be listened on; `hint` says what to do instead."""


def _sound(value: Any) -> Any:
    """Text that can be sent: what stood in a header may be no UTF-8 at all."""
    return value.encode("utf-8", "replace").decode() if isinstance(value, str) else value


def phrase(status: int) -> str:
    """The standard words of a status: 404 -> "Not Found"."""
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Refused"


def of_command(refused: CommandRefused) -> ProblemError:
    """An act that the core would not do, with one entry per reason."""
    reasons = [_entry(reason) for reason in refused.reasons]
    return ProblemError(refused.status, refused.title, "; ".join(refused.reasons) or refused.title, reasons)


def _entry(reason: str) -> dict[str, str]:
    """A reason that begins with a pointer into the body (`/ends_at: ...`) says where."""
    pointer, colon, detail = reason.partition(": ")
    return {"pointer": pointer, "detail": detail} if colon and reason.startswith("/") else {"pointer": "", "detail": reason}


def of_query(error: QueryError) -> ProblemError:
    """A query that cannot be read: 422 with the column and the allowed words."""
    entry: dict[str, Any] = {"pointer": "/q", "detail": error.detail, "column": error.column}
    if error.allowed:
        entry["allowed"] = list(error.allowed)
    return ProblemError(422, "The query cannot be read", str(error), [entry])
