"""What a whole service pays: 2,000 requests a second with and without a task each, and beside a daemon in all kinds of trouble.

    make bench-service
    .venv/bin/python bench/service.py [--rounds 11] [--rate 2000] [--seconds 1.5] [--bad-rounds 3] [--realtime]

Two services that differ only in `@looseends.task` run side by side, and a load generator in a process of its own asks them in
turn, slice by slice; a request's time counts from when it was due. Printed are medians over the slices and their middle half. A
real daemon takes what the audited one says. Then the daemon is stopped, gone, resets, fails, answers nonsense: every answer is
checked, memory and disk are printed, and afterwards everything must have arrived. The bar is a p99 of 1.10 times the plain one's.
On a machine with other work, --realtime keeps that work out of the figures (SCHED_RR for both services and the load; needs root).
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
PARTS = ROOT / "tests" / "interference"
sys.path.insert(0, str(PARTS))

BadDaemon: Any = importlib.import_module("bad_daemon").BadDaemon  # a part of the tests, which is no package

BAR = 1.10
REALTIME: list[str] = []
"""What a program is started with so that it runs in the realtime class; empty for the usual one."""
SETTLE_S = 180.0


class Program:
    """A process of the benchmark; ends with its standard input, or by SIGTERM."""

    def __init__(self, *args: str, **env: str) -> None:
        self.process = subprocess.Popen(
            args, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env={**os.environ, **env}
        )
        assert self.process.stdout is not None and self.process.stdin is not None
        self.out, self._in = self.process.stdout, self.process.stdin

    def wait_for(self, word: str) -> str:
        """The first line that holds this word."""
        for line in self.out:
            if word in line:
                return line.strip()
        raise SystemExit(f"a program ended before it said {word!r}: {self.process.args!r}")

    def end(self) -> None:
        """Hang up, and ask it to stop if that does not help."""
        self._in.close()
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(15)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.out.close()


class Service:
    """served.py, audited or plain, and the slices it was measured in, by what the daemon did meanwhile."""

    def __init__(self, kind: str, **env: str) -> None:
        self.kind = kind
        self.program = Program(sys.executable, str(PARTS / "served.py"), kind, **env)
        self.port = int(self.program.wait_for("port").split()[1])
        self.asked = 0
        for thread in Path(f"/proc/{self.program.process.pid}/task").iterdir() if REALTIME else ():
            os.sched_setscheduler(int(thread.name), os.SCHED_RR, os.sched_param(1))
        self.slices: dict[str, list[dict[str, Any]]] = {}

    def state(self) -> dict[str, Any]:
        """What it holds."""
        found: dict[str, Any] = get(f"http://127.0.0.1:{self.port}/state")
        return found

    def ask(self, count: int, rate: float, label: str) -> None:
        """One slice, with the CPU it cost this process."""
        before = cpu_s(self.program.process.pid)
        said = subprocess.run(
            [*REALTIME, sys.executable, str(PARTS / "load.py"), str(self.port), str(self.asked), str(count), str(rate)],
            capture_output=True,
            text=True,
            check=True,
        )
        self.asked += count
        found = json.loads(said.stdout)
        found["cpu_us"] = (cpu_s(self.program.process.pid) - before) / count * 1e6
        if found["answers"] != count or found["wrong"]:
            raise SystemExit(f"{self.kind}, {label}: {found}: answers are missing or wrong, these figures say nothing")
        self.slices.setdefault(label, []).append(found)

    def median(self, label: str, what: str) -> float:
        """Over the slices of this label."""
        return float(statistics.median(one[what] for one in self.slices[label]))


def cpu_s(pid: int) -> float:
    """CPU seconds a process has used so far, all its threads."""
    tasks = Path(f"/proc/{pid}/task").glob("*/schedstat")
    return sum(int(task.read_text().split()[0]) for task in tasks) / 1e9


def get(url: str, token: str = "") -> Any:
    """A JSON answer."""
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=60) as answer:
        return json.load(answer)


@contextmanager
def house(folder: str) -> Iterator[tuple[Program, Any, Service, Service, str]]:
    """A daemon, the port in front of it, both services, and the daemon's ledger's address with its token."""
    door = BadDaemon()
    door.turn("refuse")
    command = [str(Path(sys.executable).with_name("looseends")), "serve", "--db", f"{folder}/d.db", "--listen", "127.0.0.1:0"]
    running: list[Program] = []
    try:
        daemon = Program(*command, XDG_STATE_HOME=folder, PYTHONUNBUFFERED="1")
        running.append(daemon)
        door.daemon_port = port_of(daemon)
        door.turn("pass")
        told = {"LOOSEENDS_URL": f"http://127.0.0.1:{door.port}", "LOOSEENDS_SERVICE": "served"}
        services = [Service(kind, LOOSEENDS_SPOOL_DIR=f"{folder}/spool", **told) for kind in ("plain", "audited")]
        running += [service.program for service in services]
        yield daemon, door, services[0], services[1], folder
    finally:
        for program in reversed(running):
            program.end()
        door.close()


def port_of(daemon: Program) -> int:
    """Where it listens, as it says when it starts."""
    for line in daemon.out:
        for word in line.replace("/", " ").split():
            if word.startswith("127.0.0.1:"):
                return int(word.partition(":")[2].strip(",.)"))
    raise SystemExit("the daemon ended before it said where it listens")


def arrived(door: Any, audited: Service, folder: str) -> tuple[int, float]:
    """How many tasks the daemon holds, once that is all of them, and after how many seconds."""
    token = Path(f"{folder}/d.db.token").read_text().strip()
    begun, count = time.monotonic(), 0
    while count < audited.asked and time.monotonic() - begun < SETTLE_S:
        audited.state()  # which also has its sender try at once
        ledger = get(f"http://127.0.0.1:{door.daemon_port}/api/v1/ledger?service=served", token)
        count = ledger["succeeded"] + ledger["failed"]
        time.sleep(0.1)
    return count, time.monotonic() - begun


def side_by_side(plain: Service, audited: Service, options: argparse.Namespace, label: str, rounds: int) -> None:
    """Both services in turn, in alternating order, for so many rounds."""
    count = int(options.rate * options.seconds)
    for number in range(rounds):
        for service in (plain, audited) if number % 2 else (audited, plain):
            service.ask(count, options.rate, label)


def line(label: str, plain: Service, audited: Service, rest: str) -> None:
    """One row: the ratio of the medians, and its middle half over the rounds, each pair of neighbours by itself."""
    pairs = zip(plain.slices[label], audited.slices[label], strict=True)
    ratios = [ours["p99_ms"] / theirs["p99_ms"] for theirs, ours in pairs]
    low, _, high = statistics.quantiles(ratios, n=4) if len(ratios) > 1 else (ratios[0],) * 3
    p99 = plain.median(label, "p99_ms"), audited.median(label, "p99_ms")
    p50 = plain.median(label, "p50_ms"), audited.median(label, "p50_ms")
    cpu = audited.median(label, "cpu_us") - plain.median(label, "cpu_us")
    print(
        f"{label:22} {p50[0]:6.2f} {p50[1]:6.2f}   {p99[0]:6.2f} {p99[1]:6.2f}   {p99[1] / p99[0]:5.2f} "
        f"{low:5.2f}-{high:5.2f}  {len(ratios):3}  {cpu:6.1f}   {rest}",
        flush=True,
    )


def measure(options: argparse.Namespace, folder: str) -> int:
    """Everything, one row after the other. -> exit code: 1 where something did not arrive."""
    with house(folder) as (daemon, door, plain, audited, _):
        for service in (plain, audited):
            service.ask(int(options.rate), options.rate, "warm")
        print(f"{'':22}  p50 ms plain, audited  p99 ms    x, middle half     n  + CPU us per request")
        before = audited.state()["resident_bytes"], plain.state()["resident_bytes"]
        side_by_side(plain, audited, options, "the daemon answers", options.rounds)
        met = audited.median("the daemon answers", "p99_ms") / plain.median("the daemon answers", "p99_ms")
        after = audited.state()["resident_bytes"], plain.state()["resident_bytes"]
        grown = [(b - a) / 2**20 for a, b in zip(before, after, strict=True)]
        line("the daemon answers", plain, audited, f"memory {after[1] / 2**20:.0f} -> {after[0] / 2**20:.0f} MiB")
        said = f"bar {BAR:.2f}: {'met' if met <= BAR else 'NOT MET'}"
        print(f"{'':22}  {said}; memory grew by {grown[1]:.1f} and {grown[0]:.1f} MiB meanwhile")
        missing = 0
        for mode in ("stopped", "stall", "refuse", "reset", "fail", "garbage"):
            missing += trouble(mode, daemon, door, plain, audited, options, folder)
    return 1 if missing else 0


def trouble(
    mode: str,
    daemon: Program,
    door: Any,
    plain: Service,
    audited: Service,
    options: argparse.Namespace,
    folder: str,
) -> int:
    """One kind of trouble: a few rounds of it, then the daemon comes back. -> how many tasks never arrived."""
    label = f"the daemon: {mode}"
    if mode == "stopped":
        daemon.process.send_signal(signal.SIGSTOP)
    else:
        door.turn(mode)
    try:
        side_by_side(plain, audited, options, label, options.bad_rounds)
        state = audited.state()
    finally:
        daemon.process.send_signal(signal.SIGCONT)
        door.turn("pass")
    count, seconds = arrived(door, audited, folder)
    disk, memory = state["spool_bytes"] / 2**20, state["resident_bytes"] / 2**20
    kept = f"spool {disk:.1f} MiB, memory {memory:.0f} MiB, dropped {state['dropped']}"
    line(label, plain, audited, f"{kept}; {count} of {audited.asked} arrived, {seconds:.1f} s after")
    return audited.asked - count


def main() -> int:
    """Measure in a folder of its own."""
    parser = argparse.ArgumentParser(description="Measure a service with and without a task in every request.")
    parser.add_argument("--rounds", type=int, default=11)
    parser.add_argument("--bad-rounds", type=int, default=3)
    parser.add_argument("--rate", type=float, default=2_000.0, help="requests per second")
    parser.add_argument("--seconds", type=float, default=1.5, help="of each slice")
    parser.add_argument("--realtime", action="store_true", help="run services and load in the realtime class")
    options = parser.parse_args()
    if options.realtime:
        REALTIME.extend(["chrt", "--rr", "1"])
    with tempfile.TemporaryDirectory(prefix="le-") as folder:
        return measure(options, folder)


if __name__ == "__main__":
    sys.exit(main())
