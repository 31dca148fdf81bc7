"""Hours of load with a SIGKILL of the daemon every so often: does anything grow, does anything get slow, is anything lost.

    make soak                                two hours, a kill every five minutes (SOAK_S=120 for a short one)
    .venv/bin/python bench/soak.py [--seconds 7200] [--share 0.2] [--folder DIR] [--markdown FILE]

First the peak is measured for some seconds; then a generator sends `share` of it, each batch at the time when it is due, and a
batch again until it is answered with 200, as our client does. 24 times in all the daemon is killed, and started again at once.
Once a second memory, descriptors, log (WAL) and the p99 of the last answers are noted; a slope is a least-squares line through
these, the first third of each life apart, since there a new process warms up. At the end every receipt must have its row.
"""

from __future__ import annotations

import argparse
import http.client
import json
import sqlite3
import sys
import tempfile
import threading
import time
import uuid
from pathlib import Path
from typing import NamedTuple

from ingest import load
from kit import MIB, Daemon, Report, end_of, new_instance, percentile, start_of

KILLS = 24
BATCH = 100
PEAK_S = 4.0
WARM_SHARE = 1 / 3
IDS_AT_ONCE = 500


class Sample(NamedTuple):
    """One look: when (s since the start), how old this process is (s), and what was seen."""

    at: float
    age: float
    memory: float
    descriptors: float
    log: float
    p99_ms: float


class Generator(threading.Thread):
    """Sends batches at a pace. `taken`: ids of tasks of which start and end were answered with 200; `waits`: seconds."""

    def __init__(self, daemon: Daemon, per_second: float) -> None:
        super().__init__(daemon=True)
        self._daemon, self._every = daemon, BATCH / per_second
        self._instance, self._number = new_instance(), 0
        self.stop = threading.Event()
        self.taken: list[bytes] = []
        self.waits: list[float] = []
        self.again = self.sent = 0
        self.longest = 0.0

    def run(self) -> None:
        """Until told to stop; what is open is ended then."""
        open_: list[dict[str, object]] = []
        due = time.perf_counter()
        while not self.stop.is_set() or open_:
            now = time.time_ns()
            events = [end_of(start, now) for start in open_]
            ended, open_ = open_, []
            for _ in range(0 if self.stop.is_set() else BATCH // 2):
                self._number += 1
                open_.append(start_of(self._number, now))
            took = self._tell(json.dumps({"instance": self._instance, "sent_at": now, "events": [*events, *open_]}), due)
            self.waits.append(took)
            self.longest = max(self.longest, took)
            self.sent += len(events) + len(open_)
            self.taken += [uuid.UUID(str(start["task"])).bytes for start in ended]
            due += self._every
            time.sleep(max(0.0, due - time.perf_counter()))

    def _tell(self, body: str, due: float) -> float:
        """Until it is answered with 200; seconds since it was due."""
        tries = 0
        while True:
            try:
                if not tries:
                    self._connection = getattr(self, "_connection", None) or self._connect()
                self._connection.request("POST", "/api/v1/events", body, {"Content-Type": "application/json"})
                answer = self._connection.getresponse()
                text = answer.read()
                if answer.status == 200:
                    return time.perf_counter() - due
                if answer.status != 503:
                    raise SystemExit(f"a batch was answered with {answer.status}: {text[:300]!r}")
            except (OSError, http.client.HTTPException):
                self._connection.close()
                self._connection = self._connect()
            tries += 1
            self.again += 1
            time.sleep(0.01)

    def _connect(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection("127.0.0.1", self._daemon.port, timeout=30)


def slope(samples: list[Sample], name: str) -> float:
    """By least squares, a second."""
    times = [sample.at for sample in samples]
    values = [float(getattr(sample, name)) for sample in samples]
    middle, level = sum(times) / len(times), sum(values) / len(values)
    spread = sum((at - middle) ** 2 for at in times)
    return sum((at - middle) * (value - level) for at, value in zip(times, values, strict=True)) / spread if spread else 0.0


def soak(daemon: Daemon, seconds: float, per_second: float) -> tuple[Generator, list[Sample], list[float]]:
    """Load and kills; the generator, what was seen, and how long each start took."""
    generator = Generator(daemon, per_second)
    generator.start()
    began = born = time.perf_counter()
    life, samples, starts = seconds / KILLS, list[Sample](), list[float]()
    while time.perf_counter() - began < seconds:
        time.sleep(1.0)
        now = time.perf_counter()
        if now - born >= life:
            daemon.kill()
            before = time.perf_counter()
            daemon.start()
            born = time.perf_counter()
            starts.append(born - before)
            generator.waits.clear()
            continue
        used, waits = daemon.used, list(generator.waits)
        generator.waits.clear()
        p99 = percentile(waits, 0.99) * 1000
        samples.append(Sample(now - began, now - born, used.memory / MIB, used.descriptors, daemon.wal_bytes() / MIB, p99))
    generator.stop.set()
    generator.join(120)
    if generator.is_alive():
        raise SystemExit("the last batches were never answered")
    return generator, samples, starts


def check(database: Path, taken: list[bytes]) -> tuple[int, int, int, int]:
    """Receipts without a row that succeeded; tasks in all; tasks in the ledger; tasks that are not ended."""
    conn = sqlite3.connect(database)
    missing = 0
    for first in range(0, len(taken), IDS_AT_ONCE):
        ids = taken[first : first + IDS_AT_ONCE]
        marks = ", ".join("?" * len(ids))
        found = conn.execute(f"SELECT count(*) FROM task WHERE state = 3 AND id IN ({marks})", ids).fetchone()[0]
        missing += len(ids) - found
    tasks = conn.execute("SELECT count(*) FROM task").fetchone()[0]
    ledger = conn.execute("SELECT sum(succeeded + failed + cancelled + in_time + gap) FROM ledger").fetchone()[0]
    open_ = conn.execute("SELECT count(*) FROM task WHERE state != 3").fetchone()[0]
    conn.close()
    return missing, tasks, ledger, open_


def tell(report: Report, generator: Generator, samples: list[Sample], starts: list[float], seconds: float) -> None:
    """The slopes."""
    warm = [sample for sample in samples if sample.age > WARM_SHARE * seconds / KILLS]
    third = max(1, len(warm) // 3)
    rows = []
    for words, name, unit in (
        ("memory, MiB", "memory", 1),
        ("descriptors", "descriptors", 0),
        ("log (WAL), MiB", "log", 1),
        ("p99 of an answer, ms", "p99_ms", 1),
    ):
        first, last = (percentile([getattr(one, name) for one in part], 0.5) for part in (warm[:third], warm[-third:]))
        most = max(getattr(one, name) for one in samples)
        rows.append([words, f"{first:.{unit}f}", f"{last:.{unit}f}", f"{most:.{unit}f}", f"{slope(warm, name) * 3600:+.2f}"])
    report.table(["what", "first third, median", "last third, median", "most", "slope, an hour"], rows)
    report.say(
        f"{len(starts)} kills; from the start after a SIGKILL to the first 200: median {percentile(starts, 0.5):.2f} s, longest"
        f" {max(starts, default=0):.2f} s. {generator.again:,} tries of a batch were repeated; the longest a batch waited was"
        f" {generator.longest:.2f} s."
    )


def main() -> int:
    """Run and print; 1 when a receipt has no row."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=7_200.0)
    parser.add_argument("--share", type=float, default=0.2, help="of the peak")
    parser.add_argument("--peak", type=float, help="events a second, where the peak was measured before and the machine is busy")
    parser.add_argument("--folder", help="where the database lies")
    parser.add_argument("--markdown", metavar="FILE")
    given = parser.parse_args()
    words = f"{given.seconds:,.0f} seconds at {given.share:.0%} of the peak, the daemon killed {KILLS} times meanwhile."
    report = Report("Soak", f"make soak SOAK_S={given.seconds:.0f}", words, given.markdown)
    with tempfile.TemporaryDirectory(prefix="looseends-bench-", dir=given.folder) as name:
        daemon = Daemon(Path(name))
        try:
            peak = given.peak or load(f"127.0.0.1:{daemon.port}", daemon.process.pid, BATCH, PEAK_S).rate
            before = json.loads(daemon.ask("GET", "/api/v1/ledger", bearer=True)[1])["tasks"]
            report.say(f"Peak {peak:,.0f} events/s (batches of {BATCH}); sent {peak * given.share:,.0f} events/s.")
            generator, samples, starts = soak(daemon, given.seconds, peak * given.share)
        finally:
            daemon.close()
        tell(report, generator, samples, starts, given.seconds)
        missing, tasks, ledger, open_ = check(daemon.database, generator.taken)
        right = not missing and ledger == tasks and tasks - before == len(generator.taken)
        report.table(
            [
                "receipts of tasks",
                "without their row",
                "tasks in the database, the peak's apart",
                "all tasks",
                "in the ledger",
                "bar",
            ],
            [
                [
                    *(f"{len(generator.taken):,}", missing, f"{tasks - before:,}", f"{tasks:,}", f"{ledger:,}"),
                    f"all the same: {'met' if right else 'MISSED'}",
                ]
            ],
        )
    return int(report.missed > 0)


if __name__ == "__main__":
    sys.exit(main())
