"""How this process does, gathered for the status page: values of others put side by side, and its own memory."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any, Protocol

import msgspec

from looseends_daemon.config.render import show
from looseends_daemon.config.settings import Settings
from looseends_daemon.core.vitals import LoopVitals, Vitals


class Supervised(Protocol):
    """A background loop as it is looked at."""

    name: str
    errors: int
    last_ok: float

    def healthy(self) -> bool: ...


async def gather(
    settings: Settings,
    *,
    version: str,
    started_at: int,
    addresses: Sequence[str],
    loops: Iterable[Supervised],
    readers: int,
    wrong: Callable[[], list[str]],
    notes: Callable[[], list[str]],
    storage: Callable[[], Awaitable[Any]],
) -> Vitals:
    """All of it now. `started_at` in ns. Raises StoreError, OSError where the storage cannot be measured."""
    return Vitals(
        version=version,
        started_at=started_at,
        addresses=list(addresses),
        database=settings.storage.path,
        python=platform.python_version(),
        wrong=wrong(),
        notes=notes(),
        loops=[_loop(one) for one in loops],
        readers=readers,
        memory=memory_bytes(),
        storage=msgspec.to_builtins(await storage()),
        configuration=show(settings),
    )


def _loop(loop: Supervised) -> LoopVitals:
    idle = max(0.0, time.monotonic() - loop.last_ok)
    return LoopVitals(name=loop.name, healthy=loop.healthy(), idle=round(idle, 3), errors=loop.errors)


def memory_bytes() -> int | None:
    """What this process holds in memory; None where the system does not say."""
    try:
        with open("/proc/self/statm", encoding="ascii") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError):
        return None
