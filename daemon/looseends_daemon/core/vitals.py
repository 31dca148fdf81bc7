"""How the daemon itself does: its loops, its storage, what stands in its way, and the configuration in force."""

from __future__ import annotations

from typing import Any

import msgspec

from looseends_daemon.core.resources import Value


class LoopVitals(Value, frozen=True):
    """One background loop: whether it ran through lately, how long ago that was (s), and its failures in a row."""

    name: str
    healthy: bool
    idle: float
    errors: int = 0


class Vitals(Value, frozen=True):
    """All of it. `wrong`: in words what keeps it from its work; `notes`: what a person should know although all is ready.

    `storage`: the figures of the janitor as plain values; `configuration`: TOML with secrets masked; `memory`: bytes in use,
    None where the system does not tell.
    """

    version: str
    started_at: int | None = None
    addresses: list[str] = msgspec.field(default_factory=list)
    database: str = ""
    python: str = ""
    wrong: list[str] = msgspec.field(default_factory=list)
    notes: list[str] = msgspec.field(default_factory=list)
    loops: list[LoopVitals] = msgspec.field(default_factory=list)
    readers: int = 0
    memory: int | None = None
    storage: dict[str, Any] = msgspec.field(default_factory=dict)
    configuration: str = ""


async def no_vitals() -> Vitals:
    """Where nobody keeps watch."""
    return Vitals(version="")
