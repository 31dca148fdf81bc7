"""A storm: 100,000 failures of one type and 50 of another in a minute, on a real daemon with a real receiver.

    python bench/storm.py [--failures 100000] [--others 50] [--seconds 60]

What matters: how many notices somebody on call gets, how long after its first failure each type is named to them, what the
daemon takes, and whether it keeps up. Prints figures; asserts nothing.
"""

from __future__ import annotations

import argparse
import base64
import http.client
import json
import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

BATCH = 500
CONFIG = """\
[server]
listen = ["127.0.0.1:{port}"]
[storage]
path = "{folder}/storm.db"
[detect]
grace = "0s"
spools = ["{folder}/spool"]
[[endpoint]]
name = "receiver"
url = "http://127.0.0.1:{receiver}/"
secrets = ["{secret}"]
"""


class Receiver(ThreadingHTTPServer):
    """Answers 204 to everything and notes (monotonic s, name of the incident, type, how many are open)."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.heard: list[tuple[float, str, str, int]] = []
        threading.Thread(target=self.serve_forever, args=(0.05,), daemon=True).start()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Receiver

    def do_POST(self) -> None:
        said = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        incident = said["data"]["incident"]
        kind = said["type"].rpartition(".")[2]
        self.server.heard.append((time.monotonic(), incident["labels"]["name"], kind, incident["counts"]["open"]))
        self.send_response(204)
        self.end_headers()

    def log_message(self, *args: object) -> None:
        return


class Daemon:
    """`looseends serve` in a process of its own."""

    def __init__(self, folder: Path, receiver: int) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        secret = "whsec_" + base64.b64encode(os.urandom(32)).decode()
        config = folder / "config.toml"
        config.write_text(CONFIG.format(port=self.port, folder=folder, receiver=receiver, secret=secret))
        command = [sys.executable, "-m", "looseends.cli", "serve", "-c", str(config)]
        env = {**os.environ, "XDG_STATE_HOME": str(folder), "PYTHONUNBUFFERED": "1"}
        self.process = subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if "looseends is running" in line:
                break
        threading.Thread(target=self.process.stdout.read, daemon=True).start()
        self._bearer = {"Authorization": "Bearer " + (folder / "storm.db.token").read_text().strip()}
        self._connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)

    def ask(self, method: str, path: str, body: Any = None) -> Any:
        """One request on the kept connection; its JSON. 503 is waited out."""
        headers = {"Content-Type": "application/json", **({} if body is not None else self._bearer)}
        while True:
            self._connection.request(method, f"/api/v1{path}", None if body is None else json.dumps(body), headers)
            answer = self._connection.getresponse()
            text = answer.read()
            if answer.status != 503:
                assert answer.status == 200, text
                return json.loads(text)
            time.sleep(0.2)

    def memory(self, name: str) -> float:
        """`VmRSS` or `VmHWM` in MiB."""
        lines = Path(f"/proc/{self.process.pid}/status").read_text().splitlines()
        return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(name))

    def cpu(self) -> float:
        """Seconds of CPU so far."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def close(self) -> None:
        """End it and wait."""
        self._connection.close()
        self.process.terminate()
        self.process.wait(60)


def failure(name: str) -> dict[str, Any]:
    """One task that failed for good."""
    error = {"type": "TimeoutError", "message": "the mail server does not answer", "traceback": None}
    return {"type": "failed", "task": str(uuid.uuid4()), "service": "shop", "name": name, "error": error}


def batches(failures: int, others: int) -> Iterator[list[dict[str, Any]]]:
    """All of them, the others spread evenly from a quarter to three quarters of the storm."""
    every = max(1, failures // 2 // max(1, others))
    batch: list[dict[str, Any]] = []
    left = others
    for n in range(failures):
        batch.append(failure("mail.send"))
        if left and n >= failures // 4 and n % every == 0:
            batch.append(failure("audit.write"))
            left -= 1
        if len(batch) >= BATCH:
            yield batch
            batch = []
    yield batch + [failure("audit.write") for _ in range(left)]


def storm(failures: int, others: int, seconds: float) -> None:
    """Run it and print what happened."""
    with tempfile.TemporaryDirectory(prefix="le-storm-") as name:
        receiver = Receiver()
        daemon = Daemon(Path(name), receiver.server_address[1])
        try:
            run(daemon, receiver, failures, others, seconds)
        finally:
            daemon.close()
            receiver.shutdown()


def run(daemon: Daemon, receiver: Receiver, failures: int, others: int, seconds: float) -> None:
    """The storm itself."""
    before = daemon.memory("VmRSS")
    all_of_it = list(batches(failures, others))
    first: dict[str, float] = {}
    began = time.monotonic()
    for n, batch in enumerate(all_of_it):
        time.sleep(max(0.0, began + n * seconds / len(all_of_it) - time.monotonic()))
        daemon.ask("POST", "/events", batch)
        for event in batch:
            first.setdefault(event["name"], time.monotonic())
    sent = time.monotonic()
    while opened(daemon) < failures + others:
        time.sleep(0.1)
    judged = time.monotonic()
    time.sleep(1.5)
    print(f"{failures:,} failures of one type and {others} of another, sent in {sent - began:.1f} s")
    print(f"all of them judged and in their incidents {judged - sent:.2f} s after the last was stored")
    for type_, at in first.items():
        heard = [one for one in receiver.heard if one[1] == type_]
        told = ", ".join(f"{kind} at {moment - began:.1f} s ({count:,} open)" for moment, _, kind, count in heard)
        print(f"  {type_}: first named {heard[0][0] - at:.2f} s after its first failure; {len(heard)} notices: {told}")
    peak, after = daemon.memory("VmHWM"), daemon.memory("VmRSS")
    print(f"{len(receiver.heard)} notices in all; memory {before:.0f} MiB before, {peak:.0f} MiB at most, {after:.0f} MiB after")
    print(f"CPU of the daemon: {daemon.cpu():.1f} s, {1e6 * daemon.cpu() / (failures + others):.0f} us for each failure")


def opened(daemon: Daemon) -> int:
    """How many loose ends stand in open incidents."""
    return sum(one["counts"]["open"] for one in daemon.ask("GET", "/incidents?state=open")["items"])


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--failures", type=int, default=100_000)
    parser.add_argument("--others", type=int, default=50)
    parser.add_argument("--seconds", type=float, default=60.0)
    given = parser.parse_args()
    storm(given.failures, given.others, given.seconds)


if __name__ == "__main__":
    main()
