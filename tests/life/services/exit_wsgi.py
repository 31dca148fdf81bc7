"""The same under gunicorn: GET /WAY runs `exit.body` in the request. gunicorn --workers 1 exit_wsgi:app"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from exits import body, run_beside


def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    """Any request."""
    way = environ["PATH_INFO"].strip("/")
    run_beside(way)
    body(way)
    start_response("200 OK", [("Content-Length", "0")])
    return [b""]
