"""Tokens and sessions for the running daemon: what `store.access` keeps, asked from the event loop.

Rules: a token is looked up once in TOKEN_S_MAX seconds, so that a service's thousand requests cost one read, and a token that
the command line makes or ends on the same file is seen that soon. Wrong guesses are compared in constant time like right ones.
"""

from __future__ import annotations

import hashlib
import time
from typing import Any

from looseends_daemon.core.resources import Actor
from looseends_daemon.store import access
from looseends_daemon.store.access import Token
from looseends_daemon.store.connection import Database

TOKEN_S_MAX = 1.0
TOKENS_KEPT_MAX = 1_024


class Access:
    """Who a token, a cookie or a sign-in link stands for."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._kept: dict[str, tuple[float, Any]] = {}

    async def token(self, text: str) -> Token | None:
        """The token that this text (`<id>.<secret>[.<order key>]`) proves; None: it does not hold."""
        parts = access.split_token(text)
        if parts is None:
            return None
        token_id, secret = parts
        return access.matches(await self._row(token_id), secret)

    async def _row(self, token_id: str) -> Any:
        found = self._kept.get(token_id)
        if found is not None and time.monotonic() - found[0] < TOKEN_S_MAX:
            return found[1]
        row = await self._database.read(lambda conn: access.token_row(conn, token_id))
        if len(self._kept) >= TOKENS_KEPT_MAX:
            self._kept.clear()
        self._kept[token_id] = (time.monotonic(), row)
        return row

    async def session(self, cookie: str, now: int) -> Token | None:
        """The token somebody signed in with; None: no such session lives."""
        return await self._database.read(lambda conn: access.session_token(conn, cookie, now))

    async def sign_in(self, token: Token, now: int, way: str) -> str:
        """A new session, audited; returns the value of its cookie."""
        return await self._database.write(lambda conn: access.sign_in(conn, token, way, now=now))

    async def sign_in_by_link(self, code: str, now: int) -> str | None:
        """Take a one-use code: the cookie of the new session, or None when the code does not hold."""
        return await self._database.write(lambda conn: access.sign_in_by_link(conn, code, now=now))

    async def sign_out(self, cookie: str, actor: Actor, now: int) -> None:
        """End a session, audited."""
        await self._database.write(lambda conn: access.sign_out(conn, cookie, actor, now=now))

    async def audit(self, now: int, actor: str, act: str, subject: str, detail: str = "") -> None:
        """One row of the audit log."""
        await self._database.write(lambda conn: access.audit(conn, now, actor, act, subject, detail))


def csrf_of(cookie: str) -> str:
    """The form token of a session: made from its cookie, which no other site and no script can read."""
    return hashlib.sha256(f"csrf {cookie}".encode()).hexdigest()[:40]


def actor_of(token: Token, channel: str) -> Actor:
    """A token as the one who acts."""
    return Actor(name=token.name, role=token.role, channel=channel, service=token.service, token=token.id)
