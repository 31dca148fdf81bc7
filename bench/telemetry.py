"""What telemetry costs those who report: ingest with OTLP export and scraping on, against a daemon without either, in one run.

    .venv/bin/python bench/telemetry.py [--slices 20] [--seconds 3] [--per-second 40] [--types 200] [--folder /dev/shm]
        [--only export | scrape | neither]

Two daemons with equal settings, but for `[otel]`, and equal content. A generator posts batches of ten tasks, begun and ended, to
both in turn, slice by slice, each request at the time when it is due. One daemon exports every task to a collector in a process
of its own and is scraped every 5 s; the other does nothing of it. Printed are p50 and p99 over all slices of each, and the
ratio; the bar is 1.10 for p99. At the end everything must have been exported. `--only neither` is the control: both daemons do
the same, and what its ratio is away from 1.00 is what this machine adds.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
import uuid
from pathlib import Path
from typing import Any

BAR = 1.10
TASKS = 10
SCRAPE_EVERY_S = 5.0
COLLECTOR = """
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200); self.send_header("Content-Length", "0"); self.end_headers()
    def log_message(self, *args): pass
server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
print(server.server_address[1], flush=True)
server.serve_forever()
"""
CONFIG = '[server]\nlisten = ["127.0.0.1:{port}"]\n[storage]\npath = "{folder}/{port}.db"\n'


class Daemon:
    """One daemon, and the connection that reports to it. `took` holds the seconds of every request."""

    def __init__(self, folder: Path, port: int, otel: str) -> None:
        config = folder / f"{port}.toml"
        config.write_text(CONFIG.format(port=port, folder=folder) + otel)
        env = {**os.environ, "XDG_STATE_HOME": str(folder)}
        command = [sys.executable, "-m", "looseends.cli", "serve", "-c", str(config)]
        self.process = subprocess.Popen(command, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self.url, self.took = f"http://127.0.0.1:{port}", list[float]()
        self._wait()
        self._http = http.client.HTTPConnection("127.0.0.1", port, timeout=30)

    def _wait(self) -> None:
        deadline = time.monotonic() + 30
        while True:
            try:
                urllib.request.urlopen(f"{self.url}/livez", timeout=2).close()
                return
            except OSError:
                if time.monotonic() > deadline:
                    raise SystemExit("a daemon did not start") from None
                time.sleep(0.05)

    def post(self, body: bytes, due: float) -> None:
        """One batch; its time counts from when it was due (perf_counter seconds)."""
        self._http.request("POST", "/api/v1/events", body, {"Content-Type": "application/json"})
        answer = self._http.getresponse()
        answer.read()
        if answer.status != 200:
            raise SystemExit(f"a batch was answered with {answer.status}")
        self.took.append(time.perf_counter() - due)

    def metrics(self) -> str:
        """What a scrape gets."""
        with urllib.request.urlopen(f"{self.url}/metrics", timeout=30) as answer:
            return str(answer.read().decode())


def batch(types: int) -> bytes:
    """TASKS tasks of random types, begun and ended."""
    now = time.time_ns()
    events: list[dict[str, Any]] = []
    for _ in range(TASKS):
        same = {"task": str(uuid.uuid4()), "service": "shop", "name": f"job-{random.randrange(types)}"}
        events.append({"type": "started", "at": now - 9_000_000, "args": {"order_id": 7}, **same})
        events.append({"type": "finished", "at": now - 1_000_000, "duration": 0.008, **same})
    return json.dumps(events).encode()


def run_slice(daemon: Daemon, seconds: float, per_second: int, types: int) -> None:
    """Post at an even pace for so long."""
    began = time.perf_counter()
    for n in range(int(seconds * per_second)):
        body, due = batch(types), began + n / per_second
        time.sleep(max(0.0, due - time.perf_counter()))
        daemon.post(body, due)


def scraping(daemon: Daemon, stop: threading.Event) -> None:
    """Scrape until told to stop."""
    while not stop.wait(SCRAPE_EVERY_S):
        daemon.metrics()


def percentile(values: list[float], share: float) -> float:
    """In milliseconds."""
    return sorted(values)[min(len(values) - 1, int(len(values) * share))] * 1000


def main() -> int:
    """Run and print; 1 when the bar is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--slices", type=int, default=20, help="slices of each daemon")
    parser.add_argument("--seconds", type=float, default=3.0, help="length of a slice")
    parser.add_argument("--per-second", type=int, default=40, help="batches of ten tasks a second")
    parser.add_argument("--only", choices=("export", "scrape", "neither"), help="one of the two, or the control")
    parser.add_argument("--folder", help="where the databases lie; a disk that others write to hides everything else")
    parser.add_argument("--types", type=int, default=200, help="types of task")
    given = parser.parse_args()
    started: list[subprocess.Popen[Any]] = []
    with tempfile.TemporaryDirectory(prefix="le-bench-", dir=given.folder) as name:
        try:
            return compare(Path(name), given, started)
        finally:
            for process in reversed(started):
                process.send_signal(signal.SIGTERM)
            for process in started:
                process.wait(20)


def compare(folder: Path, given: argparse.Namespace, started: list[subprocess.Popen[Any]]) -> int:
    """Both daemons in turn."""
    collector = subprocess.Popen([sys.executable, "-c", COLLECTOR], stdout=subprocess.PIPE, text=True)
    started.append(collector)
    assert collector.stdout is not None
    address = f"http://127.0.0.1:{int(collector.stdout.readline())}"
    port = random.randrange(20_000, 30_000)
    off = Daemon(folder, port, "")
    on = Daemon(folder, port + 1, "" if given.only in ("scrape", "neither") else f'[otel]\nendpoint = "{address}"\n')
    started += [off.process, on.process]
    stop = threading.Event()
    if given.only not in ("export", "neither"):
        threading.Thread(target=scraping, args=(on, stop), daemon=True).start()
    for daemon in (off, on):
        run_slice(daemon, 2.0, given.per_second, given.types)  # to get warm
        daemon.took.clear()
    ratios = []
    for number in range(given.slices):
        slices = {}
        for daemon in (off, on) if number % 2 else (on, off):
            before = len(daemon.took)
            run_slice(daemon, given.seconds, given.per_second, given.types)
            slices[daemon] = percentile(daemon.took[before:], 0.99)
        ratios.append(slices[on] / slices[off])
    stop.set()
    for what, share in (("p50", 0.5), ("p99", 0.99)):
        plain, exporting, doing = percentile(off.took, share), percentile(on.took, share), given.only or "both"
        print(f"ingest {what}: {plain:6.2f} ms without, {exporting:6.2f} ms with {doing}: {exporting / plain:.2f}")
    middle = statistics.median(ratios)
    low, _, high = statistics.quantiles(ratios, n=4)
    met = f"bar {BAR:.2f}: {'met' if middle <= BAR else 'MISSED'}"
    print(f"p99 slice by slice: median ratio {middle:.2f}, middle half {low:.2f} to {high:.2f}, n {len(ratios)} ({met})")
    wait_for_export(on)
    return int(middle > BAR)


def wait_for_export(daemon: Daemon) -> None:
    """Everything is sent in the end."""
    deadline = time.monotonic() + 60
    while 'looseends_otlp_pending{signal="span"}' in daemon.metrics():
        if time.monotonic() > deadline:
            raise SystemExit("spans were still waiting a minute after the end")
        time.sleep(1.1)
    sent = [line for line in daemon.metrics().splitlines() if 'outcome="exported",signal="span"' in line]
    print(f"spans exported: {sent[0].split()[-1] if sent else 'none'} of {(len(daemon.took)) * TASKS} and the warm-up's")


if __name__ == "__main__":
    sys.exit(main())
