"""Which settings a running daemon takes from a changed configuration, and which wait for its next start.

Rules: what is named in AT_START keeps the value it began with, and whoever changed it is told so by name. All else changes while
the daemon runs. What is in force is one `Settings` at any moment, so that pages show what is true and not what a file says.
"""

from __future__ import annotations

import msgspec

from looseends_daemon.config import Settings

AT_START = {
    "server": (
        *("listen", "external_url", "instance", "allowed_hosts"),
        *("loopback_ingest", "shutdown_timeout"),
    ),
    "storage": ("path", "max_payload"),
    "detect": ("grace", "spools"),
    "metrics": ("prometheus", "max_names"),
    "otel": ("endpoint", "traces", "metrics", "logs", "trace_url"),
    "log": ("format",),
}
"""Keys read once: doors that are open, a file that is locked, clocks that have begun, collectors that are connected."""
OUTGOING = ("endpoints", "network", "heartbeat")
"""Fields of Settings whose change ends what sends notices and begins it anew."""


def merge(old: Settings, new: Settings) -> tuple[Settings, list[str]]:
    """What is in force after a reload, and the keys ("server.listen") that differ and wait for a restart."""
    waiting = []
    for section, keys in AT_START.items():
        before, after = getattr(old, section), getattr(new, section)
        changed = [key for key in keys if getattr(before, key) != getattr(after, key)]
        waiting += [f"{section}.{key}" for key in changed]
        kept = msgspec.structs.replace(after, **{key: getattr(before, key) for key in changed})
        new = msgspec.structs.replace(new, **{section: kept})
    return new, waiting


def changes_outgoing(old: Settings, new: Settings) -> bool:
    """Whether what sends notices has to begin anew."""
    return any(getattr(old, name) != getattr(new, name) for name in OUTGOING)


def changed_sections(old: Settings, new: Settings) -> list[str]:
    """The parts of the configuration that differ, as the file names them."""
    fields = msgspec.structs.fields(Settings)
    return [field.encode_name for field in fields if getattr(old, field.name) != getattr(new, field.name)]
