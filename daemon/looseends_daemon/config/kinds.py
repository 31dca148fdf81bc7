"""The kinds of values a setting can have: each reads a TOML value or an environment variable, and writes TOML again.

Rules: `read` takes what tomllib gave and returns the value used inside (durations in float seconds, `NEVER` for
"never"); it raises ValueError with what is allowed, in words that follow the name of the key. `write` is its inverse. A
kind with `secret` set has a `*_file` twin and is never shown.
"""

from __future__ import annotations

import base64
import binascii
import ipaddress
import json
import re
from datetime import datetime
from typing import Any, ClassVar
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from cronsim import CronSim, CronSimError

from looseends.wire import NAME_CHARS_MAX, NEVER
from looseends_daemon.core.matchers import MATCHERS_MAX, matcher

UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}
TEXT_CHARS_MAX = 2_000
LIST_ITEMS_MAX = 100
_DURATION = re.compile(r"(?:\d+(?:\.\d+)?(?:ms|s|m|h|d))+", re.ASCII)
_PART = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)", re.ASCII)
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]{0,40}://.", re.ASCII)
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", re.ASCII)


def toml_text(value: str) -> str:
    """A string as TOML writes it: JSON's escapes are a subset of those of a basic string, DEL apart."""
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def duration_text(seconds: float) -> str:
    """Seconds in the largest unit that divides them: 300.0 -> "5m", 0.5 -> "500ms", NEVER -> "never"."""
    if seconds == NEVER:
        return "never"
    millis = round(seconds * 1000)
    for unit in ("d", "h", "m", "s"):
        size = round(UNITS[unit] * 1000)
        if millis and millis % size == 0:
            return f"{millis // size}{unit}"
    return f"{millis}ms" if millis else "0s"


class Kind:
    """Base of all kinds. `doc` is one sentence for example file and docs; `example` is shown where no default is."""

    secret = False
    many = False

    def __init__(self, doc: str, *, example: Any = None) -> None:
        self.doc = doc
        self.example = example

    def read(self, value: Any) -> Any:
        """The value used inside. Raises ValueError in words."""
        raise NotImplementedError

    def read_env(self, text: str) -> Any:
        """The same from an environment variable; lists are separated by commas."""
        return self.read([part.strip() for part in text.split(",") if part.strip()] if self.many else text)

    def write(self, value: Any) -> str:
        """TOML text that `read` takes back."""
        return "[" + ", ".join(toml_text(item) for item in value) + "]" if self.many else toml_text(value)


class Text(Kind):
    """Any text on one line."""

    def read(self, value: Any) -> str:
        if not isinstance(value, str) or not value.strip():
            raise ValueError("must be text in quotes, not empty")
        if len(value) > TEXT_CHARS_MAX or not value.isprintable():
            raise ValueError(f"must be at most {TEXT_CHARS_MAX} printable characters on one line")
        return value


class Label(Text):
    """A name as events carry it: of a task, a service or an environment."""

    def read(self, value: Any) -> str:
        text = super().read(value)
        if len(text) > NAME_CHARS_MAX:
            raise ValueError(f"is {len(text)} characters long, at most {NAME_CHARS_MAX} are taken")
        return text


class Cron(Text):
    """A cron line of five fields, which comes true some day."""

    def read(self, value: Any) -> str:
        text = super().read(value)
        try:
            if len(text.split()) != 5:
                raise CronSimError
            next(CronSim(text, datetime(2026, 1, 1)))  # noqa: DTZ001 - a wall clock without a zone: does any minute fit?
        except (CronSimError, StopIteration):
            fields = '"minute hour day month weekday" of a time that comes, like "0 2 * * *" or "*/15 8-17 * * 1-5"'
            raise ValueError(f"must be five fields {fields}") from None
        return text


class Zone(Text):
    """A time zone by its name in the tz database."""

    def read(self, value: Any) -> str:
        text = super().read(value)
        try:
            return ZoneInfo(text).key
        except (ZoneInfoNotFoundError, ValueError, OSError):
            raise ValueError('must be the name of a time zone, like "UTC" or "Europe/Berlin"') from None


class Name(Text):
    """A short name that is safe in headers and logs."""

    def read(self, value: Any) -> str:
        text = super().read(value)
        if not _NAME.fullmatch(text):
            raise ValueError("must be 1 to 64 letters, digits, dots, dashes or underscores, a letter or digit first")
        return text


class Glob(Text):
    """A pattern on "service/name"."""

    def read(self, value: Any) -> str:
        text = super().read(value)
        if "/" not in text:
            raise ValueError('must be a pattern on "service/name" such as "shop-web/mail.*" or "*/warm_cache"')
        return text


class Choice(Kind):
    """One of a few words."""

    def __init__(self, doc: str, *words: str, later: tuple[str, ...] = (), example: Any = None) -> None:
        super().__init__(f"{doc} One of {', '.join(words)}." if len(words) > 1 else doc, example=example)
        self.words = words
        self.later = later

    def read(self, value: Any) -> str:
        if value in self.later:
            raise ValueError(f"is not in this version of looseends, which has {', '.join(self.words)}")
        if not isinstance(value, str) or value not in self.words:
            raise ValueError("must be one of " + ", ".join(f'"{word}"' for word in self.words))
        return value


class Bool(Kind):
    """true or false."""

    def read(self, value: Any) -> bool:
        if not isinstance(value, bool):
            raise ValueError("must be true or false, without quotes")
        return value

    def read_env(self, text: str) -> bool:
        known = {"true": True, "1": True, "false": False, "0": False}
        if text.lower() not in known:
            raise ValueError("must be true or false")
        return known[text.lower()]

    def write(self, value: Any) -> str:
        return "true" if value else "false"


class Count(Kind):
    """A whole number within bounds."""

    def __init__(self, doc: str, low: int, high: int) -> None:
        super().__init__(doc)
        self.low, self.high = low, high

    def read(self, value: Any) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or not self.low <= value <= self.high:
            raise ValueError(f"must be a whole number from {self.low} to {self.high}")
        return value

    def read_env(self, text: str) -> int:
        return self.read(int(text) if re.fullmatch(r"\d{1,9}", text, re.ASCII) else text)

    def write(self, value: Any) -> str:
        return str(value)


class Duration(Kind):
    """A duration as text with a unit; seconds inside."""

    def __init__(self, doc: str, low: str, high: str, *, never: bool = False, example: Any = None) -> None:
        super().__init__(doc, example=example)
        self.low, self.high, self.never = low, high, never

    def read(self, value: Any) -> float:
        if self.never and value == "never":
            return NEVER
        if not isinstance(value, str) or not _DURATION.fullmatch(value):
            raise ValueError('must be a duration in quotes like "500ms", "10s", "5m", "4h" or "7d"' + self._or_never())
        seconds = _seconds(value)
        if not _seconds(self.low) <= seconds <= _seconds(self.high):
            raise ValueError(f'must be between "{self.low}" and "{self.high}"' + self._or_never())
        return seconds

    def _or_never(self) -> str:
        return ', or "never"' if self.never else ""

    def write(self, value: Any) -> str:
        return toml_text(duration_text(value))


def _seconds(text: str) -> float:
    return round(sum(float(number) * UNITS[unit] for number, unit in _PART.findall(text)), 6)


class Size(Kind):
    """A number of bytes as text with a unit; bytes inside."""

    units: ClassVar[dict[str, int]] = {"B": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30, "TiB": 1 << 40}

    def __init__(self, doc: str, low: str, high: str) -> None:
        super().__init__(doc)
        self.low, self.high = low, high

    def read(self, value: Any) -> int:
        size = self._bytes(value) if isinstance(value, str) else None
        if size is None:
            raise ValueError('must be a size in quotes like "64KiB", "512MiB" or "10GiB"')
        if not (self._bytes(self.low) or 0) <= size <= (self._bytes(self.high) or 0):
            raise ValueError(f'must be between "{self.low}" and "{self.high}"')
        return size

    def _bytes(self, text: str) -> int | None:
        found = re.fullmatch(r"(\d{1,9}(?:\.\d{1,3})?) ?(B|KiB|MiB|GiB|TiB)", text, re.ASCII)
        return None if found is None else int(float(found[1]) * self.units[found[2]])

    def write(self, value: Any) -> str:
        unit = next(name for name, size in reversed(self.units.items()) if value % size == 0 and value >= size or size == 1)
        return toml_text(f"{value // self.units[unit]}{unit}")


class Texts(Kind):
    """A list of texts; `one` checks each of them."""

    many = True

    def one(self, text: str) -> str:
        """One entry, checked. Raises ValueError."""
        return text

    def read(self, value: Any) -> tuple[str, ...]:
        if not isinstance(value, list) or not all(isinstance(item, str) and item for item in value):
            raise ValueError('must be a list of texts, like ["one", "two"]')
        if len(value) > LIST_ITEMS_MAX:
            raise ValueError(f"has {len(value)} entries, at most {LIST_ITEMS_MAX} are taken")
        return tuple(self.one(item) for item in value)


class Paths(Texts):
    """A list of folders; `~` and `$XDG_STATE_HOME` at the beginning are filled in."""

    def one(self, text: str) -> str:
        return _path(text)


class Path(Text):
    """A file; `~` and `$XDG_STATE_HOME` at the beginning are filled in."""

    def read(self, value: Any) -> str:
        return _path(super().read(value))


def _path(text: str) -> str:
    if "\0" in text or not text.startswith(("/", "~", "$XDG_STATE_HOME/", ".")):
        raise ValueError('must be a path that begins with "/", "./", "~/" or "$XDG_STATE_HOME/"')
    return text


class Addresses(Texts):
    """Where to listen: "host:port" or "unix:PATH"; a single text is a list of one."""

    def read(self, value: Any) -> tuple[str, ...]:
        found = super().read([value] if isinstance(value, str) else value)
        if not found:
            raise ValueError("must name at least one address")
        return found

    def one(self, text: str) -> str:
        if text.startswith("unix:") and len(text) > 5:
            return text
        host, port = _host_port(text)
        if not host or not port.isascii() or not port.isdigit() or not 0 <= int(port) <= 65_535:
            raise ValueError(f'holds {text!r}: an address is "127.0.0.1:3637", "[::1]:3637" or "unix:/path/to/socket"')
        return text


def _host_port(text: str) -> tuple[str, str]:
    host, _, port = text.rpartition(":")
    bare = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    return ("", port) if (":" in bare and bare == host) or "/" in host else (bare, port)


class Hosts(Texts):
    """Host names as they stand in a Host header, without a port."""

    def one(self, text: str) -> str:
        if not re.fullmatch(r"[A-Za-z0-9._-]+|\[?[0-9A-Fa-f:.]+\]?", text, re.ASCII):
            raise ValueError(f'holds {text!r}: write host names only, like "looseends.example.org"')
        return text.lower()


class Networks(Texts):
    """IP networks in CIDR form."""

    def one(self, text: str) -> str:
        try:
            return str(ipaddress.ip_network(text))
        except ValueError:
            raise ValueError(f'holds {text!r}: a network is "169.254.0.0/16" or "fe80::/10"') from None


class Url(Text):
    """An http or https address."""

    def __init__(self, doc: str, *, secret: bool = False, example: Any = None) -> None:
        super().__init__(doc, example=example)
        self.secret = secret

    def read(self, value: Any) -> str:
        text = super().read(value)
        try:
            parts = urlsplit(text)
            ok = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port is None or parts.port > 0)
        except ValueError:
            ok = False
        if not ok or any(mark.isspace() for mark in text):
            raise ValueError("must be an address that begins with http:// or https:// and names a host")
        return text


class EndpointUrl(Url):
    """Where notices go: an http or https address, or any that Apprise understands. Which of them a kind takes, its table says."""

    def read(self, value: Any) -> str:
        text = Text.read(self, value)
        if _SCHEME.match(text) is None or any(mark.isspace() for mark in text):
            raise ValueError("must be an address that begins with http:// or https:// and names a host, or one of Apprise")
        return super().read(text) if text.lower().startswith(("http://", "https://")) else text


class Matchers(Texts):
    """Matchers in Alertmanager's syntax."""

    def read(self, value: Any) -> tuple[str, ...]:
        found = super().read(value)
        if len(found) > MATCHERS_MAX:
            raise ValueError(f"has {len(found)} matchers, at most {MATCHERS_MAX} are taken")
        return found

    def one(self, text: str) -> str:
        return str(matcher(text))


class SigningKeys(Texts):
    """Standard Webhooks secrets, newest first: `whsec_` and base64 of 24 to 64 random bytes."""

    secret = True
    hint = "python3 -c 'import base64,os;print(\"whsec_\"+base64.b64encode(os.urandom(32)).decode())'"

    def one(self, text: str) -> str:
        try:
            size = len(base64.b64decode(text.removeprefix("whsec_"), validate=True)) if text.startswith("whsec_") else 0
        except (binascii.Error, ValueError):
            size = 0
        if not 24 <= size <= 64:
            # The text itself is not named: it may be a real key with one letter missing.
            raise ValueError(f'entries must be "whsec_" and base64 of 24 to 64 bytes; make one with: {self.hint}')
        return text
