"""A million events that waited in the spools of services, drained at once; and what that does to the daemon's verdicts.

    make bench-burst
    .venv/bin/python bench/burst.py [--tasks 500000] [--services 4] [--folder DIR] [--markdown FILE]

Services run their tasks, each with three arguments, while no daemon is there: every start and end lies in a journal on disk. Then
the daemon starts, and they send what they have, by themselves, while they go on living. Meanwhile another service plants a
task every 50 ms that is stuck a second later; measured is when its verdict can be read in the database. The drain counts from
the daemon's first answer until every event is in the database.
"""

from __future__ import annotations

import argparse
import os
import sqlite3
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from due import DueWatch
from kit import MIB, Daemon, Report, percentile, verdict

RATE_BAR, LATE_BAR_MS = 20_000.0, 250.0
SERVICE = """
import sys, time
import looseends
looseends.init(service=sys.argv[1])

@looseends.task(name="mail.send_receipt", key="order_id", deadline="30s")
def send(order_id, customer, total):
    return None

for n in range(int(sys.argv[2])):
    send(n, "ada@example.com", 12.5)
    if not n % 5000:
        time.sleep(0.005)  # for the thread that makes spare segments
print("filled", flush=True)
sys.stdin.readline()
"""


def fill(folder: Path, socket: str, services: int, each: int) -> list[subprocess.Popen[str]]:
    """Services that have done their work, and tell of it as soon as they can."""
    running = []
    for number in range(services):
        env = {**os.environ, "LOOSEENDS_URL": f"unix:{socket}", "LOOSEENDS_SPOOL_DIR": str(folder / "spool")}
        command = [sys.executable, "-c", SERVICE, f"shop-{number}", str(each)]
        running.append(subprocess.Popen(command, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True))
    for process in running:
        assert process.stdout is not None
        if process.stdout.readline() != "filled\n":
            raise SystemExit("a service could not do its work")
    return running


def stored(conn: sqlite3.Connection) -> int:
    """Events that the daemon took so far."""
    row = conn.execute("SELECT n FROM counter WHERE what = 'event' AND label = 'accepted'").fetchone()
    return 0 if row is None else int(row[0])


def drain(daemon: Daemon, services: list[subprocess.Popen[str]], wanted: int, report: Report) -> None:
    """Watch it, and tell."""
    conn = sqlite3.connect(f"file:{daemon.database}?mode=ro", uri=True)
    used, began = daemon.used, time.perf_counter()
    watch, most, queued, refused = DueWatch(daemon), 0, 0, 0
    while stored(conn) < wanted:
        time.sleep(0.2)
        storage = daemon.get("/api/v1/storage")
        queued, refused = max(queued, storage["queued_most"]), storage["refused"]
        most = max(most, daemon.used.memory)
        if time.perf_counter() - began > 600:
            raise SystemExit(f"not drained in 600 s: {stored(conn):,} of {wanted:,}")
    seconds, cpu = time.perf_counter() - began, daemon.used.cpu - used.cpu
    late = [one * 1000 for one in watch.close()]
    conn.close()
    rate, p99 = wanted / seconds, percentile(late, 0.99)
    report.table(
        ["what", "figure", "bar"],
        [
            ["events drained", f"{wanted:,} of {len(services)} services in {seconds:.1f} s", ""],
            ["events/s", f"{rate:,.0f}", verdict(rate, RATE_BAR)],
            ["CPU of the daemon, us/event", f"{cpu / wanted * 1e6:.1f}", ""],
            ["due to verdict meanwhile, p50", f"{percentile(late, 0.5):.0f} ms (n {len(late)})", ""],
            ["due to verdict meanwhile, p99", f"{p99:.0f} ms", verdict(p99, LATE_BAR_MS, least=False)],
            ["due to verdict meanwhile, longest", f"{max(late):.0f} ms", ""],
            ["most that waited to be written", f"{queued / MIB:.2f} MiB, {refused} batches told to come again", ""],
            ["memory of the daemon, most", f"{most / MIB:.0f} MiB", ""],
        ],
    )


def main() -> int:
    """Run and print; 1 when a bar is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", type=int, default=500_000, help="each is two events")
    parser.add_argument("--services", type=int, default=4)
    parser.add_argument("--folder", help="where database and spools lie")
    parser.add_argument("--markdown", metavar="FILE")
    given = parser.parse_args()
    words = "Events that waited in spools while the daemon was down, and its verdicts meanwhile."
    report = Report("Burst", "make bench-burst", words, given.markdown)
    with tempfile.TemporaryDirectory(prefix="looseends-bench-", dir=given.folder) as name:
        folder = Path(name)
        each = given.tasks // given.services
        services = fill(folder, str(folder / "daemon.sock"), given.services, each)
        daemon = Daemon(folder, '[detect]\ngrace = "0s"\n')
        try:
            drain(daemon, services, 2 * each * given.services, report)
        finally:
            for process in services:
                process.kill()
                process.wait(30)
            daemon.close()
    return int(report.missed > 0)


if __name__ == "__main__":
    sys.exit(main())
