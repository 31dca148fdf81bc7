"""A unix socket in front of a daemon's: passes requests and answers on, changes them, or keeps an answer to itself.

What passes is decoded and kept in `exchanges`. `ask` and `tell` may change what passes; `cut(exchange)` true: the request was
done, its answer is lost with the connection.
"""

from __future__ import annotations

import json
import socketserver
import threading
from collections.abc import Callable
from http.client import HTTPConnection
from typing import Any, NamedTuple

from wired import JsonHandler, unix_connection


class Exchange(NamedTuple):
    """One request as it was asked (after `ask`), and its answer as the daemon gave it."""

    method: str
    path: str
    asked: Any
    status: int
    answered: Any

    @property
    def is_batch(self) -> bool:
        """Whether it carries events."""
        return self.path == "/api/v1/events"


class Between:
    """Listens at `path` for the daemon at `daemon`."""

    def __init__(self, path: str, daemon: str) -> None:
        self.path, self.daemon = path, daemon
        self.exchanges: list[Exchange] = []
        self.ask: Callable[[str, str, Any], Any] = lambda method, path, asked: asked
        self.tell: Callable[[Exchange], Any] = lambda exchange: exchange.answered
        self.cut: Callable[[Exchange], bool] = lambda exchange: False
        self._server = _Server(path, _handler(self))
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def close(self) -> None:
        """Take no new connection."""
        self._server.shutdown()
        self._server.server_close()

    def batches(self) -> list[Exchange]:
        """What carried events."""
        return [exchange for exchange in self.exchanges if exchange.is_batch]

    def total(self, what: str) -> int:
        """The sum of a count (accepted, duplicates) over all answers to batches, lost ones too."""
        return sum(exchange.answered[what] for exchange in self.batches() if exchange.status == 200)


class _Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    daemon_threads = True


def _handler(between: Between) -> type[JsonHandler]:
    class Handler(JsonHandler):
        upstream: HTTPConnection | None = None

        def handle(self) -> None:
            try:
                super().handle()
            except OSError:  # one of both hung up
                self.close_connection = True

        def finish(self) -> None:
            super().finish()
            if self.upstream is not None:
                self.upstream.close()

        def reply(self, body: Any) -> None:
            asked = between.ask(self.command, self.path, body)
            self.upstream = self.upstream or unix_connection(between.daemon)
            sent = None if asked is None else json.dumps(asked).encode()
            self.upstream.request(self.command, self.path, sent, {"Content-Type": "application/json"})
            answer = self.upstream.getresponse()
            told = answer.read()
            exchange = Exchange(self.command, self.path, asked, answer.status, json.loads(told) if told else None)
            between.exchanges.append(exchange)
            if between.cut(exchange):
                self.close_connection = True
                return
            self.tell(exchange.status, None if exchange.answered is None else between.tell(exchange))

    return Handler
