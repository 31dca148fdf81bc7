"""The task id in a service's own log lines."""

from __future__ import annotations

import io
import logging
import logging.config
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

import looseends

FORMAT = "%(task_id)s|%(task_name)s|%(task_attempt)s|%(message)s"


@pytest.fixture
def stream() -> Iterator[io.StringIO]:
    """Where the logger `shop` writes, set up as a service does it in code."""
    stream, logger = io.StringIO(), logging.getLogger("shop")
    handler = logging.StreamHandler(stream)
    handler.setFormatter(logging.Formatter(FORMAT))
    handler.addFilter(looseends.logging_filter())
    logger.addHandler(handler)
    yield stream
    logger.removeHandler(handler)


def test_a_line_logged_in_a_task_has_its_id_name_and_attempt(spool: str, stream: io.StringIO) -> None:
    with looseends.track("mail.send") as task:
        logging.getLogger("shop.mail").warning("sending")
    logging.getLogger("shop").warning("idle")
    assert stream.getvalue() == f"{task.id}|mail.send|1|sending\n-|-|0|idle\n"


async def test_it_follows_the_task_where_the_task_goes(spool: str, stream: io.StringIO) -> None:
    import asyncio

    async with looseends.track("outer") as outer:
        await asyncio.gather(asyncio.to_thread(logging.getLogger("shop").warning, "in a thread"))
        with looseends.track("inner") as inner:
            logging.getLogger("shop").warning("inner")
    assert stream.getvalue() == f"{outer.id}|outer|1|in a thread\n{inner.id}|inner|1|inner\n"


def test_a_dict_config_names_it(spool: str) -> None:
    stream = io.StringIO()
    config: dict[str, Any] = {
        "version": 1,
        "disable_existing_loggers": False,
        "filters": {"task": {"()": "looseends.logging_filter"}, "le": {"()": "looseends.logging_filter", "prefix": "le_"}},
        "formatters": {"plain": {"format": FORMAT + "|%(le_id)s"}},
        "handlers": {
            "out": {"class": "logging.StreamHandler", "stream": stream, "filters": ["task", "le"], "formatter": "plain"},
        },
        "loggers": {"configured": {"handlers": ["out"], "level": "INFO", "propagate": False}},
    }
    logging.config.dictConfig(config)
    with looseends.track("a") as task:
        logging.getLogger("configured").info("line")
    assert stream.getvalue() == f"{task.id}|a|1|line|{task.id}\n"


def test_what_a_record_has_already_it_keeps(spool: str, stream: io.StringIO) -> None:
    """Celery's own log formats set fields of these names."""
    with looseends.track("a"):
        logging.getLogger("shop").warning("theirs", extra={"task_id": "celery-7"})
    assert stream.getvalue().startswith("celery-7|a|1|theirs")


def test_asking_for_it_imports_no_logging() -> None:
    code = "import sys, looseends; looseends.logging_filter(); sys.exit('logging' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], timeout=20).returncode == 0
