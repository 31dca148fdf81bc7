"""Work at the interpreter's exit: before our goodbye and, since its handler was registered first, after it."""

from __future__ import annotations

import atexit


def late() -> None:
    """Runs when looseends has said goodbye: it was imported later, so its handler ran earlier."""
    task("late")


atexit.register(late)

import looseends  # noqa: E402


@looseends.task(name="exit.task", key="key")
def task(key: str) -> None:
    """One task."""


atexit.register(task, "early")
task("before")
