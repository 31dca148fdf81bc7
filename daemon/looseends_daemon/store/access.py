"""Who may speak: tokens, sessions, sign-in links, and the audit log.

Rules:

1. A secret is shown once and kept as SHA-256; it is found by its id or hash and compared in constant time. Only an order key
   stays in clear, because both ends make a mac with it; that is one reason why the database has mode 0600.
2. A revoked token takes its sessions and links with it. Rows of `audit` are never changed; triggers hold that.
3. Every function that writes takes a sqlite3 connection, and the transaction is its caller's: the running daemon passes them
   to `Database.write`, `token create` runs them on the file (`offline`). Times are ns and come from outside.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import secrets
import sqlite3
from collections.abc import Iterator
from typing import Any

import aiosqlite

from looseends.wire import NS
from looseends_daemon.core.resources import Actor, Value
from looseends_daemon.store.connection import connect
from looseends_daemon.store.schema import APPLICATION_ID, StoreError, migrations

ROLES = ("ingest", "viewer", "operator")
SESSION_S_MAX = 7 * 86_400
LINK_S_MAX = 3_600
SESSIONS_MAX = 1_000
LINKS_MAX = 100
TOKENS_MAX = 1_000
NAME_CHARS_MAX = 100
AUDIT_CHARS_MAX = 1_000
TOKEN_BYTES_MAX = 400


class Token(Value, frozen=True):
    """A token as it is listed: everything but its secrets. `service` binds an ingest token."""

    id: str
    role: str
    name: str
    kind: str
    created_at: int
    service: str | None = None
    revoked_at: int | None = None


def digest(text: str) -> bytes:
    """How a secret is kept. Its 256 random bits need no slow hash."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()


def new_secret() -> str:
    """256 random bits as text without a dot."""
    return secrets.token_urlsafe(32)


# --- tokens -------------------------------------------------------------------------------------------------------


def create_token(conn: sqlite3.Connection, *, role: str, service: str | None, name: str, now: int) -> str:
    """Make a token and return its text, the only time it is seen: `<id>.<secret>`, for ingest `<id>.<secret>.<order key>`.

    Raises StoreError: unknown role, ingest without a service (or a service without ingest), over TOKENS_MAX.
    """
    if role not in ROLES:
        raise StoreError(f"no role is called {role!r}", hint=f"roles are {', '.join(ROLES)}")
    if (role == "ingest") != bool(service):
        raise StoreError("an ingest token, and no other, belongs to one service", hint="--role ingest --service NAME")
    if conn.execute("SELECT count(*) FROM token WHERE revoked_at IS NULL").fetchone()[0] >= TOKENS_MAX:
        raise StoreError(f"there are {TOKENS_MAX} tokens already", hint="revoke some: looseends token list")
    token_id, secret = f"{role[:2]}_{secrets.token_hex(5)}", new_secret()
    order_key = new_secret() if role == "ingest" else None
    insert_token(conn, token_id, role, service or None, name or token_id, "made", secret, order_key, now)
    return ".".join(part for part in (token_id, secret, order_key) if part)


def insert_token(
    conn: sqlite3.Connection,
    token_id: str,
    role: str,
    service: str | None,
    name: str,
    kind: str,
    secret: str,
    order_key: str | None,
    now: int,
) -> None:
    """Keep a token whose secret somebody already holds."""
    conn.execute(
        "INSERT INTO token (id, role, service, name, kind, secret, order_key, created_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        (token_id, role, service, name[:NAME_CHARS_MAX], kind, digest(secret), order_key, now),
    )


def tokens(conn: sqlite3.Connection) -> list[Token]:
    """Every token that was ever made, oldest first."""
    return [token_of(row) for row in conn.execute("SELECT * FROM token ORDER BY created_at, id")]


def revoke_token(conn: sqlite3.Connection, token_id: str, *, now: int) -> bool:
    """End a token with its sessions and links. False: there is none of this id that still holds."""
    done = conn.execute("UPDATE token SET revoked_at = ? WHERE id = ? AND revoked_at IS NULL", (now, token_id)).rowcount
    conn.execute("DELETE FROM session WHERE token = ?", (token_id,))
    conn.execute("DELETE FROM signin_link WHERE token = ?", (token_id,))
    return done > 0


def has_made_tokens(conn: sqlite3.Connection) -> bool:
    """Whether anybody configured access: without a made token nobody but this machine may be listened to."""
    return conn.execute("SELECT 1 FROM token WHERE kind = 'made' AND revoked_at IS NULL LIMIT 1").fetchone() is not None


def order_key(conn: sqlite3.Connection, token_id: str) -> str | None:
    """The key that proves this daemon to the services of an ingest token; None: no such token holds."""
    row = conn.execute("SELECT order_key FROM token WHERE id = ? AND revoked_at IS NULL", (token_id,)).fetchone()
    return None if row is None else row[0]


def token_of(row: Any) -> Token:
    """A row of `token` without its secrets."""
    return Token(**{name: row[name] for name in Token.__struct_fields__})


def split_token(text: str) -> tuple[str, str] | None:
    """(id, secret) of a token as it is sent; a third part, the order key, is never used here. None: no token at all."""
    parts = text.strip().split(".")
    if len(text) > TOKEN_BYTES_MAX or not text.isascii() or len(parts) not in (2, 3) or not all(parts):
        return None
    return parts[0], parts[1]


_FIND_TOKEN = "SELECT * FROM token WHERE id = ? AND revoked_at IS NULL"


async def token_row(conn: aiosqlite.Connection, token_id: str) -> Any:
    """What `matches` compares a secret with; None: no such token holds."""
    async with conn.execute(_FIND_TOKEN, (token_id,)) as cursor:
        return await cursor.fetchone()


def matches(row: Any, secret: str) -> Token | None:
    """The token of this row if the secret is its own, compared in constant time. `row` None compares as well."""
    kept = bytes(row["secret"]) if row is not None else b"\0" * 32
    same = hmac.compare_digest(kept, digest(secret))
    return token_of(row) if same and row is not None else None


# --- sign-in links and sessions -----------------------------------------------------------------------------------


def make_link(conn: sqlite3.Connection, token_id: str, *, now: int) -> str:
    """A code that signs in once, within LINK_S_MAX seconds, with the role of this token."""
    code = new_secret()
    conn.execute("DELETE FROM signin_link WHERE expires_at <= ?", (now,))
    _keep_newest(conn, "signin_link", LINKS_MAX - 1)
    conn.execute(
        "INSERT INTO signin_link (secret, token, expires_at) VALUES (?, ?, ?)",
        (digest(code), token_id, now + LINK_S_MAX * NS),
    )
    return code


def use_link(conn: sqlite3.Connection, code: str, *, now: int) -> Token | None:
    """Take a code: the token it signs in for, or None when it was used, has expired or never was."""
    taken = conn.execute("DELETE FROM signin_link WHERE secret = ? RETURNING token, expires_at", (digest(code),)).fetchone()
    if taken is None or taken["expires_at"] <= now:
        return None
    row = conn.execute(_FIND_TOKEN, (taken["token"],)).fetchone()
    return None if row is None else token_of(row)


def _keep_newest(conn: sqlite3.Connection, table: str, count: int) -> None:
    newest = f"SELECT secret FROM {table} ORDER BY expires_at DESC LIMIT ?"
    conn.execute(f"DELETE FROM {table} WHERE secret NOT IN ({newest})", (count,))


def open_session(conn: sqlite3.Connection, token_id: str, *, now: int) -> str:
    """A new session of this token; returns its secret, which is the cookie. At most SESSIONS_MAX live, the oldest end."""
    secret = new_secret()
    conn.execute("DELETE FROM session WHERE expires_at <= ?", (now,))
    _keep_newest(conn, "session", SESSIONS_MAX - 1)
    conn.execute(
        "INSERT INTO session (secret, token, created_at, expires_at) VALUES (?, ?, ?, ?)",
        (digest(secret), token_id, now, now + SESSION_S_MAX * NS),
    )
    return secret


_FIND_SESSION = (
    "SELECT token.* FROM session JOIN token ON token.id = session.token "
    "WHERE session.secret = ? AND session.expires_at > ? AND token.revoked_at IS NULL"
)


async def session_token(conn: aiosqlite.Connection, cookie: str, now: int) -> Token | None:
    """The token a living session was signed in with."""
    async with conn.execute(_FIND_SESSION, (digest(cookie), now)) as cursor:
        row = await cursor.fetchone()
    return None if row is None else token_of(row)


def sign_in(conn: sqlite3.Connection, token: Token, way: str, *, now: int) -> str:
    """A session for this token, audited with the way they came; returns its cookie."""
    audit(conn, now, token.name, "sign_in", token.id, way)
    return open_session(conn, token.id, now=now)


def sign_in_by_link(conn: sqlite3.Connection, code: str, *, now: int) -> str | None:
    """A session for a one-use code, audited; None when the code does not hold."""
    token = use_link(conn, code, now=now)
    return None if token is None else sign_in(conn, token, "one-use link", now=now)


def sign_out(conn: sqlite3.Connection, cookie: str, actor: Actor, *, now: int) -> None:
    """End a session, audited; one that is already gone is no error."""
    conn.execute("DELETE FROM session WHERE secret = ?", (digest(cookie),))
    audit(conn, now, actor.name, "sign_out", actor.token or "")


# --- audit --------------------------------------------------------------------------------------------------------


def audit(conn: sqlite3.Connection, at: int, actor: str, act: str, subject: str, detail: str = "") -> None:
    """Write down an act of a person, in the transaction that does it. Texts are cut at AUDIT_CHARS_MAX characters."""
    texts = (text[:AUDIT_CHARS_MAX].encode("utf-8", "replace").decode() for text in (actor, act, subject, detail))
    conn.execute("INSERT INTO audit (at, actor, act, subject, detail) VALUES (?, ?, ?, ?, ?)", (at, *texts))


# --- offline ------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def offline(path: str) -> Iterator[sqlite3.Connection]:
    """One transaction on the database file, for the command line, with or without a daemon running on it.

    Raises StoreError when there is no looseends database of this version, or it cannot be written.
    """
    _check_ours(path)
    try:
        with contextlib.closing(connect(path)) as conn:
            if conn.execute("PRAGMA user_version").fetchone()[0] != len(migrations()):
                raise StoreError(f"{path} is of another version", hint="start `looseends serve` once to bring it up to date")
            conn.execute("BEGIN IMMEDIATE")
            yield conn
            conn.execute("COMMIT")
    except sqlite3.Error as error:
        raise StoreError(f"{path} cannot be used: {error}", hint="is it writable, and a whole database?") from None


def _check_ours(path: str) -> None:
    """Before SQLite sees the file: turning on WAL would already change one that is not ours."""
    try:
        with open(path, "rb") as file:
            head = file.read(100)
    except OSError as error:
        hint = "name the database with --db, or start `looseends serve` first"
        raise StoreError(f"{path} cannot be read: {error.strerror}", hint=hint) from None
    if head[:16] != b"SQLite format 3\0" or int.from_bytes(head[68:72], "big") != APPLICATION_ID:
        raise StoreError(f"{path} is not a looseends database", hint="name another file with --db")
