"""How soon a loss is known: from due to verdict under load, from SIGKILL to verdict, from verdict to webhook.

    make bench-detection
    .venv/bin/python bench/detection.py [--rate 5000] [--seconds 20] [--kills 20] [--markdown FILE]

A generator sends `rate` events a second at an even pace, while another service plants a task every 50 ms that is stuck a second
later; then as long without load. Verdicts are looked for in the database file every millisecond. Then real services are killed
with a task running, on the host of the daemon, which watches their journals; the webhook of each is taken by a receiver.
`group_wait` is as it is by default, one second: the webhook cannot come sooner.
"""

from __future__ import annotations

import argparse
import os
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from due import DueWatch
from kit import Daemon, Receiver, Report, percentile, verdict
from soak import Generator

DUE_BAR_MS, KILL_BAR_S, HOOK_BAR_S = 100.0, 1.0, 1.5
SERVICE = """
import sys, time
import looseends
looseends.init(service=sys.argv[1])
with looseends.track("import.rows", {"file": 7}):
    looseends.flush(5)
    print("running", flush=True)
    time.sleep(600)
"""
ENDPOINT = '[detect]\ngrace = "0s"\n[[endpoint]]\nname = "bench"\nurl = "http://127.0.0.1:{port}/"\nsecrets = ["{secret}"]\n'
SECRET = "whsec_" + "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"


def under_load(daemon: Daemon, rate: float, seconds: float) -> list[float]:
    """From due to verdict in ms, while this many events come a second (0: none)."""
    generator = Generator(daemon, rate) if rate else None
    if generator is not None:
        generator.start()
        time.sleep(2.0)
    watch = DueWatch(daemon, service=f"planted-{rate:.0f}")
    time.sleep(seconds)
    late = watch.close()
    if generator is not None:
        generator.stop.set()
        generator.join(60)
    return [one * 1000 for one in late]


def kill_one(daemon: Daemon, receiver: Receiver, number: int) -> tuple[float, float]:
    """Seconds from SIGKILL to the verdict, and from there to the webhook."""
    env = {**os.environ, "XDG_STATE_HOME": str(daemon.folder), "LOOSEENDS_URL": f"unix:{daemon.socket}"}
    service, name = [sys.executable, "-c", SERVICE], f"shop-{number}"
    process = subprocess.Popen([*service, name], env=env, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    if process.stdout.readline() != "running\n":
        raise SystemExit("a service did not start")
    conn = sqlite3.connect(f"file:{daemon.database}?mode=ro", uri=True, isolation_level=None)
    before = conn.execute("SELECT count(*) FROM judgement").fetchone()[0]
    killed = time.monotonic()
    process.send_signal(signal.SIGKILL)
    while conn.execute("SELECT count(*) FROM judgement").fetchone()[0] == before:
        time.sleep(0.001)
        if time.monotonic() - killed > 60:
            raise SystemExit("no verdict a minute after a kill")
    judged = time.monotonic()
    process.wait(30)
    conn.close()
    while True:
        told = [at for at, said in list(receiver.heard) if said["data"]["incident"]["labels"]["service"] == name]
        if told:
            return judged - killed, told[0] - judged
        if time.monotonic() - judged > 60:
            raise SystemExit("no webhook a minute after a verdict")
        time.sleep(0.005)


def main() -> int:
    """Run and print; 1 when a bar is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rate", type=float, default=5_000.0, help="events a second")
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--folder", help="where the databases lie")
    parser.add_argument("--markdown", metavar="FILE")
    given = parser.parse_args()
    report = Report("Detection", "make bench-detection", "How soon a loss is known, and told.", given.markdown)
    receiver = Receiver()
    rows: list[list[object]] = []
    with tempfile.TemporaryDirectory(prefix="looseends-bench-", dir=given.folder) as name:
        folders = [Path(name) / part for part in ("load", "kills")]
        for folder in folders:
            folder.mkdir()
        daemon = Daemon(folders[0], '[detect]\ngrace = "0s"\n')
        try:
            for rate in (0.0, given.rate):
                late = under_load(daemon, rate, given.seconds)
                p99 = percentile(late, 0.99)
                shown = f"{percentile(late, 0.5):.0f}, {p99:.0f}, {max(late):.0f} ms (n {len(late)})"
                rows.append([f"due to verdict at {rate:,.0f} events/s", shown, verdict(p99, DUE_BAR_MS, least=False)])
        finally:
            daemon.close()
        daemon = Daemon(folders[1], ENDPOINT.format(port=receiver.port, secret=SECRET))
        try:
            times = [kill_one(daemon, receiver, number) for number in range(given.kills)]
        finally:
            daemon.close()
            receiver.close()
    for words, found, bar in (
        ("SIGKILL to verdict, same host", [one for one, _ in times], KILL_BAR_S),
        ("verdict to webhook (group_wait 1 s in it)", [one for _, one in times], HOOK_BAR_S),
    ):
        p50, p99 = percentile(found, 0.5), percentile(found, 0.99)
        shown = f"{p50 * 1000:.0f}, {p99 * 1000:.0f}, {max(found) * 1000:.0f} ms (n {len(found)})"
        rows.append([words, shown, verdict(p99, bar, least=False)])
    report.table(["what", "p50, p99, longest", "bar for p99 (ms; s for kills)"], rows)
    return int(report.missed > 0)


if __name__ == "__main__":
    sys.exit(main())
