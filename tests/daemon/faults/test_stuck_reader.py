"""Another program reads the database for a long time: ingest goes on, the log grows up to its bound, and that is said."""

from __future__ import annotations

import sys
import time

from faulty import Faulty, started

import harness
from looseends_daemon.store.checkpoints import wal_bytes

KIB = 1 << 10
AIM, BOUND = 256 * KIB, 4_096 * KIB
BATCH = 200
READER = """
import sqlite3, sys
conn = sqlite3.connect(sys.argv[1], isolation_level=None)
conn.execute("BEGIN")
conn.execute("SELECT count(*) FROM task").fetchone()
print("reading", flush=True)
sys.stdin.read()
"""


def test_a_reader_that_never_ends_lets_the_log_grow_to_its_bound_and_no_further(faulty: Faulty) -> None:
    faulty.start(bounds={"WAL_BYTES_MAX": AIM, "LOG_BYTES_MAX": BOUND, "RETRY_S": 0.1})
    path, stored, batches = str(faulty.database), 0, 0

    def send() -> int:
        nonlocal stored, batches
        body = started(batches * BATCH, BATCH, deadline="never", args={"text": "x" * 100})
        status, answer = faulty.ask("POST", "/api/v1/events", body)
        if status == 200:
            batches, stored = batches + 1, stored + answer["accepted"]
        return status

    for _ in range(10):
        assert send() == 200
    assert wal_bytes(path) <= 2 * AIM, "without a reader the log is kept short"

    reader = faulty.processes.start(sys.executable, "-c", READER, path, stdin=True)
    reader.wait_for("reading")
    taken = 0
    while send() == 200:
        taken += 1
        assert taken < 1_000, "the log has no bound"
    grown = wal_bytes(path)
    assert taken * BATCH > 1_000, "thousands of events came in beside the reader"
    assert BOUND < grown < BOUND + 1_024 * KIB, "one group of commits over the bound at most"
    time.sleep(1.0)
    assert wal_bytes(path) < grown + AIM, "what is not an event is small"
    status, problem = faulty.ask("POST", "/api/v1/events", started(0, 1))
    assert status == 503 and "sqlite3 shell left open" in problem["detail"]
    assert "cannot be cut" in faulty.ready()
    code, words = faulty.command("doctor")
    assert code == 1 and "cannot be cut" in words

    reader.hang_up()
    assert reader.wait() == 0
    harness.wait_until(lambda: send() == 200, "events to be taken again")
    harness.wait_until(lambda: wal_bytes(path) <= AIM, "the log to be cut")
    assert faulty.ready() == ""
    ledger = faulty.get("ledger")
    assert ledger["tasks"] == ledger["in_time"] == stored == batches * BATCH
