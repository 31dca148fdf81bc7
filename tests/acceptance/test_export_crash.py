"""A collector that is down, and a daemon that is killed: no span is lost, and only what was in flight can come twice."""

from __future__ import annotations

import os
import random
import threading
import time
import uuid
from collections import Counter
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from watchers import Watched

from harness import Processes, free_port, wait_until

KILLS = 6
# How long the collector is away, beyond the rounds in which the daemon is killed meanwhile (s): EXPORT_DOWN_S=60 for a minute.
DOWN_S = float(os.environ.get("EXPORT_DOWN_S", "0"))
TASKS = 1_200
BATCH = 200
IN_FLIGHT_MAX = 32


class Collector:
    """Counts the spans it took by task; where it has no server it is down."""

    def __init__(self) -> None:
        self.taken: Counter[str] = Counter()
        self.port = free_port()
        self.server: ThreadingHTTPServer | None = None

    def start(self) -> None:
        collector = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                message = ExportTraceServiceRequest()
                message.ParseFromString(self.rfile.read(int(self.headers["Content-Length"])))
                ids = [
                    next(pair.value.string_value for pair in span.attributes if pair.key == "looseends.task.id")
                    for resource in message.resource_spans
                    for scope in resource.scope_spans
                    for span in scope.spans
                ]
                collector.taken.update(ids)
                self.send_response(200)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, format: str, *args: Any) -> None:
                return

        class Server(ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, request: Any, client_address: Any) -> None:
                return

        self.server = Server(("127.0.0.1", self.port), Handler)
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()

    def stop(self) -> None:
        if self.server is not None:
            self.server.shutdown()
            self.server.server_close()
            self.server = None


@pytest.fixture
def collector() -> Iterator[Collector]:
    made = Collector()
    made.start()
    yield made
    made.stop()


def end_some(daemon: Watched, tasks: list[str]) -> None:
    for n in range(0, len(tasks), BATCH):
        some = tasks[n : n + BATCH]
        daemon.tell(*({"type": "started", "task": task} for task in some), *({"type": "finished", "task": task} for task in some))


def test_a_collector_that_is_down_and_a_daemon_that_is_killed_lose_no_span(
    state_dir: Path, processes: Processes, collector: Collector
) -> None:
    otel = f'[otel]\nendpoint = "http://127.0.0.1:{collector.port}"\nlogs = false\nmetrics = false\n'
    daemon = Watched(state_dir, processes, otel)
    told: list[str] = []
    seed = random.Random(7)
    for round_ in range(KILLS):
        if round_ == 2:
            collector.stop()
        if round_ == 4:
            time.sleep(DOWN_S)
            collector.start()
        tasks = [str(uuid.uuid4()) for _ in range(TASKS // KILLS)]
        end_some(daemon, tasks)  # answered: on disk
        told += tasks
        time.sleep(seed.random() * 0.5)  # somewhere between the commit, the collector's yes and the removal
        daemon.process.kill()
        daemon.start()
    wait_until(lambda: len(collector.taken) >= len(told), "every span", 120.0)
    assert set(collector.taken) == set(told)
    twice = sum(n - 1 for n in collector.taken.values())
    assert twice <= KILLS * IN_FLIGHT_MAX
    assert max(collector.taken.values()) <= 1 + KILLS
    print(
        f"{len(told)} spans over {KILLS} SIGKILLs and a collector down for 2 rounds and {DOWN_S:g} s: 0 lost, {twice} sent twice"
    )
