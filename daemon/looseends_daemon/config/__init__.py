"""Configuration: a TOML file and the environment become one frozen `Settings`, or a list of all that is wrong.

Rules:

1. All errors at once, one line each, naming file, line, key and what is allowed: `config.toml:14: unknown key
   "detect.interva", did you mean "grace"?`. Nothing here prints; the command line does.
2. The environment wins over the file; a flag of the command line wins over both (see `with_flags`).
3. Every secret has a `*_file` twin, read when the configuration is loaded; relative names start at the file's folder.
"""

from __future__ import annotations

import difflib
import os
import re
import socket
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from looseends.errors import UsageError
from looseends_daemon.config.declared import Setting, Table, tables
from looseends_daemon.config.export import export_of
from looseends_daemon.config.kinds import Kind
from looseends_daemon.config.lines import lines_of
from looseends_daemon.config.render import render_example, show
from looseends_daemon.config.rules import alert_rules, cron_rules, policy, retention_rules, task_rules
from looseends_daemon.config.settings import (
    LATER,
    Alerts,
    Detect,
    Endpoint,
    Expect,
    Heartbeat,
    Log,
    Network,
    Server,
    Settings,
    Storage,
    TaskRule,
)

__all__ = [
    "Alerts",
    "ConfigError",
    "Detect",
    "Endpoint",
    "Expect",
    "Heartbeat",
    "Log",
    "Network",
    "Server",
    "Settings",
    "Storage",
    "TaskRule",
    "alert_rules",
    "check",
    "cron_rules",
    "expand",
    "export_of",
    "load",
    "policy",
    "render_example",
    "retention_rules",
    "show",
    "task_rules",
    "with_flags",
]

FILE_BYTES_MAX = 256 << 10
SECRET_BYTES_MAX = 16 << 10
TABLES_MAX = 1_000
_PREFIX = "LOOSEENDS"
Place = tuple[str | int, ...]


class ConfigError(UsageError):
    """The configuration cannot be used. `errors` holds one line for each thing that is wrong."""

    def __init__(self, errors: list[str], hint: str = "mend the lines above; config.example.toml shows every key") -> None:
        super().__init__("\n".join(errors), hint=hint)
        self.errors = errors


def load(path: str | None, environ: Mapping[str, str]) -> Settings:
    """The settings of a file (None: defaults only) and the environment. Reads secret files. Raises ConfigError."""
    reading = _Reading(path or "configuration", environ, Path(path).parent if path else None)
    document = reading.parse(_read_text(path)) if path is not None else {}
    settings = reading.settings(document) if document is not None else None
    if reading.errors or settings is None:
        raise ConfigError(reading.sorted_errors())
    return _complete(settings, environ)


def check(text: str, *, file: str = "config.toml", environ: Mapping[str, str] | None = None) -> list[str]:
    """All that is wrong with this configuration text, one line each; an empty list means that it can be used.

    Secret files are not read: a text is checked where the secrets need not be.
    """
    reading = _Reading(file, environ or {}, None)
    document = reading.parse(text)
    if document is not None:
        reading.settings(document)
    return reading.sorted_errors()


def with_flags(settings: Settings, *, listen: tuple[str, ...] = (), path: str | None = None) -> Settings:
    """The same settings with what the command line said. Raises ConfigError that names the flag."""
    replace = msgspec.structs.replace
    if listen:
        try:
            addresses = _kind("server", "listen").read(list(listen))
        except ValueError as error:
            raise ConfigError([f"--listen: {error}"]) from None
        addresses = tuple(f"unix:{os.path.abspath(a[5:])}" if a.startswith("unix:") else a for a in addresses)
        settings = replace(settings, server=replace(settings.server, listen=addresses))
    if path is not None:
        settings = replace(settings, storage=replace(settings.storage, path=os.path.abspath(path)))
    return settings


def expand(path: str, environ: Mapping[str, str]) -> str:
    """A path with `$XDG_STATE_HOME` (~/.local/state where it is unset or relative) and `~` filled in."""
    home = environ.get("HOME") or os.path.expanduser("~")
    state = environ.get("XDG_STATE_HOME", "")
    if not state.startswith("/"):
        state = os.path.join(home, ".local", "state")
    if path.startswith("$XDG_STATE_HOME/"):
        return state + path.removeprefix("$XDG_STATE_HOME")
    return home + path[1:] if path == "~" or path.startswith("~/") else os.path.abspath(path)


def _read_text(path: str) -> str:
    try:
        with open(path, "rb") as file:
            raw = file.read(FILE_BYTES_MAX + 1)
        if len(raw) > FILE_BYTES_MAX:
            raise ConfigError([f"{path}: is larger than {FILE_BYTES_MAX} bytes, which no configuration is"])
        return raw.decode("utf-8-sig")
    except OSError as error:
        hint = "give the path of your configuration; looseends config init prints one to begin with"
        raise ConfigError([f"{path}: cannot be read: {error.strerror}"], hint) from None
    except UnicodeDecodeError as error:
        line = raw[: error.start].count(b"\n") + 1
        raise ConfigError([f"{path}:{line}: is not UTF-8 text"]) from None


def _complete(settings: Settings, environ: Mapping[str, str]) -> Settings:
    """Fill in what depends on the machine: paths, the host's name, the user's own spool."""
    server, replace = settings.server, msgspec.structs.replace
    listen = tuple(f"unix:{expand(a[5:], environ)}" if a.startswith("unix:") else a for a in server.listen)
    own = environ.get("LOOSEENDS_SPOOL_DIR") or "$XDG_STATE_HOME/looseends/spool"
    url = server.external_url.rstrip("/") if server.external_url else None
    return replace(
        settings,
        server=replace(server, listen=listen, external_url=url, instance=server.instance or _host_name()),
        storage=replace(settings.storage, path=expand(settings.storage.path, environ)),
        detect=replace(settings.detect, spools=tuple(expand(p, environ) for p in settings.detect.spools or (own,))),
    )


def _host_name() -> str:
    return re.sub(r"[^A-Za-z0-9._-]", "-", socket.gethostname())[:64].strip("-._") or "localhost"


def _kind(table: str, key: str) -> Kind:
    return next(t for t in tables() if t.name == table).keys()[key].kind


def _near(word: str, known: list[str]) -> str:
    """What somebody meant, or else all that there is: a wrong guess would only cost time."""
    close = difflib.get_close_matches(word, known, n=1, cutoff=0.6)
    return f', did you mean "{close[0]}"?' if close else f"; known here: {', '.join(known)}"


class _Reading:
    """One pass over one document: collects values, and every error with its place."""

    def __init__(self, file: str, environ: Mapping[str, str], folder: Path | None) -> None:
        self.file = file
        self.environ = environ
        self.folder = folder
        self.errors: list[str] = []
        self.order: dict[str, int] = {}
        self.lines: dict[Place, int] = {}

    def parse(self, text: str) -> dict[str, Any] | None:
        """The document, or None with the error noted."""
        try:
            document = tomllib.loads(text)
            self.lines = lines_of(text)
        except tomllib.TOMLDecodeError as error:
            found = re.search(r"at line (\d+), column (\d+)", str(error))
            line = int(found[1]) if found else text.count("\n") + 1
            said = re.sub(r" \(at [^)]*\)$", "", str(error))
            self.errors.append(f"{self.file}:{line}: not valid TOML: {said[:1].lower()}{said[1:]}")
            return None
        except RecursionError:
            self.errors.append(f"{self.file}: is nested too deeply")
            return None
        return document

    def say(self, path: Place, words: str) -> None:
        """Note an error at the nearest place above it that has a line."""
        line = next((self.lines[path[:n]] for n in range(len(path), 0, -1) if path[:n] in self.lines), None)
        self.errors.append(f"{self.file}:{line}: {words}" if line else f"{self.file}: {words}")
        self.order[self.errors[-1]] = line or 0

    def sorted_errors(self) -> list[str]:
        """Every error once, in the order of the lines; those of the environment come last."""
        return sorted(dict.fromkeys(self.errors), key=lambda error: self.order.get(error, 1 << 30))

    def settings(self, document: dict[str, Any]) -> Settings | None:
        """All sections, or None where anything was wrong."""
        names = [table.name for table in tables()]
        for name in document:
            if name not in names:
                self._unknown((name,), name, names, f"[{name}]", "section")
        self._unknown_variables()
        fields = {table.field: self._table(table, document.get(table.name)) for table in tables()}
        return Settings(**fields) if not self.errors else None

    def _unknown(self, path: Place, word: str, known: list[str], shown: str, what: str) -> None:
        dotted = ".".join(part for part in path if isinstance(part, str))
        if dotted in LATER:
            self.say(path, f"this version of looseends does not have {shown}; remove it")
        else:
            self.say(path, f'unknown {what} "{dotted}"' + _near(word, known))

    def _unknown_variables(self) -> None:
        """A mistyped variable must not be silently ignored; ours all begin with the name of a section."""
        known = {self._variable(t, s): s for t in tables() if not t.array for s in t.settings}
        starts = tuple(f"{_PREFIX}_{t.name.upper()}_" for t in tables() if not t.array)
        for name in sorted(self.environ):
            if name.startswith(starts) and name not in known:
                self.errors.append(f"environment: unknown variable {name}" + _near(name, sorted(known)))

    @staticmethod
    def _variable(table: Table, setting: Setting) -> str:
        return f"{_PREFIX}_{table.name}_{setting.name}".upper()

    def _table(self, table: Table, value: Any) -> Any:
        if table.array:
            return self._array(table, value)
        if value is not None and not isinstance(value, dict):
            self.say((table.name,), f"{table.name} must be a section: [{table.name}]")
            value = None
        return self._section(table, value or {}, (table.name,))

    def _array(self, table: Table, value: Any) -> tuple[Any, ...]:
        if value is None:
            return ()
        if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
            self.say((table.name,), f"{table.name} must stand in double brackets: [[{table.name}]]")
            return ()
        if len(value) > TABLES_MAX:
            self.say((table.name,), f"{len(value)} times [[{table.name}]], at most {TABLES_MAX} are taken")
            return ()
        found = tuple(self._section(table, item, (table.name, index)) for index, item in enumerate(value))
        self._unique(table, value)
        return found

    def _unique(self, table: Table, items: list[dict[str, Any]]) -> None:
        """No two tables of an array that are the same by the keys which their section names."""
        seen: set[str] = set()
        for index, item in enumerate(items):
            name = item.get("name")
            same = repr([item.get(key) for key in table.section.same])
            if isinstance(name, str) and same in seen:
                words = "this name is taken already" if table.section.same == ("name",) else "another one says the same"
                self.say((table.name, index, "name"), f'{table.name}.name = "{name}": {words}')
            seen.add(same)

    def _section(self, table: Table, item: dict[str, Any], path: Place) -> Any:
        """One section with its defaults, or None where something was wrong."""
        before = len(self.errors)
        keys = table.keys()
        known = [name for s in table.settings for name in ([s.name, f"{s.name}_file"] if s.kind.secret else [s.name])]
        for key in item:
            if key not in known:
                self._unknown((*path, key), key, known, f"{table.name}.{key}", "key")
        values = {}
        for name, setting in keys.items():
            found, value = self._value(table, setting, item, path)
            if found:
                values[name] = value
        if len(self.errors) != before:
            return None
        made = table.section(**values)
        for key, words in made.faults():
            self.say((*path, key), f"{table.name}.{key} {words}")
        return made

    def _value(self, table: Table, setting: Setting, item: dict[str, Any], path: Place) -> tuple[bool, Any]:
        """(whether it was set, the value); errors are noted."""
        variable = self._variable(table, setting)
        if not table.array and self.environ.get(variable):
            return self._from_environment(setting, variable)
        twin = f"{setting.name}_file"
        shown, here = f"{table.name}.{setting.name}", (*path, setting.name)
        if setting.kind.secret and twin in item:
            if setting.name in item:
                self.say((*path, twin), f"{shown} and {shown}_file are both set; keep one")
                return False, None
            return self._from_file(setting, item[twin], (*path, twin), f"{shown}_file")
        if setting.name not in item:
            if setting.required:
                also = f" (or {twin})" if setting.kind.secret else ""
                self.say(path, f"{shown}{also} is missing: {setting.kind.doc}")
            return False, None
        try:
            return True, setting.kind.read(item[setting.name])
        except ValueError as error:
            given = "" if setting.kind.secret else f" = {_brief(item[setting.name])}"
            self.say(here, f"{shown}{given}: {error}")
            return False, None

    def _from_environment(self, setting: Setting, variable: str) -> tuple[bool, Any]:
        try:
            return True, setting.kind.read_env(self.environ[variable])
        except ValueError as error:
            self.errors.append(f"environment: {variable}={_brief(self.environ[variable])}: {error}")
            return False, None

    def _from_file(self, setting: Setting, name: Any, here: Place, shown: str) -> tuple[bool, Any]:
        """The secret in a file: its lines, without blank ones and those that begin with #."""
        if not isinstance(name, str) or not name or "\0" in name:
            self.say(here, f"{shown}: must be the path of a file")
            return False, None
        if self.folder is None:
            # `check` reads no secrets, so there is nothing more to judge; the value never leaves this module.
            return True, ("",) if setting.kind.many else ""
        try:
            with open(self.folder / os.path.expanduser(name), encoding="utf-8") as file:
                rows = [row.strip() for row in file.read(SECRET_BYTES_MAX).splitlines()]
            rows = [row for row in rows if row and not row.startswith("#")]
            if not rows:
                raise ValueError("holds nothing")
            return True, setting.kind.read(rows if setting.kind.many else rows[0])
        except OSError as error:
            self.say(here, f"{shown} = {_brief(name)}: cannot be read: {error.strerror}")
        except ValueError as error:
            words = "is not UTF-8 text" if isinstance(error, UnicodeError) else str(error)
            self.say(here, f"{shown} = {_brief(name)}: {words}")
        return False, None


def _brief(value: object) -> str:
    text = str(value).lower() if isinstance(value, bool) else f'"{value}"' if isinstance(value, str) else str(value)
    return text if len(text) <= 60 else text[:57] + "..."
