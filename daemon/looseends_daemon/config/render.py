"""Settings as TOML text again: the example file from the declarations, and those in force with secrets masked."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

from looseends_daemon.config.declared import Setting, Table, tables
from looseends_daemon.config.settings import Settings

MASK = "***"
_HEAD = """\
# Configuration of the looseends daemon: looseends serve -c config.toml
#
# The daemon runs without any of this. What is set below is the default; lines that begin with "#" and no space are
# examples to uncomment. Durations are text: "500ms", "10s", "5m", "4h", "7d". An unknown key is an error. Each key
# outside of [[task]], [[expect]] and [[endpoint]] can be set by the environment instead, lists separated by commas:
# LOOSEENDS_SERVER_LISTEN, LOOSEENDS_ALERTS_GROUP_WAIT. A secret can be kept in a file of its own: url_file = "...".
"""


def render_example() -> str:
    """The text of config.example.toml: every section, key, default and sentence. It is itself a valid configuration."""
    return _HEAD + "".join(_example(table) for table in tables())


def _example(table: Table) -> str:
    title = f"#[[{table.name}]]" if table.array else f"[{table.name}]"
    apart = table.section.apart
    lines = [_example_line(setting, table.array) for setting in table.settings if setting.name not in apart]
    if apart:
        needed = (f"#{one.name} = {one.kind.write(one.kind.example)}\n" for one in table.settings if one.required)
        lines += [f"{title}\n", *needed, *(_example_line(table.keys()[name], table.array) for name in apart)]
    return f"\n# {table.doc}\n{title}\n" + "".join(lines)


def _example_line(setting: Setting, array: bool) -> str:
    shown = setting.default if setting.kind.example is None else setting.kind.example
    off = "#" if array or setting.kind.example is not None else ""
    line = f"# {setting.kind.doc}\n{off}{setting.name} = {setting.kind.write(shown)}\n"
    return line + (f'#{setting.name}_file = "/run/secrets/looseends_{setting.name}"\n' if setting.kind.secret else "")


def show(settings: Settings) -> str:
    """The settings in force as TOML. Keys are masked, and paths of addresses: hook addresses are secrets themselves."""
    return "\n".join(text for table in tables() for text in _shown(table, getattr(settings, table.field))) + "\n"


def _shown(table: Table, value: Any) -> list[str]:
    title = f"[[{table.name}]]" if table.array else f"[{table.name}]"
    items = value if table.array else [value]
    return [
        title + "\n" + "".join(_shown_line(setting, getattr(item, setting.name)) for setting in table.settings) for item in items
    ]


def _shown_line(setting: Setting, value: Any) -> str:
    if value is None:
        return f"# {setting.name} is not set\n"
    return f"{setting.name} = {setting.kind.write(_masked(value) if setting.kind.secret else value)}\n"


def _masked(value: Any) -> Any:
    if isinstance(value, tuple):
        return tuple("whsec_" + MASK for _ in value)
    parts = urlsplit(value)
    if parts.scheme not in ("http", "https"):
        return f"{parts.scheme}://{MASK}"  # in Apprise's addresses the host may be the token
    port = f":{parts.port}" if parts.port else ""
    return f"{parts.scheme}://{parts.hostname}{port}/{MASK}"
