"""Which names hold secrets. Pure.

Rule: whole words only, split on everything that is no letter or digit and on camelCase, so that `author`, `tokens_used`
and `discard` stay readable while `apiKey`, `X-Auth-Token` and `card_number` do not. Names decide, never values.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

WORDS = frozenset(
    ("password", "passwords", "passwd", "pwd", "passphrase", "passcode", "secret", "secrets", "token", "jwt", "bearer")
    + ("authorization", "auth", "cookie", "cookies", "credential", "credentials", "apikey", "privatekey", "sessionid")
    + ("card", "cvv", "cvc", "ssn", "iban", "otp", "mfa", "pin", "csrf", "xsrf")
)
PAIRS = frozenset(
    {("api", "key"), ("access", "key"), ("private", "key"), ("signing", "key"), ("encryption", "key"), ("secret", "key")}
    | {("account", "number"), ("session", "id"), ("session", "key"), ("pass", "word"), ("pass", "phrase")}
)
_SPLIT = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+")
_CACHE_MAX = 5_000
_cache: dict[str, bool] = {}


def words(name: str) -> list[str]:
    """The words of a name in lower case: `X-ApiKey2` -> x, api, key, 2."""
    return [word.lower() for word in _SPLIT.findall(name)]


def is_secret(name: str, extra: Iterable[str] = ()) -> bool:
    """Whether a value under this name is to be hidden; `extra` are names or single words the task's author added."""
    known = _cache.get(name)
    if known is None:
        parts = words(name[:200])
        known = not WORDS.isdisjoint(parts) or any(pair in PAIRS for pair in zip(parts, parts[1:], strict=False))
        if len(_cache) < _CACHE_MAX:
            _cache[name] = known
    if known or not extra:
        return known
    lowered, parts = name.lower(), words(name)
    return any(more.lower() == lowered or more.lower() in parts for more in extra)
