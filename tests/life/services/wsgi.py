"""A WSGI service whose module makes a task while it is loaded: in the parent where it is preloaded, in each worker where not."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import looseends


@looseends.task(name="server.task", key="where")
def task(where: str) -> None:
    """One task."""


def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    """Any request: one task."""
    task("request")
    start_response("200 OK", [("Content-Length", "0")])
    return [b""]


task("load")
