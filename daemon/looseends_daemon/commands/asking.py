"""Asking a running daemon from the command line: over its own addresses, as the operator whose token lies beside the database."""

from __future__ import annotations

import json
import os
import secrets
import socket
from http.client import HTTPConnection, HTTPException
from typing import Any

from looseends.errors import LooseEndsError
from looseends_daemon.config import Settings
from looseends_daemon.store.token_file import token_path

ANSWER_S_MAX = 120.0


class NoAnswer(LooseEndsError):
    """The daemon could not be reached, or refused; the message has its words."""


class _UnixConnection(HTTPConnection):
    """HTTP over a unix socket."""

    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=ANSWER_S_MAX)
        self._path = path

    def connect(self) -> None:
        """Connect to the socket. Raises OSError."""
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


def ask(settings: Settings, method: str, path: str, body: Any = None) -> Any:
    """The decoded answer of one request. Raises NoAnswer: nobody listens at the configured addresses, or a refusal in words."""
    token = operator_token(settings)
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json", "Idempotency-Key": secrets.token_hex(16)}
    sent = None if body is None else json.dumps(body).encode()
    tried = []
    for address in settings.server.listen:
        connection = _connection(address)
        try:
            connection.request(method, path, sent, headers)
            answer = connection.getresponse()
            return _read(answer.status, answer.read())
        except (OSError, HTTPException) as error:
            tried.append(f"{address}: {error}")
        finally:
            connection.close()
    raise NoAnswer(f"no daemon answers ({'; '.join(tried)})", hint="name its configuration with -c")


def _connection(address: str) -> HTTPConnection:
    if address.startswith("unix:"):
        return _UnixConnection(address[5:])
    host, _, port = address.rpartition(":")
    reached = {"0.0.0.0": "127.0.0.1", "[::]": "::1"}.get(host, host.strip("[]"))
    return HTTPConnection(reached, int(port), timeout=ANSWER_S_MAX)


def _read(status: int, body: bytes) -> Any:
    try:
        document = json.loads(body)
    except ValueError:
        document = body.decode("utf-8", "replace").strip()
    if status >= 400:
        words = document.get("detail") or document.get("title") if isinstance(document, dict) else document
        raise NoAnswer(str(words or f"status {status}"))
    return document


def operator_token(settings: Settings) -> str:
    """What the command line proves itself with. Raises NoAnswer in words."""
    given = os.environ.get("LOOSEENDS_OPERATOR_TOKEN")
    if given:
        return given.strip()
    path = os.environ.get("LOOSEENDS_OPERATOR_TOKEN_FILE") or token_path(settings.storage.path)
    try:
        with open(path, encoding="ascii", errors="replace") as file:
            return file.read(1_000).strip()
    except OSError as error:
        hint = "run this as the daemon's user, or set LOOSEENDS_OPERATOR_TOKEN"
        raise NoAnswer(f"{path} cannot be read: {error.strerror}", hint=hint) from None
