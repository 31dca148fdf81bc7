"""Durable events a second, from a client's socket to the disk and back, beside what limits them and what others do.

    make bench-ingest                                        about five minutes (installs the rivals, for this alone)
    .venv/bin/python bench/ingest.py [--rounds 5] [--seconds 2] [--only batches|single|peers] [--markdown FILE]

A daemon as it is by default, a generator of load in a process of its own, and slices of both and of each rival in turn, all in
one run: the machine is the same for all of them, and shared by them. Every task is written twice (its end comes in a later
batch), which is the dearest way; "raw" writes the same rows in commits of the same size (bench/raw.py says how). `--folder` says
where the databases lie: on a disk that others use, it is their work that is measured.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from kit import ROOT, Daemon, Report, free_port, spread, used_by, verdict
from load import Caller

BENCH = Path(__file__).resolve().parent
RIVALS = ROOT / ".venv" / "ingest" / "bin" / "python"
CONNECTIONS = {1: 64, 10: 16, 100: 8, 500: 4}
RAW_EVENTS = {1: 5_000, 10: 10_000, 100: 20_000, 500: 40_000}
RAW_BAR, MANY_BAR, BARE_BAR = 0.8, 0.5, 0.6
MANY = 1_000


class Take(NamedTuple):
    """One slice: events, seconds of wall and of the server's CPU, p50 and p99 of an answer in ms, commits."""

    events: int
    seconds: float
    cpu: float
    p50: float = 0.0
    p99: float = 0.0
    commits: int = 0

    @property
    def rate(self) -> float:
        """Events a second."""
        return self.events / self.seconds

    @property
    def cpu_us(self) -> float:
        """The server's CPU for an event, in microseconds."""
        return self.cpu / self.events * 1e6


class Helper:
    """A script of bench/ in a process of its own, asked by lines, answering with lines of JSON."""

    def __init__(self, *args: object, python: str = sys.executable) -> None:
        command = [python, *(str(arg) for arg in args)]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=BENCH)
        assert self.process.stdin is not None and self.process.stdout is not None
        self._in, self._out = self.process.stdin, self.process.stdout
        if self._out.readline() != "ready\n":
            raise SystemExit(f"{args[0]} did not start")

    def ask(self, line: object = "") -> dict[str, Any]:
        """Its answer to a line."""
        self._in.write(f"{line}\n")
        self._in.flush()
        answer: dict[str, Any] = json.loads(self._out.readline() or "null")
        if answer is None:
            raise SystemExit("a helper died")
        return answer

    def close(self) -> None:
        """Let it end."""
        self._in.close()
        self.process.wait(60)
        self._out.close()


def load(address: str, pid: int, batch: int, seconds: float, *more: object, connections: int | None = None) -> Take:
    """A slice of load on a server; its CPU is that of process `pid`."""
    kept = CONNECTIONS[batch] if connections is None else connections
    rate = {1: 12_000, 10: 40_000}.get(batch, 120_000)
    helper = Helper("load.py", address, "--batch", batch, "--connections", kept, "--seconds", seconds, "--rate", rate, *more)
    before = used_by(pid).cpu
    told = helper.ask()
    used = used_by(pid).cpu - before
    helper.close()
    return Take(told["events"], told["seconds"], used, told["p50_us"] / 1e3, told["p99_us"] / 1e3)


def slice_of(daemon: Daemon, address: str, batch: int, seconds: float) -> Take:
    """A slice of load on the daemon, with the commits it made."""
    before = daemon.get("/api/v1/storage")["commits"]
    take = load(address, daemon.process.pid, batch, seconds)
    return take._replace(commits=daemon.get("/api/v1/storage")["commits"] - before)


# --- batches ------------------------------------------------------------------------------------------------------


def batches(report: Report, folder: Path, rounds: int, seconds: float, sizes: list[int]) -> None:
    """Batches of several sizes over both ways in, beside SQLite alone."""
    rows, answers = [], []
    for batch in sizes:
        home = folder / f"batch-{batch}"
        home.mkdir()
        daemon = Daemon(home)
        raw = Helper("raw.py", home, "--batch", batch, "--events", RAW_EVENTS[batch])
        takes: defaultdict[str, list[Take]] = defaultdict(list)
        try:
            slice_of(daemon, f"unix:{daemon.socket}", batch, 0.5)  # to get warm
            raw.ask(MANY)
            for _ in range(rounds):
                unix = slice_of(daemon, f"unix:{daemon.socket}", batch, seconds)
                group = max(batch, unix.events // max(1, unix.commits))
                takes["unix"].append(unix)
                takes["raw"].append(_raw(raw, group))
                takes["tcp"].append(slice_of(daemon, f"127.0.0.1:{daemon.port}", batch, seconds))
                takes["many"].append(_raw(raw, MANY))
        finally:
            raw.close()
            daemon.close()
        rows.append(_row(batch, takes))
        for way in ("unix", "tcp"):
            p50, p99 = (spread(getattr(take, name) for take in takes[way]) for name in ("p50", "p99"))
            cpu = spread(take.cpu_us for take in takes[way])
            answers.append([batch, way, CONNECTIONS[batch], p50.text(1), p99.text(1), cpu.text(1)])
    head = [
        "batch",
        "unix: events/s",
        "TCP: events/s",
        "events in a commit",
        "of raw, same groups",
        "bar",
        "of executemany",
        "bar",
    ]
    report.table(head, rows)
    report.table(["batch", "over", "connections", "p50, ms", "p99, ms", "CPU of the daemon, us/event"], answers)


def _raw(raw: Helper, group: int) -> Take:
    told = raw.ask(group)
    return Take(told["events"], told["seconds"], told["cpu"])


def _row(batch: int, takes: dict[str, list[Take]]) -> list[object]:
    rates = {name: [take.rate for take in taken] for name, taken in takes.items()}
    same = spread(ours / theirs for ours, theirs in zip(rates["unix"], rates["raw"], strict=True))
    many = spread(ours / theirs for ours, theirs in zip(rates["unix"], rates["many"], strict=True))
    group = spread(take.events / max(1, take.commits) for take in takes["unix"])
    barred = batch == 100  # what DESIGN names; the others are printed beside it
    return [
        *(batch, spread(rates["unix"]).text(0), spread(rates["tcp"]).text(0), f"{group.median:,.0f}"),
        *(same.text(), verdict(same.median, RAW_BAR) if barred else ""),
        *(many.text(), verdict(many.median, MANY_BAR) if barred else ""),
    ]


# --- single events ------------------------------------------------------------------------------------------------


def single(report: Report, folder: Path, rounds: int, seconds: float) -> None:
    """One event in a POST, beside a handler that does nothing: CPU of the server for a request."""
    home = folder / "single"
    home.mkdir()
    daemon = Daemon(home)
    port, path = free_port(), str(home / "bare.sock")
    bare = {
        way: subprocess.Popen([sys.executable, str(BENCH / "ingest_peers.py"), "bare", at])
        for way, at in (("TCP", f"127.0.0.1:{port}"), ("unix", f"unix:{path}"))
    }
    addresses = {"TCP": (f"127.0.0.1:{daemon.port}", f"127.0.0.1:{port}"), "unix": (f"unix:{daemon.socket}", f"unix:{path}")}
    rows = []
    try:
        _wait(lambda: _connects(f"127.0.0.1:{port}") and _connects(f"unix:{path}"))
        for way, (ours, theirs) in addresses.items():
            for connections in (1, 64):
                for words, more in (("event alone", ("--bare",)), ("with its instance", ())):
                    takes: defaultdict[str, list[Take]] = defaultdict(list)
                    load(ours, daemon.process.pid, 1, 0.2, *more, connections=connections)
                    for _ in range(rounds):
                        takes["ours"].append(load(ours, daemon.process.pid, 1, seconds, *more, connections=connections))
                        takes["bare"].append(load(theirs, bare[way].pid, 1, seconds, *more, connections=connections))
                    rows.append([f"{way}, {connections}", words, *_single_row(takes, connections == 64 and not more)])
    finally:
        for process in bare.values():
            process.terminate()
            process.wait(20)
        daemon.close()
    report.table(
        ["over, connections", "a POST holds", "CPU, us", "bare handler, us", "rate by CPU", "bar", "p50, ms", "p99, ms"], rows
    )


def _single_row(takes: dict[str, list[Take]], barred: bool) -> list[object]:
    ours, bare = takes["ours"], takes["bare"]
    ratio = spread(theirs.cpu_us / mine.cpu_us for mine, theirs in zip(ours, bare, strict=True))
    return [
        *(spread(take.cpu_us for take in ours).text(0), spread(take.cpu_us for take in bare).text(0), ratio.text()),
        verdict(ratio.median, BARE_BAR),
        *(f"{spread(take.p50 for take in ours).median:.2f}", f"{spread(take.p99 for take in ours).median:.2f}"),
    ]


def _connects(address: str) -> bool:
    Caller(address, [], "/").sock.close()
    return True


def _wait(ready: Callable[[], object], seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while True:
        try:
            if ready():
                return
        except (OSError, SystemExit):
            if time.monotonic() > deadline:
                raise
        time.sleep(0.1)


# --- peers --------------------------------------------------------------------------------------------------------


def peers(report: Report, folder: Path, rounds: int, seconds: float) -> None:
    """The same load on a self-made audit table, and Celery's events in Flower's store."""
    if not RIVALS.exists():
        report.say("Not run: the rivals are not installed (`make .venv/ingest/stamp`).")
        return
    home = folder / "peers"
    home.mkdir()
    daemon, port = Daemon(home), free_port()
    address, script = f"127.0.0.1:{port}", str(BENCH / "ingest_peers.py")
    diy = subprocess.Popen([str(RIVALS), script, "diy", address, str(home / "diy.db")])
    flower = Helper("ingest_peers.py", "flower", python=str(RIVALS))
    takes: defaultdict[str, list[Take]] = defaultdict(list)
    try:
        _wait(lambda: urllib.request.urlopen(f"http://{address}/livez", timeout=5).close() is None)
        for _ in range(rounds):
            for batch in (1, 100):
                connections = 8  # of more, the self-made one loses to its own lock
                takes[f"ours {batch}"].append(
                    load(f"127.0.0.1:{daemon.port}", daemon.process.pid, batch, seconds, connections=connections)
                )
                takes[f"diy {batch}"].append(load(address, diy.pid, batch, seconds, connections=connections))
            told = flower.ask(5_000)
            takes["flower"].append(Take(told["events"], told["seconds"], told["cpu"]))
    finally:
        flower.close()
        diy.terminate()
        diy.wait(20)
        daemon.close()
    rows = []
    for words, name, base in (
        ("FastAPI + SQLAlchemy table, batch 1", "diy 1", "ours 1"),
        ("FastAPI + SQLAlchemy table, batch 100", "diy 100", "ours 100"),
        ("Flower's store alone, one event a message, in memory", "flower", "ours 100"),
    ):
        theirs, ours = takes[name], takes[base]
        times = spread(a.cpu_us / b.cpu_us for a, b in zip(theirs, ours, strict=True))
        rates = spread(a.rate / b.rate for a, b in zip(ours, theirs, strict=True))
        rows.append(
            [words, *(spread(take.rate for take in taken).text(0) for taken in (theirs, ours)), rates.text(), times.text()]
        )
    head = ["beside", "its events/s", "the daemon's", "times its rate", "times less CPU an event"]
    report.table(head, rows)
    report.say(
        "Flower itself (broker, decoding of messages, web server) costs more than its store, which is all that is measured here;"
        " it keeps nothing on a disk. Celery tells of a task with three events or more, looseends with two."
    )


def main() -> int:
    """Run and print; 1 when a bar is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5, help="slices of each")
    parser.add_argument("--seconds", type=float, default=2.0, help="length of a slice")
    parser.add_argument("--batches", default="1,10,100,500")
    parser.add_argument("--only", choices=("batches", "single", "peers"))
    parser.add_argument("--folder", help="where the databases lie; default: the system's folder for temporary files")
    parser.add_argument("--markdown", metavar="FILE")
    given = parser.parse_args()
    words = "Durable events a second, end to end: every answer came after its events were on the disk (`synchronous=FULL`)."
    report = Report("Ingest", "make bench-ingest", words, given.markdown)
    with tempfile.TemporaryDirectory(prefix="looseends-bench-", dir=given.folder) as name:
        folder = Path(name)
        if given.only in (None, "batches"):
            batches(report, folder, given.rounds, given.seconds, [int(text) for text in given.batches.split(",")])
        if given.only in (None, "single"):
            single(report, folder, given.rounds, given.seconds / 2)
        if given.only in (None, "peers"):
            peers(report, folder, given.rounds, given.seconds)
    return int(report.missed > 0)


if __name__ == "__main__":
    sys.exit(main())
