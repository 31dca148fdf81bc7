"""A whole daemon in this process, and a collector that decodes what it is sent with opentelemetry-proto."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from google.protobuf.json_format import MessageToDict  # type: ignore[import-untyped]
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from looseends_daemon import config
from looseends_daemon.app import Daemon, running

FORMS: dict[str, Any] = {
    "/v1/traces": ExportTraceServiceRequest,
    "/v1/logs": ExportLogsServiceRequest,
    "/v1/metrics": ExportMetricsServiceRequest,
}
CONFIG = """
[server]
listen = ["127.0.0.1:0"]
[storage]
path = "{folder}/d.db"
[detect]
grace = "0s"
[alerts]
group_wait = "0s"
"""


class Collector:
    """What was sent, decoded. `status` is answered (0: the connection is cut); `hold` keeps every answer back while it is set."""

    def __init__(self) -> None:
        self.requests: list[tuple[str, dict[str, str], Any]] = []
        self.status = 200
        self.refuse: Callable[[Any], bool] = lambda message: False
        self.hold = threading.Event()
        self.hold.set()
        collector = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                if self.headers.get("Content-Encoding") == "gzip":
                    body = gzip.decompress(body)
                message = FORMS[self.path]()
                message.ParseFromString(body)
                collector.hold.wait(30)
                status = 400 if collector.refuse(message) else collector.status
                if status == 200:
                    headers = {name.lower(): value for name, value in self.headers.items()}
                    collector.requests.append((self.path, headers, message))
                self.send_response(status)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, format: str, *args: Any) -> None:
                return

        class Server(ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, request: Any, client_address: Any) -> None:
                return

        self.server = Server(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()

    def close(self) -> None:
        self.hold.set()
        self.server.shutdown()
        self.server.server_close()

    def spans(self) -> list[dict[str, Any]]:
        """Every span: its fields, `attributes` and `resource` as plain dicts."""
        return list(self._records("/v1/traces", "resource_spans", "scope_spans", "spans"))

    def logs(self) -> list[dict[str, Any]]:
        """Every log record, likewise."""
        return list(self._records("/v1/logs", "resource_logs", "scope_logs", "log_records"))

    def metrics(self) -> dict[str, Any]:
        """The metrics of the latest push, by name."""
        latest = [message for path, _, message in self.requests if path == "/v1/metrics"][-1]
        return {m.name: m for r in latest.resource_metrics for s in r.scope_metrics for m in s.metrics}

    def _records(self, path: str, outer: str, middle: str, inner: str) -> Iterator[dict[str, Any]]:
        for asked, _, message in list(self.requests):
            for resource in getattr(message, outer) if asked == path else ():
                for scope in getattr(resource, middle):
                    for record in getattr(scope, inner):
                        ids = {"trace_id": record.trace_id.hex(), "span_id": record.span_id.hex()}
                        plain = {**MessageToDict(record, preserving_proto_field_name=True), **ids}
                        if hasattr(record, "parent_span_id"):
                            plain["parent_span_id"] = record.parent_span_id.hex()
                            plain["links"] = [(link.trace_id.hex(), link.span_id.hex()) for link in record.links]
                        yield {
                            **plain,
                            "attributes": attributes(record.attributes),
                            "resource": attributes(resource.resource.attributes),
                        }


def attributes(pairs: Any) -> dict[str, Any]:
    """Key and value of protobuf as a dict."""
    return {pair.key: getattr(pair.value, pair.value.WhichOneof("value")) for pair in pairs}


@pytest.fixture
def collector() -> Iterator[Collector]:
    """A collector on a free port."""
    made = Collector()
    yield made
    made.close()


class House:
    """A running daemon, and somebody who reports to it."""

    def __init__(self, daemon: Daemon, http: aiohttp.ClientSession) -> None:
        assert daemon.listener is not None
        self.daemon, self.http, self.url = daemon, http, daemon.listener.addresses[0]

    async def tell(self, *events: dict[str, Any], instance: dict[str, Any] | None = None) -> None:
        """Report events of one instance."""
        service = {"id": "i-1", "service": "shop-web", "release": "7", "host": "web-3", "pid": 42, "environment": "staging"}
        body = {"instance": instance or service, "events": list(events)}
        async with self.http.post(f"{self.url}/api/v1/events", json=body) as answer:
            assert answer.status == 200, await answer.text()
            told = await answer.json()
            assert not told["rejected"], told

    async def scrape(self, **headers: str) -> str:
        """The metrics as text, never from what was kept."""
        self.daemon.meter._until = 0.0
        async with self.http.get(f"{self.url}/metrics", headers=headers) as answer:
            assert answer.status == 200, await answer.text()
            return await answer.text()

    async def until(self, condition: Callable[[], object], what: str, timeout_s: float = 20.0) -> None:
        """Wait for something without standing in the daemon's way."""
        deadline = time.monotonic() + timeout_s
        while not condition():
            assert time.monotonic() < deadline, f"waited {timeout_s:g} s for {what}"
            await asyncio.sleep(0.02)


@pytest.fixture
async def open_house(state_dir: Path) -> AsyncIterator[Any]:
    """`await open_house(toml)` runs a daemon; asked again it closes the first and starts anew on the same file."""
    async with contextlib.AsyncExitStack() as outer:
        stack = contextlib.AsyncExitStack()
        outer.push_async_callback(lambda: stack.aclose())

        async def start(toml: str = "") -> House:
            nonlocal stack
            await stack.aclose()
            stack = contextlib.AsyncExitStack()
            path = state_dir / "config.toml"
            path.write_text(CONFIG.format(folder=state_dir) + toml)
            daemon = await stack.enter_async_context(running(config.load(str(path), {"XDG_STATE_HOME": str(state_dir)})))
            return House(daemon, await stack.enter_async_context(aiohttp.ClientSession()))

        yield start
