"""The stage of timelines: a real daemon, a receiver that notes when what arrived, and events as any shell would send them."""

from __future__ import annotations

import base64
import http.client
import itertools
import json
import os
import sys
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple

from standardwebhooks.webhooks import Webhook

from harness import Process, Processes, free_port, wait_until

EARLY_S, LATE_S = 0.15, 3.0
"""How much earlier or later than the table says a notice may arrive. Late is what a loaded machine may add to 1.5 s."""
CONFIG = """\
[server]
listen = ["127.0.0.1:{port}"]
instance = "timelines"
[storage]
path = "{folder}/looseends.db"
[detect]
grace = "0s"
spools = ["{folder}/spool"]
[alerts]
group_wait = "500ms"
group_interval = "2s"
repeat_interval = "1m"
keep_open_for = "1s"
[[task]]
match = "*/patient"
open_after = 3
[[task]]
match = "*/trifle"
severity = "info"
[[endpoint]]
name = "receiver"
url = "http://127.0.0.1:{receiver}/"
secrets = ["{secret}"]
"""


class Arrived(NamedTuple):
    """One notice: when it came (wall clock, s), its headers' id, the bytes, and what they say."""

    at: float
    id: str
    body: bytes
    service: str
    type: str
    reason: str
    incident: dict[str, Any]


class Receiver:
    """Verifies and notes every request. `before_answer` is called before the answer of each."""

    def __init__(self, secret: str) -> None:
        self.arrived: list[Arrived] = []
        self.before_answer: Callable[[Arrived], None] = lambda one: None
        webhook, receiver = Webhook(secret), self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                at, body = time.time(), self.rfile.read(int(self.headers["Content-Length"]))
                said: Any = webhook.verify(body, {name.lower(): value for name, value in self.headers.items()})
                incident = said["data"]["incident"]
                one = Arrived(
                    at=at,
                    id=self.headers["webhook-id"],
                    body=body,
                    service=incident["labels"]["service"],
                    type=said["type"].rpartition(".")[2],
                    reason=incident["reason"],
                    incident=incident,
                )
                receiver.arrived.append(one)
                receiver.before_answer(one)
                self.send_response(204)
                self.end_headers()

            def log_message(self, *args: object) -> None:
                return

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


class Stage:
    """One daemon and one receiver; `say` sends events, `act` is what a person does."""

    def __init__(self, folder: Path, processes: Processes) -> None:
        self.folder, self.processes, self.port = folder, processes, free_port()
        secret = "whsec_" + base64.b64encode(os.urandom(32)).decode()
        self.receiver = Receiver(secret)
        self._keys = itertools.count()
        self.slowest_s = 0.0
        self.config = folder / "config.toml"
        known = {"port": self.port, "folder": folder, "receiver": self.receiver.port, "secret": secret}
        self.config.write_text(CONFIG.format(**known))
        self.daemon: Process | None = None

    def start_daemon(self) -> Process:
        """`looseends serve`."""
        command = (sys.executable, "-m", "looseends.cli", "serve", "-c", self.config)
        self.daemon = self.processes.start(*command, env={"XDG_STATE_HOME": str(self.folder), "PYTHONUNBUFFERED": "1"})
        self.daemon.wait_for("looseends is running")
        return self.daemon

    def ask(self, method: str, path: str, body: Any = None, *, signed: bool = True) -> Any:
        """One request that must be answered with 2xx; its JSON."""
        headers = {"Content-Type": "application/json", "Idempotency-Key": f"timeline-{os.getpid()}-{next(self._keys)}"}
        if signed:
            headers["Authorization"] = "Bearer " + (self.folder / "looseends.db.token").read_text().strip()
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        began = time.monotonic()
        try:
            connection.request(method, f"/api/v1{path}", None if body is None else json.dumps(body), headers)
            answer = connection.getresponse()
            text = answer.read().decode()
        finally:
            connection.close()
            self.slowest_s = max(self.slowest_s, time.monotonic() - began)
        assert 200 <= answer.status < 300, (method, path, answer.status, text)
        return json.loads(text)

    def say(self, service: str, *events: dict[str, Any]) -> float:
        """Events of one service; when they were on disk (wall clock, s)."""
        answer = self.ask("POST", "/events", [{"service": service, **event} for event in events], signed=False)
        assert not answer["rejected"], answer
        return time.time()

    def fail(self, service: str, task: str = "run-1", name: str = "job") -> float:
        """One run that fails for good."""
        error = {"error": {"type": "DiskFull", "message": "no space left"}}
        return self.say(service, {"type": "started", "task": task, "name": name}, {"type": "failed", "task": task, **error})

    def retry(self, service: str, task: str = "run-1", name: str = "job") -> float:
        """Its second attempt succeeds."""
        again = {"task": task, "attempt": 2}
        return self.say(service, {"type": "started", "name": name, **again}, {"type": "finished", **again})

    def incident(self, service: str) -> dict[str, Any]:
        """The newest incident of a service; of no state while there is none."""
        items = self.ask("GET", "/incidents?limit=500")["items"]
        found: dict[str, Any] = next((one for one in items if one["service"] == service), {"state": None})
        return found

    def of(self, service: str) -> list[Arrived]:
        """What arrived about a service, in order."""
        return [one for one in self.receiver.arrived if one.service == service]

    def hears(self, service: str, n: int, type_: str, reason: str, at: float) -> Arrived:
        """The n-th notice (from 1) about a service: it must be this one, and arrive at `at`, give or take the tolerances.

        What a request did was done at some time before its answer came: nobody here knows more exactly than its length.
        """
        words = f"notice {n} of {service} ({type_}, {reason})"
        patience = max(0.0, at - time.time()) + LATE_S
        wait_until(lambda: len(self.of(service)) >= n, words, patience)
        one = self.of(service)[n - 1]
        assert (one.type, one.reason) == (type_, reason), f"{words}: it was {one.type}, {one.reason}"
        assert at - EARLY_S - min(self.slowest_s, 1.0) <= one.at <= at + LATE_S, f"{words}: {one.at - at:+.3f} s"
        LATENESS.append((service, type_, reason, one.at - at))
        return one

    def close(self) -> None:
        self.receiver.close()


LATENESS: list[tuple[str, str, str, float]] = []
"""(service, type, reason, seconds after the table's time) of all that was heard."""
