"""A whole daemon over a fresh database, and a client that sends whatever a hostile one would."""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from looseends_daemon import config
from looseends_daemon.app import Daemon, running


class House:
    """A running daemon; `send` posts events as a neighbour on loopback, `get` reads with the operator token."""

    def __init__(self, daemon: Daemon, client: aiohttp.ClientSession, token: str) -> None:
        self.daemon, self._client = daemon, client
        assert daemon.listener is not None
        self._base = daemon.listener.addresses[0]
        self.operator = {"Authorization": f"Bearer {token}"}

    async def call(self, method: str, path: str, body: Any = None, **headers: str) -> tuple[int, Any]:
        """(status, the decoded answer or its text)."""
        data = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
        kind = {} if data is None else {"Content-Type": "application/json"}
        async with self._client.request(method, self._base + path, data=data, headers={**kind, **headers}) as answer:
            text = await answer.text()
            return answer.status, json.loads(text) if "json" in answer.content_type else text

    async def send(self, body: Any) -> tuple[int, Any]:
        return await self.call("POST", "/api/v1/events", body)

    async def get(self, path: str) -> tuple[int, Any]:
        return await self.call("GET", path, **self.operator)


@pytest.fixture
async def house(tmp_path: Path, state_dir: Path) -> AsyncIterator[House]:
    path = str(tmp_path / "x.db")
    settings = config.with_flags(config.load(None, {"HOME": str(state_dir)}), listen=("127.0.0.1:0",), path=path)
    async with running(settings) as daemon, aiohttp.ClientSession() as client:
        token = await asyncio.to_thread(Path(f"{path}.token").read_text)
        yield House(daemon, client, token.strip())


@pytest.fixture
def started() -> Any:
    """Makes a good event; fields can be added."""

    def make(**fields: Any) -> dict[str, Any]:
        return {"type": "started", "task": str(uuid.uuid4()), "name": "mail.send", "service": "shop", **fields}

    return make
