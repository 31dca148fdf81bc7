"""A worker with three threads that takes its work, one line each, from standard input.

    printf 'report 2026-11-20\nthumbnail cat.png\n' | python examples/worker.py

    report DAY        renders a report, with progress        (`with looseends.track(...)`)
    thumbnail FILE    makes a thumbnail; may be replayed     (`@looseends.task(replay=True)`)

A DAY that is no date raises in its thread, as such things do: nobody would hear of it. WORKER_STEP_S (0.05) is how long
one step of the work takes, WORKER_DEADLINE ("30s") how long a task may.
"""

from __future__ import annotations

import datetime
import os
import queue
import sys
import threading
import time

import looseends

STEP_S = float(os.environ.get("WORKER_STEP_S", "0.05"))
DEADLINE = os.environ.get("WORKER_DEADLINE", "30s")
THREADS = 3
LINES_MAX = 1_000


def render_report(day: str) -> None:
    """Ten pages, one after another."""
    with looseends.track("report.render", {"day": day}, key=day, deadline=DEADLINE) as task:
        date = datetime.date.fromisoformat(day)
        for page in range(1, 11):
            time.sleep(STEP_S)
            task.progress(page / 10, f"page {page} of {date:%d %B %Y}")


@looseends.task(name="thumbnail.make", key="file", deadline=DEADLINE, replay=True)
def make_thumbnail(file: str) -> str:
    """A smaller picture beside the large one."""
    time.sleep(STEP_S)
    return f"{file}.small"


WORK = {"report": render_report, "thumbnail": make_thumbnail}


def drain(lines: queue.Queue[tuple[str, str] | None]) -> None:
    """One thread: take lines until there are no more. A failure ends its task, never the thread."""
    while (item := lines.get()) is not None:
        verb, argument = item
        try:
            WORK[verb](argument)
        except ValueError as error:
            print(f"{verb} {argument}: {error}", file=sys.stderr, flush=True)


def main() -> int:
    """Hand out the lines of standard input; at its end finish what was begun."""
    if sys.argv[1:]:
        print(__doc__)
        return 0 if sys.argv[1:] == ["--help"] else 2
    looseends.init(service="worker")
    lines: queue.Queue[tuple[str, str] | None] = queue.Queue(LINES_MAX)
    threads = [threading.Thread(target=drain, args=(lines,), name=f"worker-{n}") for n in range(THREADS)]
    for thread in threads:
        thread.start()
    print(f"worker {os.getpid()} is reading lines: {', '.join(WORK)}", flush=True)
    for line in sys.stdin:
        verb, _, argument = line.strip().partition(" ")
        if verb in WORK and argument:
            lines.put((verb, argument))
        elif verb:
            print(f"cannot do {line.strip()!r}: a line is {' or '.join(WORK)}, then an argument", file=sys.stderr)
    for _ in threads:
        lines.put(None)
    for thread in threads:
        thread.join()
    looseends.shutdown()
    return 0


if __name__ == "__main__":
    sys.exit(main())
