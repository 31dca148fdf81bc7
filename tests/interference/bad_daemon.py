"""One port where a daemon should be, and what may be there instead. Changes its manners while clients are connected.

pass       everything goes on to the real daemon
stall      connections are taken and nobody ever answers, as with a stopped process
refuse     nobody listens
reset      connections are taken and reset at the first byte
fail       every request is answered 500
garbage    every request is answered with bytes that are no HTTP, or HTTP with bytes that are no JSON
other      another program's web server: it knows no such page
rogue      everything is taken with a 200, and orders are handed out for everything that was registered
"""

from __future__ import annotations

import contextlib
import gzip
import itertools
import json
import os
import socket
import struct
import threading
import uuid
from typing import Any

from looseends.wire import order_mac

MODES = ("pass", "stall", "refuse", "reset", "fail", "garbage", "other", "rogue")
CHUNK_BYTES = 1 << 16
ROGUE_NUMBER = 1_000_000_000
"""The argument of every order of a rogue: who ran one is known by it."""
BODY_BYTES_MAX = 8 << 20
RESET = struct.pack("ii", 1, 0)


class BadDaemon:
    """Listens on `port` of loopback. `mode` is one of MODES; `heard` counts requests (bytes, in "pass") by mode."""

    def __init__(self, daemon_port: int = 0) -> None:
        self.daemon_port = daemon_port
        self.heard: dict[str, int] = dict.fromkeys(MODES, 0)
        self.claimed: list[str] = []
        """Orders that a client asked for by claim, in rogue mode."""
        self.order_key = ""
        """What a rogue signs its orders with; only one who stole the key of the service's token knows it."""
        self._functions: list[dict[str, Any]] = []
        self._turn = itertools.count()
        self._open: set[socket.socket] = set()
        self._lock = threading.Lock()
        self.mode = "pass"
        self._listener: socket.socket | None = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self._accepting()

    def turn(self, mode: str) -> None:
        """Behave like this from now on. Open connections are cut, so that nobody goes on with an old one."""
        assert mode in MODES, f"{mode!r} is none of {', '.join(MODES)}"
        self.mode = mode
        if mode == "refuse":
            self._shut()
        elif self._listener is None:
            self._listener = socket.create_server(("127.0.0.1", self.port))
            self._accepting()
        with self._lock:
            open_, self._open = self._open, set()
        for one in open_:
            _end(one)

    def close(self) -> None:
        """Stop listening, and cut what is open."""
        self._shut()
        self.turn("refuse")

    def _shut(self) -> None:
        listener, self._listener = self._listener, None
        if listener is not None:
            _end(listener)
            listener.close()

    def _accepting(self) -> None:
        threading.Thread(target=self._accept, args=(self._listener,), name="bad daemon", daemon=True).start()

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            with self._lock:
                self._open.add(client)
            threading.Thread(target=self._serve, args=(client, self.mode), daemon=True).start()

    def _serve(self, client: socket.socket, mode: str) -> None:
        with contextlib.suppress(OSError, ValueError):
            if mode == "pass":
                self._relay(client)
            elif mode == "stall":
                while client.recv(CHUNK_BYTES):
                    self.heard[mode] += 1
            elif mode == "reset":
                client.recv(1)
                self.heard[mode] += 1
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            else:
                self._answer(client, mode)
        with self._lock:
            self._open.discard(client)
        client.close()

    def _relay(self, client: socket.socket) -> None:
        with socket.create_connection(("127.0.0.1", self.daemon_port)) as daemon:
            threading.Thread(target=self._pass, args=(daemon, client), daemon=True).start()
            self._pass(client, daemon)

    def _pass(self, source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(CHUNK_BYTES):
                self.heard["pass"] += len(data)
                target.sendall(data)
        _end(source)
        _end(target)

    def _answer(self, client: socket.socket, mode: str) -> None:
        file = client.makefile("rb")
        while line := file.readline(CHUNK_BYTES):
            method, path, _ = line.decode("latin-1").split(" ", 2)
            headers = {}
            while (header := file.readline(CHUNK_BYTES).strip()) != b"":
                name, _, value = header.partition(b":")
                headers[name.lower()] = value.strip()
            body = file.read(min(int(headers.get(b"content-length", b"0")), BODY_BYTES_MAX))
            self.heard[mode] += 1
            if mode == "fail":
                client.sendall(_http(500, b'{"title": "on fire"}'))
            elif mode == "other":
                client.sendall(_http(404 if method == "POST" else 405, b"<!doctype html><title>Not here</title>"))
            elif mode == "garbage":
                client.sendall(self._garbage())
            else:
                data = gzip.decompress(body) if headers.get(b"content-encoding") == b"gzip" else body
                client.sendall(_http(200, json.dumps(self._lie(method, path, data)).encode()))

    def _garbage(self) -> bytes:
        noise = os.urandom(200)
        choices = (
            noise + b"\r\n\r\n",
            _http(200, noise),
            _http(200, b"[" * 10_000),
            _http(200, b'{"accepted": "many"'),
            _http(200, b'{"status": "ok"}'),
            _http(200, b"<!doctype html><title>Some other program's page</title>"),
            b"HTTP/1.1 999 ?",
        )
        return choices[next(self._turn) % len(choices)]

    def _lie(self, method: str, path: str, body: bytes) -> Any:
        """What a false daemon would say to have code run: everything is fine, and here is an order."""
        if path.endswith("/functions"):
            self._functions = json.loads(body)
            return {"items": []}
        if path.endswith("/claim"):
            number = path.split("/")[-2]
            self.claimed.append(number)
            order = self._order(number)
            mac = order_mac(self.order_key, order, json.loads(body)["instance"]) if self.order_key else "0" * 64
            return {"order": order, "fence": 1, "mac": mac}
        if path.endswith("/orders"):
            return {"items": [self._order(str(uuid.uuid4()))]}
        count = len(json.loads(body).get("events", [])) if path.endswith("/events") else 0
        return {"accepted": count, "duplicates": 0, "warnings": [], "rejected": [], "orders": 1, "stacks": []}

    def _order(self, number: str) -> dict[str, Any]:
        one = self._functions[0] if self._functions else {"name": "served.work", "signature": None}
        args = {"number": ROGUE_NUMBER, "customer": "mallory", "total": 0.0}
        told = {"id": number, "name": one["name"], "signature": one["signature"], "args": args}
        return told | {"replay_of": number, "idempotency_key": number}


def _http(status: int, body: bytes) -> bytes:
    return b"HTTP/1.1 %d -\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b" % (status, len(body), body)


def _end(one: socket.socket) -> None:
    with contextlib.suppress(OSError):
        one.shutdown(socket.SHUT_RDWR)
