"""Ten million tasks in one file: does it take in as fast, answer as fast and judge as fast as with half a million?

    make bench-scale                                        builds /var/tmp/looseends-scale first: half an hour of one core
    .venv/bin/python bench/scale.py --folder F [--only sizes start pages ingest detection retention] [--markdown FILE]

The databases are made by bench/grow.py through the store's own writer (bench/company.py says of what) and kept; what changes one
works on a copy. Daemons are real processes asked over HTTP. Every ratio is of one run, in slices that alternate; printed are
medians with n and the middle half. Exit code 1: a bar was missed.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import platform
import shutil
import sqlite3
import statistics
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

import scale_ingest
import scale_load
import scale_pages
from grow import begin_of, build, path_of
from house import House

SMALL, LARGE = 500_000, 10_000_000
BYTES_MAX = 250.0
IDLE_MIB_MAX, LARGE_MIB_MAX = 50.0, 80.0
START_S_MAX = 0.5
NARROW = ("task", "ledger", "duration", "sqlite_")
STAGES = ("sizes", "start", "pages", "ingest", "diet", "detection", "retention")


class Line(NamedTuple):
    """One figure: what, how much, its bar in words and whether it is met (None: it has none)."""

    what: str
    figure: str
    bar: str = ""
    met: bool | None = None


class Scale:
    """The stages, over one folder."""

    def __init__(self, folder: Path, small: int, large: int, args_bytes: int) -> None:
        self.folder, self.sizes, self.args_bytes = folder, (small, large), args_bytes
        self.small, self.large = path_of(folder, small, args_bytes), path_of(folder, large, args_bytes)
        self.lines: list[Line] = []

    def say(self, what: str, figure: str, bar: str = "", met: bool | None = None) -> None:
        """Print a figure and keep it."""
        self.lines.append(Line(what, figure, bar, met))
        verdict = "" if met is None else f"   (bar {bar}: {'met' if met else 'MISSED'})"
        print(f"{what:62} {figure}{verdict}", flush=True)

    def copy(self, path: Path, scratch: Path, name: str = "") -> Path:
        """A copy that may be spoilt, on the disk: gigabytes on their way there would be measured with every commit."""
        copied = Path(shutil.copyfile(path, scratch / (name or path.name)))
        with copied.open("rb+") as file:
            os.fsync(file.fileno())
        return copied

    # --- stages ---

    def run_sizes(self, scratch: Path) -> None:
        """Bytes per task, by table and index."""
        for path in (self.small, self.large):
            conn = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
            tasks = conn.execute("SELECT sum(succeeded + failed + cancelled + in_time + gap) FROM ledger_all").fetchone()[0]
            open_ = conn.execute("SELECT count(*) FROM task WHERE check_at IS NOT NULL").fetchone()[0]
            page = conn.execute("PRAGMA page_size").fetchone()[0]
            parts = dict(conn.execute("SELECT name, count(*) * ? / ? FROM dbstat GROUP BY name", (float(page), tasks)).fetchall())
            conn.close()
            narrow = sum(size for name, size in parts.items() if name.startswith(NARROW))
            named = ", ".join(f"{name} {size:.1f}" for name, size in sorted(parts.items(), key=lambda one: -one[1])[:8])
            what = f"bytes per task at {tasks:,} ({open_:,} on the agenda): rows, indexes, ledger"
            self.say(what, f"{narrow:.0f} B", f"{BYTES_MAX:g} B", narrow <= BYTES_MAX)
            self.say("  of these, and beside them", named)

    def run_start(self, scratch: Path) -> None:
        """From the spawn of the process to its first 200, and what it has in memory then."""
        large, idle = self.copy(self.large, scratch), scratch / "empty.db"
        took: dict[Path, list[float]] = {large: [], idle: []}
        memory: dict[Path, list[float]] = {large: [], idle: []}
        for _ in range(5):
            for path in (large, idle):
                with House(path) as house:
                    took[path].append(house.started_s)
                    memory[path].append(house.memory_mib)
        self.say("start to first 200, empty database", spread(took[idle], "s"))
        start = statistics.median(took[large])
        self.say(
            f"start to first 200, {self.sizes[1]:,} tasks", spread(took[large], "s"), f"{START_S_MAX} s", start <= START_S_MAX
        )
        middle = statistics.median(memory[idle])
        self.say("memory after the start, empty", spread(memory[idle], "MiB"), f"{IDLE_MIB_MAX:g}", middle <= IDLE_MIB_MAX)

    def run_pages(self, scratch: Path) -> None:
        """Every page and every question of the API."""
        with House(self.copy(self.large, scratch)) as house:
            for line in scale_pages.measure(house, begin_of(self.large)):
                self.say(*line)
            mib = house.memory_mib
            self.say(
                f"memory after all pages, {self.sizes[1]:,} tasks", f"{mib:.0f} MiB", f"{LARGE_MIB_MAX:g}", mib <= LARGE_MIB_MAX
            )

    def run_ingest(self, scratch: Path) -> None:
        """The rate of the writer at both sizes, slice by slice."""
        paths = [self.copy(path, scratch) for path in (self.small, self.large)]
        for line in asyncio.run(scale_ingest.compare(paths[0], paths[1], self.sizes, self.args_bytes)):
            self.say(*line)

    def run_diet(self, scratch: Path) -> None:
        """What single indexes, and the export, cost the writer."""
        names = [f"{n}-{self.small.name}" for n in range(len(scale_ingest.CUTS) + 2)]
        paths = [self.copy(self.small, scratch, name) for name in names]
        for line in asyncio.run(scale_ingest.diet(paths, self.sizes[0], self.args_bytes)):
            self.say(*line)

    def run_detection(self, scratch: Path) -> None:
        """From due to verdict while events come in."""
        with House(self.copy(self.large, scratch)) as house:
            for line in scale_load.detection(house):
                self.say(*line)
            self.say("memory at the end of it", f"{house.memory_mib:.0f} MiB")

    def run_retention(self, scratch: Path) -> None:
        """What forgetting costs those who report."""
        other = self.copy(self.large, scratch, "forgets.db")
        with House(self.copy(self.large, scratch)) as keeping, House(other, retain="24h") as forgetting:
            for line in scale_load.retention(keeping, forgetting):
                self.say(*line)


def spread(values: list[float], unit: str) -> str:
    """Median, n and the middle half (of few values, all of them)."""
    low, high = min(values), max(values)
    if len(values) >= 8:
        low, _, high = statistics.quantiles(values, n=4)
    return f"{statistics.median(values):.3g} {unit} (n {len(values)}, {low:.3g} to {high:.3g})"


def markdown(scale: Scale) -> str:
    """The figures as a section of a document."""
    small, large = scale.sizes
    head = f"""## Scale: {large:,} tasks in one file

`make bench-scale`; {os.cpu_count()} cores, Python {platform.python_version()}, SQLite {sqlite3.sqlite_version}, arguments of
{scale.args_bytes} B; built through the store's own writer by `bench/grow.py`. Ratios are to {small:,} tasks.

| what | figure | bar | |
|---|---|---|---|
"""
    words = {None: "", True: "met", False: "MISSED"}
    return head + "".join(f"| {one.what.strip()} | {one.figure} | {one.bar} | {words[one.met]} |\n" for one in scale.lines)


def main() -> int:
    """Run the stages; 1 when a bar is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path("/var/tmp/looseends-scale"))
    parser.add_argument("--only", nargs="+", choices=STAGES, default=STAGES)
    parser.add_argument("--small", type=int, default=SMALL)
    parser.add_argument("--large", type=int, default=LARGE)
    parser.add_argument("--args-bytes", type=int, default=90)
    parser.add_argument("--markdown", type=Path)
    given = parser.parse_args()
    given.folder.mkdir(parents=True, exist_ok=True)
    asyncio.run(build(given.folder, [given.small, given.large], given.args_bytes))
    scale = Scale(given.folder, given.small, given.large, given.args_bytes)
    for stage in given.only:
        with tempfile.TemporaryDirectory(prefix="le-scale-", dir=given.folder) as name:
            getattr(scale, f"run_{stage}")(Path(name))
    if given.markdown:
        given.markdown.write_text(markdown(scale))
    return int(any(line.met is False for line in scale.lines))


if __name__ == "__main__":
    sys.exit(main())
