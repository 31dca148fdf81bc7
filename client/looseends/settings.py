"""What this process is told: environment variables first, then `init(...)`, then defaults. Pure; reads what it is given.

Rules: nothing here raises; what cannot be used is left out and named in `complaints`, to be logged once.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from .wire import DEFAULT_ENVIRONMENT, NAME_CHARS_MAX

_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}
_TOKEN_BYTES_MAX = 4096


class Settings(NamedTuple):
    """One process's settings. `url` is as written, or None for the default search; `token` has two or three parts."""

    service: str
    environment: str
    release: str | None
    url: str | None
    token: str | None
    spool: str
    fallback_spool: str
    state: str
    disabled: bool
    complaints: tuple[str, ...] = ()


def seconds(value: object, place: str) -> float | str:
    """A duration as written by people ("30s", "2h", "1m30s", 2.5, "never") -> seconds, or the word "never".

    Raises ValueError naming `place` and what is allowed.
    """
    allowed = f'{place} is a number of seconds, a text such as "500ms", "30s", "1m30s", "2h", "1d", or "never"; not {value!r}'
    if value == "never":
        return "never"
    if isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= 366 * 86_400:
        return float(value)
    if not isinstance(value, str) or not value:
        raise ValueError(allowed)
    total, number, unit = 0.0, "", ""
    for char in value.strip() + "0":
        if unit and (char.isdigit() or char == "."):
            if unit not in _UNITS or not number:
                raise ValueError(allowed)
            total, number, unit = total + _number(number, allowed) * _UNITS[unit], "", ""
        if char.isdigit() or char == ".":
            number += char
        elif not char.isspace():
            unit += char
    if number != "0" or total > 366 * 86_400:
        raise ValueError(allowed)
    return total


def _number(text: str, allowed: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise ValueError(allowed) from None


def state_folder(environ: Mapping[str, str], home: str) -> str:
    """Where socket and spool live by default: `$XDG_STATE_HOME/looseends`, else `~/.local/state/looseends`."""
    return (environ.get("XDG_STATE_HOME") or f"{home}/.local/state") + "/looseends"


def resolve(
    environ: Mapping[str, str], given: Mapping[str, str | None], *, home: str, temporary: str, program: str, uid: int
) -> Settings:
    """The settings of a process from its environment, what `init` was given, and where it stands."""
    complaints: list[str] = []

    def pick(name: str, *others: str) -> str | None:
        value = environ.get(f"LOOSEENDS_{name.upper()}")
        for other in others:
            value = value or environ.get(other)
        value = value or given.get(name)
        if value is not None and not isinstance(value, str):
            complaints.append(f"init({name}=...) takes text, not {type(value).__name__}; ignored")
            return None
        if value and name in ("service", "environment", "release"):
            value = _clean(value, name, complaints)
        return value or None

    state = state_folder(environ, home)
    return Settings(
        service=pick("service", "OTEL_SERVICE_NAME") or program or "python",
        environment=pick("environment") or DEFAULT_ENVIRONMENT,
        release=pick("release"),
        url=pick("url"),
        token=_token(pick("token"), pick("token_file"), complaints),
        spool=pick("spool_dir") or f"{state}/spool",
        fallback_spool=f"{temporary}/looseends-{uid}",
        state=state,
        disabled=(pick("disabled") or "").lower() in ("1", "true", "yes", "on"),
        complaints=tuple(complaints),
    )


def _clean(value: str, name: str, complaints: list[str]) -> str:
    cleaned = "".join(char for char in value if char.isprintable())[:NAME_CHARS_MAX].strip()
    if cleaned != value:
        complaints.append(f"{name} is 1 to {NAME_CHARS_MAX} printable characters; {cleaned!r} is used")
    return cleaned


def _token(token: str | None, path: str | None, complaints: list[str]) -> str | None:
    if token is None and path:
        try:
            with open(path, encoding="ascii") as file:
                token = file.read(_TOKEN_BYTES_MAX).strip()
        except (OSError, UnicodeDecodeError) as error:
            complaints.append(f"LOOSEENDS_TOKEN_FILE {path} cannot be read: {error}")
    if token is not None and (not token.isascii() or not token.isprintable() or not 2 <= len(token.split(".")) <= 3):
        complaints.append("a token is <id>.<secret> or <id>.<secret>.<order key>; this one is ignored")
        return None
    return token


def program_name(argv0: str) -> str:
    """A service's name when nobody gave one: the script's name, or its folder's for `python -m package`."""
    parts = [part for part in argv0.replace("\\", "/").split("/") if part]
    last = parts[-1] if parts else ""
    if last == "__main__.py" and len(parts) > 1:
        last = parts[-2]
    return (last[:-3] if last.endswith(".py") else last).lstrip("-")
