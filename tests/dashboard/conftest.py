"""Pages over a fake reader, asked over real HTTP."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiohttp.test_utils import TestClient, TestServer

from dashboard import shop
from dashboard.fakes import Client, FakeReader, Visit, make_app


@pytest.fixture
async def visit() -> AsyncIterator[Visit]:
    """Start an application over this reader and hand out a client; all of them end with the test."""
    clients: list[Client] = []

    async def start(reader: FakeReader, **more: Any) -> Client:
        client: Client = TestClient(TestServer(make_app(reader, shop.NOW, **more)))
        await client.start_server()
        clients.append(client)
        return client

    yield start
    for client in clients:
        await client.close()
