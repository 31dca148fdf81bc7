"""What an idle daemon holds in memory, how long it takes to its first answer, and what each import costs.

    make bench-footprint
    .venv/bin/python bench/footprint.py [--starts 9] [--idle 10] [--markdown FILE]

Each start is a new process with a new database. "Idle" is resident memory (RSS, from /proc) some seconds after the first answer,
one page of the dashboard not yet asked for; then after every page was asked for once, and after a hundred thousand events. The
time to the first 200 runs from the start of the process to the answer of /livez, asked every two milliseconds; its database is
there, as after a restart. Imports are measured in a fresh interpreter each, one after the other, as the daemon needs them.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from ingest import load
from kit import MIB, Daemon, Report, spread, verdict

MEMORY_BAR_MIB, START_BAR_S = 50.0, 0.5
OTLP = "opentelemetry.exporter.otlp.proto.http"
IMPORTS = (
    ("the interpreter", ""),
    ("asyncio, sqlite3", "import asyncio, sqlite3"),
    ("msgspec", "import msgspec"),
    ("aiohttp.web", "from aiohttp import web"),
    ("aiosqlite", "import aiosqlite"),
    ("jinja2", "import jinja2"),
    ("prometheus_client", "import prometheus_client"),
    ("opentelemetry (SDK, OTLP over HTTP), only where it exports", f"from {OTLP}.trace_exporter import OTLPSpanExporter"),
    (
        "looseends_daemon (all that serve needs)",
        "from looseends_daemon import thin; thin.prepare(); import looseends_daemon.serve",
    ),
)
PROBE = """
import json, os, time
cpu = time.process_time()
{code}
pages = int(open("/proc/self/statm").read().split()[1])
print(json.dumps([time.process_time() - cpu, pages * os.sysconf("SC_PAGE_SIZE")]))
"""
PAGES = (
    "/",
    "/tasks",
    "/types",
    "/incidents",
    "/instances",
    "/replays",
    "/status",
    "/setup",
    "/audit",
    "/endpoints",
    "/silences",
)


def imports(report: Report, rounds: int) -> None:
    """A table of them."""
    rows: list[list[object]] = []
    for words, code in IMPORTS:
        taken = [json.loads(_python(PROBE.format(code=code))) for _ in range(rounds)]
        rows.append([words, spread(one[0] * 1000 for one in taken).text(0), spread(one[1] / MIB for one in taken).text(1)])
    report.table(["imported, each in a fresh interpreter", "CPU, ms", "RSS, MiB"], rows)


def _python(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    if done.returncode:
        raise SystemExit(done.stderr)
    return done.stdout


def start(folder: Path) -> tuple[float, Daemon]:
    """A daemon, and how long it took to its first 200 (s)."""
    began = time.perf_counter()
    daemon = Daemon(folder)
    return time.perf_counter() - began, daemon


def main() -> int:
    """Run and print; 1 when a bar is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--starts", type=int, default=9)
    parser.add_argument("--idle", type=float, default=10.0, help="seconds after the first answer")
    parser.add_argument("--markdown", metavar="FILE")
    given = parser.parse_args()
    report = Report(
        "Footprint", "make bench-footprint", "Memory and start of the daemon, and what each import costs.", given.markdown
    )
    took, idle, busy = [], [], []
    with tempfile.TemporaryDirectory(prefix="looseends-bench-") as name:
        folder = Path(name)
        start(folder)[1].close()  # makes the database, and the compiled files of Python
        for number in range(given.starts):
            seconds, daemon = start(folder)
            took.append(seconds)
            if number < 3:
                time.sleep(1.0)  # for what a start does once
                cpu = daemon.used.cpu
                time.sleep(given.idle)
                busy.append((daemon.used.cpu - cpu) / given.idle * 100)
                idle.append(daemon.used.memory / MIB)
            if number < given.starts - 1:
                daemon.close()
        with_pages, after = _in_use(daemon)
        daemon.close()
    memory, first = spread(idle), spread(took)
    report.table(
        ["what", "figure", "bar"],
        [
            [
                f"memory idle, {given.idle:g} s after the start, MiB",
                memory.text(1),
                verdict(memory.median, MEMORY_BAR_MIB, least=False),
            ],
            ["memory after every page was asked for, MiB", f"{with_pages:.1f}", ""],
            ["memory after 100,000 events more, MiB", f"{after:.1f}", ""],
            ["CPU while nothing happens, % of a core", spread(busy).text(1), ""],
            ["start to first 200, s", first.text(), verdict(first.median, START_BAR_S, least=False)],
        ],
    )
    imports(report, 3)
    return int(report.missed > 0)


def _in_use(daemon: Daemon) -> tuple[float, float]:
    """Memory in MiB after each page, and after a load."""
    for page in PAGES:
        daemon.ask("GET", page, bearer=True)
    with_pages = daemon.used.memory / MIB
    sent = 0
    while sent < 100_000:
        sent += load(f"unix:{daemon.socket}", daemon.process.pid, 100, 2.0).events
    return with_pages, daemon.used.memory / MIB


if __name__ == "__main__":
    sys.exit(main())
