"""`looseends serve` and a service in `folder`, as real processes: started, asked, and limited or killed by a test."""

from __future__ import annotations

import json
import signal
import sys
import uuid
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import harness
from wired import unix_connection

HERE = Path(__file__).parent
COMMAND = Path(sys.executable).with_name("looseends")
CONFIG = """\
[server]
listen = ["unix:{folder}/s"]
[storage]
path = "{folder}/looseends.db"
[detect]
grace = "200ms"
unreachable_after = "10m"
spools = ["{folder}/spool"]
"""


class Faulty:
    """One database and the daemon that serves it; `start` again after its end."""

    def __init__(self, processes: harness.Processes, folder: Path) -> None:
        self.processes, self.folder = processes, folder
        self.socket, self.database, self.config = f"{folder}/s", folder / "looseends.db", folder / "config.toml"
        (folder / "spool").mkdir(mode=0o700, exist_ok=True)
        self.config.write_text(CONFIG.format(folder=folder))
        self._process: harness.Process | None = None

    @property
    def process(self) -> harness.Process:
        """The daemon's process."""
        assert self._process is not None, "it was not started"
        return self._process

    def launch(self, *, descriptors: int | None = None, bounds: dict[str, float] | None = None) -> harness.Process:
        """Start it and do not wait. `descriptors`: its soft limit; `bounds`: numbers of the store made small."""
        set_bounds = [f"{name}={value}" for name, value in (bounds or {}).items()]
        command = [sys.executable, str(HERE / "bounded.py"), *set_bounds, "--"] if bounds else [str(COMMAND)]
        if descriptors is not None:
            command = ["sh", "-c", f'ulimit -Sn {descriptors}; exec "$@"', "sh", *command]
        self._process = self.processes.start(*command, "serve", "-c", self.config, env={"XDG_STATE_HOME": str(self.folder)})
        return self._process

    def start(self, **how: Any) -> None:
        """Start it and wait until its doors are open."""
        self.launch(**how).wait_for("looseends is running")

    def stop(self) -> None:
        """SIGTERM; it must end in order."""
        assert self.process.stop(20.0) == 0, self.process.output

    def kill(self) -> None:
        """SIGKILL."""
        self.process.signal(signal.SIGKILL)
        self.process.wait()

    def refuses(self) -> str:
        """What it says instead of starting: one line, exit code 1."""
        process = self.launch()
        assert process.wait() == 1, process.output
        assert len(process.lines) == 1, process.output
        return process.lines[0]

    def command(self, *args: str | Path) -> tuple[int, str]:
        """(exit code, what it said) of another command on this database."""
        process = self.processes.start(COMMAND, *args, "-c", self.config, env={"XDG_STATE_HOME": str(self.folder)})
        return process.wait(), process.output

    # --- asking ---

    def ask(
        self, method: str, path: str, body: Any = None, *, by: HTTPConnection | None = None, operator: bool = False
    ) -> tuple[int, Any]:
        """(status, decoded answer) of one request; over a connection of its own unless `by` is one."""
        connection = by or unix_connection(self.socket)
        headers = {"Content-Type": "application/json", "Idempotency-Key": uuid.uuid4().hex}
        if operator:
            headers["Authorization"] = f"Bearer {Path(f'{self.database}.token').read_text().strip()}"
        try:
            data = body if isinstance(body, bytes | None) else json.dumps(body).encode()
            connection.request(method, path, data, headers)
            answer = connection.getresponse()
            text = answer.read()
        finally:
            if by is None:
                connection.close()
        return answer.status, json.loads(text) if "json" in (answer.getheader("Content-Type") or "") else text.decode()

    def get(self, path: str) -> Any:
        """The answer of GET /api/v1/<path> as the operator sees it."""
        status, answer = self.ask("GET", f"/api/v1/{path}", operator=True)
        assert status == 200, (path, status, answer)
        return answer

    def ready(self) -> str:
        """What /readyz says; "" where it is ready."""
        status, words = self.ask("GET", "/readyz")
        return "" if status == 200 else str(words)

    def states(self) -> dict[str, str]:
        """The state of every task by its id."""
        found: dict[str, str] = {}
        cursor = ""
        while True:
            page = self.get(f"tasks?limit=500{cursor}")
            found.update((task["id"], task["state"]) for task in page["items"])
            if page["next_cursor"] is None:
                return found
            cursor = f"&cursor={page['next_cursor']}"

    def files(self) -> dict[str, bytes]:
        """The database and its log, byte for byte; an empty log is none."""
        paths = [self.database, Path(f"{self.database}-wal")]
        return {path.name: path.read_bytes() for path in paths if path.exists() and path.stat().st_size}


def started(first: int, count: int, **more: Any) -> dict[str, Any]:
    """A batch of so many starts of an instance of the test's own; ids are numbered."""
    numbers = range(first, first + count)
    events = [{"type": "started", "task": f"00000000-0000-8000-8000-{n:012}", "name": "n", **more} for n in numbers]
    return {"instance": {"id": "web-1", "service": "shop"}, "events": events}


class Service:
    """service.py: what it is told, it does, and answers with a line."""

    def __init__(self, faulty: Faulty, address: str) -> None:
        self.spool = faulty.folder / "spool"
        env = {"LOOSEENDS_URL": f"unix:{address}", "LOOSEENDS_SPOOL_DIR": str(self.spool), "LOOSEENDS_SERVICE": "shop"}
        self.process = faulty.processes.start(sys.executable, HERE / "service.py", env=env, stdin=True)
        self.id = self.process.wait_for(r"^instance (.+)$")[1]

    def do(self, line: str) -> str:
        """Its answer to one line: all words after "done"."""
        self.process.say(line)
        return self.process.wait_for(r"^done ?(.*)$")[1]

    def send(self) -> None:
        """Everything that was recorded until now is taken."""
        harness.wait_until(lambda: self.do("flush") == "0", "the daemon to take everything")

    def counts(self) -> dict[str, int]:
        """The troubles it counted."""
        counted: dict[str, int] = json.loads(self.do("counts"))
        return counted

    def end(self) -> None:
        """It says goodbye; all it recorded was taken, so its journal is gone."""
        self.process.hang_up()
        assert self.process.wait() == 0, self.process.output
        assert list(self.spool.iterdir()) == [], "what was not taken stays in the spool"
