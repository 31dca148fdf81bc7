"""A WSGI service for gunicorn: loaded before the fork, so that every worker inherits an open journal that is not its own.

gunicorn -c prefork_settings.py prefork:app
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import Any

import looseends


@looseends.task(name="prefork.row", deadline="15s", replay=True)
def row(seconds: float) -> None:
    """A little work, in the request."""
    time.sleep(seconds)


@looseends.task(name="prefork.warm_up")
def warm_up() -> None:
    """Makes the parent an instance of its own, before the fork."""


def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    """Any request: one task."""
    row(0.03)
    start_response("202 Accepted", [("Content-Length", "0")])
    return [b""]


looseends.init(service="quiet-prefork")
warm_up()
