"""A command line as it may be shown: bounded, and without the secrets that names and forms give away. Pure.

Rules: a word is masked where the word before it, or what stands before its `=`, says that it is a secret (`redact.py` knows
which names do); what is left goes through `scrub.py`. A secret found here is hidden in the command's output too. What has
neither name nor form (a bare `hunter2`) cannot be known for a secret: `--redact`, or a file, is the way.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from .redact import is_secret
from .scrub import MARK, scrub

WORDS_MAX = 200
WORD_CHARS_MAX = 2_000
LINE_CHARS_MAX = 12_000
HIDDEN_CHARS_MIN = 4
"""Secrets shorter than this are not searched for in the output: they would take pieces out of other words."""
_USER_OPTIONS = ("-u", "--user", "--proxy-user")
_ATTACHED_PASSWORD = ("mysql", "mysqldump", "mysqladmin", "mariadb", "mariadb-dump", "mariadb-admin")
_NAMED = r"""((?<![A-Za-z0-9])(?:{names})(?![A-Za-z0-9])["']?[ \t]*[=: \t][ \t]*)("[^"\n]*"|'[^'\n]*'|[^\s"',;&|)\\]+)"""


class Shown(NamedTuple):
    """The words as they are recorded, and the secrets that were taken out of them."""

    words: list[str]
    hidden: tuple[str, ...]


def shown(command: Sequence[str], redact: Iterable[str] = ()) -> Shown:
    """A command's words, at most WORDS_MAX of them and LINE_CHARS_MAX in all. `redact`: more names of secrets."""
    extra, left = tuple(redact), LINE_CHARS_MAX
    words: list[str] = []
    hidden: list[str] = []
    attached = bool(command) and command[0].rsplit("/", 1)[-1] in _ATTACHED_PASSWORD
    before = ""
    for number, raw in enumerate(command):
        if number == WORDS_MAX or left <= 0:
            words.append(f"... and {len(command) - number:,} more")
            break
        word = _text(raw)
        cut = _secret_at(word, before, extra, attached and number > 0)
        if cut is not None:
            hidden.append(word[cut:])
            word = word[:cut] + MARK
        word = cleaned(word, (), extra)
        limit = min(WORD_CHARS_MAX, left)
        words.append(word if len(word) <= limit else word[:limit] + "...")
        left -= len(words[-1])
        before = raw
    return Shown(words, tuple(text for text in hidden if len(text) >= HIDDEN_CHARS_MIN))


def _text(word: str) -> str:
    """Text that every database takes: bytes that are no UTF-8 are written as escapes."""
    return word.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace").replace("\0", "\\0")


def _secret_at(word: str, before: str, extra: tuple[str, ...], attached: bool) -> int | None:
    """Where in a word its secret begins, or None."""
    if before.startswith("-") and "=" not in before and not word.startswith("-") and is_secret(before.lstrip("-"), extra):
        return 0
    if before in _USER_OPTIONS and ":" in word:
        return word.index(":") + 1
    name, equals, value = word.partition("=")
    if equals and value and not any(map(str.isspace, name)) and is_secret(name.lstrip("-"), extra):
        return len(name) + 1
    return 2 if attached and word.startswith("-p") and len(word) > 2 else None


def cleaned(text: str, hidden: Iterable[str] = (), extra: tuple[str, ...] = ()) -> str:
    """Text of any length without `hidden`, without what shows itself as a secret, and without values named by `extra`."""
    text = scrub(text, hidden)
    if not extra:
        return text

    names = "|".join(re.escape(name) for name in extra)
    return re.sub(_NAMED.format(names=names), rf"\1{MARK}", text, flags=re.IGNORECASE)
