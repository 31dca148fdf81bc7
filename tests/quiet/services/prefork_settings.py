"""How gunicorn runs prefork.py: gunicorn -c prefork_settings.py prefork:app"""

from __future__ import annotations

from typing import Any

preload_app = True
workers = 2
max_requests = 20  # each worker is replaced by a fresh fork after so many
graceful_timeout = 15


def post_worker_init(worker: Any) -> None:
    """A loop as old as the worker: the record of captured work, as a hook writes it."""
    from looseends import record
    from looseends.spec import Spec

    record.begin(Spec("prefork.poll_forever", None, source="threading", declared=False), "{}", None)
