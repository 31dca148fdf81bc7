"""Which names hold secrets. Pure; `scrub.py` finds secrets in texts, where no name says so.

Rule: whole words only, split on everything that is no letter or digit and on camelCase, so that `author`, `tokens_used`
and `discard` stay readable while `apiKey`, `X-Auth-Token` and `card_number` do not.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

WORDS = frozenset(
    ("password", "passwords", "passwd", "pwd", "pw", "passphrase", "passcode", "secret", "secrets", "token", "jwt", "bearer")
    + ("authorization", "auth", "cookie", "cookies", "credential", "credentials", "creds", "apikey", "privatekey", "sessionid")
    + (
        "accesskey",
        "secretkey",
        "accesstoken",
        "authtoken",
        "refreshtoken",
        "sessiontoken",
        "clientsecret",
        "mnemonic",
        "phpsessid",
        "jsessionid",
    )
    + ("card", "cvv", "cvc", "ssn", "iban", "otp", "totp", "mfa", "pin", "csrf", "xsrf")
)
PAIRS = frozenset(
    {("api", "key"), ("access", "key"), ("account", "key"), ("private", "key"), ("signing", "key"), ("encryption", "key")}
    | {("secret", "key"), ("master", "key"), ("account", "number"), ("session", "id"), ("session", "key"), ("pass", "word")}
    | {("pass", "phrase"), ("set", "cookie")}
)
ENDINGS = ("password", "passwd", "passphrase", "apikey", "token", "secret")  # PGPASSWORD, dbpassword: no other word ends so
CLASS_WORDS = frozenset(("secret", "secrets", "password", "passwords", "credential", "credentials"))
_SPLIT = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+")
_CHARS_MAX = 200
_CACHE_MAX = 5_000
_cache: dict[str, bool] = {}


def words(name: str) -> list[str]:
    """The words of a name in lower case: `X-ApiKey2` -> x, api, key, 2."""
    return [word.lower() for word in _SPLIT.findall(name)]


def is_secret(name: str, extra: Iterable[str] = ()) -> bool:
    """Whether a value under this name is to be hidden; `extra` are names or single words the task's author added."""
    known = _cache.get(name)
    if known is None:
        parts = words(name[-_CHARS_MAX:])
        known = not WORDS.isdisjoint(parts) or any(pair in PAIRS for pair in zip(parts, parts[1:], strict=False))
        known = known or any(part.endswith(ENDINGS) for part in parts)
        if len(_cache) < _CACHE_MAX and len(name) <= _CHARS_MAX:
            _cache[name] = known
    if known or not extra:
        return known
    lowered, parts = name.lower(), words(name)
    return any(more.lower() == lowered or more.lower() in parts or _within(words(more), parts) for more in extra)


def _within(wanted: list[str], parts: list[str]) -> bool:
    """`card_holder` is within `newCardHolder2`."""
    size = len(wanted)
    return size > 0 and any(parts[at : at + size] == wanted for at in range(len(parts) - size + 1))


def is_secret_class(name: str) -> bool:
    """Whether a class says by its name that its instances are secrets: SecretStr, Password, DbCredentials."""
    return not CLASS_WORDS.isdisjoint(words(name[-_CHARS_MAX:]))
