"""The cast of an acceptance test, all real processes: daemon, the example service under uvicorn, a receiver of webhooks."""

from __future__ import annotations

import base64
import http.client
import json
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote

from harness import ROOT, Process, Processes, free_port, wait_until

PYTHON = sys.executable
EXAMPLES = ROOT / "examples"
CONFIG = """\
[server]
listen = ["127.0.0.1:{port}", "unix:{socket}"]
external_url = "http://127.0.0.1:{port}"
instance = "acceptance"

[storage]
path = "{folder}/looseends.db"

[detect]
grace = "500ms"

[alerts]
group_wait = "200ms"
group_interval = "1s"

[[endpoint]]
name = "receiver"
url = "http://127.0.0.1:{receiver}/"
secrets = ["{secret}"]
"""


class Town:
    """Starts and ends processes, and remembers when what happened (monotonic seconds since the start)."""

    def __init__(self, folder: Path, processes: Processes, deadline: str = "1s") -> None:
        self.folder, self.processes = folder, processes
        self.port, self.receiver_port, self.shop_port = free_port(), free_port(), free_port()
        self.notices_file = folder / "notices.jsonl"
        self.receipts = folder / "receipts.jsonl"
        self.secret = "whsec_" + base64.b64encode(os.urandom(32)).decode()
        self.config = folder / "config.toml"
        self.config.write_text(
            CONFIG.format(
                port=self.port,
                socket=folder / "looseends" / "looseends.sock",
                folder=folder,
                receiver=self.receiver_port,
                secret=self.secret,
            )
        )
        self.deadline = deadline
        self.began = time.monotonic()
        self.daemon: Process | None = None
        self.shop: Process | None = None

    def env(self, **more: str) -> dict[str, str]:
        """The environment of a service on this host."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith("LOOSEENDS_")}
        return {**kept, "XDG_STATE_HOME": str(self.folder), "PYTHONUNBUFFERED": "1", **more}

    def start_receiver(self) -> Process:
        """examples/webhook_receiver.py, which verifies with the `standardwebhooks` package."""
        args = ("--secret", self.secret, "--port", str(self.receiver_port), "--append", str(self.notices_file))
        receiver = self.processes.start(PYTHON, EXAMPLES / "webhook_receiver.py", *args, env=self.env())
        receiver.wait_for("listening on")
        return receiver

    def start_daemon(self) -> Process:
        """`looseends serve`."""
        self.daemon = self.processes.start(PYTHON, "-m", "looseends.cli", "serve", "-c", self.config, env=self.env())
        self.daemon.wait_for("looseends is running")
        return self.daemon

    def start_shop(self) -> Process:
        """examples/fastapi_service.py under uvicorn."""
        env = self.env(SHOP_DEADLINE=self.deadline, SHOP_RECEIPTS=str(self.receipts), SHOP_SLOW_S="60", SHOP_HANG_S="3600")
        args = ("-m", "uvicorn", "--app-dir", str(EXAMPLES), "fastapi_service:app", "--port", str(self.shop_port))
        self.shop = self.processes.start(PYTHON, *args, env=env)
        self.shop.wait_for("Uvicorn running on")
        return self.shop

    def kill_shop(self) -> float:
        """SIGKILL; returns the monotonic time of the kill."""
        assert self.shop is not None
        at = time.monotonic()
        os.kill(self.shop.pid, signal.SIGKILL)
        self.shop.wait()
        return at

    def register(self, email: str) -> None:
        """Somebody registers; the shop answers at once."""
        body = json.dumps({"email": email})
        status, _ = self.http(self.shop_port, "POST", "/register", body, {"Content-Type": "application/json"})
        assert status == 202

    # --- asking ---

    @staticmethod
    def http(
        port: int, method: str, path: str, body: str | None = None, headers: dict[str, str] | None = None
    ) -> tuple[int, bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
        try:
            connection.request(method, path, body, headers or {})
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()

    @property
    def token(self) -> str:
        """The operator token beside the database."""
        return (self.folder / "looseends.db.token").read_text().strip()

    def api(self, path: str) -> Any:
        """GET /api/v1..., as the operator."""
        status, body = self.http(self.port, "GET", f"/api/v1{path}", None, {"Authorization": f"Bearer {self.token}"})
        assert status == 200, (path, status, body)
        return json.loads(body)

    def tasks(self, q: str = "") -> list[dict[str, Any]]:
        """Tasks that match a query."""
        found: list[dict[str, Any]] = self.api(f"/tasks?limit=500&q={quote(q)}")["items"]
        return found

    def notices(self) -> list[dict[str, Any]]:
        """Every verified notice that arrived, in order of arrival."""
        if not self.notices_file.exists():
            return []
        return [json.loads(line)["notice"] for line in self.notices_file.read_text().splitlines()]

    def notice(self, what: Callable[[dict[str, Any]], bool], words: str, timeout_s: float = 15.0) -> dict[str, Any]:
        """Wait for a notice."""
        found = wait_until(lambda: next((n for n in self.notices() if what(n)), None), words, timeout_s)
        assert isinstance(found, dict)
        return found

    def told(self, verdict: str | None, name: str, key: str, timeout_s: float = 15.0) -> tuple[dict[str, Any], dict[str, Any]]:
        """Wait for (notice, task) about this very task with this verdict (None: failed). It opened an incident or joined one."""

        def task_in(notice: dict[str, Any]) -> dict[str, Any] | None:
            tasks: list[dict[str, Any]] = notice["data"]["tasks"]
            return next((t for t in tasks if (t["verdict"], t["name"], t["key"]) == (verdict, name, key)), None)

        notice = self.notice(
            lambda one: task_in(one) is not None, f"a notice that {name} {key} is {verdict or 'failed'}", timeout_s
        )
        task = task_in(notice)
        assert task is not None
        return notice, task
