"""The world around a daemon that is a real process: a receiver that keeps books, receivers that misbehave, the daemon itself."""

from __future__ import annotations

import asyncio
import base64
import gzip
import json
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

KEY = "whsec_" + base64.b64encode(b"\x01" * 32).decode()
BOMB = gzip.compress(bytes(50_000_000))
Behave = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
HEAD = "HTTP/1.1 {status}\r\nserver: test\r\n{more}\r\n"


class Books:
    """What a good receiver got: `arrived` is (monotonic seconds, webhook-id, body) in order. It answers after `pause_s`."""

    def __init__(self, pause_s: float = 0.0) -> None:
        self.arrived: list[tuple[float, str, bytes]] = []
        self.pause_s = pause_s
        self._server: asyncio.Server | None = None
        self._writers: list[asyncio.StreamWriter] = []
        self._more = asyncio.Condition()

    async def open(self) -> str:
        """Listen; returns the address."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        return f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}/hook"

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.append(writer)
        try:
            while (request := await read_request(reader)) is not None:
                headers, body = request
                self.arrived.append((time.monotonic(), headers.get("webhook-id", ""), body))
                async with self._more:
                    self._more.notify_all()
                if self.pause_s:
                    await asyncio.sleep(self.pause_s)
                writer.write(b"HTTP/1.1 204 No Content\r\n\r\n")
                await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass  # the daemon was killed in the middle of a request, or the test is over
        finally:
            writer.close()

    async def until(self, what: Callable[[Books], object], timeout_s: float = 60.0) -> None:
        """Wait until the books say so."""
        async with asyncio.timeout(timeout_s), self._more:
            await self._more.wait_for(lambda: bool(what(self)))

    @property
    def ids(self) -> set[str]:
        return {ident for _, ident, _ in self.arrived}

    async def close(self) -> None:
        """Hang up on everybody."""
        if self._server is not None:
            await _hang_up([self._server], self._writers)


async def _hang_up(servers: list[asyncio.Server], writers: list[asyncio.StreamWriter]) -> None:
    for server in servers:
        server.close()
    for writer in writers:
        writer.transport.abort()
    await asyncio.sleep(0)  # an aborted transport closes its socket in the next round of the loop
    await asyncio.sleep(0)


async def read_request(reader: asyncio.StreamReader) -> tuple[dict[str, str], bytes] | None:
    """The next request of a connection; None: it was closed."""
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except (asyncio.IncompleteReadError, ConnectionError):
        return None
    lines = head.decode("latin-1").split("\r\n")[1:]
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines if line)}
    return headers, await reader.readexactly(int(headers.get("content-length", 0)))


# --- receivers that misbehave -------------------------------------------------------------------------------------


async def _hang(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await asyncio.sleep(3600)


async def _drip(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(HEAD.format(status="200 OK", more="content-length: 1000000\r\n").encode())
    while True:
        writer.write(b".")
        await writer.drain()
        await asyncio.sleep(0.1)


async def _error(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(HEAD.format(status="500 No", more="content-length: 4\r\n").encode() + b"down")


def _redirect(to: str) -> Behave:
    async def behave(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(HEAD.format(status="307 Go", more=f"location: {to}\r\ncontent-length: 0\r\n").encode())

    return behave


async def _huge(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(HEAD.format(status="500 Big", more="content-length: 99999999999\r\n").encode())
    while True:
        writer.write(b"x" * 65_536)
        await writer.drain()


async def _bomb(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    more = f"content-encoding: gzip\r\ncontent-length: {len(BOMB)}\r\n"
    writer.write(HEAD.format(status="502 Boom", more=more).encode() + BOMB)


async def _babble(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"SSH-2.0-not-tls\r\n")


HOSTILE: dict[str, tuple[str, Behave, str]] = {
    "hangs": ("http", _hang, "no answer within 1 s"),
    "drips": ("http", _drip, "no answer within 1 s"),
    "errors": ("http", _error, "answered 500: down"),
    "redirects": ("http", _redirect("http://example.org/"), "answered 307: a redirect, and none is followed"),
    "redirects-inward": ("http", _redirect("http://169.254.169.254/latest/meta-data/"), "answered 307: a redirect"),
    "huge": ("http", _huge, "answered 500: xxx"),
    "bomb": ("http", _bomb, "answered 502"),
    "bad-tls": ("https", _babble, "TLS"),
    "denied": ("denied", _error, "127.0.0.2 lies in 127.0.0.2/32, which [network] deny_networks forbids"),
}
"""Name -> (scheme, what it does with a request, what GET /endpoints must say of it)."""


class Hostiles:
    """All of HOSTILE, listening."""

    def __init__(self) -> None:
        self._servers: list[asyncio.Server] = []
        self._writers: list[asyncio.StreamWriter] = []
        self.tables: list[str] = []

    async def open(self) -> None:
        for name, (scheme, behave, _) in HOSTILE.items():
            server = await asyncio.start_server(self._server(scheme, behave), "127.0.0.1", 0)
            self._servers.append(server)
            port = server.sockets[0].getsockname()[1]
            host = "127.0.0.2" if scheme == "denied" else "127.0.0.1"
            address = f"{'https' if scheme == 'https' else 'http'}://{host}:{port}/"
            self.tables.append(endpoint(address, name, timeout='"1s"'))

    def _server(self, scheme: str, behave: Behave) -> Behave:
        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            self._writers.append(writer)
            try:
                if scheme == "https" or await read_request(reader) is not None:
                    await behave(reader, writer)
                    await writer.drain()
            except (ConnectionError, asyncio.CancelledError):
                pass  # it was given up, as it should be, or the test is over
            finally:
                writer.close()

        return serve

    async def close(self) -> None:
        """Hang up on everybody."""
        await _hang_up(self._servers, self._writers)


# --- the daemon ---------------------------------------------------------------------------------------------------


def endpoint(url: str, name: str = "ops", **more: Any) -> str:
    """A webhook as TOML."""
    lines = [f"{key} = {value}" for key, value in {"max_per_minute": 10_000, **more}.items()]
    return "\n".join(["[[endpoint]]", f'name = "{name}"', f'url = "{url}"', f'secrets = ["{KEY}"]', *lines, ""])


def configuration(folder: Path, port: int, *tables: str, alerts: str = 'group_wait = "0s"') -> Path:
    """A configuration file in this folder."""
    file = folder / "config.toml"
    head = [
        f'[server]\nlisten = ["127.0.0.1:{port}"]\ninstance = "test"',
        f'[storage]\npath = "{folder}/ends.db"',
        f'[detect]\ngrace = "0s"\nspools = ["{folder}/spool"]',
        f"[alerts]\n{alerts}",
        '[network]\ndeny_networks = ["127.0.0.2/32", "169.254.0.0/16"]',
    ]
    file.write_text("\n".join([*head, *tables]))
    return file


class Door:
    """The HTTP of a daemon in another process, by blocking calls."""

    def __init__(self, folder: Path, port: int) -> None:
        self._token = folder / "ends.db.token"
        self._base = f"http://127.0.0.1:{port}"

    def ask(self, method: str, path: str, body: Any = None) -> Any:
        """The answer's JSON. Raises HTTPError."""
        headers = {"content-type": "application/json", "idempotency-key": uuid.uuid4().hex}
        if path != "/api/v1/events":
            headers["authorization"] = f"Bearer {self._token.read_text().strip()}"
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self._base + path, data, headers, method=method)
        with urllib.request.urlopen(request, timeout=30) as answer:
            return json.load(answer)

    def fail(self, names: list[str]) -> dict[str, str]:
        """One task of each name begins and fails; name -> task id."""
        tasks = {name: str(uuid.uuid4()) for name in names}
        for begin in range(0, len(names), 400):
            events = []
            for name in names[begin : begin + 400]:
                about = {"task": tasks[name], "name": name, "service": "shop-web"}
                events += [{"type": "started", **about}, {"type": "failed", **about, "error": {"type": "ValueError"}}]
            said = self.ask("POST", "/api/v1/events", {"events": events})
            assert said["accepted"] == len(events), said
        return tasks

    def endpoints(self) -> dict[str, Any]:
        return {one["name"]: one for one in self.ask("GET", "/api/v1/endpoints")["items"]}


def memory_mib(pid: int) -> float:
    """What a process holds in memory now."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.split("VmRSS:")[1].split()[0]) / 1024


def quantile(values: list[float], q: float) -> float:
    """The value below which `q` of them lie."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(q * len(ordered)))]
