"""Texts without the secrets that show themselves. Pure. (`redact.py` knows which names hold secrets.)

Rules:

1. What hides: private keys, tokens of well-known makers, JWTs, password hashes, bearer and basic credentials, card numbers
   (known prefix and Luhn), passwords and tokens in URLs, `password=...` in every spelling (JSON, headers, options, reprs),
   SQL parameters, and what a validation error quotes of a field whose name is secret.
2. Where it is not clear how far a secret goes, more is hidden rather than less.
3. Every pattern is linear in the text. A text without a suspicious mark costs a fraction of a microsecond.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable
from typing import Any

from .redact import is_secret, words

MARK = "[redacted]"
CARD_DIGITS_MIN = 14
CARD_INT_MIN = 10 ** (CARD_DIGITS_MIN - 1)  # a smaller number is no card's
SHORT_CHARS = CARD_DIGITS_MIN - 1  # a text of this length with neither ':' nor '=' holds no secret that `scrub` would know
RUN_MIN = 16  # characters of a token without a break; what is shorter has a mark beside it, or is not known as a token
# What each byte is to a first look: part of a token (a), or not (blank); a digit (0), or not.
TOKENISH = bytes(97 if chr(b).isalnum() and b < 128 or chr(b) in "_-.+/$" else 32 for b in range(256))
DIGITS = bytes(48 if 48 <= b <= 57 else 32 for b in range(256))
TOKEN_RUN, CARD_RUN = b"a" * RUN_MIN, b"0" * CARD_DIGITS_MIN
# Any name that `redact.py` calls secret holds one of these (the tests compare); what holds none need not be looked at.
_STEM = re.compile(
    "pass|pw|secret|token|jwt|bearer|auth|cookie|cred|key|sess|mnemonic|card|cvv|cvc|ssn|iban|otp|mfa|pin|csrf|xsrf|account|sig"
)
_HEX = "0123456789abcdefABCDEF-"
# `error: ...` after a secret word is about it, and is not the secret: TokenError, "password required: ...".
_ABOUT = frozenset(
    ("error", "errors", "exception", "warning", "invalid", "expired", "missing", "required", "type", "types", "count", "length")
    + ("name", "url", "uri", "endpoint", "issuer", "policy", "store", "file", "path", "class", "field", "status")
)
_TO_LINE_END = frozenset(("cookie", "cookies", "authorization", "passphrase", "mnemonic"))
_NOT_SECRET = frozenset(
    ("", "none", "null", "true", "false", "undefined", "str", "bytes", "int", "float", "bool", "any", "dict", "list", "object")
    + ("secretstr", "optional", "string", "...", "***", "******", MARK, "<redacted>")
)
_QUERY_NAMES = frozenset(("sig", "signature", "x-amz-signature", "x-goog-signature", "x-amz-credential"))


def scrub(text: str, hidden: Iterable[str] = ()) -> str:
    """The text with every secret in it replaced by MARK; the very same text where there is none.

    `hidden` are texts to take out wherever they stand, such as what was redacted in the task's own arguments.
    """
    for secret in hidden:
        if secret in text:
            text = text.replace(secret, MARK)
    found = _scrubbed(text)
    return text if found == text else found


def _scrubbed(text: str) -> str:
    marked = ":" in text or "=" in text
    if not marked and len(text) < CARD_DIGITS_MIN:
        return text
    if marked or "</" in text:
        text = _replaced(text, _beside_marks())
    raw = text.encode("ascii", "replace")
    if TOKEN_RUN in raw.translate(TOKENISH) and text.strip(_HEX):
        text = _replaced(text, _tokens())
    text = _replaced(text, _anywhere())
    if CARD_RUN in raw.translate(DIGITS, b" -."):
        text = _cards(text)
    if (marked or "'," in text or '",' in text or "--" in text or ")=(" in text) and _STEM.search(text.lower()):
        text = _assignments(text)
    return text


Pattern = tuple[str, re.Pattern[str], Any]
"""A text without which the pattern is not tried, the pattern, its replacement. All are compiled when first needed."""


def _replaced(text: str, patterns: tuple[Pattern, ...]) -> str:
    for mark, pattern, replacement in patterns:
        if mark in text:
            text = pattern.sub(replacement, text)
    return text


@functools.cache
def _beside_marks() -> tuple[Pattern, ...]:
    port = r"(?!\d{1,5}(?:[/?#\s\"'<>]|$))"
    return (
        ("://", re.compile(rf"(://[^\s/?#\"'<>:@]{{0,200}}:){port}[^\s\"'<>]{{1,500}}@"), rf"\1{MARK}@"),
        ("://", re.compile(r"(://)[^\s/?#\"'<>:@]{16,500}@"), rf"\1{MARK}@"),
        ("[parameters: ", re.compile(r"(\[parameters: [\[(])[^\n]*"), rf"\1{MARK}"),
        ("</", re.compile(r"<((?:\w+:)?[\w.-]+)((?:\s[^<>]{0,500})?>)([^<]+)(</)"), _element),
        ("input_value=", re.compile(r"^([\w.\-\[\]]+)\n([^\n]*?input_value=)([^\n]*)(, input_type=)", re.M), _quoted_input),
    )


@functools.cache
def _anywhere() -> tuple[Pattern, ...]:
    pem = r"-----BEGIN [A-Z ]{0,40}PRIVATE KEY(?: BLOCK)?-----.*?(?:-----END [A-Z ]{1,60}-----|\Z)"
    return (
        ("-----BEGIN", re.compile(pem, re.S), MARK),
        ("earer ", re.compile(r"\b(bearer +)(?=[\w.~+/-]{0,200}\d|[\w.~+/-]{20})[\w.~+/=-]{8,}", re.I), rf"\1{MARK}"),
        ("asic ", re.compile(r"\b(basic +)([A-Za-z0-9+/]{8,}={0,2})", re.I), _basic),
    )


@functools.cache
def _tokens() -> tuple[Pattern, ...]:
    return (("", re.compile(_TOKENS, re.X), MARK),)


_TOKENS = r"""(?<![A-Za-z0-9])(?:
    eyJ[\w-]{8,}\.[\w-]{8,}(?:\.[\w-]*)*+                              # JWT
  | (?:AKIA|ASIA|AIDA|AROA)[A-Z0-9]{16}(?![A-Za-z0-9])                 # AWS
  | gh[pousr]_[A-Za-z0-9]{30,} | github_pat_\w{22,} | glpat-[\w-]{20,}
  | xox[a-z]-[\w-]{10,} | xapp-[\w-]{10,}                              # Slack
  | [sr]k_(?:live|test)_[A-Za-z0-9]{10,} | whsec_[\w+/=-]{16,}         # Stripe, Standard Webhooks
  | sk-(?=[A-Za-z_-]{0,60}\d)[\w-]{20,}
  | AIza[\w-]{35} | ya29\.[\w-]{20,} | GOCSPX-[\w-]{20,}               # Google
  | npm_[A-Za-z0-9]{36} | pypi-[\w-]{16,} | hf_[A-Za-z0-9]{30,} | do[opr]_v1_[a-f0-9]{64}
  | SG\.[\w-]{16,}\.[\w-]{16,} | SK[0-9a-f]{32}(?![0-9a-f]) | (?:bot)?\d{8,10}:AA[\w-]{33}
  | hooks\.slack\.com/services/[\w/]{20,} | discord(?:app)?\.com/api/webhooks/\d+/[\w-]{20,}
  | \$(?:2[abxy]|argon2(?:id|i|d)|scrypt|pbkdf2[\w-]*|[156y])\$[\w./=,+$-]{20,}
)"""


def _basic(found: re.Match[str]) -> str:
    """`basic training` is no credential; what decodes to user:password is."""
    import binascii

    try:
        plain = binascii.a2b_base64(found[2] + "=" * (-len(found[2]) % 4))
    except ValueError:
        return found[0]
    return f"{found[1]}{MARK}" if b":" in plain and plain.isascii() else found[0]


def _quoted_input(found: re.Match[str]) -> str:
    """A validation error of pydantic: the field's name stands in the line above the value."""
    return f"{found[1]}\n{found[2]}{MARK}{found[4]}" if is_secret(found[1]) else found[0]


def _element(found: re.Match[str]) -> str:
    """<password>x</password>"""
    return f"<{found[1]}{found[2]}{MARK}{found[4]}" if is_secret(found[1]) else found[0]


# --- card numbers -------------------------------------------------------------------------------------------------


@functools.cache
def _card_pattern() -> re.Pattern[str]:
    return re.compile(
        r"(?<!\d)(?<!\d\.)(?:\d{4}[ .-]\d{4}[ .-]\d{4}[ .-]\d{4}(?:[ .-]\d{1,3})?|\d{4}[ .-]\d{6}[ .-]\d{4,5}|"
        r"(?<![0-9a-fA-F])\d{14,19}(?![a-fA-F]))(?!\d)"
    )


def _cards(text: str) -> str:
    pattern, at = _card_pattern(), 0
    while found := pattern.search(text, at):
        if is_card("".join(filter(str.isdecimal, found[0]))):
            text = text[: found.start()] + MARK + text[found.end() :]
            at = found.start() + len(MARK)
        else:
            at = found.start() + 1
    return text


def is_card(digits: str) -> bool:
    """Whether these digits are a payment card's number: a known prefix of the right length, and Luhn's check."""
    size = len(digits)
    if not CARD_DIGITS_MIN <= size <= 19 or not digits.isascii():
        return False
    two, three, four = int(digits[:2]), int(digits[:3]), int(digits[:4])
    if size == 16:
        known = digits[0] == "4" or 51 <= two <= 55 or 2221 <= four <= 2720
    elif size == 15:
        known = two in (34, 37)
    else:
        known = size == 14 and (two in (36, 38, 39) or 300 <= three <= 305)
    if size >= 16:
        known = known or two in (62, 65) or 644 <= three <= 649 or four == 6011 or 3528 <= four <= 3589
    if not known:
        return False
    doubled = (sum(divmod(2 * int(digit), 10)) for digit in digits[-2::-2])
    return (sum(map(int, digits[-1::-2])) + sum(doubled)) % 10 == 0


# --- names with a value beside them -------------------------------------------------------------------------------


@functools.cache
def _name_pattern() -> re.Pattern[str]:
    return re.compile(
        r"""(?<![\w.\-])(?P<name>[\w.\-]++)(?:
            (?:\\*["'`])\]?\s*(?:=>|:=|[:,=])(?:\s|\\+[nrt])*+    # "password": , d["password"] = , ('password', ...)
          | [ \t]*(?:=>|:=|:(?!//)|=(?!=))[ \t]*+    # password=, password:
          | (?P<key>\)=\()                           # Key (password)=(...), as PostgreSQL says it
          | (?<=[\w])(?P<option>\s++)                # --password value
        )""",
        re.X,
    )


@functools.cache
def _value_patterns() -> tuple[re.Pattern[str], re.Pattern[str], re.Pattern[str]]:
    inside = r"""(?P<value>(?:[^\\"'`]|\\.|(?!(?P=quote))["'`])*+)"""
    quoted = rf"""(?P<open>[bBfFrRuU]{{0,2}}(?P<quote>["'`])){inside}(?P<close>(?P=quote)|\Z)"""
    deep = r"""(?P<open>(?P<slashes>\\+)(?P<quote>["'`]))(?P<value>.*?)(?P<close>(?<!\\)(?P=slashes)(?P=quote)|\Z)"""
    bare = r"""(?:(?:bearer|basic|token|digest|negotiate|apikey)\s+)?[^\s&"]++"""
    return re.compile(quoted, re.S), re.compile(deep, re.S), re.compile(bare, re.I)


def _assignments(text: str) -> str:
    """`name = value` in every spelling: the value goes where the name is secret."""
    kept: list[str] = []
    done = begin = 0
    for line in text.split("\n"):
        end = begin + len(line)
        if _STEM.search(line.lower()):
            done = _line(text, max(begin, done), end, done, kept)
        begin = end + 1
    return "".join([*kept, text[done:]]) if kept else text


def _line(text: str, at: int, line_end: int, done: int, kept: list[str]) -> int:
    """The names of one line; a value may reach beyond it. -> how far the text is dealt with."""
    search = _name_pattern().search
    while at <= line_end and (found := search(text, at, line_end)):
        at, name = found.end(), found["name"]
        if found["option"] is not None and not name.startswith("--") or not _hides(name, text, found.start()):
            continue
        begin, end = _span(text, at, name, found["key"] is not None)
        value = text[begin:end]
        if value.strip().rstrip(".,;:)]}>").lower() in _NOT_SECRET or value.rstrip(",;:)]}> ") == name:
            continue
        kept += [text[done:begin], MARK]
        at = done = end
    return done


def _hides(name: str, text: str, at: int) -> bool:
    last = name.rsplit(".", 1)[-1]
    if at and text[at - 1] in "?&" and (last.lower() in _QUERY_NAMES or last.lower() == "key"):
        return last.lower() != "key" or _run_after(text, at + len(name) + 1) >= 20
    if not is_secret(last):
        return False
    return words(last[-60:])[-1] not in _ABOUT


def _run_after(text: str, at: int) -> int:
    end = at
    while end < len(text) and end - at < 20 and (text[end].isalnum() or text[end] in "-_"):
        end += 1
    return end - at


def _span(text: str, at: int, name: str, in_brackets: bool) -> tuple[int, int]:
    """Where the value that begins at `at` lies; of a quoted one the inside."""
    if in_brackets:
        end = text.find(")", at)
        return at, end if end >= 0 else len(text)
    quoted, deep, bare = _value_patterns()
    if text[at : at + 1] == "\n":  # the value stands on the next line, where it is quoted
        below = at + len(text[at:]) - len(text[at:].lstrip())
        if text[below : below + 1] not in ("'", '"', "`"):
            return at, at
        at = below
    found = quoted.match(text, at) or deep.match(text, at)
    if found:
        return found.span("value")
    if text[at : at + 1] in ("[", "{", "("):
        return at, _closing(text, at)
    if not _TO_LINE_END.isdisjoint(words(name)):
        end = text.find("\n", at)
        return at, end if end >= 0 else len(text)
    found = bare.match(text, at)
    return found.span() if found else (at, at)


def _closing(text: str, at: int) -> int:
    """One past the bracket that closes the one at `at`; the text's end where none does."""
    open_, level = re.compile(r"[\[\](){}]"), 0
    for found in open_.finditer(text, at):
        level += 1 if found[0] in "[({" else -1
        if level == 0:
            return found.end()
    return len(text)
